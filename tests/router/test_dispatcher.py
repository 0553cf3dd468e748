"""The dispatcher against the hard cases: a real spool on SQLite, and channels that do as they are told."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from gatewayd.clock import SystemClock
from gatewayd.errors import ChannelLost, IllegalTransition, SpoolError, SubmitError
from gatewayd.model import ChannelState, ChannelStatus, FailureClass, Message, Outcome, Receipt, Segment, SimIdentity
from gatewayd.modems.channel import AdmitSim, Sink, StateChanged, always, unheard
from gatewayd.router import dispatcher as dispatcher_module
from gatewayd.router.channeltask import Pacing
from gatewayd.router.dispatcher import Dispatcher
from gatewayd.spool import engine
from gatewayd.spool.accept import NewMessage
from gatewayd.spool.engine import open_database
from gatewayd.spool.retry import RetryPolicy
from gatewayd.spool.store import Store
from gatewayd.spool.work import Line, Result, Rules, Taken, Want
from gatewayd.spool.writer import Notices, Tx
from tests.spool.helpers import LosesAnswers

CLOCK = SystemClock()
Script = Callable[["Scripted", Segment, Callable[[], bool]], Awaitable[Receipt]]


async def taken(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
    """The network takes it at once."""
    now = CLOCK.now_ms()
    return Receipt(len(channel.network.sent) % 256, now, now)


@dataclass
class Network:
    """What all channels of a test share: what was submitted, and what is to happen."""

    script: Script = taken
    sent: list[tuple[str, int, int]] = field(default_factory=list)  # channel, message, segment
    up: dict[str, asyncio.Event] = field(default_factory=dict)
    sessions: dict[str, Scripted] = field(default_factory=dict)
    opened: dict[str, int] = field(default_factory=dict)


class Scripted:
    """A Channel whose submissions a test decides."""

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self.network = network
        self.state = ChannelState.STARTING
        self.lost = asyncio.Event()
        network.sessions[name] = self

    def plan(self, message: Message) -> list[Segment]:
        total = len(message.text)
        return [Segment(message, seq, total) for seq in range(1, total + 1)]

    async def open(self, admit_sim: AdmitSim) -> None:
        self.network.opened[self.name] = self.network.opened.get(self.name, 0) + 1
        if self.name in self.network.up:
            await self.network.up[self.name].wait()
        if reason := await admit_sim(SimIdentity(f"8959{self.name}", "")):
            raise ChannelLost(reason)

    async def run(self, sink: Sink) -> NoReturn:
        self.state = ChannelState.READY
        await sink(StateChanged(self.status()))
        await self.lost.wait()
        raise ChannelLost("pulled out")

    async def submit(
        self, segment: Segment, gate: Callable[[], bool] = always, begun: Callable[[], None] = unheard
    ) -> Receipt:
        begun()
        receipt = await self.network.script(self, segment, gate)
        self.network.sent.append((self.name, segment.message.id, segment.seq))
        return receipt

    async def close(self) -> None:
        self.state = ChannelState.DOWN

    def status(self) -> ChannelStatus:
        return ChannelStatus(self.name, self.state, 0)


@dataclass
class Rig:
    store: Store
    dispatcher: Dispatcher
    network: Network
    path: Path

    async def ready(self) -> None:
        """Every channel is up and has found nothing to do."""
        await self.until(lambda: len(self.dispatcher._wakes.idle) == len(self.dispatcher.channels()))

    async def accept(self, *texts: str, to: str = "+59898{:06}") -> tuple[int, ...]:
        messages = [
            NewMessage(to_given=to.format(i), to=to.format(i), text=text, alphabet="gsm7", segments=len(text))
            for i, text in enumerate(texts)
        ]
        return (await self.store.accept(messages)).ids

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with sqlite3.connect(f"file:{self.path}?mode=ro", uri=True) as connection:
            rows = connection.execute(sql).fetchall()
        connection.close()
        return rows

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not met():
                await asyncio.sleep(0.005)

    async def settled(self) -> None:
        await self.until(lambda: not self.rows("SELECT id FROM messages WHERE state = 1"))


@asynccontextmanager
async def rig(
    tmp_path: Path,
    *names: str,
    script: Script = taken,
    away: tuple[str, ...] = (),
    interval_s: float = 0,
    rules: Rules = Rules(),  # noqa: B008 - frozen
    url: str = "",
) -> AsyncIterator[Rig]:
    """A running dispatcher; the channels named in `away` do not come up before `network.up` says so."""
    path = tmp_path / "spool.db"
    network = Network(script, up={name: asyncio.Event() for name in away})
    dispatcher: Dispatcher
    store = Store(
        open_database(url or f"sqlite:///{path}"),
        "gw1",
        CLOCK,
        rules,
        on_commit=lambda notices: dispatcher.committed(notices),
    )
    dispatcher = Dispatcher(store, CLOCK)
    for name in names:
        dispatcher.add(name, lambda name=name: Scripted(name, network), pacing=Pacing(interval_s))  # type: ignore[misc]
    await store.open()
    try:
        await dispatcher.start()
        yield Rig(store, dispatcher, network, path)
    finally:
        await dispatcher.stop(0.1)
        await store.close()


async def test_every_message_goes_out_once_over_whichever_channel_is_free(tmp_path: Path) -> None:
    async with rig(tmp_path, "a", "b", "c") as r:
        ids = [*await r.accept(*["x"] * 50), *await r.accept(*["xx"] * 10, to="+59899{:06}")]
        await r.settled()
        assert sorted(message for _, message, _ in r.network.sent) == sorted([*ids, *ids[50:]])
        for message in ids[50:]:
            parts = [(channel, seq) for channel, sent, seq in r.network.sent if sent == message]
            assert [seq for _, seq in parts] == [1, 2]
            assert len({channel for channel, _ in parts}) == 1, "both parts over one SIM"


async def test_a_message_that_comes_while_all_are_idle_wakes_one(tmp_path: Path) -> None:
    async with rig(tmp_path, "a", "b") as r:
        for n in range(20):
            await r.accept("x", to=f"+5989{n:07}{{}}")
            await r.until(lambda n=n: len(r.network.sent) == n + 1)  # type: ignore[misc]


async def test_a_slow_channel_holds_nothing_a_fast_one_could_send(tmp_path: Path) -> None:
    stuck = asyncio.Event()

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        if channel.name == "slow":
            await stuck.wait()
        return await taken(channel, segment, gate)

    async with rig(tmp_path, "slow", "fast", script=script) as r:
        await r.accept(*["x"] * 30)
        await r.until(lambda: len(r.network.sent) == 29)
        stuck.set()
        await r.settled()
        assert sum(channel == "slow" for channel, _, _ in r.network.sent) == 1


async def test_a_channel_that_is_lost_comes_back_and_goes_on(tmp_path: Path) -> None:
    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        if len(channel.network.sent) == 3 and not channel.lost.is_set() and not hasattr(channel.network, "died"):
            channel.network.died = True  # type: ignore[attr-defined]
            channel.lost.set()
            raise SubmitError(Outcome.NOT_SENT, FailureClass.DEVICE, "the port is closed")
        return await taken(channel, segment, gate)

    async with rig(tmp_path, "a", script=script) as r:
        ids = await r.accept(*["x"] * 10)
        await r.settled()
        assert [message for _, message, _ in r.network.sent] == list(ids)
        assert r.rows("SELECT max(tries) FROM segments") == [(1,)], "a dead channel uses up no try"


async def test_the_outcome_is_not_lost_while_the_spool_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spool locked: the daemon goes on, and nothing goes out twice."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.02)
    handed_over, locked = asyncio.Event(), asyncio.Event()

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        handed_over.set()
        await locked.wait()
        return await taken(channel, segment, gate)

    async with rig(tmp_path, "a", script=script) as r:
        ids = await r.accept("x", "x")
        await handed_over.wait()
        other = sqlite3.connect(r.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        locked.set()
        await r.until(lambda: not r.store.writer.healthy)
        assert len(r.network.sent) == 1
        other.execute("ROLLBACK")
        other.close()
        await r.settled()
        assert [message for _, message, _ in r.network.sent] == list(ids)


async def test_a_bug_in_a_channel_is_doubt_and_the_rest_goes_on(tmp_path: Path) -> None:
    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        if segment.message.id == 2:
            raise ZeroDivisionError
        return await taken(channel, segment, gate)

    async with rig(tmp_path, "a", script=script) as r:
        await r.accept("x", "x", "x")
        await r.settled()
        assert r.rows("SELECT id, state FROM messages ORDER BY id") == [(1, 2), (2, 8), (3, 2)]


async def test_a_pause_calls_back_what_was_not_written_yet(tmp_path: Path) -> None:
    at_the_prompt, answer = asyncio.Event(), asyncio.Event()

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        at_the_prompt.set()
        await answer.wait()
        if not gate():
            raise SubmitError(Outcome.NOT_SENT, FailureClass.DEVICE, "withdrawn", started_ms=CLOCK.now_ms())
        return await taken(channel, segment, gate)

    async with rig(tmp_path, "a", script=script) as r:
        await r.accept("x")
        await at_the_prompt.wait()
        await r.dispatcher.pause("root", "wrong text")
        answer.set()
        await r.until(lambda: r.rows("SELECT state FROM segments") == [("QUEUED",)])
        assert r.rows("SELECT tries FROM segments") == [(0,)]
        assert "wrong text" in r.dispatcher.paused()
        assert r.network.sent == []
        await r.dispatcher.resume("root")
        await r.settled()
        assert len(r.network.sent) == 1
        assert r.rows("SELECT actor, action FROM audit") == [("root", "set paused"), ("root", "set paused")]


async def test_a_stop_waits_for_what_is_in_hand_and_then_calls_it_doubt(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with rig(tmp_path, "a", script=script) as r:
        await r.accept("x", "x")
        await begun.wait()
    assert r.rows("SELECT id, state FROM messages ORDER BY id") == [(1, 8), (2, 1)]


async def test_a_message_pinned_to_a_channel_waits_for_it(tmp_path: Path) -> None:
    async with rig(tmp_path, "a", "b") as r:
        pinned = NewMessage(to_given="1", to="+59898000001", text="x", alphabet="gsm7", segments=1, channel="b")
        await r.store.accept([pinned] * 5)
        await r.settled()
        assert {channel for channel, _, _ in r.network.sent} == {"b"}


async def test_no_network_refuses_a_message_more_than_twice(tmp_path: Path) -> None:
    tried: list[str] = []

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        tried.append(channel.name)
        now = CLOCK.now_ms()
        raise SubmitError(Outcome.NOT_SENT, FailureClass.REJECTED, "unidentified", code="CMS 28", started_ms=now)

    async with rig(tmp_path, "a", "b", "c", script=script) as r:
        await r.accept("x")
        await r.settled()
        assert len(tried) == len(set(tried)) == 2
        assert r.rows("SELECT state, reason FROM messages") == [(5, "CMS 28 unidentified")]


async def refused(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
    """Every network sends it elsewhere."""
    now = CLOCK.now_ms()
    raise SubmitError(Outcome.NOT_SENT, FailureClass.REJECTED, "unidentified", code="CMS 28", started_ms=now)


async def doubtful(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
    raise SubmitError(Outcome.IN_DOUBT, FailureClass.UNKNOWN, "no answer", started_ms=CLOCK.now_ms())


async def test_a_message_whose_channel_cannot_take_it_after_all_finds_another(tmp_path: Path) -> None:
    """No wake-up is lost: one is woken and is no longer registered, the next must not send it, the third may."""
    async with rig(tmp_path, "a", "b", "c") as r:
        await r.ready()
        first, second, third = r.dispatcher._wakes.idle
        later = NewMessage("1", "+59898000001", "x", "gsm7", 1, not_before=CLOCK.now_ms() + 3_600_000)
        (message_id,) = (await r.store.accept([later])).ids

        def not_over_the_second(tx: Tx) -> None:
            lane = r.store._book.find(tx, "class:application", "any", "", 0, second.sim_id)
            tx.control(f"UPDATE messages SET due_at = 0, lane_id = {lane.id} WHERE id = {message_id}")

        await r.store.writer.run(not_over_the_second)
        await r.ready()
        assert list(r.dispatcher._wakes.idle) == [first, second, third]
        committed = r.dispatcher.committed

        def and_the_first_goes(notices: Notices) -> None:
            committed(notices)
            if notices.lanes:
                r.network.sessions[first.name].state = ChannelState.UNREGISTERED

        r.dispatcher.committed = and_the_first_goes  # type: ignore[method-assign]
        await r.store.advance()
        await r.settled()
        assert r.network.sent == [(third.name, message_id, 1)]


async def test_the_clock_goes_on_after_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "TIME_RETRY_MS", 10)
    advance, failed = Store.advance, asyncio.Event()

    async def fails_once(store: Store) -> int | None:
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError("a bug")
        return await advance(store)

    monkeypatch.setattr(Store, "advance", fails_once)
    async with rig(tmp_path, "a") as r:
        await failed.wait()
        soon = NewMessage("1", "+59898000001", "x", "gsm7", 1, not_before=CLOCK.now_ms() + 50)
        await r.store.accept([soon])
        await r.settled()


async def test_a_channel_goes_on_after_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, failures = Store.work, [ZeroDivisionError("a bug"), IllegalTransition("another")]

    async def fails_twice(store: Store, *arguments: Any) -> Taken:
        if failures:
            raise failures.pop()
        return await work(store, *arguments)

    monkeypatch.setattr(Store, "work", fails_twice)
    async with rig(tmp_path, "a") as r:
        await r.accept("x", "x")
        await r.settled()


async def test_the_clock_does_not_run_for_every_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each segment sent sets a deadline for its report, days ahead: nothing to do yet."""
    advance, calls = Store.advance, 0

    async def counted(store: Store) -> int | None:
        nonlocal calls
        calls += 1
        return await advance(store)

    monkeypatch.setattr(Store, "advance", counted)
    async with rig(tmp_path, "a", "b") as r:
        await r.accept(*["x"] * 300)
        await r.settled()
        assert calls < 20


