"""A daemon's process that is made to die, and the moment at which it did."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.daemon import DaemonProcess

LIMIT_S = 60.0  # for anything to happen
ADDRESS = re.compile(rb"HTTP on (\S+)")


@dataclass
class Daemon:
    """A daemon's process, which may die at any time. `api` is None until it listens."""

    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    directory: Path
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[str] = field(default_factory=list)
    api: DaemonProcess | None = None
    reading: asyncio.Task[None] | None = None
    died_at: asyncio.Future[float] | None = None

    @property
    def last_words(self) -> str:
        return "".join(self.log[-3:]).strip()

    async def read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode(errors="replace"))
            if self.api is None and (found := ADDRESS.search(line)):
                address = found.group(1).decode()
                self.api = DaemonProcess(self.directory, address, self.process, self.session, self.log)
                self.listening.set()

    async def up(self) -> bool:
        """Whether it came to listen before it died."""
        waiting = asyncio.create_task(self.listening.wait())
        dying = asyncio.create_task(self.dead())
        try:
            async with asyncio.timeout(LIMIT_S):
                await asyncio.wait({waiting, dying}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            dying.cancel()
        return self.listening.is_set()

    async def dead(self) -> int:
        """Wait for its end, and all it said; the exit status. `died_at` has the time, to the millisecond."""
        async with asyncio.timeout(LIMIT_S):
            status = await self.process.wait()
            if self.reading is not None:
                await asyncio.shield(self.reading)
        return status

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


def died_at(pid: int) -> float:
    """Wait in a thread until a process ends; when that was: the event loop of the harness may be late."""
    with contextlib.suppress(ProcessLookupError):  # it is over
        fd = os.pidfd_open(pid)
        try:
            select.select([fd], [], [])
        finally:
            os.close(fd)
    return time.time()
