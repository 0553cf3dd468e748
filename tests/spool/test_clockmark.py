"""The newest time in the spool, on both engines."""

from __future__ import annotations

from pathlib import Path

from gatewayd.spool.clockmark import ClockMark
from tests.spool.helpers import START_MS, FakeClock, message, open_spool


async def test_the_newest_time_is_known_at_a_start_until_somebody_accepts_the_clock(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        assert spool.store.clock_mark == ClockMark()
        await spool.accept(message())
    early = FakeClock(START_MS - 5_000)
    async with open_spool(database_url, clock=early) as spool:
        assert spool.store.clock_mark == ClockMark(START_MS)
        await spool.accept(message())
    async with open_spool(database_url, clock=early) as spool:
        assert spool.store.clock_mark == ClockMark(START_MS)
        accepted = await spool.store.accept_clock("root", "boot")
        assert accepted == ClockMark(early.ms, early.ms, "root", "boot")
    async with open_spool(database_url, clock=early) as spool:
        assert spool.store.clock_mark == accepted
        await spool.store.keep_clock_mark(START_MS + 1)
    async with open_spool(database_url, clock=early) as spool:
        assert spool.store.clock_mark == ClockMark(START_MS + 1, early.ms, "root", "boot")


async def test_a_few_messages_are_enough(tmp_path: Path) -> None:
    """Entries with old times hide newer ones only by the thousand, and by then it is written down."""
    url = f"sqlite:///{tmp_path}/spool.db"
    async with open_spool(url) as spool:
        await spool.accept(message())
        spool.clock.ms -= 5_000_000
        await spool.accept(*(message() for _ in range(900)))
    async with open_spool(url, clock=FakeClock(START_MS - 4_000_000)) as spool:
        assert spool.store.clock_mark.newest_ms == START_MS
        await spool.accept(*(message() for _ in range(900)))
    async with open_spool(url, clock=FakeClock(START_MS - 3_000_000)) as spool:
        assert spool.store.clock_mark.newest_ms == START_MS