async def test_three_doubts_in_a_row_end_the_session(tmp_path: Path) -> None:
    """DESIGN §3: it takes no more work until it was brought up anew."""
    async with rig(tmp_path, "a", script=doubtful) as r:
        await r.accept(*["x"] * 5)
        await r.until(lambda: r.rows("SELECT count(*) FROM messages WHERE state = 8") == [(3,)])
        assert r.dispatcher.channels()[0].status.state is not ChannelState.READY
        r.network.script = taken
        await r.settled()
        assert r.network.opened == {"a": 2}
        assert len(r.network.sent) == 2


async def test_a_success_between_doubts_keeps_the_session(tmp_path: Path) -> None:
    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        return await (taken if segment.message.id % 3 == 0 else doubtful)(channel, segment, gate)

    async with rig(tmp_path, "a", script=script) as r:
        await r.accept(*["x"] * 9)
        await r.settled()
        assert r.network.opened == {"a": 1}


async def test_a_message_is_not_kept_for_a_channel_that_is_away(tmp_path: Path) -> None:
    """One network refuses it, the other modem is broken: nothing waits for that for ever."""
    rules = Rules(retry=RetryPolicy(attempts=2, backoff_ms=(1,)))
    async with rig(tmp_path, "a", "b", script=refused, away=("b",), rules=rules) as r:
        await r.accept("x")
        await r.settled()
        assert r.rows("SELECT state FROM messages") == [(5,)]


