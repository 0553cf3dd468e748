"""What is read from the spool is what was written, page by page, with and without a daemon."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, update

from gatewayd.errors import SpoolError
from gatewayd.model import (
    Admission,
    Delivery,
    FailureClass,
    Message,
    MessageState,
    Outcome,
    ReportVerdict,
    Segment,
    SimIdentity,
)
from gatewayd.model import SegmentState as S
from gatewayd.spool import reader as reader_module
from gatewayd.spool import schema
from gatewayd.spool.accept import Idempotency, NewMessage
from gatewayd.spool.engine import Statement, open_database
from gatewayd.spool.filters import Filter
from gatewayd.spool.message_reader import MessageReader
from gatewayd.spool.reader import Reader
from gatewayd.spool.reports import NewReport
from gatewayd.spool.store import Store
from gatewayd.spool.work import Line, Result, Rules, Want

NOT_PICKED_UP = Statement(
    update(schema.messages)
    .where(schema.messages.c.id == bindparam("b_id"))
    .values(admission=bindparam("v_admission"), state=bindparam("v_state"), queue=schema.sqltext(schema.OUT))
)


class FixedClock:
    """Stands at one moment until it is set."""

    def __init__(self, now: int = 1_800_000_000_000) -> None:
        self.now = now

    def now_ms(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1000


@asynccontextmanager
async def spool(url: str, clock: FixedClock) -> AsyncIterator[tuple[Store, Reader]]:
    database = open_database(url)
    store = Store(database, "test", clock, Rules())
    await store.open()
    reader = Reader(database, clock)
    try:
        yield store, reader
    finally:
        await reader.close()
        await store.close()


def copy_files(folder: Path, target: Path, names: list[str]) -> None:
    target.mkdir()
    for name in names:
        (target / name).write_bytes((folder / name).read_bytes())


def new(to: str = "+59898344484", text: str = "hello", **values: object) -> NewMessage:
    return NewMessage(to_given=to, to=to, text=text, alphabet="gsm7", segments=1, **values)  # type: ignore[arg-type]


def plan(message: Message) -> list[Segment]:
    return [Segment(message, 1, 1, b"\x01")]


ANY = Want(lambda lane: True, plan)


async def paired(store: Store, channel: str = "sim1") -> Line:
    pairing = await store.see_sim(channel, SimIdentity(iccid=f"8959800000{channel[-1]}"), "+59899000001")
    return Line(channel, pairing.sim_id)


async def test_a_message_that_was_kept_is_read_with_all_its_values(database_url: str) -> None:
    clock = FixedClock()
    async with spool(database_url, clock) as (store, reader):
        kept = await store.accept(
            [
                new(
                    text="ñandú €",
                    priority=9999,
                    campaign="test1",
                    agent="ana",
                    client_ref="c-1",
                    channel="sim1",
                    expires_at=clock.now + 60_000,
                    api_key="crm",
                )
            ]
        )
        detail = await reader.message(kept.ids[0])
        assert detail is not None
        message = detail.message
        assert (message.id, message.state, message.delivery) == (kept.ids[0], MessageState.TO_PROCESS, Delivery.NONE)
        assert (message.to, message.to_given, message.text) == ("+59898344484", "+59898344484", "ñandú €")
        assert (message.priority, message.campaign, message.agent, message.client_ref) == (9999, "test1", "ana", "c-1")
        assert (message.pin_channel, message.caller, message.queue) == ("sim1", "crm", schema.DUE)
        assert (message.accepted_at, message.expires_at) == (clock.now, clock.now + 60_000)
        assert message.admission is Admission.ADMITTED
        assert message.report is True
        assert [segment.state for segment in detail.segments] == [S.QUEUED]
        assert [(event.event, event.actor) for event in detail.events] == [("accepted", "crm")]
        assert detail.attempts == ()
        assert not detail.history_cut


async def test_the_history_of_a_delivered_message(database_url: str) -> None:
    clock = FixedClock()
    async with spool(database_url, clock) as (store, reader):
        line = await paired(store)
        (message_id,) = (await store.accept([new()])).ids
        clock.now += 1000
        taken = await store.work(line, None, ANY)
        assert taken.claim is not None
        in_hand = await reader.message(message_id)
        assert in_hand is not None
        assert in_hand.segments[0].state is S.SUBMITTING
        assert in_hand.message.held_by == "test"
        assert in_hand.attempts[0].outcome is None
        clock.now += 1000
        await store.work(line, Result(taken.claim, Outcome.SENT, clock.now - 500, clock.now, ref=7), None)
        clock.now += 1000
        report = NewReport(
            "sim1", line.sim_id, 7, "+59898344484", 0, ReportVerdict.DELIVERED, "delivered",
            clock.now, clock.now, "00", "listing 1",
        )  # fmt: skip
        await store.report(report)
        detail = await reader.message(message_id)
        assert detail is not None
        assert (detail.message.state, detail.message.delivery) == (MessageState.PROCESSED, Delivery.DELIVERED)
        assert [(a.channel, a.outcome, a.tp_mr) for a in detail.attempts] == [("sim1", "sent", 7)]
        assert [(r.tp_mr, r.tp_status, r.recipient) for r in detail.reports] == [(7, 0, "+59898344484")]
        names = [event.event for event in detail.events]
        assert names == ["accepted", "intent", "sent", "report: delivered"]
        assert detail.sim is not None
        assert (detail.sim.iccid, detail.sim.channel) == ("89598000001", "sim1")


async def test_an_unknown_message_is_none(database_url: str) -> None:
    async with spool(database_url, FixedClock()) as (_, reader):
        assert await reader.message(1) is None
        assert await reader.message(2**62) is None


async def listed(reader: Reader, **wanted: Any) -> list[int]:
    """The ids of the messages that a filter means."""
    page = await MessageReader(reader).page(Filter(**wanted), after=None, limit=100)
    return [message.id for message in page.items]


async def test_pages_follow_one_another_in_both_directions(database_url: str) -> None:
    async with spool(database_url, FixedClock()) as (store, reader):
        ids = (await store.accept([new(client_ref="odd" if n % 2 else "even") for n in range(7)])).ids
        seen: list[int] = []
        after = None
        lists = MessageReader(reader)
        while True:
            page = await lists.page(Filter(), after=after, limit=3)
            seen += [message.id for message in page.items]
            after = page.next
            if after is None:
                break
        assert seen == list(ids)
        first = await lists.page(Filter(), after=None, limit=3, descending=True)
        rest = await lists.page(Filter(), after=first.next, limit=100, descending=True)
        assert [message.id for message in (*first.items, *rest.items)] == list(reversed(ids))
        assert await listed(reader, client_ref="odd") == list(ids[1::2])
        assert await listed(reader, states=(MessageState.PROCESSED,)) == []
        assert len(await listed(reader, states=(MessageState.TO_PROCESS,))) == 7


async def test_counts_by_state_and_by_lane(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "COUNT_STEP", 3)  # many steps over few rows
    clock = FixedClock()
    async with spool(database_url, clock) as (store, reader):
        line = await paired(store)
        await store.accept([new(f"+5989834448{n}") for n in range(5)])
        clock.now += 60_000
        await store.accept([new(channel="sim2"), new(channel="sim2"), new(not_before=clock.now + 60_000)])
        result = None
        for n in range(4):
            taken = await store.work(line, result, Want(lambda lane: lane.channel == "", plan))
            assert taken.claim is not None
            result = Result(taken.claim, Outcome.SENT, clock.now, clock.now, ref=n)
        await store.work(line, result, None)
        counts = await reader.counts()
        assert counts.states[MessageState.PROCESSED] == 4
        assert counts.states[MessageState.TO_PROCESS] == 4
        assert sum(counts.states.values()) == 8
        depths = {(lane.channel, lane.due, lane.later, lane.out): lane for lane in counts.lanes}
        assert set(depths) == {("", 1, 1, 0), ("sim2", 2, 0, 0)}
        assert depths["", 1, 1, 0].oldest_at == clock.now - 60_000
        assert depths["sim2", 2, 0, 0].oldest_at == clock.now
        assert (counts.lanes[0].source, counts.at) == ("class:application", clock.now)


async def test_counting_is_not_repeated_at_once_unless_asked_for(database_url: str) -> None:
    class Slow(FixedClock):
        def monotonic(self) -> float:
            self.now += 500  # each look at the clock takes half a second
            return self.now / 1000

    async with spool(database_url, clock := Slow()) as (store, reader):
        assert (await reader.counts()).states[MessageState.TO_PROCESS] == 0
        await store.accept([new()])
        assert (await reader.counts()).states[MessageState.TO_PROCESS] == 0
        assert (await reader.counts(fresh=True)).states[MessageState.TO_PROCESS] == 1
        await store.accept([new()])
        clock.now += 60_000
        assert (await reader.counts()).states[MessageState.TO_PROCESS] == 2


async def test_s4_41_s4_42_states_zero_and_one(database_url: str) -> None:
    """S4-41: 0 is NONE, not picked up. S4-42: 1 is TO PROCESS."""
    async with spool(database_url, FixedClock()) as (store, reader):
        first, second = (await store.accept([new(), new()])).ids
        none = {"b_id": first, "v_admission": "none", "v_state": 0}
        await store.writer.run(lambda tx: tx.run(NOT_PICKED_UP, none))
        page = await MessageReader(reader).page(Filter(), after=None, limit=10)
        assert {message.id: message.state.value for message in page.items} == {first: 0, second: 1}
        assert await listed(reader, states=(MessageState.NONE,)) == [first]


async def test_how_many_are_ahead_in_the_queue(database_url: str) -> None:
    async with spool(database_url, FixedClock()) as (store, reader):
        ids = (await store.accept([new(priority=priority) for priority in (0, 5, 0, 9)])).ids
        ahead = {}
        for message_id in ids:
            detail = await reader.message(message_id)
            assert detail is not None
            ahead[message_id] = detail.ahead
        assert list(ahead.values()) == [2, 1, 3, 0]


async def test_a_long_history_shows_its_end_and_says_so(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "HISTORY", 3)
    clock = FixedClock()
    async with spool(database_url, clock) as (store, reader):
        line = await paired(store)
        (message_id,) = (await store.accept([new()])).ids
        for _ in range(4):
            taken = await store.work(line, None, ANY)
            assert taken.claim is not None
            clock.now += 10_000_000
            refused = Result(
                taken.claim, Outcome.NOT_SENT, clock.now, clock.now, failure=FailureClass.NETWORK, code="CMS 38"
            )
            await store.work(line, refused, None)
            clock.now += 10_000_000
            await store.advance()
        detail = await reader.message(message_id)
        assert detail is not None
        assert detail.history_cut
        assert [attempt.number for attempt in detail.attempts] == [2, 3, 4]
        assert len(detail.events) == 3


async def test_sims_settings_events_and_answers(database_url: str) -> None:
    async with spool(database_url, FixedClock()) as (store, reader):
        await paired(store)
        await store.set_setting("paused", "why", "root")
        assert [(sim.iccid, sim.channel, sim.number) for sim in await reader.sims()] == [
            ("89598000001", "sim1", "+59899000001")
        ]
        assert await reader.setting("paused") == "why"
        assert await reader.setting("other") is None
        kept = await store.accept([new()], Idempotency("crm", "k1", b"\x01\x02", lambda kept: f"answer {kept[0].id}"))
        await store.accept([new()])
        events = await reader.last_events()
        assert [event.message_id for event in events] == [kept.ids[0], kept.ids[0] + 1]
        assert [event.message_id for event in await reader.last_events(1)] == [kept.ids[0] + 1]
        assert await reader.answered("crm", "k1") == (b"\x01\x02", f"answer {kept.ids[0]}")
        assert await reader.answered("other", "k1") is None


async def test_a_spool_without_a_daemon_is_read_and_not_changed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/spool.db"
    async with spool(url, FixedClock()) as (store, _):
        (message_id,) = (await store.accept([new()])).ids
    reader = Reader(open_database(url))
    try:
        detail = await reader.message(message_id)
        assert detail is not None
        assert detail.message.state is MessageState.TO_PROCESS
        async with reader._engine.connect() as connection:
            with pytest.raises(Exception, match="readonly"):
                await connection.exec_driver_sql("DELETE FROM messages")
    finally:
        await reader.close()


async def test_a_spool_that_a_crash_left_is_read(tmp_path: Path) -> None:
    """Its last commits are in the write-ahead log only."""
    path = tmp_path / "spool.db"
    async with spool(f"sqlite:///{path}", FixedClock()) as (store, _):
        (message_id,) = (await store.accept([new()])).ids
        left = tmp_path / "left"
        copy_files(tmp_path, left, ["spool.db", "spool.db-wal"])
    reader = Reader(open_database(f"sqlite:///{left}/spool.db"))
    try:
        assert await reader.message(message_id) is not None
    finally:
        await reader.close()


async def test_a_spool_that_is_not_there_is_a_spool_error(tmp_path: Path) -> None:
    reader = Reader(open_database(f"sqlite:///{tmp_path}/none.db"))
    try:
        with pytest.raises(SpoolError, match="cannot be read"):
            await listed(reader)
        assert not (tmp_path / "none.db").exists()
    finally:
        await reader.close()
    sqlite3.connect(tmp_path / "empty.db").close()
    reader = Reader(open_database(f"sqlite:///{tmp_path}/empty.db"))
    try:
        with pytest.raises(SpoolError, match="cannot be read"):
            await reader.counts()
    finally:
        await reader.close()


async def test_one_read_sees_one_moment(database_url: str) -> None:
    """A message whose state changes between two statements of a read is seen as it was at the first."""
    clock = FixedClock()
    async with spool(database_url, clock) as (store, reader):
        line = await paired(store)
        (message_id,) = (await store.accept([new()])).ids
        async with reader.snapshot() as connection:
            state = await connection.exec_driver_sql(f"SELECT state FROM messages WHERE id = {message_id}")
            assert state.scalar() == 1
            taken = await store.work(line, None, ANY)
            assert taken.claim is not None
            await store.work(line, Result(taken.claim, Outcome.SENT, clock.now, clock.now, ref=1), None)
            segment = await connection.exec_driver_sql(f"SELECT state FROM segments WHERE message_id = {message_id}")
            assert segment.scalar() == "QUEUED"
        detail = await reader.message(message_id)
        assert detail is not None
        assert detail.segments[0].state is S.SUBMITTED
