"""A pseudo-terminal as the wire of an emulated modem, under a fixed name."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pty
import select
import tty
from collections.abc import Callable
from pathlib import Path

READ_SIZE = 65536
WRITE_LIMIT = 1 << 18  # octets nobody reads; what comes after is lost, as with a real modem
DRAIN_LIMIT_S = 1.0  # how long unplugging waits for the program to read what was written
_DRAIN_STEP_S = 0.001


class PtyPort:
    """The wire: `link` points to the slave while plugged in.

    The slave is kept open here too, so that a program that goes away does not hang up the modem.
    """

    def __init__(self, link: Path, received: Callable[[bytes], None]) -> None:
        self.link = link
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._master = -1
        self._slave = -1
        self._device = ""
        self._buffer = bytearray()

    @property
    def is_plugged(self) -> bool:
        return self._master >= 0

    def plug(self, link: Path | None = None) -> None:
        """Appear, under another name if `link` is given."""
        if self.is_plugged:
            return
        self.link = link or self.link
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._device = os.ttyname(self._slave)
        fresh = self.link.with_name(f".{self.link.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self._device)
        fresh.replace(self.link)  # in one step: nobody sees a half-made name
        self._loop.add_reader(self._master, self._read_ready)

    def unplug(self) -> None:
        """Disappear, once the program has read what was written; it is deaf at once."""
        if not self.is_plugged:
            return
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)
        self._buffer.clear()
        self._vanish(self._master, self._slave, self._loop.time() + DRAIN_LIMIT_S)
        self._master = self._slave = -1

    def _vanish(self, master: int, slave: int, deadline: float) -> None:
        if self._loop.time() < deadline and _unread(slave):
            self._loop.call_later(_DRAIN_STEP_S, self._vanish, master, slave, deadline)
            return
        self._close(master, slave)

    def _close(self, master: int, slave: int) -> None:
        with contextlib.suppress(OSError):
            if str(self.link.readlink()) == os.ttyname(slave):
                self.link.unlink()
        os.close(slave)
        os.close(master)

    def close(self) -> None:
        """Disappear at once."""
        if self.is_plugged:
            self._loop.remove_reader(self._master)
            self._loop.remove_writer(self._master)
            self._close(self._master, self._slave)
            self._master = self._slave = -1

    def write(self, data: bytes) -> None:
        """To the program; what it does not read now waits, up to WRITE_LIMIT octets."""
        if not self.is_plugged:
            return
        if self._buffer:
            if len(self._buffer) < WRITE_LIMIT:
                self._buffer += data
            return
        sent = self._write_some(data)
        if sent < len(data):
            self._buffer += data[sent:]
            self._loop.add_writer(self._master, self._write_ready)

    def _write_some(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._master, data)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EIO):
                return 0
            raise

    def _write_ready(self) -> None:
        del self._buffer[: self._write_some(self._buffer)]
        if not self._buffer:
            self._loop.remove_writer(self._master)

    def _read_ready(self) -> None:
        try:
            data = os.read(self._master, READ_SIZE)
        except OSError:
            return
        if data:
            self._received(data)


def _unread(slave: int) -> bool:
    """Whether the program has something to read. poll() looks also at what the kernel has not passed on yet."""
    poller = select.poll()
    poller.register(slave, select.POLLIN)
    return bool(poller.poll(0))
