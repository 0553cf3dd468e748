"""Events: in the order of commits, one for each change, for those who want them, kept as long as they are needed."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import bindparam, func, select, update

from gatewayd.errors import SpoolError
from gatewayd.model import FailureClass, InDoubtPolicy, MessageState, ReportVerdict
from gatewayd.spool import schema
from gatewayd.spool.deliveries import Told
from gatewayd.spool.deliveries import record as record_told
from gatewayd.spool.engine import Statement
from gatewayd.spool.events import (
    CHANNEL,
    DEAD,
    DONE,
    PENDING,
    TYPES,
    GatewayEvent,
    Subscription,
    callback_endpoint,
    webhook_endpoint,
)
from gatewayd.spool.reports import NewReport
from gatewayd.spool.retention import DEAD_LIFE_MS, SWEEP_REST_MS, SWEEP_ROWS, TOLD_LIFE_MS, Sweep, forget
from gatewayd.spool.settings import SPOOL_ID
from gatewayd.spool.work import Line
from gatewayd.spool.writer import Tx
from tests.spool.helpers import CONTACT, START_MS, FakeClock, LosesAnswers, Sim, Spool, intake, message, open_spool

o, d, m = schema.outbox.c, schema.deliveries.c, schema.messages.c
URL = "http://app.example:8000/dlr?id=7"


async def types(spool: Spool, message_id: int | None = None) -> list[str]:
    """The types of all events, or of one message's, in their order."""
    statement = select(o.type).order_by(o.id)
    if message_id is None:
        return [row[0] for row in await spool.rows(statement)]
    rows = await spool.rows(statement.where(o.message_id == bindparam("id")), id=message_id)
    return [row[0] for row in rows]


async def ids(spool: Spool) -> list[int]:
    return [row[0] for row in await spool.rows(select(o.id).order_by(o.id))]


def report(line: Line, tp_mr: int, verdict: ReportVerdict, raw: str) -> NewReport:
    status = {ReportVerdict.DELIVERED: 0, ReportVerdict.TRYING: 0x20, ReportVerdict.UNDELIVERED: 0x40}[verdict]
    return NewReport(line.channel, line.sim_id, tp_mr, CONTACT, status, verdict, "", None, None, raw, "l-" + raw)


async def test_ids_follow_the_commits_without_a_hole_whatever_fails_between(database_url: str) -> None:
    """Many at once, refused ones among them, then a restart: ids go on. What is told in memory is what is on disk."""
    clock = FakeClock()
    seen: list[str] = []

    def bad(tx: Tx) -> None:
        tx.notices.events.append(GatewayEvent("message.accepted", message_id=999))
        tx.run(Statement(schema.counters.insert().values(name="outbox", value=0)), {})

    for run in range(2):
        async with open_spool(database_url, clock=clock, intake=intake()) as spool:
            assert spool.store.spool_id == await spool.store.setting(SPOOL_ID)
            assert len(spool.store.spool_id) == 8
            results = await asyncio.gather(
                *[spool.accept(message(f"+5989810{run}{n:04}"), message(CONTACT)) for n in range(10)],
                *[spool.store.writer.run(bad) for _ in range(3)],
                *[
                    Sim(spool, name=f"{run}-{n}").says(
                        "hola" if n % 2 else "STOP", at_ms=clock.ms + 1000 * (6 * run + n)
                    )
                    for n in range(6)
                ],
                *[spool.store.writer.run(bad) for _ in range(3)],
                return_exceptions=True,
            )
            assert sum(isinstance(result, BaseException) for result in results) == 6
            in_memory = [event.type for notices in spool.notices for event in notices.events]
            seen += in_memory
            assert await types(spool) == seen
            found = await ids(spool)
            assert found == list(range(1, len(found) + 1))
            assert await spool.rows(select(func.count()).where(o.message_id == 999)) == [(0,)]
    counts = {type_: seen.count(type_) for type_ in set(seen)}
    assert counts["inbound.received"] == 12
    assert counts["optout.changed"] == 1
    accepted, blocked = counts["message.accepted"], counts["message.blocked"]
    assert accepted + blocked >= 40


