"""Operations on the queue: what each does to a message in each state, and many messages in steps."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import func, select

from gatewayd.model import InDoubtPolicy, MessageClass, MessageState, Outcome, ReportVerdict
from gatewayd.spool import filters, operations, schema
from gatewayd.spool.engine import open_database
from gatewayd.spool.filters import Filter
from gatewayd.spool.message_reader import MessageReader
from gatewayd.spool.migrate import migrate
from gatewayd.spool.moves import set_aside
from gatewayd.spool.operations import Begun, Operation
from gatewayd.spool.optouts import OptState, Said, Source
from gatewayd.spool.orders import Action, Order
from gatewayd.spool.reader import Reader
from gatewayd.spool.reports import NewReport
from gatewayd.spool.work import Line
from tests.spool.helpers import FakeClock, Spool, message, open_spool

WAIT_MS = 900_000
CHANNELS = ("m0", "m1")
NUMBER = "+59898344484"
m, s, e, a = schema.messages.c, schema.segments.c, schema.events.c, schema.audit.c


async def operate(spool: Spool, action: Action, *ids: int, wanted: Filter | None = None, **fields: Any) -> Begun:
    order = Order(action, "ana", fields.pop("reason", "as told"), **fields)
    return await spool.store.operate(order, wanted or Filter(ids=ids), CHANNELS)


async def done(spool: Spool) -> Operation:
    """Work off all there is; the last operation as it stood then."""
    last: Operation | None = None
    for _ in range(10_000):
        now = await spool.store.operation_step(CHANNELS)
        if now is None:
            assert last is not None
            return last
        last = now
    raise AssertionError("an operation never ends")


async def states(spool: Spool, message_id: int) -> list[str]:
    return [row[0] for row in await spool.rows(select(s.state).where(s.message_id == message_id).order_by(s.seq))]


async def state(spool: Spool, message_id: int) -> MessageState:
    return MessageState((await spool.rows(select(m.state).where(m.id == message_id)))[0][0])


async def said(spool: Spool, action: Action, message_id: int, **fields: Any) -> tuple[bool, str]:
    ((_, applied),) = (await operate(spool, action, message_id, **fields)).results
    assert applied is not None
    return applied.changed, applied.said


async def stop_word(spool: Spool, number: str = NUMBER) -> None:
    await spool.store.opt(Said(number, number, "opt_out", Source.OPERATOR, "ana", evidence="e"), OptState.OUT)


async def report(spool: Spool, line: Line, tp_mr: int, number: str = NUMBER) -> None:
    await spool.store.report(
        NewReport(line.channel, line.sim_id, tp_mr, number, 0, ReportVerdict.DELIVERED, "", None, None, f"{tp_mr}", "l")
    )


async def test_cancel_ends_what_waits_and_says_who(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(segments=2))
        begun = await operate(spool, Action.CANCEL, message_id, 99)
        assert dict(begun.results)[99] is None, "there is no such message"
        assert (begun.operation.matched, begun.operation.changed, begun.operation.state) == (1, 1, "done")
        assert await states(spool, message_id) == ["CANCELLED", "CANCELLED"]
        assert await spool.claim(line) is None
        rows = await spool.rows(select(e.actor, e.detail).where(e.message_id == message_id, e.event == "cancelled"))
        assert rows == [("ana", "as told")] * 2
        ((actor, action, detail),) = await spool.rows(select(a.actor, a.action, a.detail))
        assert (actor, action) == ("ana", "messages cancel")
        assert json.loads(detail) == {"operation": 1, "filter": {"ids": [message_id, 99]}, "reason": "as told"}
        assert await said(spool, Action.CANCEL, message_id) == (False, "it is cancelled already")
        assert spool.notices[-2].events == []


@pytest.mark.parametrize("outcome", ["withdrawn", "refused for now", "sent", "in doubt"])
async def test_cancel_of_what_a_channel_has_in_its_hands_is_granted_with_the_outcome(
    database_url: str, outcome: str
) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(segments=2))
        claim = await spool.claim(line)
        assert claim is not None
        assert (await said(spool, Action.CANCEL, message_id))[0]
        assert await states(spool, message_id) == ["SUBMITTING", "QUEUED"]
        assert "cancel asked by ana" in spool.store.recalled(message_id)
        assert (await said(spool, Action.CANCEL, message_id))[0] is False, "it was asked already"
        result = {
            "withdrawn": spool.not_sent(claim, withdrawn=True),
            "refused for now": spool.not_sent(claim),
            "sent": spool.sent(claim),
            "in doubt": spool.doubtful(claim),
        }[outcome]
        assert await spool.claim(line, result) is None, "nothing of it goes out any more"
        first = {"sent": "SUBMITTED", "in doubt": "IN_DOUBT"}.get(outcome, "CANCELLED")
        assert await states(spool, message_id) == [first, "CANCELLED"]
        ((actor, detail),) = await spool.rows(
            select(e.actor, e.detail).where(e.message_id == message_id, e.seq == 2, e.event == "cancelled")
        )
        assert (actor, detail) == ("ana", "as told")
        assert spool.store.recalled(message_id) == ""
        ((wish,),) = await spool.rows(select(m.wish).where(m.id == message_id))
        assert wish == ("cancel" if outcome == "in doubt" else "")


async def test_a_wish_survives_a_crash(database_url: str) -> None:
    clock = FakeClock()
    async with open_spool(database_url, clock=clock) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(segments=2))
        assert await spool.claim(line) is not None
        assert (await said(spool, Action.CANCEL, message_id))[0]
    async with open_spool(database_url, clock=clock) as spool:
        assert await states(spool, message_id) == ["IN_DOUBT", "CANCELLED"]


@pytest.mark.parametrize("action", [Action.CANCEL, Action.HOLD])
async def test_what_is_in_doubt_is_not_sent_again_by_its_policy_once_it_was_cancelled_or_held(
    database_url: str, action: Action
) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(in_doubt=InDoubtPolicy.RESEND))
        claim = await spool.claim(line)
        assert claim is not None
        await spool.claim(line, spool.doubtful(claim))
        assert (await said(spool, action, message_id))[0]
        spool.clock.ms += WAIT_MS
        await spool.store.advance()
        assert await spool.claim(line) is None
        assert await states(spool, message_id) == ["ABANDONED" if action is Action.CANCEL else "HELD"]


async def test_hold_and_release(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept()
        assert (await said(spool, Action.HOLD, message_id)) == (True, "held")
        assert await spool.claim(line) is None
        ((queue, held),) = await spool.rows(select(m.queue, m.held).where(m.id == message_id))
        assert (queue, held) == (schema.KEPT, "operator")
        assert (await said(spool, Action.HOLD, message_id)) == (False, "it is held already (operator)")
        assert (await said(spool, Action.RELEASE, message_id)) == (True, "released")
        assert await spool.claim(line) is not None


async def test_hold_in_hand_is_taken_back_by_release(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept()
        claim = await spool.claim(line)
        assert claim is not None
        assert (await said(spool, Action.HOLD, message_id))[0]
        assert (await said(spool, Action.RELEASE, message_id)) == (True, "it is not to be held any more")
        again = await spool.claim(line, spool.not_sent(claim, withdrawn=True))
        assert again is not None
        assert (await said(spool, Action.HOLD, message_id))[0]
        assert await spool.claim(line, spool.not_sent(again, withdrawn=True)) is None
        assert await states(spool, message_id) == ["HELD"]


async def test_release_does_not_release_what_an_opt_out_blocks(database_url: str) -> None:
    """Promise 5."""
    async with open_spool(database_url) as spool:
        (message_id,) = await spool.accept()
        await said(spool, Action.HOLD, message_id)
        await stop_word(spool)
        assert await state(spool, message_id) is MessageState.BLOCKED
        assert (await said(spool, Action.RELEASE, message_id))[0] is False
        assert await state(spool, message_id) is MessageState.BLOCKED


async def test_release_waits_for_the_channel_it_is_pinned_to(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        (message_id,) = await spool.accept(message(channel="gone"))
        await said(spool, Action.HOLD, message_id)
        changed, why = await said(spool, Action.RELEASE, message_id)
        assert changed
        assert "no channel gone" in why
        assert await states(spool, message_id) == ["HELD"]
        assert (await said(spool, Action.RELEASE, message_id))[0] is False
        await spool.store.settle_pins(["gone"])
        assert await states(spool, message_id) == ["QUEUED"]


async def test_requeue_begins_anew_and_attempts_keep_counting(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept()
        await said(spool, Action.CANCEL, message_id)
        assert (await said(spool, Action.REQUEUE, message_id)) == (True, "queued again")
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.work(line, spool.not_sent(claim), None)
        await said(spool, Action.CANCEL, message_id)
        await said(spool, Action.REQUEUE, message_id)
        claim = await spool.claim(line)
        assert claim is not None
        assert claim.attempt == 2
        assert (await spool.rows(select(s.tries).where(s.message_id == message_id))) == [(0,)]


async def test_requeue_lifts_an_expiry_that_has_passed_or_gives_another(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        expires_at = spool.clock.ms + 1000
        one, two = await spool.accept(message(expires_at=expires_at), message(expires_at=expires_at))
        spool.clock.ms += 2000
        await spool.store.advance()
        assert await state(spool, one) is MessageState.EXPIRED
        await said(spool, Action.REQUEUE, one)
        await said(spool, Action.REQUEUE, two, expires_at=spool.clock.ms + 5000)
        rows = await spool.rows(select(m.expires_at).order_by(m.id))
        assert rows == [(None,), (spool.clock.ms + 5000,)]
        assert await spool.claims(line) == [one, two]


async def test_requeue_sends_no_late_answer_to_a_stop(database_url: str) -> None:
    """A confirmation is exempt from the opt-out it confirms: days later, `requeue --all` must not send it."""
    async with open_spool(database_url) as spool:
        expires_at = spool.clock.ms + 1000
        (late,) = await spool.accept(message(class_=MessageClass.SYSTEM, expires_at=expires_at))
        spool.clock.ms += 2000
        await spool.store.advance()
        changed, why = await said(spool, Action.REQUEUE, late)
        assert not changed
        assert why.startswith("it answers a STOP, START or HELP, and had to be sent by 20")
        changed, _ = await said(spool, Action.REQUEUE, late, expires_at=spool.clock.ms + 5000)
        assert not changed
        (soon,) = await spool.accept(message(class_=MessageClass.SYSTEM, expires_at=spool.clock.ms + 1000))
        await said(spool, Action.CANCEL, soon)
        assert (await said(spool, Action.REQUEUE, soon))[0]
        assert await spool.claims(await spool.sim()) == [soon]


async def test_requeue_refuses_an_expiry_before_it_may_be_sent(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        (message_id,) = await spool.accept(message(not_before=spool.clock.ms + 9000))
        await said(spool, Action.CANCEL, message_id)
        changed, why = await said(spool, Action.REQUEUE, message_id, expires_at=spool.clock.ms + 5000)
        assert not changed
        assert why.startswith("it is not to be sent before 20")
        assert (await said(spool, Action.REQUEUE, message_id, expires_at=spool.clock.ms + 9001))[0]


async def test_what_the_gateway_has_set_aside_is_found_and_released(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        one, two, three = await spool.accept(message(), message("+59898000001"), message("+59898000002"))
        line = await spool.sim()
        claim = await spool.claim(line)
        assert claim is not None
        assert claim.message_id == one, "in hand, and not kept back"
        await said(spool, Action.HOLD, two)
        error = ValueError("a bug of ours")
        await spool.store.writer.run(lambda tx: set_aside(tx, spool.store._book, three, spool.clock.ms, error))
        reader = Reader(spool.database)
        page = await MessageReader(reader).page(Filter(held="any"), after=None, limit=10)
        await reader.close()
        assert [view.id for view in page.items] == [two, three]
        await operate(spool, Action.RELEASE, wanted=Filter(held="any"))
        assert (await done(spool)).changed == 2
        assert await spool.claims(line) == [two, three]


async def test_requeue_refuses_an_opted_out_number_and_a_dropped_text(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        one, two = await spool.accept(message(), message(to="+59898000001"))
        for each in (one, two):
            await said(spool, Action.CANCEL, each)
        await stop_word(spool)
        changed, why = await said(spool, Action.REQUEUE, one)
        assert not changed
        assert "opt-out" in why
        await spool.store.writer.run(lambda tx: tx.control("UPDATE messages SET text_dropped_at = 1, text = ''"))
        changed, why = await said(spool, Action.REQUEUE, two)
        assert not changed
        assert "its text was dropped" in why


async def doubtful(spool: Spool, line: Line, **fields: Any) -> int:
    (message_id,) = await spool.accept(message(**fields))
    claim = await spool.claim(line)
    assert claim is not None
    assert claim.message_id == message_id
    await spool.claim(line, spool.doubtful(claim))
    return message_id


@pytest.mark.parametrize("policy", [InDoubtPolicy.FAIL, InDoubtPolicy.HOLD])
async def test_said_to_be_sent_the_rest_goes_on_and_a_late_report_settles_it(
    database_url: str, policy: InDoubtPolicy
) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        message_id = await doubtful(spool, line, segments=2, in_doubt=policy)
        assert (await said(spool, Action.SENT, message_id))[0]
        claim = await spool.claim(line)
        assert claim is not None
        assert claim.segment.seq == 2
        await spool.claim(line, spool.sent(claim, ref=9))
        await report(spool, line, 8)
        assert await states(spool, message_id) == ["DELIVERED", "SUBMITTED"]
        assert (await said(spool, Action.SENT, message_id)) == (False, "it is not in doubt")


async def test_given_up_the_rest_fails_or_is_cancelled(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        one = await doubtful(spool, line, segments=2, in_doubt=InDoubtPolicy.HOLD)
        two = await doubtful(spool, line, to="+59898000001", segments=2, in_doubt=InDoubtPolicy.HOLD)
        await said(spool, Action.HOLD, two)
        for each in (one, two):
            assert (await said(spool, Action.GIVE_UP, each))[0]
        assert await states(spool, one) == ["ABANDONED", "FAILED"]
        assert await states(spool, two) == ["ABANDONED", "CANCELLED"]
        assert await state(spool, two) is MessageState.IN_DOUBT


async def test_sent_again_on_an_operators_word_is_recorded_as_a_possible_double(database_url: str) -> None:
    """Promise 2: nothing is ever sent twice silently."""
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        message_id = await doubtful(spool, line, segments=2)
        spool.clock.ms += WAIT_MS
        await spool.store.advance()
        assert await states(spool, message_id) == ["ABANDONED", "FAILED"]
        changed, why = await said(spool, Action.REQUEUE, message_id)
        assert not changed
        assert "may_double" in why
        assert (await said(spool, Action.SENT, message_id))[0] is False
        assert (await said(spool, Action.RESEND, message_id)) == (True, "queued again; it may arrive twice")
        ((detail,),) = await spool.rows(select(e.detail).where(e.event == "requeued", e.seq == 1))
        assert "it may arrive twice" in detail
        assert await spool.store.late_result(line.sim_id, 8) is None
        await report(spool, line, 8)
        assert await spool.claims(line) == [message_id, message_id]


async def test_a_larger_priority_goes_first_at_once(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        ids = await spool.accept(*[message(to=f"+5989834448{i}") for i in range(5)])
        claim = await spool.claim(line)
        assert claim is not None
        assert claim.message_id == ids[0]
        await said(spool, Action.PRIORITY, ids[4], priority=7)
        await said(spool, Action.PRIORITY, ids[3], priority=9)
        claim = await spool.claim(line, spool.sent(claim))
        assert claim is not None
        assert claim.message_id == ids[3]
        await said(spool, Action.PRIORITY, ids[4], priority=0)
        claim = await spool.claim(line, spool.sent(claim))
        assert claim is not None
        assert claim.message_id == ids[1]


async def test_another_route_only_for_what_is_untouched(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        zero, one = await spool.sim("m0"), await spool.sim("m1")
        pinned, begun = await spool.accept(message(channel="m0"), message(to="+59898000001", segments=2))
        assert (await said(spool, Action.ROUTE, pinned, channel="m1")) == (True, "goes to channel m1")
        claim = await spool.claim(zero)
        assert claim is not None
        assert claim.message_id == begun
        assert (await said(spool, Action.ROUTE, begun, target="any", channel="m1"))[0] is False
        await spool.store.work(zero, spool.sent(claim), None)
        assert (await said(spool, Action.ROUTE, begun, target="any", channel="m1"))[0] is False
        claim = await spool.claim(one)
        assert claim is not None
        assert claim.message_id == pinned


async def test_another_route_releases_what_was_held_for_a_channel_that_is_gone(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(channel="gone"))
        await spool.store.settle_pins(["m0"])
        assert await states(spool, message_id) == ["HELD"]
        assert (await said(spool, Action.ROUTE, message_id, target="any"))[0]
        assert await spool.claims(line) == [message_id]


async def campaign(spool: Spool, count: int, name: str = "c") -> Sequence[int]:
    return await spool.accept(*[message(to=f"+59898{i:06}", campaign=name) for i in range(count)])


async def test_no_message_is_given_to_a_channel_that_a_reload_took_away(database_url: str) -> None:
    """The operation was begun while it was there; what it meant then is worked off later."""
    async with open_spool(database_url) as spool:
        (message_id,) = await spool.accept()
        changed, why = await said(spool, Action.ROUTE, message_id, channel="gone")
        assert (changed, why) == (False, "the configuration has no channel gone any more")
        assert await spool.claims(await spool.sim()) == [message_id]


async def test_many_are_worked_off_in_steps_and_what_comes_later_is_not_meant(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        ids = await campaign(spool, 700)
        other = await campaign(spool, 5, "other")
        begun = await operate(spool, Action.CANCEL, wanted=Filter(campaign="c"))
        assert begun.operation.state == "running"
        assert begun.results == ()
        later = await campaign(spool, 3)
        sent: list[int] = []
        claim, steps = None, 0
        while (step := await spool.store.operation_step(CHANNELS)) is not None:
            steps += 1
            claim = await spool.claim(line, None if claim is None else spool.sent(claim))
            if claim is not None:
                sent.append(claim.message_id)
            last = step
        await spool.store.work(line, None if claim is None else spool.sent(claim), None)
        assert steps >= 700 // operations.STEP
        assert last.state == "done"
        assert last.changed + len(set(sent) & set(ids)) >= 700
        rows = await spool.rows(
            select(m.state, func.count()).where(m.campaign == "c", m.id <= ids[-1]).group_by(m.state)
        )
        counts = dict(rows)
        assert set(counts) <= {MessageState.CANCELLED.value, MessageState.PROCESSED.value}, "nothing waits any more"
        assert sum(counts.values()) == 700
        assert len(sent) == len(set(sent))
        for message_id in (*other, *later):
            assert message_id in sent or await state(spool, message_id) is MessageState.TO_PROCESS


async def test_an_operation_goes_on_after_a_restart(database_url: str) -> None:
    clock = FakeClock()
    async with open_spool(database_url, clock=clock) as spool:
        await campaign(spool, 300)
        await operate(spool, Action.HOLD, wanted=Filter(campaign="c"))
        step = await spool.store.operation_step(CHANNELS)
        assert step is not None
        assert 0 < step.changed < 300
    async with open_spool(database_url, clock=clock) as spool:
        last = await done(spool)
        assert (last.state, last.matched, last.changed) == ("done", 300, 300)
        assert (await spool.rows(select(func.count()).where(m.held == "operator"))) == [(300,)]


async def test_an_operation_that_is_stopped_stays_where_it_is(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        await campaign(spool, 300)
        begun = await operate(spool, Action.CANCEL, wanted=Filter(campaign="c"))
        step = await spool.store.operation_step(CHANNELS)
        assert step is not None
        assert await spool.store.stop_operation(begun.operation.id, "ben")
        assert not await spool.store.stop_operation(begun.operation.id, "ben")
        assert await spool.store.operation_step(CHANNELS) is None
        rows = await spool.rows(select(func.count()).where(m.state == MessageState.CANCELLED.value))
        assert rows == [(step.changed,)]
        assert [row[0] for row in await spool.rows(select(a.action).order_by(a.id))] == [
            "messages cancel",
            "operation stop",
        ]


async def test_operations_are_worked_off_in_the_order_they_were_given(database_url: str) -> None:
    """Or a release that is done sooner would be undone by the hold before it."""
    async with open_spool(database_url) as spool:
        await campaign(spool, 150)
        await operate(spool, Action.HOLD, wanted=Filter(campaign="c"))
        await operate(spool, Action.RELEASE, wanted=Filter(held="operator"))
        await done(spool)
        assert (await spool.rows(select(func.count()).where(m.held != ""))) == [(0,)]


FILTERS = [
    Filter(campaign="c"), Filter(states=(MessageState.TO_PROCESS,)), Filter(to="+59898000003"),
    Filter(to="+59898000003", states=(MessageState.TO_PROCESS,)), Filter(class_=MessageClass.APPLICATION),
    Filter(channel="m0"), Filter(client_ref="r"), Filter(held="any"), Filter(held="operator"), Filter(in_doubt=True),
    Filter(accepted_before=1), Filter(accepted_after=1), Filter(caller="app"), Filter(target="any"), Filter(route="x"),
    Filter(states=(MessageState.PROCESSED, MessageState.CANCELLED, MessageState.IN_DOUBT)), Filter(),
    Filter(campaign="c", states=(MessageState.TO_PROCESS, MessageState.CANCELLED), class_=MessageClass.APPLICATION),
    Filter(ids=tuple(range(1, 200, 2))), Filter(ids=(3, 4, 999), campaign="c"), Filter(ids=(3,), in_doubt=True),
    Filter(campaign="c'; DROP TABLE messages; --"), Filter(campaign="%"), Filter(ids=(2**62,)),
]  # fmt: skip


@pytest.mark.parametrize("wanted", FILTERS, ids=lambda wanted: wanted.to_json())
async def test_a_filter_means_the_same_in_pages_of_any_size_both_ways(database_url: str, wanted: Filter) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        await spool.accept(
            *[message(to=f"+5989800000{i % 10}", campaign="c" if i % 3 else "d", client_ref="r" if i % 4 else None,
                      api_key="app" if i % 2 else "b") for i in range(60)]
        )  # fmt: skip
        for outcome in (Outcome.SENT, Outcome.IN_DOUBT, Outcome.SENT):
            claim = await spool.claim(line)
            assert claim is not None
            result = spool.sent(claim) if outcome is Outcome.SENT else spool.doubtful(claim)
            await spool.store.work(line, result, None)
        await operate(spool, Action.HOLD, 10, 11, 12)
        await operate(spool, Action.CANCEL, 20, 21, 22)
        reader = Reader(spool.database)
        lists = MessageReader(reader)
        try:
            expected = [view.id for view in (await lists.page(wanted, after=None, limit=500)).items]
            assert Filter.from_json(wanted.to_json()) == wanted
            assert (await lists.count(wanted)).count == len(expected)
            for limit, descending in ((1, False), (7, True), (60, False)):
                got: list[int] = []
                after: int | None = None
                while True:
                    page = await lists.page(wanted, after=after, limit=limit, descending=descending)
                    got += [view.id for view in page.items]
                    after = page.next
                    if after is None:
                        break
                assert got == (expected[::-1] if descending else expected)
        finally:
            await reader.close()
        known = {
            Filter(held="any"): [10, 11, 12],
            Filter(held="operator"): [10, 11, 12],
            Filter(in_doubt=True): [2],
            Filter(campaign="c"): [i + 1 for i in range(60) if i % 3],
        }
        assert expected == known.get(wanted, expected)


async def test_a_page_of_a_rare_filter_is_bounded_and_says_where_to_go_on(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.spool.message_reader.PAGE_SCAN", 20)
    monkeypatch.setattr("gatewayd.spool.message_reader.STEP_SCAN", 10)
    monkeypatch.setattr("gatewayd.spool.message_reader.COUNT_SCAN", 50)
    async with open_spool(sqlite_url) as spool:
        await campaign(spool, 90)
        await campaign(spool, 1, "rare")
        reader = Reader(spool.database)
        lists = MessageReader(reader)
        try:
            page = await lists.page(Filter(campaign="rare"), after=None, limit=5)
            assert page.items == ()
            assert page.next == 20
            assert (await lists.count(Filter(campaign="rare"))).more
            assert (await lists.count(Filter(states=(MessageState.TO_PROCESS,)))).count >= 50
        finally:
            await reader.close()


async def test_one_message_that_cannot_be_dealt_with_stops_no_others(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        ids = await campaign(spool, 30)
        await spool.store.writer.run(
            lambda tx: tx.control(f"UPDATE segments SET state = 'NONSENSE' WHERE message_id = {ids[3]}")
        )
        await operate(spool, Action.CANCEL, wanted=Filter(campaign="c"))
        last = await done(spool)
        assert (last.matched, last.changed) == (30, 29)
        ((event,),) = await spool.rows(select(e.detail).where(e.event == "operation not applied"))
        assert "cancel cannot be done" in event


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("wanted", FILTERS, ids=lambda wanted: wanted.to_json())
def test_a_filter_is_walked_by_an_index_and_never_sorted(sqlite_url: str, wanted: Filter, descending: bool) -> None:
    database = open_database(sqlite_url)
    migrate(database)
    connection = sqlite3.connect(database.url.database or "")
    try:
        for query in filters.step(wanted, None, 10, descending=descending).queries:
            sql, constants = database.compiled(query.statement)
            plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", {**constants, **query.params}).fetchall()
            steps = [row[3] for row in plan]
            assert not [each for each in steps if each.startswith("SCAN") or "TEMP B-TREE" in each], steps
    finally:
        connection.close()
