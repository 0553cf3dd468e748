"""Where log entries go: to standard error, or natively into the systemd journal. What they look like: `logstyles`.

Logging never raises, and waits at most GRACE_MS for a reader that does not read; what is lost then is counted, and said
once it reads again.
Source: sd-daemon(3), systemd.exec(5) (JOURNAL_STREAM); systemd's document "Native Journal Protocol".
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import stat
from collections.abc import Mapping

from gatewayd import msglog
from gatewayd.config import Config
from gatewayd.config.models import LogFormat
from gatewayd.logstyles import JournalStyle, JsonStyle, PrefixStyle, Style, TextStyle

JOURNAL_SOCKET = "/run/systemd/journal/socket"
STDERR = 2
GRACE_MS = 20  # once, when the reader begins to lag; from then on nothing is waited for until it reads again
CHUNK_OCTETS = 4096  # PIPE_BUF: so much fits where poll(2) says that a pipe takes more

# -- outputs --


class Output(logging.Handler):
    """A handler that never raises, and says how many entries it lost as soon as it can."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.lost:
                if not self.write(_lost(self.lost)):
                    self.lost += 1
                    return
                self.lost = 0
            if not self.write(record):
                self.lost += 1
        except Exception:  # nobody is left who could be told now
            self.lost += 1

    def write(self, record: logging.LogRecord) -> bool:
        """Write one entry; False if it is lost."""
        raise NotImplementedError


def _lost(count: int) -> logging.LogRecord:
    lines = "1 line of the log is" if count == 1 else f"{count} lines of the log are"
    said = f"{lines} lost: what reads the log was away, or did not keep up"
    return logging.LogRecord("gatewayd", logging.WARNING, __file__, 0, said, None, None)


class StreamOutput(Output):
    """Lines to a file descriptor, of whatever kind. A pipe or terminal that nobody empties does not stop the daemon.

    The descriptor itself is left as it is: O_NONBLOCK would hold for all processes that share it, the shell say.
    """

    def __init__(self, style: Style, fd: int = STDERR) -> None:
        super().__init__()
        self._style = style
        self._own = _opened_again(fd)
        self._fd = fd if self._own is None else self._own
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._rest = b""  # of an entry that went out in part: it is completed before the next
        self._stuck = False

    def write(self, record: logging.LogRecord) -> bool:
        if self._rest and not self._drain():
            return False
        self._rest = octets = self._style(record)
        if self._drain():
            return True
        if len(self._rest) == len(octets):
            self._rest = b""
            return False
        return True

    def _drain(self) -> bool:
        try:
            while self._rest:
                if not self._ready():
                    return False
                self._rest = self._rest[os.write(self._fd, self._rest[:CHUNK_OCTETS]) :]
        except BlockingIOError:
            self._stuck = True
            return False
        except OSError:  # its reader is gone
            self._rest = b""
            raise
        self._stuck = False
        return True

    def _ready(self) -> bool:
        found = self._poll.poll(0) or (not self._stuck and self._poll.poll(GRACE_MS))
        if not found:
            self._stuck = True
            return False
        if found[0][1] & select.POLLNVAL:
            raise OSError("it is closed")
        return True

    def flush(self) -> None:
        self.acquire()
        try:
            with contextlib.suppress(OSError):
                self._drain()
        finally:
            self.release()

    def close(self) -> None:
        self.flush()
        self.acquire()
        try:
            if self._own is not None:
                self._poll.unregister(self._own)
                os.close(self._own)
            self._own, self._fd = None, -1  # for a thread that comes too late: the number may be another file's by now
        finally:
            self.release()
        super().close()


def _opened_again(fd: int) -> int | None:
    """A pipe or terminal opened a second time, non-blocking for us alone; None for anything else.

    Without it a write to a terminal that has some room, but not enough, would wait.
    """
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or os.isatty(fd):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # another user's, or no /proc: poll(2) alone has to do
        pass
    return None


class JournalOutput(Output):
    """Datagrams to the journal. Where there is no journal (any more), lines with a priority to `fd`."""

    def __init__(self, path: str = JOURNAL_SOCKET, fd: int = STDERR) -> None:
        super().__init__()
        self._path = path
        self._style = JournalStyle()
        self._fallback = StreamOutput(PrefixStyle(), fd)
        self._socket: socket.socket | None = None
        self._poll = select.poll()
        self._stuck = False

    def write(self, record: logging.LogRecord) -> bool:
        octets = self._style(record)
        for _ in range(2):
            journal = self._socket or self._connect()
            if journal is None:
                break
            try:
                return self._send(journal, octets)
            except OSError as error:
                if error.errno == errno.EMSGSIZE:  # of our own making only where the kernel's limits are tiny
                    return False
                self._disconnect()  # it was restarted, with another socket
        return self._fallback.write(record)

    def _send(self, journal: socket.socket, octets: bytes) -> bool:
        for _ in range(2):
            try:
                journal.send(octets)
            except BlockingIOError:
                if self._stuck or not self._poll.poll(GRACE_MS):
                    break
            else:
                self._stuck = False
                return True
        self._stuck = True
        return False

    def _connect(self) -> socket.socket | None:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            found.connect(self._path)
        except OSError:
            found.close()
            return None
        self._poll.register(found, select.POLLOUT)
        self._socket = found
        return found

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._poll.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        self.acquire()
        try:
            self._disconnect()
            self._fallback.close()
        finally:
            self.release()
        super().close()


# -- choosing --


def goes_to_journal(environ: Mapping[str, str], fd: int = STDERR) -> bool:
    """Whether `fd` is the stream systemd gave us: $JOURNAL_STREAM names its device and inode, systemd.exec(5).

    The variable alone says nothing: it is inherited by what redirects its output somewhere else.
    """
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def output_for(
    wanted: LogFormat, environ: Mapping[str, str] = os.environ, *, fd: int = STDERR, journal: str = JOURNAL_SOCKET
) -> Output:
    """The output for a configured format. `auto`: the journal where `fd` leads to it anyway, else text."""
    if wanted is LogFormat.AUTO:
        wanted = LogFormat.JOURNAL if goes_to_journal(environ, fd) else LogFormat.TEXT
    if wanted is LogFormat.JOURNAL:
        return JournalOutput(journal, fd)
    return StreamOutput(JsonStyle() if wanted is LogFormat.JSON else TextStyle(), fd)


def configure_logging(config: Config) -> None:
    """Log as `gateway.logging` says; may be called again with a changed configuration."""
    _keep_stderr()
    settings = config.gateway.logging
    msglog.configure(mask=settings.mask)
    logging.basicConfig(handlers=[output_for(settings.format)], level=settings.level.value.upper(), force=True)
    logging.captureWarnings(True)
    for chatty in ("alembic", "aiosqlite", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _keep_stderr() -> None:
    """Where we were started with standard error closed, keep its number from going to the next file opened."""
    with contextlib.suppress(OSError):
        os.fstat(STDERR)
        return
    fd = os.open(os.devnull, os.O_WRONLY)
    if fd != STDERR:
        os.dup2(fd, STDERR)
        os.close(fd)