async def test_a_commit_that_fails_tells_nobody_and_one_whose_answer_is_lost_tells_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_spool(database_url, intake=intake()) as spool:
        loses = LosesAnswers(monkeypatch, spool.database)
        loses.times = 1
        try:
            await spool.accept(message())
        except SpoolError:
            assert "sqlite" in database_url  # the server can be asked what became of it, a file cannot
        assert await types(spool) == ["message.accepted"]
        control, failures = Tx.control, [1]

        def failing(tx: Tx, sql: str) -> None:
            if sql == "COMMIT" and failures[0]:
                failures[0] -= 1
                raise SpoolError("the disk is full")
            control(tx, sql)

        monkeypatch.setattr(Tx, "control", failing)
        told = sum(len(notices.events) for notices in spool.notices)
        with pytest.raises(SpoolError):
            await spool.accept(message())
        assert sum(len(notices.events) for notices in spool.notices) == told
        await spool.accept(message())
        assert await ids(spool) == [1, 2], "the id of what was rolled back is given again: there is no hole"


async def test_a_life_is_told_change_by_change_and_nothing_twice(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()

        async def one(**fields: Any) -> int:
            return (await spool.accept(message(**fields)))[0]

        async def claim(result: Any = None) -> Any:
            found = await spool.claim(line, result)
            assert found is not None
            return found

        sent = await one(segments=2)
        first = await claim()
        second = await claim(spool.sent(first, ref=1))
        await spool.store.work(line, spool.sent(second, ref=2), None)
        for turn in range(2):
            for tp_mr in (1, 2):
                await spool.store.report(report(line, tp_mr, ReportVerdict.TRYING, f"A{tp_mr}{turn}"))
        for turn in range(2):
            for tp_mr in (1, 2):
                await spool.store.report(report(line, tp_mr, ReportVerdict.DELIVERED, f"B{tp_mr}{turn}"))
        assert await types(spool, sent) == ["message.accepted", "message.sent", "message.delivered"]

        overtaken = await one()
        held = await claim()
        await spool.store.report(report(line, 3, ReportVerdict.UNDELIVERED, "C3"))
        await spool.store.work(line, spool.sent(held, ref=3), None)
        assert await types(spool, overtaken) == ["message.accepted", "message.sent", "message.undelivered"]

        silent = await one()
        await spool.store.work(line, spool.sent(await claim(), ref=4), None)
        spool.clock.ms += 50 * 3_600_000
        await spool.store.advance()
        await spool.store.report(report(line, 4, ReportVerdict.DELIVERED, "D4"))
        assert await types(spool, silent) == [
            "message.accepted", "message.sent", "message.unknown", "message.delivered",
        ]  # fmt: skip

        failed = await one()
        await spool.store.work(line, spool.not_sent(await claim(), failure=FailureClass.NUMBER), None)
        assert await types(spool, failed) == ["message.accepted", "message.failed"]

        retried = await one()
        await spool.store.work(line, spool.not_sent(await claim()), None)
        spool.clock.ms += 3_600_000
        await spool.store.advance()
        await spool.store.work(line, spool.sent(await claim(), ref=5), None)
        assert await types(spool, retried) == ["message.accepted", "message.sent"]

        expired = await one(expires_at=spool.clock.ms + 1000, not_before=spool.clock.ms + 500)
        spool.clock.ms += 2000
        await spool.store.advance()
        assert await types(spool, expired) == ["message.accepted", "message.expired"]

        again = await one(in_doubt=InDoubtPolicy.RESEND)
        await spool.store.work(line, spool.doubtful(await claim()), None)
        spool.clock.ms += 900_001
        await spool.store.advance()
        await spool.store.work(line, spool.sent(await claim(), ref=6), None)
        assert await types(spool, again) == [
            "message.accepted", "message.in_doubt", "message.queued", "message.sent",
        ]  # fmt: skip
        rows = await spool.rows(select(o.type, o.data, o.channel).where(o.message_id == bindparam("id")), id=failed)
        ((data, channel),) = [(json.loads(row[1]), row[2]) for row in rows if row[0] == "message.failed"]
        assert (data["state"], data["delivery"]) == (MessageState.FAILED, "none")
        assert data["reason"] == "CMS 38 network out of order"
        assert channel == "m0"
        assert await ids(spool) == list(range(1, len(await ids(spool)) + 1))


async def test_each_event_is_for_those_who_want_it(database_url: str) -> None:
    subscriptions = [
        Subscription("webhook:all"),
        Subscription("webhook:mine", ("message.*", "optout.changed")),
        Subscription("webhook:in", ("inbound.received",)),
        Subscription("webhook:none", ("message",)),
    ]
    async with open_spool(database_url, subscriptions=subscriptions, intake=intake(confirm=False)) as spool:
        await spool.accept(message(callback_url=URL, callback_format="kannel:31"), message("+59898000009"))
        await Sim(spool).says("STOP")
        await spool.store.note(GatewayEvent(CHANNEL, channel="m0", data={"state": "ready", "reason": ""}))
        rows = await spool.rows(
            select(d.endpoint, o.type, d.url, d.format)
            .join_from(schema.deliveries, schema.outbox, o.id == d.outbox_id)
            .order_by(d.id)
        )
        callback = ("callback:http://app.example:8000", URL, "kannel:31")
        assert [row[1] for row in rows if row[0] == "webhook:all"] == [
            "message.accepted", "message.accepted", "inbound.received", "message.blocked", "optout.changed", CHANNEL,
        ]  # fmt: skip
        assert [row[1] for row in rows if row[0] == "webhook:mine"] == [
            "message.accepted", "message.accepted", "message.blocked", "optout.changed",
        ]  # fmt: skip
        assert [row[1] for row in rows if row[0] == "webhook:in"] == ["inbound.received"]
        assert [(row[0], row[2], row[3]) for row in rows if row[2]] == [callback, callback]
        assert [row[1] for row in rows if row[2]] == ["message.accepted", "message.blocked"]
        told = set().union(*[notices.endpoints for notices in spool.notices])
        assert told == {"webhook:all", "webhook:mine", "webhook:in", callback[0]}
        spool.store.configure(spool.store._rules, intake(), subscriptions[2:3])
        await spool.accept(message())
        assert len(await spool.rows(select(d.id))) == len(rows)


@given(st.sampled_from(TYPES), st.lists(st.sampled_from([*TYPES, "*", "message.*", "inbound.*", "optout.*", "x.*"])))
@settings(deadline=None, max_examples=100)
def test_what_a_subscription_wants(type_: str, patterns: Sequence[str]) -> None:
    kinds = {f"{kind}.*" for kind in [type_.split(".")[0]]}
    assert Subscription("webhook:x", tuple(patterns)).wants(type_) == bool({"*", type_, *kinds} & set(patterns))


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        (URL, "callback:http://app.example:8000"),
        ("https://USER:secret@App.Example/x", "callback:https://app.example"),
        ("http://[::1]:80/x", "callback:http://[::1]:80"),
        ("http://[::1/x", "callback:not a URL"),
    ],
)
def test_the_endpoint_of_a_callback_is_its_origin_without_secrets(url: str, endpoint: str) -> None:
    assert callback_endpoint(url) == endpoint
    assert webhook_endpoint("crm") == "webhook:crm"


