"""What a power cut leaves of an SQLite spool, as far as that can be shown without cutting the power.

Three things are shown. (1) Every commit is followed by an fdatasync of the log before anybody is told, and before a
byte goes to a modem: the daemon's system calls say so. (2) The files as they are at any moment (the daemon is
stopped, copied, continued) hold everything that was answered before, with a torn or cut tail of the log as well. (3)
The pages of the main file may be torn wherever the log has them, for that is when they are being written.

What cannot be shown: that the disk tells the truth. One that answers fdatasync and keeps the data in a cache without
a battery loses what was answered, whatever software runs above it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import select

from gatewayd.modems.simulator.process import simulator_process
from gatewayd.spool import schema
from gatewayd.spool.engine import open_database
from tests.crash.trace import traced
from tests.daemon import DaemonProcess, configuration, daemon, until
from tests.spool.helpers import open_spool

SNAPSHOTS = 10
SECTOR = 512
WAL_HEADER, FRAME_HEADER = 32, 24


@dataclass
class Snapshot:
    """The files at one moment, and the idms that had been answered before it."""

    folder: Path
    answered: set[int] = field(default_factory=set)

    @property
    def wal(self) -> Path:
        return self.folder / "spool.db-wal"

    @property
    def database(self) -> Path:
        return self.folder / "spool.db"


@dataclass
class Frames:
    """A write-ahead log taken apart. Source: sqlite.org/fileformat2.html §4."""

    page_size: int
    pages: list[int]  # of each valid frame
    committed: int  # frames up to the last commit

    @classmethod
    def of(cls, wal: bytes) -> Frames:
        if len(wal) < WAL_HEADER:
            return cls(4096, [], 0)
        page_size = int.from_bytes(wal[8:12])
        pages, committed = [], 0
        for at in range(WAL_HEADER, len(wal) - FRAME_HEADER - page_size + 1, FRAME_HEADER + page_size):
            if wal[at + 8 : at + 16] != wal[16:24]:  # salts of an earlier round of the log: this is its end
                break
            pages.append(int.from_bytes(wal[at : at + 4]))
            if int.from_bytes(wal[at + 4 : at + 8]):
                committed = len(pages)
        return cls(page_size, pages, committed)

    def end(self, frame: int) -> int:
        """Where that many frames end, in octets."""
        return WAL_HEADER + frame * (FRAME_HEADER + self.page_size)


async def snapshot(gateway: DaemonProcess, folder: Path, answered: set[int]) -> Snapshot:
    """Stop the daemon wherever it is, copy its files, let it go on."""
    folder.mkdir()
    taken = Snapshot(folder, set(answered))  # what is answered while it is copied need not be there
    os.kill(gateway.pid, signal.SIGSTOP)
    try:
        for name in ("spool.db", "spool.db-wal"):
            if (gateway.directory / name).exists():
                shutil.copyfile(gateway.directory / name, folder / name)
    finally:
        os.kill(gateway.pid, signal.SIGCONT)
    return taken


async def check(taken: Snapshot) -> set[int]:
    """Open it as a start after the power cut would; the messages that are there."""
    with contextlib.closing(sqlite3.connect(taken.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    async with open_spool(f"sqlite:///{taken.database}") as spool:
        rows = await spool.rows(select(schema.messages.c.id))
    return {row[0] for row in rows}


async def many(answered: set[int]) -> bool:
    """The load has been on for some hundred commits."""
    return len(answered) >= 100


@asynccontextmanager
async def under_load(tmp_path: Path) -> AsyncIterator[tuple[DaemonProcess, set[int]]]:
    """A daemon that accepts, sends, gets reports and inbound texts all the time; the idms answered so far."""
    answered: set[int] = set()
    async with (
        simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=5) as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0), sim.port(1)])) as gateway,
    ):

        async def submit(client: int) -> None:
            n = 0
            while True:
                answered.add(await gateway.send(f"+5989{client}{n:05}77", f"text {n}"))
                n += 1

        async def write() -> None:
            while True:
                said = {"do": "inbound", "modem": 0, "from": "+59898123401", "text": "x" * 300}
                await sim.control.call(said)
                await asyncio.sleep(0.05)

        load = [asyncio.create_task(submit(client)) for client in range(4)] + [asyncio.create_task(write())]
        try:
            yield gateway, answered
        finally:
            for task in load:
                task.cancel()
            assert all(isinstance(each, asyncio.CancelledError) for each in await _ended(load))


async def _ended(tasks: list[asyncio.Task[None]]) -> list[BaseException | None]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_copies_taken_at_any_moment_hold_all_that_was_answered(tmp_path: Path) -> None:
    moment = random.Random(5)
    taken = []
    async with under_load(tmp_path) as (gateway, answered):
        for i in range(SNAPSHOTS):
            await asyncio.sleep(moment.uniform(0.02, 0.15))  # anywhere in the work, not a synchronisation
            taken.append(await snapshot(gateway, tmp_path / f"copy{i}", answered))
    assert len(taken[-1].answered) > SNAPSHOTS, "the load was on"
    for each in taken:
        assert await check(each) >= each.answered


async def test_a_torn_tail_of_the_log_costs_nothing_that_was_answered(tmp_path: Path) -> None:
    """Cut anywhere after the last commit, its last sector zeroed, or half a frame of rubbish after it.

    Cut before it (a disk that lied), it is a spool of an earlier moment: whole, and without holes.
    """
    chance = random.Random(6)
    async with under_load(tmp_path) as (gateway, answered):
        await until(lambda: many(answered))
        taken = await snapshot(gateway, tmp_path / "copy", answered)
    wal, main = taken.wal.read_bytes(), taken.database.read_bytes()
    frames = Frames.of(wal)
    assert frames.committed > 3
    end = frames.end(frames.committed)
    # What a writer appends next: frames of a transaction that has not come to its commit.
    last = bytearray(wal[frames.end(frames.committed - 1) : end])
    last[4:8] = bytes(4)  # "no commit"
    tail = bytes(last) * 2
    torn = [wal[:end], *(wal[:end] + tail[: chance.randrange(len(tail))] for _ in range(4))]
    torn.append(wal[:end] + tail[:-SECTOR] + bytes(SECTOR))
    torn.append(wal[:end] + chance.randbytes(3 * SECTOR))
    for content in torn:
        assert await _opened(tmp_path, main, content) >= taken.answered
    everything = await _opened(tmp_path, main, wal[:end])
    seen = []
    for _ in range(6):
        cut = chance.randrange(WAL_HEADER, end)
        present = await _opened(tmp_path, main, wal[:cut])
        assert present == {idm for idm in everything if idm <= max(present, default=0)}, "no holes"
        seen.append((cut, len(present)))
    assert [count for _, count in sorted(seen)] == sorted(count for _, count in seen), "longer is never less"


async def test_pages_torn_in_a_checkpoint_are_made_good_by_the_log(tmp_path: Path) -> None:
    """But for the first one, whose header is one sector that a commit does not change."""
    chance = random.Random(7)
    async with under_load(tmp_path) as (gateway, answered):
        await until(lambda: many(answered))
        taken = await snapshot(gateway, tmp_path / "copy", answered)
    wal, main = taken.wal.read_bytes(), bytearray(taken.database.read_bytes())
    frames = Frames.of(wal)
    torn = {page for page in frames.pages[: frames.committed] if 1 < page <= len(main) // frames.page_size}
    assert len(torn) > 3
    for page in torn:
        at = (page - 1) * frames.page_size + chance.randrange(0, frames.page_size, SECTOR)
        main[at : at + SECTOR] = chance.randbytes(SECTOR)
    assert await _opened(tmp_path, bytes(main), wal) >= taken.answered


_opening = iter(range(1000))


async def _opened(tmp_path: Path, main: bytes, wal: bytes) -> set[int]:
    folder = tmp_path / f"opened{next(_opening)}"
    folder.mkdir()
    taken = Snapshot(folder)
    taken.database.write_bytes(main)
    taken.wal.write_bytes(wal)
    try:
        return await check(taken)
    finally:
        shutil.rmtree(folder)


def test_the_writers_connection_asks_for_the_disk(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/spool.db")
    with contextlib.closing(database.connect()) as connection:
        cursor = connection.cursor()

        def pragma(name: str) -> object:
            cursor.execute(f"PRAGMA {name}")
            return cursor.fetchone()[0]

        assert pragma("journal_mode") == "wal"
        assert pragma("synchronous") == 2, "FULL: the log is synced at each commit"
        assert pragma("fullfsync") == 0, "only of macOS"


@pytest.mark.needs("strace", "strace")
async def test_nothing_is_answered_or_sent_before_the_log_is_synced(tmp_path: Path) -> None:
    """Promises 1 and 2, as the kernel sees them."""
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0)])) as gateway,
    ):
        await gateway.until(await gateway.send("+59898344480", "warm"), lambda m: m["delivery"] == "delivered")
        calls = "trace=fdatasync,fsync,pwrite64,write,sendto,sendmsg"
        async with traced(gateway.pid, "-y", "-e", calls) as trace:
            idm = await gateway.send("+59898344484", "synced?")
            await gateway.until(idm, lambda m: m["state"] == 2)
        lines = trace.read_text().splitlines()

    def first(pattern: str, after: int = -1) -> int:
        found = next((i for i, line in enumerate(lines) if i > after and re.search(pattern, line)), None)
        assert found is not None, (pattern, lines)
        return found

    log_write, log_sync = (
        r"pwrite64\(\d+<[^>]*spool\.db-wal>",
        r"f(data)?sync\(\d+<[^>]*spool\.db-wal>.*(= 0|unfinished)",
    )
    answer = first(r"HTTP/1\.1 200")
    command = first(r"AT\+CMGS")
    kept = first(log_write)
    assert kept < first(log_sync, kept) < answer, "on disk, then answered"
    writes = [i for i, line in enumerate(lines[:command]) if re.search(log_write, line)]
    syncs = [i for i, line in enumerate(lines[:command]) if re.search(log_sync, line)]
    assert len(syncs) >= 2, "one for the acceptance, one for the intent"
    assert max(writes) < max(syncs) < command, "marked on disk, then written to the modem"