async def test_a_claim_that_nobody_got_goes_back_though_its_channel_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit of the claim took place, its answer was lost, and then the channel as well."""
    async with rig(tmp_path, "a", "b", away=("b",)) as r:
        await r.until(lambda: len(r.dispatcher._wakes.idle) == 1)
        lost = LosesAnswers(monkeypatch, r.store._database)
        committed = r.dispatcher.committed

        def and_the_next_is_lost(notices: Notices) -> None:
            committed(notices)
            if notices.lanes and not lost.times and not r.rows("SELECT 1 FROM attempts"):
                lost.times = 1

        r.dispatcher.committed = and_the_next_is_lost  # type: ignore[method-assign]
        await r.accept("x")
        await r.until(lambda: not r.store.writer.healthy)
        r.network.sessions["a"].state = ChannelState.UNREGISTERED
        await r.until(lambda: r.rows("SELECT state FROM segments") == [("QUEUED",)])
        r.network.up["b"].set()
        await r.settled()
        assert [channel for channel, _, _ in r.network.sent] == ["b"]


async def test_a_submission_cancelled_by_somebody_else_is_doubt_and_the_rest_goes_on(tmp_path: Path) -> None:
    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        if segment.message.id == 1:
            raise asyncio.CancelledError
        return await taken(channel, segment, gate)

    async with rig(tmp_path, "a", script=script) as r:
        await r.accept("x", "x")
        await r.settled()
        assert r.rows("SELECT id, state FROM messages ORDER BY id") == [(1, 8), (2, 2)]


async def test_a_restart_does_not_send_sooner_than_the_interval(tmp_path: Path) -> None:
    async with rig(tmp_path, "a", interval_s=3600) as r:
        await r.accept("x")
        await r.settled()
    async with rig(tmp_path, "a", interval_s=3600) as r:
        await r.until(lambda: r.dispatcher.channels()[0].status.state is ChannelState.READY)
        assert r.dispatcher.channels()[0].next_start_in_s > 3000


async def test_a_server_that_cuts_connections_loses_and_doubles_nothing(tmp_path: Path, postgres_url: str) -> None:
    """Promises 1 and 2 on PostgreSQL: the writer comes back, takes its lock again, and the channels go on."""
    import psycopg

    async with rig(tmp_path, "a", "b", "c", url=postgres_url) as r:
        accepted: list[int] = []
        refused_posts = 0

        async def post(n: int) -> None:
            nonlocal refused_posts
            for i in range(60):
                to = f"+5989{n}{i:06}"
                try:
                    accepted.extend((await r.store.accept([NewMessage(to, to, "xx", "gsm7", 2)])).ids)
                except SpoolError:
                    refused_posts += 1

        posts = [asyncio.create_task(post(n)) for n in range(4)]
        with psycopg.connect(postgres_url, autocommit=True) as control:
            for kill in range(12):
                await r.until(lambda kill=kill: len(r.network.sent) > 15 * kill)  # type: ignore[misc]
                control.execute(
                    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name LIKE 'gatewayd % writer'"
                )
            await asyncio.gather(*posts)

            def waiting() -> int:
                row = control.execute("SELECT count(*) FROM messages WHERE state = 1").fetchone()
                return int(row[0]) if row else 0

            await r.until(lambda: not waiting())
            kept = [row[0] for row in control.execute("SELECT id FROM messages").fetchall()]
            doubt = control.execute("SELECT count(*) FROM messages WHERE state <> 2").fetchone()
        assert set(accepted) <= set(kept), "what was accepted is there"
        assert len(kept) - len(accepted) <= refused_posts
        assert sorted((message, seq) for _, message, seq in r.network.sent) == sorted(
            (message, seq) for message in kept for seq in (1, 2)
        )
        assert doubt == (0,)


async def test_an_outcome_that_a_removed_channel_could_not_write_is_written_by_its_successor_or_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload while the spool takes no writes: what was sent must never be taken for a claim that nobody got."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.02)
    monkeypatch.setattr(dispatcher_module, "TIME_RETRY_MS", 10)
    handed_over, locked = asyncio.Event(), asyncio.Event()

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        handed_over.set()
        await locked.wait()
        return await taken(channel, segment, gate)

    async with rig(tmp_path, "a", script=script) as r:
        ids = await r.accept("x")
        await handed_over.wait()
        other = sqlite3.connect(r.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        locked.set()
        await r.until(lambda: not r.store.writer.healthy)
        await r.dispatcher.remove("a", 0)
        other.execute("ROLLBACK")
        other.close()
        await r.until(lambda: r.rows("SELECT state FROM segments") == [("SUBMITTED",)])
        r.dispatcher.add("a", lambda: Scripted("a", r.network), pacing=Pacing())
        await r.accept("x", to="+59897{:06}")
        await r.settled()
        assert [message for _, message, _ in r.network.sent] == [ids[0], ids[0] + 1]


async def test_a_claim_that_is_given_back_is_none_that_a_removed_channel_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, and the successor has trouble with the spool of its own before the outcome is written."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.02)
    monkeypatch.setattr(dispatcher_module, "TIME_RETRY_MS", 3_600_000)
    handed_over, locked = asyncio.Event(), asyncio.Event()

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        handed_over.set()
        await locked.wait()
        return await taken(channel, segment, gate)

    async with rig(tmp_path, "a", script=script) as r:
        (first,) = await r.accept("x")
        await handed_over.wait()
        other = sqlite3.connect(r.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        locked.set()
        await r.until(lambda: not r.store.writer.healthy)
        await r.dispatcher.remove("a", 0)
        other.execute("ROLLBACK")
        other.close()
        work, failures = Store.work, [SpoolError("once")]

        async def fails_once(store: Store, line: Line, result: Result | None, want: Want | None) -> Taken:
            if failures and want is not None:
                raise failures.pop()
            return await work(store, line, result, want)

        monkeypatch.setattr(Store, "work", fails_once)
        r.dispatcher.add("a", lambda: Scripted("a", r.network), pacing=Pacing())
        await r.settled()
        await r.ready()
        assert [message for _, message, _ in r.network.sent] == [first]


async def test_a_resume_does_not_undo_a_pause_that_comes_after_it(tmp_path: Path) -> None:
    """An emergency stop holds in memory as on disk, whoever steers at the same time."""
    async with rig(tmp_path, "a") as r:
        await r.dispatcher.pause("root", "first")
        await asyncio.gather(r.dispatcher.resume("ann"), r.dispatcher.pause("bob", "second"))
        assert "second" in (await r.store.setting("paused") or "")
        assert "second" in r.dispatcher.paused()


async def test_the_call_of_a_channel_that_is_removed_goes_to_another(tmp_path: Path) -> None:
    """Promise 6: it is woken for a message and leaves in the same moment; the other one is idle."""
    async with rig(tmp_path, "a", "b") as r:
        await r.ready()
        called, other = r.dispatcher._wakes.idle
        told: list[Notices] = []
        committed = r.dispatcher.committed
        r.dispatcher.committed = told.append  # type: ignore[method-assign,assignment]
        await r.accept("x")
        r.dispatcher.committed = committed  # type: ignore[method-assign]
        for notices in told:
            r.dispatcher.committed(notices)
        await r.dispatcher.remove(called.name, 5)
        await r.settled()
        assert [channel for channel, _, _ in r.network.sent] == [other.name]


async def test_each_state_of_a_channel_is_told_once_and_in_order_also_after_trouble_of_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.02)
    monkeypatch.setattr(dispatcher_module, "TIME_RETRY_MS", 10)

    def told() -> list[tuple[str | None, str]]:
        rows = r.rows("SELECT data FROM outbox WHERE type = 'channel.state' ORDER BY id")
        said = [json.loads(str(data)) for (data,) in rows]
        return [(each["was"], each["state"]) for each in said]

    async with rig(tmp_path, "a", away=("a",)) as r:
        r.network.up["a"].set()
        await r.ready()
        assert told() == [(None, "ready")]
        r.network.up["a"].clear()
        other = sqlite3.connect(r.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        r.network.sessions["a"].lost.set()
        await r.until(lambda: r.dispatcher.channels()[0].status.state is ChannelState.STARTING)
        assert not r.store.writer.healthy
        r.network.up["a"].set()
        other.execute("ROLLBACK")
        other.close()
        await r.until(lambda: len(told()) == 3)
        assert told() == [(None, "ready"), ("ready", "down"), ("down", "ready")]
