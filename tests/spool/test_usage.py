"""Segments per hour and day of an API key: exact, durable, and no other caller's trouble."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from gatewayd.spool import schema
from gatewayd.spool.usage import PERIODS_MS, Exceeded, SegmentLimits, charge, window
from gatewayd.spool.writer import Tx
from tests.spool.helpers import START_MS, FakeClock, Spool, open_spool

HOUR, DAY = PERIODS_MS["hour"], PERIODS_MS["day"]
MIDNIGHT = START_MS - START_MS % DAY + DAY  # a day of UTC begins
BOTH = SegmentLimits(per_hour=10, per_day=15)


async def use(spool: Spool, segments: int, limits: SegmentLimits = BOTH, key: str = "crm") -> Exceeded | None:
    return await spool.store.writer.run(lambda tx: charge(tx, key, limits, segments, spool.clock.ms))


async def counted(spool: Spool) -> dict[tuple[str, str], int]:
    c = schema.key_usage.c
    return {(row[0], row[1]): row[2] for row in await spool.rows(select(c.api_key, c.period, c.segments))}


async def test_all_or_none_and_a_new_allowance_with_each_period(database_url: str) -> None:
    clock = FakeClock(MIDNIGHT)
    async with open_spool(database_url, clock=clock) as spool:
        assert await use(spool, 7) is None
        refused = await use(spool, 4)
        assert refused == Exceeded("hour", 10, 7, 4, MIDNIGHT + HOUR)
        assert await counted(spool) == {("crm", "hour"): 7, ("crm", "day"): 7}  # of what is refused nothing is counted
        assert await use(spool, 3) is None
        clock.ms = MIDNIGHT + HOUR - 1
        assert await use(spool, 1) is not None
        clock.ms = MIDNIGHT + HOUR
        assert await use(spool, 5) is None
        refused = await use(spool, 6)  # over both: the day is the one to wait for
        assert refused == Exceeded("day", 15, 15, 6, MIDNIGHT + DAY)
        assert await counted(spool) == {("crm", "hour"): 5, ("crm", "day"): 15}
        clock.ms = MIDNIGHT + DAY
        assert await use(spool, 10) is None


async def test_keys_do_not_share_and_no_limit_is_not_counted(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        assert await use(spool, 10) is None
        assert await use(spool, 10, key="shop") is None
        assert await use(spool, 10**6, SegmentLimits(), key="free") is None
        assert await use(spool, 0, key="nothing") is None
        assert {key for key, _ in await counted(spool)} == {"crm", "shop"}


async def test_what_is_used_survives_a_restart_and_counts_under_changed_limits(database_url: str) -> None:
    clock = FakeClock()
    async with open_spool(database_url, clock=clock) as spool:
        assert await use(spool, 9, SegmentLimits(per_day=10)) is None
    async with open_spool(database_url, clock=clock) as spool:
        assert await use(spool, 2, SegmentLimits(per_day=10)) is not None
        assert await use(spool, 2, SegmentLimits(per_day=11)) is None
        assert await use(spool, 1, SegmentLimits(per_day=5)) is not None  # lowered below what is used


async def test_many_at_once_use_exactly_the_limit(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        limits = SegmentLimits(per_hour=1000, per_day=37)
        results = await asyncio.gather(*[use(spool, 1 + n % 2, limits) for n in range(200)])
        used = sum(1 + n % 2 for n, result in enumerate(results) if result is None)
        assert used == 37
        assert await counted(spool) == {("crm", "hour"): 37, ("crm", "day"): 37}


async def test_an_operation_that_fails_beside_it_changes_no_count(database_url: str) -> None:
    """A failing neighbour makes the batch run twice; what is charged is charged once."""
    async with open_spool(database_url) as spool:

        def broken(tx: Tx) -> None:
            raise ValueError("a bug")

        def charged_then_broken(tx: Tx) -> None:
            charge(tx, "crm", BOTH, 5, spool.clock.ms)
            raise ValueError("a bug")

        jobs = [
            use(spool, 2),
            spool.store.writer.run(broken),
            spool.store.writer.run(charged_then_broken),
            use(spool, 3),
        ]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert [isinstance(result, ValueError) for result in results] == [False, True, True, False]
        assert await counted(spool) == {("crm", "hour"): 5, ("crm", "day"): 5}


async def test_two_instances_on_one_database_share_the_allowance(postgres_url: str) -> None:
    limits = SegmentLimits(per_day=50)
    async with open_spool(postgres_url, "gw1") as one, open_spool(postgres_url, "gw2") as two:
        keys = ("crm", "shop")
        jobs = [
            partial(use, spool, 1, limits, key)
            for n in range(60)
            for spool, key in ((one, keys[n % 2]), (two, keys[(n + 1) % 2]))
        ]
        results = await asyncio.gather(*[job() for job in jobs])
        assert sum(result is None for result in results) == 100
        assert await counted(one) == {("crm", "day"): 50, ("shop", "day"): 50}


def test_what_the_caller_is_told() -> None:
    error = Exceeded("day", 100, 98, 3, MIDNIGHT).error(MIDNIGHT - 1500)
    assert (error.status, error.kind, error.retry_after_s) == (429, "segment-limit", 2)
    assert "100 segments per day" in error.reason
    assert "98 are used and 3 more" in error.reason
    assert Exceeded("day", 100, 98, 3, MIDNIGHT).error(MIDNIGHT + 5).retry_after_s == 1
    never = Exceeded("hour", 100, 0, 101, MIDNIGHT).error(MIDNIGHT - 1500)
    assert (never.status, never.kind, never.retry_after_s) == (422, "segment-limit", None)


@pytest.mark.parametrize("period", ["hour", "day"])
@given(now=st.integers(0, 2**42), used=st.integers(0, 10**9), shift=st.integers(-(10**9), 10**9))
def test_a_window_holds_now_and_never_gives_twice(period: str, now: int, used: int, shift: int) -> None:
    length = PERIODS_MS[period]
    start, none = window(period, None, now)
    assert none == 0
    assert start <= now < start + length
    assert start % length == 0
    assert window(period, (start, used), now) == (start, used)
    later = max(0, now + shift)
    moved, left = window(period, (start, used), later)
    if start - length <= later < start + length:  # also where the clock was set back a little
        assert (moved, left) == (start, used)
    else:
        assert left == 0
        assert moved <= later < moved + length
