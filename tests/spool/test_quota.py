"""Promise 8: segments and recipients of a SIM are counted before they leave, kept, and never exceed what is allowed."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from gatewayd.spool import quota as quotas
from gatewayd.spool import schema
from gatewayd.spool.engine import open_database
from gatewayd.spool.periods import PERIODS, spans
from gatewayd.spool.quota import RECIPIENTS, QuotaLeft, SimQuota, Spent
from gatewayd.spool.quota_reader import QuotaReader
from gatewayd.spool.reader import Reader
from gatewayd.spool.writer import Tx
from tests.spool.helpers import FakeClock, Spool, open_spool, ready_sqlite
from tests.spool.test_periods import ms

ANA, BEA, CLEO = "+59898344401", "+59898344402", "+59898344403"
NOON = ms("2026-11-23T12:00:30")
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


async def take(
    spool: Spool, quota: SimQuota, number: str = ANA, left: int = 1, *, sim: int = 1, begun: bool = False
) -> Spent | None:
    now = spool.clock.ms
    return await spool.store.writer.run(lambda tx: quotas.reserve(tx, sim, quota, number, left, now, begun=begun))


async def give(spool: Spool, quota: SimQuota, intent_at: int, number: str = ANA, sim: int = 1) -> None:
    await spool.store.writer.run(lambda tx: quotas.give_back(tx, sim, quota, number, intent_at))


async def is_spent(spool: Spool, quota: SimQuota, sim: int = 1) -> Spent | None:
    return await spool.store.writer.run(lambda tx: quotas.spent(tx, sim, quota, spool.clock.ms))


async def used(spool: Spool, quota: SimQuota, sim: int = 1) -> dict[str, int]:
    found = await spool.store.writer.run(lambda tx: quotas.left(tx, sim, quota, spool.clock.ms))
    return {each.period: each.used for each in found}


async def test_each_period_has_its_own_limit_and_end(database_url: str) -> None:
    quota = SimQuota(per_minute=2, per_hour=3, per_day=5, per_month=6)
    async with open_spool(database_url, clock=FakeClock(NOON)) as spool:
        assert await is_spent(spool, quota) is None
        assert [await take(spool, quota) for _ in range(2)] == [None, None]
        minute = Spent("minute", 2, 2, NOON + 30_000)
        assert (await take(spool, quota), await is_spent(spool, quota)) == (minute, minute)
        spool.clock.ms = NOON + 30_000
        assert await take(spool, quota) is None
        assert await take(spool, quota) == Spent("hour", 3, 3, ms("2026-11-23T13:00"))
        spool.clock.ms = ms("2026-11-23T13:00")
        assert [await take(spool, quota) for _ in range(2)] == [None, None]
        assert await take(spool, quota) == Spent("day", 5, 5, ms("2026-11-24T00:00"))  # the one to wait for longest
        spool.clock.ms = ms("2026-11-24T00:00")
        assert await take(spool, quota) is None
        assert await is_spent(spool, quota) == Spent("month", 6, 6, ms("2026-12-01T00:00"))
        spool.clock.ms = ms("2026-12-01T00:00")
        assert await is_spent(spool, quota) is None
        assert await used(spool, quota) == dict.fromkeys(PERIODS, 0)


async def test_without_limits_it_is_counted_all_the_same(database_url: str) -> None:
    """A limit that is set at noon knows of the morning."""
    async with open_spool(database_url, clock=FakeClock(NOON)) as spool:
        assert [await take(spool, SimQuota()) for _ in range(4)] == [None] * 4
        assert await is_spent(spool, SimQuota()) is None
        assert await used(spool, SimQuota()) == dict.fromkeys(PERIODS, 4)
        assert await take(spool, SimQuota(per_day=4)) == Spent("day", 4, 4, ms("2026-11-24T00:00"))
        assert await take(spool, SimQuota(per_day=3)) == Spent("day", 3, 4, ms("2026-11-24T00:00"))  # lowered
        assert await take(spool, SimQuota(per_day=5)) is None
        assert await spool.rows(select(schema.sim_recipients.c.number)) == []  # those are kept where they are limited


async def test_two_sims_are_independent_and_a_restart_forgets_nothing(database_url: str) -> None:
    quota = SimQuota(per_month=2, recipients_per_month=2)
    clock = FakeClock(NOON)
    async with open_spool(database_url, clock=clock) as spool:
        assert [await take(spool, quota, sim=1) for _ in range(2)] == [None, None]
        assert await take(spool, quota, BEA, sim=2) is None
    async with open_spool(database_url, clock=clock) as spool:
        assert await is_spent(spool, quota, 1) == Spent("month", 2, 2, ms("2026-12-01T00:00"))
        assert await is_spent(spool, quota, 2) is None
        assert (await used(spool, quota, 1))[RECIPIENTS] == 1
        assert await take(spool, quota, CLEO, sim=2) is None
        assert await used(spool, quota, 2) == {**dict.fromkeys(PERIODS, 2), RECIPIENTS: 2}


async def test_a_message_is_begun_only_if_all_of_it_fits(database_url: str) -> None:
    quota = SimQuota(per_minute=100, per_day=10)
    async with open_spool(database_url, clock=FakeClock(NOON)) as spool:
        for _ in range(8):
            assert await take(spool, quota) is None
        assert await take(spool, quota, left=3) == Spent("day", 10, 8, ms("2026-11-24T00:00"))
        assert await is_spent(spool, quota) is None  # a shorter one fits
        assert await take(spool, quota, left=2) is None
        assert await take(spool, quota, left=1, begun=True) is None
        assert await take(spool, quota, left=1, begun=True) is not None


async def test_a_message_longer_than_the_limit_begins_with_the_period(database_url: str) -> None:
    quota = SimQuota(per_minute=2)
    async with open_spool(database_url, clock=FakeClock(NOON)) as spool:
        assert await take(spool, quota) is None
        assert await take(spool, quota, left=5) == Spent("minute", 2, 1, NOON + 30_000)
        spool.clock.ms = NOON + 30_000
        for left in (5, 4):
            assert await take(spool, quota, left=left, begun=left < 5) is None
        assert await take(spool, quota, left=3, begun=True) == Spent("minute", 2, 2, NOON + 90_000)
        spool.clock.ms = NOON + 90_000
        assert await take(spool, quota, left=3, begun=True) is None


async def test_only_new_recipients_are_refused(database_url: str) -> None:
    quota = SimQuota(recipients_per_month=2, reset_day=23)
    async with open_spool(database_url, clock=FakeClock(NOON)) as spool:
        for number in (ANA, BEA, ANA, ANA):
            assert await take(spool, quota, number) is None
        refused = Spent(RECIPIENTS, 2, 2, ms("2026-12-23T00:00"))
        assert await take(spool, quota, CLEO) == refused
        assert await is_spent(spool, quota) is None
        assert await take(spool, quota, BEA) is None
        assert await used(spool, quota) == {
            **dict.fromkeys(PERIODS, 5),
            RECIPIENTS: 2,
        }  # what is refused counts nowhere
        spool.clock.ms = ms("2026-12-23T00:00")
        assert await take(spool, quota, CLEO) is None
        assert await take(spool, quota, ANA) is None
        assert await take(spool, quota, BEA) == replace(refused, until_ms=ms("2027-01-23T00:00"))


async def test_what_was_not_sent_is_given_back(database_url: str) -> None:
    quota = SimQuota(per_day=2, recipients_per_month=2)
    async with open_spool(database_url, clock=FakeClock(NOON)) as spool:
        for number in (ANA, BEA):
            assert await take(spool, quota, number) is None
        await give(spool, quota, NOON, BEA)
        assert await used(spool, quota) == {**dict.fromkeys(PERIODS, 1), RECIPIENTS: 1}  # the number is new again
        assert await take(spool, quota, CLEO) is None
        await give(spool, quota, NOON, CLEO)
        assert await take(spool, quota, ANA) is None
        await give(spool, quota, NOON, ANA)
        assert await used(spool, quota) == {**dict.fromkeys(PERIODS, 1), RECIPIENTS: 1}  # ANA had another one
        for _ in range(3):
            await give(spool, quota, NOON, ANA)
        assert await used(spool, quota) == {**dict.fromkeys(PERIODS, 0), RECIPIENTS: 0}  # never below
        await give(spool, quota, NOON, ANA, sim=77)  # that never sent
        assert await used(spool, quota, 77) == {**dict.fromkeys(PERIODS, 0), RECIPIENTS: 0}


async def test_a_new_period_gets_nothing_back_of_the_last(database_url: str) -> None:
    quota = SimQuota(per_day=5, timezone="America/Montevideo")
    midnight = ms("2026-11-24T00:00", "America/Montevideo")
    async with open_spool(database_url, clock=FakeClock(midnight - 1)) as spool:
        assert await take(spool, quota) is None
        spool.clock.ms = midnight + 1
        await give(spool, quota, midnight - 1)  # nothing was counted since
        assert await used(spool, quota) == {"minute": 0, "hour": 0, "day": 0, "month": 0}
        spool.clock.ms = midnight - 1
        assert await take(spool, quota) is None
        spool.clock.ms = midnight + 1
        assert await take(spool, quota) is None
        await give(spool, quota, midnight - 1)
        assert await used(spool, quota) == {"minute": 1, "hour": 1, "day": 1, "month": 1}
        await give(spool, quota, midnight + 1)
        assert await used(spool, quota) == {"minute": 0, "hour": 0, "day": 0, "month": 0}


async def test_a_clock_set_back_over_midnight_gives_no_new_allowance(database_url: str) -> None:
    quota = SimQuota(per_day=3)
    midnight = ms("2026-11-24T00:00")
    async with open_spool(database_url, clock=FakeClock(midnight + 5)) as spool:
        for _ in range(3):
            assert await take(spool, quota) is None
        spool.clock.ms = midnight - HOUR
        assert await take(spool, quota) == Spent("day", 3, 3, midnight + DAY)
        await give(spool, quota, midnight - HOUR)  # counts as one too many rather than one too few
        assert await take(spool, quota) is not None
        spool.clock.ms = midnight + DAY
        assert await take(spool, quota) is None


async def test_a_clock_that_was_years_ahead_is_forgotten(database_url: str) -> None:
    quota = SimQuota(per_day=3, recipients_per_month=1)
    async with open_spool(database_url, clock=FakeClock(ms("2040-01-01T00:00"))) as spool:
        for _ in range(3):
            assert await take(spool, quota) is None
        spool.clock.ms = NOON
        assert await take(spool, quota, BEA) is None
        assert await used(spool, quota) == {**dict.fromkeys(PERIODS, 1), RECIPIENTS: 1}


async def test_days_follow_the_clock_of_the_zone(database_url: str) -> None:
    """23 hours in March, 25 in October; of the repeated hour both count."""
    quota = SimQuota(per_hour=1, per_day=26, timezone="Europe/Berlin")
    async with open_spool(database_url) as spool:
        for sim, day, hours in ((1, "2026-03-29", 23), (2, "2026-10-25", 25), (3, "2026-11-23", 24)):
            start = ms(day + "T00:00", "Europe/Berlin")
            for hour in range(hours):
                spool.clock.ms = start + hour * HOUR
                assert await take(spool, quota, sim=sim) is None
            assert (await used(spool, quota, sim))["day"] == hours
            spool.clock.ms += HOUR
            assert (await used(spool, quota, sim))["day"] == 0


async def test_recipients_of_months_that_are_over_are_forgotten(database_url: str) -> None:
    quota = SimQuota(recipients_per_month=1000)
    async with open_spool(database_url, clock=FakeClock(ms("2026-09-30T12:00"))) as spool:

        def many(tx: Tx) -> None:
            for n in range(600):
                quotas.reserve(tx, 1, quota, f"+598983{n:05}", 1, spool.clock.ms, begun=False)

        async def forget() -> bool:
            return await spool.store.writer.run(lambda tx: quotas.forget_recipients(tx, spool.clock.ms))

        await spool.store.writer.run(many)
        spool.clock.ms = ms("2026-10-31T12:00")
        assert await take(spool, quota) is None
        assert not await forget()
        spool.clock.ms = ms("2026-11-30T12:00")
        assert [await forget(), await forget()] == [True, False]
        assert await spool.rows(select(schema.sim_recipients.c.number)) == [(ANA,)]


async def test_everybody_can_read_it(database_url: str) -> None:
    quota = SimQuota(per_day=10)
    async with open_spool(database_url, clock=FakeClock(NOON)) as spool:
        one, two = await spool.sim("m0"), await spool.sim("m1")
        assert await take(spool, quota, sim=one.sim_id) is None
        reader = Reader(open_database(database_url))
        try:
            sims = {found.sim.channel: found for found in await QuotaReader(reader).sims()}
        finally:
            await reader.close()
        assert [found.sim.id for found in sims.values()] == [one.sim_id, two.sim_id]
        assert (sims["m0"].sim.iccid, sims["m1"].usage) == ("8959m0", None)
        left = {each.period: each for each in quotas.left_of(sims["m0"].usage, quota, NOON)}
        assert left["day"] == QuotaLeft("day", 10, 1, ms("2026-11-24T00:00"))
        assert (left["day"].left_at(NOON), left["day"].left_at(left["day"].until_ms)) == (9, 10)
        assert left["hour"].left_at(NOON) is None
        assert [each.used for each in quotas.left_of(sims["m1"].usage, quota, NOON)] == [0] * 4


async def test_a_sim_that_was_moved_stands_there_once(database_url: str) -> None:
    async with open_spool(database_url, clock=FakeClock(NOON)) as spool:
        await spool.sim("m0", iccid="1")
        await spool.sim("m1", iccid="2")
        spool.clock.ms += 1
        await spool.sim("m1", iccid="1")
        assert await spool.store.accept_sim("m1", "tester")
        reader = Reader(open_database(database_url))
        try:
            sims = await QuotaReader(reader).sims()
        finally:
            await reader.close()
        assert [(found.sim.iccid, found.sim.channel) for found in sims] == [("1", "m1"), ("2", None)]


LIMITS = st.one_of(st.none(), st.integers(1, 6))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.sampled_from([1, 2]), st.sampled_from([ANA, BEA, CLEO]), st.integers(1, 4)),
        st.tuples(st.just("give"), st.integers(0, 50)),
        st.tuples(st.just("wait"), st.sampled_from([1, 20_000, MINUTE, HOUR, 5 * HOUR, DAY, 9 * DAY])),
        st.tuples(st.just("back"), st.sampled_from([1000, 30_000])),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(
    per=st.tuples(LIMITS, LIMITS, LIMITS, LIMITS, LIMITS),
    reset_day=st.integers(1, 28),
    zone=st.sampled_from(["UTC", "America/Montevideo", "Europe/Berlin", "America/Havana"]),
    start=st.integers(ms("2026-10-20T00:00"), ms("2026-11-05T00:00")),
    steps=steps,
)
def test_no_limit_is_ever_exceeded(
    per: tuple[int | None, ...], reset_day: int, zone: str, start: int, steps: list[Any]
) -> None:
    """What really went out, judged from outside: in no period more than is allowed, and of no SIM what another sent."""
    quota = SimQuota(*per, reset_day=reset_day, timezone=zone)
    with tempfile.TemporaryDirectory() as folder, transaction(Path(folder)) as tx:
        now = newest = start
        sent: list[tuple[int, int, int, str]] = []  # SIM, intent, moment by a clock that is never set back, number
        latest = {1: 0, 2: 0}  # the latest moment of an intent of each SIM
        for step in steps:
            match step:
                case ("wait", delay):
                    now += delay
                    newest = max(newest, now)
                case ("back", delay):  # less than any period, or nobody can tell
                    now = max(newest - 30_000, now - delay)
                case ("reserve", sim, number, left):
                    before = quotas.left(tx, sim, quota, now)
                    refused = quotas.reserve(tx, sim, quota, number, left, now, begun=left == 1)
                    if refused is None:
                        latest[sim] = max(latest[sim], now)
                        sent.append((sim, now, latest[sim], number))
                    else:
                        assert refused.until_ms > now
                        assert quotas.left(tx, sim, quota, now) == before
                        if refused.period != RECIPIENTS and left == 1:
                            assert quotas.spent(tx, sim, quota, now) == refused
                case ("give", index) if sent:
                    sim, intent_at, _, number = sent.pop(index % len(sent))
                    quotas.give_back(tx, sim, quota, number, intent_at)
            for sim in (1, 2):
                assert all(each.used >= 0 for each in quotas.left(tx, sim, quota, now))
            in_period = Counter(
                (sim, index, spans(moment, zone, reset_day)[index])
                for sim, _, moment, _ in sent
                for index in range(len(PERIODS))
            )
            for (_, index, _), count in in_period.items():
                assert count <= (quota.segments[index] or count)
            recipients = {(sim, spans(moment, zone, reset_day)[-1], number) for sim, _, moment, number in sent}
            for count in Counter((sim, month) for sim, month, _ in recipients).values():
                assert count <= (quota.recipients_per_month or count)


def test_it_costs_little(tmp_path: Path) -> None:
    """One SELECT and one UPDATE for each intent, whatever the limits on segments."""
    seen: list[str] = []
    with transaction(tmp_path, seen) as tx:
        quotas.reserve(tx, 1, SimQuota(), ANA, 1, NOON, begun=False)
        seen.clear()
        quotas.reserve(tx, 1, SimQuota(1000, 1000, 1000, 1000), ANA, 1, NOON, begun=False)
        assert seen == ["SELECT", "UPDATE"]
        seen.clear()
        quotas.spent(tx, 1, SimQuota(recipients_per_month=5), NOON)
        assert seen == []


@contextmanager
def transaction(folder: Path, seen: list[str] | None = None) -> Iterator[Tx]:
    """A transaction on a spool of its own; `seen` gets the first word of each statement."""
    database = open_database(ready_sqlite(folder))
    connection = database.connect()
    assert isinstance(connection, sqlite3.Connection)
    if seen is not None:
        connection.set_trace_callback(lambda sql: seen.append(sql.split()[0]))
    try:
        tx = Tx(database, connection.cursor())
        yield tx
        tx.control("ROLLBACK")
    finally:
        connection.close()