async def test_a_callback_that_is_no_url_stops_nobody(database_url: str) -> None:
    """Promise 4: events are written between the operations and the commit, where one that fails would fail them all."""
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        good, bad = await asyncio.gather(spool.accept(message()), spool.accept(message(callback_url="http://[::1/x")))
        assert await spool.claims(line) == [*good, *bad]
        assert spool.store.writer.healthy
        assert len(await spool.rows(select(d.id))) == 2


async def test_told_events_are_forgotten_and_what_is_owed_or_was_given_up_is_kept(database_url: str) -> None:
    async with open_spool(database_url, subscriptions=[Subscription("webhook:a", ("message.*",))]) as spool:

        async def note() -> None:
            await spool.store.note(GatewayEvent(CHANNEL, channel="m0", data={"state": "ready"}))

        async def end(outbox_id: int, state: int) -> None:
            ((delivery,),) = await spool.rows(select(d.id).where(d.outbox_id == bindparam("id")), id=outbox_id)
            now = spool.clock.ms
            told = Told(delivery, state, 1, now, None if state == PENDING else now, 200, "")
            await spool.store.writer.run(lambda tx: record_told(tx, [told]))

        await note()
        await spool.accept(*[message(f"+598980000{n:02}") for n in range(3)])  # 2 to 4
        for outbox_id, state in ((2, DONE), (3, DEAD), (4, PENDING)):
            await end(outbox_id, state)
        spool.clock.ms += TOLD_LIFE_MS
        await spool.store.advance()
        assert await ids(spool) == [1, 2, 3, 4], "not before their time"
        await note()
        spool.clock.ms += SWEEP_REST_MS
        await spool.store.advance()
        assert await ids(spool) == [3, 4, 5], "the next walk through the old ones finds them"
        await end(4, DONE)
        spool.clock.ms = START_MS + DEAD_LIFE_MS
        await spool.store.advance()
        assert await ids(spool) == [3]
        spool.clock.ms += SWEEP_REST_MS
        await spool.store.advance()
        assert (await ids(spool), await spool.rows(select(d.id))) == ([], [])
        await note()
        assert await ids(spool) == [6], "ids are given once"


