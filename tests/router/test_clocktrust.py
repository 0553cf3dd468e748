"""Whether the clock can be believed: over a real spool, with a clock and a machine that do as they are told."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gatewayd.router import clocktrust
from gatewayd.router.clocktrust import SLACK_MS, ClockTrust, LinuxSources
from tests.spool.helpers import START_MS, FakeClock, Spool, message, open_spool, ready_sqlite

HOUR_MS = 3_600_000


@dataclass
class Machine:
    """Stands for the kernel."""

    synced: bool | None = True
    up_s: float | None = 86_400.0
    id: str = "first"
    asked: int = 0

    def synchronised(self) -> bool | None:
        self.asked += 1
        return self.synced

    def uptime_s(self) -> float | None:
        return self.up_s

    def boot(self) -> str:
        return self.id


@dataclass
class Changes:
    """How often a doubt began or ended."""

    count: int = field(default=0)

    def __call__(self) -> None:
        self.count += 1


def trust_in(spool: Spool, machine: Machine | None = None, **settings: object) -> ClockTrust:
    trust = ClockTrust(spool.store, spool.clock, sources=machine or Machine(), **settings)  # type: ignore[arg-type]
    trust.begin(spool.store.clock_mark)
    return trust


async def test_a_spool_without_entries_and_a_good_clock_are_trusted(tmp_path: Path) -> None:
    async with open_spool(ready_sqlite(tmp_path)) as spool:
        assert trust_in(spool).doubt(START_MS) == ""
        assert spool.store.clock_mark.newest_ms == 0


async def test_a_start_with_yesterdays_time_is_doubted_until_the_clock_has_caught_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, changes = ready_sqlite(tmp_path), Changes()
    async with open_spool(url) as spool:
        await spool.accept(message())
    with caplog.at_level(logging.INFO, "gatewayd.clock"):
        async with open_spool(url, clock=FakeClock(START_MS - 23 * HOUR_MS)) as spool:
            trust = trust_in(spool, on_change=changes)
            assert trust.doubt(spool.clock.ms) == (
                "the clock reads 2026-09-20 15:13:20 UTC, 23 h before the newest time seen "
                "(2026-09-21 14:13:20 UTC); set it right, or say that it is with `gatewayd clock accept`"
            )
            for _ in range(3):
                trust.look()
            assert changes.count == 1
            assert not trust.doubt(START_MS - SLACK_MS), "near enough"
            spool.clock.ms = START_MS + 1
            for _ in range(3):
                trust.look()
            assert changes.count == 2
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "trusted again" in caplog.text


async def test_what_is_written_meanwhile_does_not_make_the_next_start_believe_it(tmp_path: Path) -> None:
    url = ready_sqlite(tmp_path)
    async with open_spool(url) as spool:
        await spool.accept(message())
    past = FakeClock(START_MS - 23 * HOUR_MS)
    for _ in range(3):
        async with open_spool(url, clock=past) as spool:
            await spool.accept(*(message() for _ in range(600)))
            assert trust_in(spool).doubt(past.ms)
        past.ms += 60_000


async def test_a_jump_back_while_it_runs_is_doubted_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocktrust, "LOOK_S", 0.001)
    url = ready_sqlite(tmp_path)
    async with open_spool(url) as spool:
        trust = trust_in(spool)
        running = asyncio.create_task(trust.run())
        assert trust.doubt(spool.clock.ms) == ""
        spool.clock.ms -= HOUR_MS
        assert "60 min before" in trust.doubt(spool.clock.ms), "at once, and not when it is looked at next"
        async with asyncio.timeout(30):
            while await spool.store.setting("clock_newest") is None:
                await asyncio.sleep(0.01)
        running.cancel()
    async with open_spool(url, clock=spool.clock) as spool:
        assert trust_in(spool).doubt(spool.clock.ms), "there was nothing in the spool of that time but this note"


@pytest.mark.parametrize("step_ms", [2_000, SLACK_MS])
async def test_a_small_step_back_is_no_doubt(tmp_path: Path, step_ms: int) -> None:
    async with open_spool(ready_sqlite(tmp_path)) as spool:
        await spool.accept(message())
        trust = trust_in(spool)
        assert trust.doubt(START_MS) == ""
        assert trust.doubt(START_MS - step_ms) == ""
        assert trust.doubt(START_MS - SLACK_MS - 1)


async def test_an_operators_word_is_durable_and_recorded(tmp_path: Path) -> None:
    """A spool was written with a clock a year ahead; its times count no more, those after it do."""
    url = ready_sqlite(tmp_path)
    async with open_spool(url, clock=FakeClock(START_MS + 365 * 24 * HOUR_MS)) as spool:
        await spool.accept(message())
    now = FakeClock(START_MS)
    async with open_spool(url, clock=now) as spool:
        changes = Changes()
        trust = trust_in(spool, on_change=changes)
        assert "365 d before" in trust.doubt(now.ms)
        await trust.accept("uid 0 (root)")
        assert trust.doubt(now.ms) == ""
        assert changes.count == 2
        view = trust.view()
        assert (view.accepted_ms, view.accepted_by, view.newest_ms, view.doubt) == (now.ms, "uid 0 (root)", now.ms, "")
        (row,) = await spool.rows(_audit())
        assert row[:2] == ("uid 0 (root)", "accepted the clock")
        assert row[2] == "it read 2026-09-21T14:13:20.000Z; the newest entry was of 2027-09-21T14:13:20.000Z"
    async with open_spool(url, clock=now) as spool:
        assert trust_in(spool).doubt(now.ms) == "", "over a restart"
        now.ms += HOUR_MS
        await spool.accept(message())
    now.ms -= HOUR_MS // 2
    async with open_spool(url, clock=now) as spool:
        assert "30 min before" in trust_in(spool).doubt(now.ms), "what came after the word counts"


def _audit() -> object:
    from sqlalchemy import select

    from gatewayd.spool.schema import audit

    return select(audit.c.actor, audit.c.action, audit.c.detail)


async def test_a_machine_that_has_just_started_waits_for_its_time_service(tmp_path: Path) -> None:
    machine = Machine(synced=False, up_s=120.0)
    async with open_spool(ready_sqlite(tmp_path)) as spool:
        trust = trust_in(spool, machine)
        assert trust.doubt(START_MS) == (
            "no time service has set the clock since the machine started 2 min ago; it is waited for 13 min more, or "
            "say that it is right with `gatewayd clock accept`"
        )
        for _ in range(100):
            trust.doubt(START_MS)
        assert machine.asked == 1, "the kernel is not asked for each message"
        machine.up_s, machine.synced = 130.0, True
        assert trust.doubt(START_MS) == ""
        machine.up_s, machine.synced = 140.0, False
        assert trust.doubt(START_MS) == "", "a time service that loses its servers later does not unset the clock"


async def test_the_wait_has_an_end(tmp_path: Path) -> None:
    machine = Machine(synced=False, up_s=899.0)
    async with open_spool(ready_sqlite(tmp_path)) as spool:
        trust = trust_in(spool, machine)
        assert trust.doubt(START_MS)
        machine.up_s = 900.0
        assert trust.doubt(START_MS) == ""


async def test_where_nobody_knows_the_clock_is_trusted(tmp_path: Path) -> None:
    async with open_spool(ready_sqlite(tmp_path)) as spool:
        assert trust_in(spool, Machine(synced=None, up_s=10.0)).doubt(START_MS) == ""
        assert trust_in(spool, Machine(synced=False, up_s=None)).doubt(START_MS) == ""
        assert trust_in(spool, Machine(synced=False, up_s=10.0), require_sync=False).doubt(START_MS) == ""


async def test_another_configuration_ends_the_wait(tmp_path: Path) -> None:
    async with open_spool(ready_sqlite(tmp_path)) as spool:
        trust = trust_in(spool, Machine(synced=False, up_s=10.0))
        assert trust.doubt(START_MS)
        trust.configure(require_sync=True, wait_s=5.0)
        assert trust.doubt(START_MS) == ""
        trust.configure(require_sync=True, wait_s=900.0)
        assert trust.doubt(START_MS)
        trust.configure(require_sync=False, wait_s=900.0)
        assert trust.doubt(START_MS) == ""


async def test_an_operators_word_about_an_unsynchronised_clock_holds_until_the_machine_starts_again(
    tmp_path: Path,
) -> None:
    url, machine = ready_sqlite(tmp_path), Machine(synced=False, up_s=10.0)
    async with open_spool(url) as spool:
        trust = trust_in(spool, machine)
        await trust.accept("root")
        assert trust.doubt(START_MS) == ""
    async with open_spool(url) as spool:
        assert trust_in(spool, machine).doubt(START_MS) == "", "the daemon's own restart is none of the machine's"
    machine.id = "second"
    async with open_spool(url) as spool:
        assert trust_in(spool, machine).doubt(START_MS)


def test_this_machine_says_something() -> None:
    sources = LinuxSources()
    assert sources.synchronised() in {True, False, None}
    uptime = sources.uptime_s()
    assert uptime is not None
    assert uptime > 0
    assert len(sources.boot()) in {0, 36}
