"""The serial port: the only module that touches pyserial and pyserial-asyncio.

pyserial-asyncio 0.6 does its blocking work in the event loop, reads through select() and may never say that a port was
closed. `SerialTransport` keeps its class and replaces what it does, so that none of this can happen: opening and
closing run in threads of their own with time limits, reading and writing are plain system calls on readiness, and
`connection_lost` comes exactly once, after the port is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import grp
import os
import stat
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import serial
import serial_asyncio

from gatewayd.errors import ChannelLost

READ_SIZE = 65536
WRITE_LIMIT = 1 << 20  # octets a device may leave unread before it counts as dead
CLOSE_TIMEOUT_S = 5.0


class SerialProtocol(Protocol):
    """Who listens to a port."""

    def data_received(self, data: bytes) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None:
        """The port is closed; called exactly once. `exc` is None if we closed it ourselves."""
        ...


async def open_serial(
    url: str, *, baudrate: int = 115200, protocol: SerialProtocol, open_timeout_s: float = 10.0
) -> SerialTransport:
    """Open the serial device at path `url`: 8N1, raw, no flow control, DTR kept on close, locked (flock) for us alone.

    Raises ChannelLost with a reason for the technician: no such device, permission denied (and whose it is), in use,
    not a serial port, or no answer within `open_timeout_s`. A port that opens after that is closed again.
    """
    loop = asyncio.get_running_loop()
    opening = _Opening(loop, url, baudrate)
    try:
        async with asyncio.timeout(open_timeout_s):
            port = await opening.done
    except TimeoutError:
        opening.abandon()
        raise ChannelLost(f"{url} did not open within {open_timeout_s:g} s: the device hangs, unplug it") from None
    except BaseException:
        opening.abandon()
        raise
    return SerialTransport(loop, protocol, port)


class SerialTransport(serial_asyncio.SerialTransport):  # type: ignore[misc]  # pyserial-asyncio has no types
    """One open port. Reading is never paused, so that a vanished device is always noticed."""

    # The base class's constructor is not called: it sets the port's timeouts, which are ioctls, in the event loop.
    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: SerialProtocol, port: serial.Serial) -> None:
        asyncio.Transport.__init__(self)
        self._loop = loop
        self._protocol = protocol
        self._serial = port
        self._fd: int = port.fileno()
        self._name: str = port.name
        self._buffer = bytearray()
        self._closing = False
        self._closed = loop.create_future()
        self._loop.add_reader(self._fd, self._read_ready)

    def __repr__(self) -> str:
        return f"<SerialTransport {self._name}{' closing' if self._closing else ''}>"

    def get_write_buffer_size(self) -> int:
        """Octets not yet taken by the device."""
        return len(self._buffer)

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes) -> None:
        """Send `data` after what is waiting already; what does not fit now goes when the device takes it.

        Ignored once the port is closing. Over WRITE_LIMIT waiting octets the device counts as dead and the port closes.
        """
        if self._closing or not data:
            return
        if not self._buffer:
            sent = self._write_some(data)
            if sent is None or sent == len(data):
                return
            self._loop.add_writer(self._fd, self._write_ready)
            data = data[sent:]
        self._buffer += data
        if len(self._buffer) > WRITE_LIMIT:
            self._lose(ChannelLost(f"{self._name} takes no data: {len(self._buffer)} octets are waiting"))

    def abort(self) -> None:
        """Close without waiting; harmless at any time, also after close()."""
        self._lose(None)

    async def close(self) -> None:
        """Throw away what was not sent and close the port. Returns when it is closed, or after CLOSE_TIMEOUT_S."""
        self._lose(None)
        await asyncio.shield(self._closed)

    def flush(self) -> None:
        """Throw away what was not handed to the device yet."""
        if self._buffer:
            self._loop.remove_writer(self._fd)
            self._buffer.clear()

    def pause_reading(self) -> None:
        raise NotImplementedError("a serial port is always read: or a device that vanishes would not be noticed")

    def resume_reading(self) -> None:
        """Nothing to do: reading is never paused."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        raise NotImplementedError("a serial port has one limit, WRITE_LIMIT")

    def _read_ready(self) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(ChannelLost(f"{self._name} is gone: {os.strerror(error.errno or 0)}"))
            return
        if not data:  # VMIN is 1, so this is a hang-up and not a lack of data
            self._lose(ChannelLost(f"{self._name} is gone: the device hung up"))
            return
        try:
            self._protocol.data_received(data)
        except Exception as error:
            self._report("data_received() failed", error)
            self._lose(error)

    def _write_some(self, data: bytes | bytearray) -> int | None:
        """Octets the device took (0: it takes none now); None if it is gone."""
        try:
            return os.write(self._fd, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._lose(ChannelLost(f"{self._name} is gone: {os.strerror(error.errno or 0)}"))
            return None

    def _write_ready(self) -> None:
        sent = self._write_some(self._buffer)
        if sent is None:
            return
        del self._buffer[:sent]  # moves no octets: a bytearray only advances its start
        if not self._buffer:
            self._loop.remove_writer(self._fd)

    def _lose(self, exc: Exception | None) -> None:
        """Begin to close, once; `_finish` tells the protocol."""
        if self._closing:
            return
        self._closing = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._buffer.clear()
        late = ChannelLost(f"{self._name} did not close within {CLOSE_TIMEOUT_S:g} s: the device hangs, unplug it")
        timer = self._loop.call_later(CLOSE_TIMEOUT_S, self._finish, exc or late)

        def closed() -> None:
            timer.cancel()
            self._finish(exc)

        def close() -> None:
            _close_port(self._serial)
            _call(self._loop, closed)

        _in_thread(f"close {self._name}", close)

    def _finish(self, exc: Exception | None) -> None:
        if self._closed.done():
            return
        self._closed.set_result(None)
        try:
            self._protocol.connection_lost(exc)
        except Exception as error:
            self._report("connection_lost() failed", error)

    def _report(self, what: str, error: Exception) -> None:
        context = {"message": f"{self._name}: {what}", "exception": error, "transport": self}
        self._loop.call_exception_handler(context)


class _Opening:
    """The opening of one port in a thread; either its port is taken through `done`, or it is closed again."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, baudrate: int) -> None:
        self.done: asyncio.Future[serial.Serial] = loop.create_future()
        self._loop = loop
        self._path = path
        self._baudrate = baudrate
        self._lock = threading.Lock()
        self._abandoned = False
        self._port: serial.Serial | None = None
        _in_thread(f"open {path}", self._run)

    def abandon(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._abandoned = True
            port = self._port
        if port is not None:
            _in_thread(f"close {self._path}", lambda: _close_port(port))

    def _run(self) -> None:
        try:
            port = _open_port(self._path, self._baudrate)
        except Exception as error:
            _call(self._loop, functools.partial(self._fail, ChannelLost(_explain(self._path, self._baudrate, error))))
            return
        with self._lock:
            self._port = port
            abandoned = self._abandoned
        if abandoned or not _call(self._loop, functools.partial(self._succeed, port)):
            _close_port(port)

    def _fail(self, error: ChannelLost) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _succeed(self, port: serial.Serial) -> None:
        if not self.done.done():  # else abandon() closes it
            self.done.set_result(port)


def _in_thread(name: str, work: Callable[[], object]) -> None:
    """Run `work` in a thread that does not keep the process alive: a hung device must not hold up our exit."""
    threading.Thread(target=work, name=name, daemon=True).start()


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], Any]) -> bool:
    """Run `callback` in the loop; False if there is no loop any more."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return False
    return True


def _open_port(path: str, baudrate: int) -> serial.Serial:
    port = serial.Serial(path, baudrate, timeout=0, write_timeout=0, exclusive=True)
    try:
        attributes = termios.tcgetattr(port.fd)
        attributes[2] &= ~termios.HUPCL  # or closing drops DTR, which resets many modems
        attributes[6][termios.VMIN] = b"\x01"  # or "nothing to read" looks like a hang-up
        termios.tcsetattr(port.fd, termios.TCSANOW, attributes)
    except BaseException:
        port.close()
        raise
    return port


def _close_port(port: serial.Serial) -> None:
    """Close, without waiting for output the device does not take (close would wait 30 s for it)."""
    with contextlib.suppress(OSError, termios.error):  # gone already
        termios.tcflush(port.fd, termios.TCOFLUSH)
    with contextlib.suppress(OSError):  # the descriptor is gone all the same
        port.close()


def _explain(path: str, baudrate: int, error: Exception) -> str:
    """Why a port did not open, in words for a technician."""
    code = error.errno if isinstance(error, OSError) else None
    if code is None and isinstance(error.__context__, termios.error):  # pyserial keeps the number there
        code = error.__context__.args[0]
    if code in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return f"no such device: {path}; not plugged in, or under another name"
    if code in (errno.EACCES, errno.EPERM):
        return f"permission denied: {path}{_owner(path)}"
    if code in (errno.EBUSY, errno.EAGAIN):
        return f"{path} is busy: held by another process{_holders(path)}"
    if code in (errno.ENOTTY, errno.EISDIR, errno.EINVAL):
        return f"{path} is not a serial port"
    if isinstance(error, ValueError | NotImplementedError):
        return f"{path} cannot do {baudrate} baud: {error}"
    return f"{path} does not open: {os.strerror(code) if code else error}"


def _owner(path: str) -> str:
    try:
        status = Path(path).stat()
        group = grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return ""
    if status.st_mode & (stat.S_IRGRP | stat.S_IWGRP) != stat.S_IRGRP | stat.S_IWGRP:
        return f"; its mode does not let the group '{group}' use it"
    return f"; it belongs to the group '{group}': add the service's user to it"


def _holders(path: str) -> str:
    """ " (PID 812, ModemManager)" for who has the device open, as far as we may see it."""
    try:
        device = Path(path).stat().st_rdev
    except OSError:
        return ""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(process.name) == os.getpid():
                continue
            if any(_is_device(entry, device) for entry in (process / "fd").iterdir()):
                found.append(f"PID {process.name}, {(process / 'comm').read_text().strip()}")
        except OSError:
            continue  # ended meanwhile, or not ours to look into
    return f" ({'; '.join(found[:3])})" if found else ""


def _is_device(entry: Path, device: int) -> bool:
    try:
        status = entry.stat()
    except OSError:
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == device