async def test_pruning_goes_in_steps(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog of a week takes no long transaction: a step, and it asks to be called again at once."""
    async with open_spool(sqlite_url) as spool:
        event = GatewayEvent(CHANNEL, channel="m0")
        await spool.store.writer.run(lambda tx: tx.notices.events.extend([event] * (2 * SWEEP_ROWS + 500)))
        spool.clock.ms += TOLD_LIFE_MS + 1
        left = []
        for _ in range(4):
            advanced = await spool.store.advance()
            left.append((len(await ids(spool)), advanced.again_at == spool.clock.ms))
        assert left == [(SWEEP_ROWS + 500, True), (500, True), (0, False), (0, False)]


async def test_what_dead_letters_keep_is_not_looked_at_again_and_again(sqlite_url: str) -> None:
    """A dead webhook keeps a month of events: a walk goes past each of them once, in bounded steps, then rests."""
    async with open_spool(sqlite_url, subscriptions=[Subscription("webhook:dead")]) as spool:
        event = GatewayEvent(CHANNEL, channel="m0")
        await spool.store.writer.run(lambda tx: tx.notices.events.extend([event] * (SWEEP_ROWS + 10)))
        await spool.store.writer.run(lambda tx: tx.run(Statement(update(schema.deliveries).values(state=DEAD)), {}))
        spool.clock.ms += TOLD_LIFE_MS + 1
        sweep = Sweep()

        def walk(tx: Tx) -> bool:
            return forget(tx, sweep, spool.clock.ms)

        run = spool.store.writer.run
        assert [await run(walk), sweep.after] == [True, SWEEP_ROWS]
        assert [await run(walk), sweep.after] == [False, 0]
        assert len(await ids(spool)) == SWEEP_ROWS + 10, "all are there to be replayed"
        assert not await run(walk)
        assert sweep.after == 0, "it rests"


@given(st.lists(st.sampled_from(["accept", "stop", "start", "hola", "send", "doubt", "fail", "time"]), max_size=25))
@settings(deadline=None, max_examples=25)
def test_any_life_has_events_without_holes_that_end_in_the_state_on_disk(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """The last that was told of each message is what it is, and no event says what the one before it said."""
    from tests.spool.helpers import ready_sqlite

    async def life() -> None:
        url = ready_sqlite(tmp_path_factory.getbasetemp())
        async with open_spool(url, intake=intake()) as spool:
            line = await spool.sim()
            counter = itertools.count()
            for step in steps:
                spool.clock.ms += 1000
                sim = Sim(spool, name=f"n{next(counter)}")
                if step == "accept":
                    await spool.accept(message(segments=2))
                elif step == "time":
                    spool.clock.ms += 900_001
                    await spool.store.advance()
                elif step in ("stop", "start", "hola"):
                    await sim.says(step)
                elif (claim := await spool.claim(line)) is not None:
                    ends = {"send": spool.sent, "doubt": spool.doubtful, "fail": spool.not_sent}
                    await spool.store.work(line, ends[step](claim), None)
            assert await ids(spool) == list(range(1, len(await ids(spool)) + 1))
            for message_id, state, reason in await spool.rows(select(m.id, m.state, m.reason).order_by(m.id)):
                rows = await spool.rows(
                    select(o.type, o.data).where(o.message_id == bindparam("id")).order_by(o.id), id=message_id
                )
                told = [(type_, json.loads(data)) for type_, data in rows]
                assert told[0][0] in ("message.accepted", "message.blocked")
                assert all(one[0] != other[0] for one, other in itertools.pairwise(told))
                assert told[-1][1]["state"] == state
                if state == MessageState.BLOCKED:
                    assert reason
                    assert told[-1][1]["reason"]

    asyncio.run(life())


def test_an_event_is_a_value() -> None:
    event = GatewayEvent(CHANNEL, channel="m0")
    assert replace(event) == event
