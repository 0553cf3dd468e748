"""The supervisor, over real sessions with a scripted modem on a pty."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayd.clock import SystemClock
from gatewayd.errors import SpoolError
from gatewayd.model import ChannelState, SimIdentity
from gatewayd.modems.channel import ChannelEvent, Sink, StateChanged
from gatewayd.modems.gsm import GsmChannel
from gatewayd.modems.supervisor import Backoff, Supervisor
from tests.modems.dialogue import Collector, Peer, admit, error, ok, peer_at, segment, settings, within

FAST = Backoff(steps=(0.01,), jitter=0, device_poll_s=0.01)


@contextlib.asynccontextmanager
async def supervised(
    peer: Peer, sink: Sink, backoff: Backoff = FAST, **changes: object
) -> AsyncIterator[tuple[Supervisor, list[GsmChannel]]]:
    """A running supervisor, and every channel object it makes."""
    made: list[GsmChannel] = []

    def factory() -> GsmChannel:
        made.append(GsmChannel(settings(peer, **changes), SystemClock()))
        return made[-1]

    supervisor = Supervisor("sim1", factory, sink, admit, SystemClock(), backoff)
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor, made
    finally:
        await within(supervisor.stop())
        assert task.done()


async def test_a_channel_comes_up_and_may_send(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        sink = Collector()
        async with supervised(peer, sink) as (supervisor, made):
            assert supervisor.current is None
            channel = await within(supervisor.ready())
            assert channel is supervisor.current is made[0]
            assert supervisor.status().state is ChannelState.READY
            assert (await within(channel.submit(segment(made[0])))).ref == 5
            await sink.until(lambda: sink.states == ["starting", "ready"])
        assert supervisor.current is None
        assert supervisor.status().state is ChannelState.STOPPED
        assert made[0].status().state is ChannelState.STOPPED


async def test_an_unplugged_modem_is_taken_back_at_once(tmp_path: Path) -> None:
    patient = Backoff(steps=(3600,), jitter=0, device_poll_s=0.01)
    async with peer_at(tmp_path) as peer:
        sink = Collector()
        async with supervised(peer, sink, patient) as (supervisor, made):
            await within(supervisor.ready())
            peer.unplug()
            await sink.until(lambda: sink.states[-1:] == ["down"])
            assert supervisor.current is None
            assert "gone" in supervisor.status().reason
            assert supervisor.status().sim.imsi  # still shown
            peer.plug()
            channel = await within(supervisor.ready())
            assert channel is made[1]
            assert made[0].status().state is ChannelState.STOPPED  # closed, never used again
            assert (await within(channel.submit(segment(made[1])))).ref == 5


async def test_a_device_that_comes_later_is_taken(tmp_path: Path) -> None:
    patient = Backoff(steps=(3600,), jitter=0, device_poll_s=0.01)
    async with peer_at(tmp_path) as peer:
        peer.unplug()
        sink = Collector()
        async with supervised(peer, sink, patient) as (supervisor, _):
            await sink.until(lambda: sink.states == ["starting", "down"])
            assert "no such device" in supervisor.status().reason
            peer.plug()
            await within(supervisor.ready())


async def test_a_parked_channel_waits_for_a_person(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        ready = peer.answers["AT+CPIN?"]
        peer.answers["AT+CPIN?"] = ok("+CPIN: SIM PIN")
        sink = Collector()
        async with supervised(peer, sink) as (supervisor, made):
            await sink.until(lambda: sink.states[-1:] == ["parked"])
            assert "PIN" in supervisor.status().reason
            await asyncio.sleep(0.1)  # ten times the back-off: the subject is that nothing happens
            assert len(made) == 1
            peer.answers["AT+CPIN?"] = ready
            supervisor.unpark()
            await within(supervisor.ready())
            assert len(made) == 2


async def test_a_session_that_is_given_up_is_built_anew(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        sink = Collector()
        async with supervised(peer, sink) as (supervisor, made):
            await within(supervisor.ready())
            supervisor.give_up("three segments in doubt")
            assert supervisor.current is None
            channel = await within(supervisor.ready())
            assert channel is made[1]
            reasons = [event.status.reason for event in sink.events if isinstance(event, StateChanged)]
            assert "three segments in doubt" in reasons


async def test_ready_waits_for_the_network(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers["AT+CREG?"] = ok("+CREG: 2,2")
        sink = Collector()
        async with supervised(peer, sink) as (supervisor, made):
            waiting = asyncio.create_task(supervisor.ready())
            await sink.until(lambda: sink.states[-1:] == ["unregistered"])
            assert not waiting.done()
            peer.urc("+CREG: 1")
            assert await within(waiting) is made[0]


async def test_one_warning_then_silence_then_one_word_of_recovery(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "gatewayd.channel")
    async with peer_at(tmp_path) as peer:
        peer.answers["AT+CPIN?"] = [*[error("+CME ERROR: 10")] * 3, ok("+CPIN: READY")]
        async with supervised(peer, Collector()) as (supervisor, made):
            await within(supervisor.ready())
            assert len(made) == 4
    levels = [record.levelname for record in caplog.records if "no SIM" in record.getMessage()]
    assert levels == ["WARNING", "DEBUG", "DEBUG"]
    assert [record.levelname for record in caplog.records if "up again" in record.getMessage()] == ["INFO"]


async def test_a_sink_in_trouble_does_not_end_the_supervision(tmp_path: Path) -> None:
    async def broken(event: ChannelEvent) -> None:
        raise SpoolError("disk full")

    async with peer_at(tmp_path) as peer, supervised(peer, broken) as (supervisor, _):
        await within(supervisor.ready())


async def test_a_bug_ends_the_session_and_not_the_supervision(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    async def admit_sim(sim: SimIdentity) -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError
        return ""

    async with peer_at(tmp_path) as peer:
        channels = [GsmChannel(settings(peer), SystemClock()) for _ in range(2)]
        made = iter(channels)
        supervisor = Supervisor("sim1", lambda: next(made), Collector(), admit_sim, SystemClock(), FAST)
        task = asyncio.create_task(supervisor.run())
        assert await within(supervisor.ready()) is channels[1]
        await within(supervisor.stop())
        assert task.done()
    assert "ZeroDivisionError" in caplog.text


async def test_a_bring_up_without_end_is_given_up(tmp_path: Path) -> None:
    async def undecided(sim: SimIdentity) -> str:
        await asyncio.Event().wait()
        return ""

    async with peer_at(tmp_path) as peer:
        sink = Collector()
        supervisor = Supervisor(
            "sim1",
            lambda: GsmChannel(settings(peer), SystemClock()),
            sink,
            undecided,
            SystemClock(),
            Backoff(steps=(3600,)),
            open_limit_s=0.3,
        )
        task = asyncio.create_task(supervisor.run())
        await sink.until(lambda: sink.states[-1:] == ["down"])
        assert "bring-up took more than" in supervisor.status().reason
        await within(supervisor.stop())
        assert task.cancelled()


async def test_stopping_before_starting_is_harmless(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        supervisor = Supervisor(
            "sim1", lambda: GsmChannel(settings(peer), SystemClock()), Collector(), admit, SystemClock()
        )
        supervisor.give_up("nothing to give up")
        await supervisor.stop()
        assert supervisor.status().state is ChannelState.DOWN


def test_the_back_off_grows_to_its_last_step_and_is_spread() -> None:
    plain = Backoff(jitter=0)
    assert [plain.delay_s(failures) for failures in range(1, 9)] == [1, 2, 5, 10, 30, 60, 60, 60]
    delays = [Backoff(jitter=0.2).delay_s(1) for _ in range(50)]
    assert all(0.8 <= delay <= 1.2 for delay in delays)
    assert len(set(delays)) > 1
