"""One true sentence for each state a message can be in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gatewayd.model import (
    Admission,
    ChannelState,
    ChannelStatus,
    Delivery,
    FailureClass,
    InDoubtPolicy,
    Message,
    MessageClass,
    MessageState,
    Outcome,
    Segment,
    SimIdentity,
)
from gatewayd.model import SegmentState as S
from gatewayd.router.control import ChannelView
from gatewayd.router.explain import explain
from gatewayd.spool import schema
from gatewayd.spool.accept import NewMessage
from gatewayd.spool.engine import open_database
from gatewayd.spool.reader import (
    AttemptView,
    EventView,
    MessageDetail,
    MessageView,
    Reader,
    SegmentView,
    SimView,
)
from gatewayd.spool.retry import RetryPolicy
from gatewayd.spool.store import Store
from gatewayd.spool.work import Line, Result, Rules, Want

NOW = 1_800_000_000_000  # 2027-01-15 08:00:00 UTC
HOUR = 3_600_000

MESSAGE = MessageView(
    id=7, state=MessageState.TO_PROCESS, delivery=Delivery.NONE, admission=Admission.ADMITTED,
    class_=MessageClass.APPLICATION, to_given="098344484", to="+59898344484", text="x", alphabet="gsm7", segments=1,
    priority=0, queue=schema.DUE, due_at=NOW - 1000, waits_for=None, lane_id=1, report=True,
    in_doubt=InDoubtPolicy.FAIL, not_before=None, expires_at=None, sim_id=None, avoid_sim_id=0, channel=None,
    pin_channel="", held_by=None, touched=False, source="class:application", target="any", campaign="", agent="",
    client_ref=None, caller="crm", reason="", accepted_at=NOW - 1000, updated_at=NOW - 1000, finished_at=None,
)  # fmt: skip
SEGMENT = SegmentView(1, S.QUEUED, 0, 0, None, None, None, None, None, None, None, "")
SIM = SimView(3, "8959", None, "+59899000001", "sim1", NOW, NOW, None)


def detail(
    *segments: SegmentView, ahead: int = 0, attempts: Sequence[AttemptView] = (), events: Sequence[EventView] = (),
    sim: SimView | None = None, **message: Any,
) -> MessageDetail:  # fmt: skip
    view = replace(MESSAGE, segments=len(segments) or 1, **message)
    return MessageDetail(view, segments or (SEGMENT,), tuple(attempts), tuple(events), (), sim, ahead, False)


def segment(state: S, **fields: Any) -> SegmentView:
    return replace(SEGMENT, state=state, **{"channel": "sim1", "sim_id": 3, **fields})


def attempt(**fields: Any) -> AttemptView:
    values: dict[str, Any] = {
        "seq": 1, "number": 1, "channel": "sim1", "sim_id": 3, "intent_at": NOW - 2000, "started_at": None,
        "finished_at": None, "outcome": None, "failure": None, "code": "", "detail": "", "tp_mr": None,
    }  # fmt: skip
    return AttemptView(**{**values, **fields})


def event(to_state: S, detail: str = "", actor: str = "") -> EventView:
    return EventView(1, 7, 1, NOW - 60_000, "e", None, to_state.value, None, actor, detail)


def channel(name: str = "sim1", state: ChannelState = ChannelState.READY, **fields: Any) -> ChannelView:
    values: dict[str, Any] = {
        "sim_id": 3, "interval_s": 6.0, "next_start_in_s": 0.0, "in_hand": None,
        "submitted": 0, "not_sent": 0, "doubtful": 0,
    }  # fmt: skip
    status = ChannelStatus(name, state, NOW - HOUR, fields.pop("reason", ""))
    return ChannelView(status, **{**values, **fields})


READY = [channel()]
DOWN = channel("sim1", ChannelState.DOWN, reason="no such device")
PARKED = channel("sim2", ChannelState.PARKED, reason="the PIN is asked for", sim_id=4)

T = "2027-01-15"
CASES: dict[str, tuple[MessageDetail, list[ChannelView] | None, str, str]] = {
    "not picked up": (detail(state=MessageState.NONE), READY, "", "It was not picked up yet."),
    "bad number": (
        detail(state=MessageState.OTHER, to_given="abc"), READY, "", "Nothing was sent: 'abc' is no telephone number.",
    ),
    "paused": (
        detail(), READY, "paused by root: test", "Queued, but nothing is sent: paused by root: test.",
    ),
    "no daemon": (detail(), None, "", "Queued, but the daemon is not running."),
    "no daemon, and later": (
        detail(queue=schema.LATER, due_at=NOW + 2 * HOUR, not_before=NOW + 2 * HOUR), None, "",
        f"Queued, but the daemon is not running, and not to be sent before {T} 10:00:00 UTC (in 2 h).",
    ),
    "not before": (
        detail(queue=schema.LATER, due_at=NOW + 90_000, not_before=NOW + 90_000), READY, "",
        f"Not to be sent before {T} 08:01:30 UTC (in 1 min 30 s).",
    ),
    "retry": (
        detail(replace(SEGMENT, tries=2), queue=schema.LATER, due_at=NOW + 23_000, reason="CMS 38 no network"),
        READY, "",
        f"To be tried again at {T} 08:00:23 UTC (in 23 s) after CMS 38 no network (2 tries so far).",
    ),
    "behind": (
        detail(queue=schema.BEHIND, waits_for=5), READY, "",
        "Waits until message 5 to the same number is through, so that their parts do not mix.",
    ),
    "no channels": (detail(), [], "", "No channel is configured."),
    "none ready": (
        detail(), [DOWN, PARKED], "",
        f"No channel is ready: sim1 is down since {T} 07:00:00 UTC (1 h): no such device; "
        f"sim2 is parked since {T} 07:00:00 UTC (1 h): the PIN is asked for.",
    ),
    "many not ready": (
        detail(), [channel(f"sim{n}", ChannelState.STARTING) for n in range(9)], "",
        "No channel is ready: " + "; ".join(f"sim{n} is starting since {T} 07:00:00 UTC (1 h)" for n in range(4))
        + " and 5 more.",
    ),
    "pinned to one that is down": (
        detail(pin_channel="sim1"), [DOWN, channel("sim2")], "",
        f"Pinned to channel sim1; no channel is ready: sim1 is down since {T} 07:00:00 UTC (1 h): no such device.",
    ),
    "pinned to none": (
        detail(pin_channel="sim9"), READY, "", "Pinned to channel sim9, which the configuration does not have.",
    ),
    "its SIM is gone": (
        detail(segment(S.SUBMITTED), replace(SEGMENT, seq=2), touched=True, sim_id=3, sim=SIM),
        [channel(sim_id=9)], "",
        "Bound to the SIM +59899000001, which sent a part of it and is in no channel now; "
        "1 of its 2 segments went out before.",
    ),
    "its SIM is not ready": (
        detail(segment(S.SUBMITTED), replace(SEGMENT, seq=2), touched=True, sim_id=4, sim=SIM),
        [channel(), PARKED], "",
        "Bound to the SIM +59899000001, which sent a part of it; no channel is ready: "
        f"sim2 is parked since {T} 07:00:00 UTC (1 h): the PIN is asked for; 1 of its 2 segments went out before.",
    ),
    "refused by the only SIM": (
        detail(avoid_sim_id=3, reason="CMS 8 operator determined barring"), READY, "",
        "Refused by the only SIM there is (CMS 8 operator determined barring), and no other channel can try it.",
    ),
    "its turn, busy": (
        detail(ahead=2), [channel(in_hand=5)], "",
        "Waits for its turn: the channel is busy (sim1 with message 5), 2 messages are before it in the queue.",
    ),
    "its turn, paced": (
        detail(ahead=1), [channel(next_start_in_s=4.2)], "",
        "Waits for its turn: channel sim1 (paced to one segment every 6 s) may send again in 4 s, "
        "1 message is before it in the queue.",
    ),
    "many before it": (
        detail(ahead=1000), READY, "",
        "About to be taken by channel sim1, 1000 or more messages are before it in the queue.",
    ),
    "next": (detail(), READY, "", "About to be taken by channel sim1."),
    "held": (
        detail(segment(S.HELD), events=[event(S.HELD, "the channel was removed")]), READY, "",
        f"Kept back at {T} 07:59:00 UTC (1 min ago): the channel was removed.",
    ),
    "submitting": (
        detail(segment(S.SUBMITTING, attempt=1), attempts=[attempt()], queue=schema.OUT), READY, "",
        f"Being submitted on channel sim1 since {T} 07:59:58 UTC (2 s).",
    ),
    "submitting, paused": (
        detail(segment(S.SUBMITTING, attempt=1), attempts=[attempt()], queue=schema.OUT), READY, "paused",
        f"Being submitted on channel sim1 since {T} 07:59:58 UTC (2 s).",
    ),
    "submitting a part": (
        detail(segment(S.SUBMITTED), segment(S.SUBMITTING, seq=2, attempt=1), attempts=[attempt(seq=2)]), READY, "",
        f"Segment 2 of 2 is being submitted on channel sim1 since {T} 07:59:58 UTC (2 s).",
    ),
    "in the hands of a dead daemon": (
        detail(segment(S.SUBMITTING, attempt=1), attempts=[attempt()]), None, "",
        f"In the hands of channel sim1 since {T} 07:59:58 UTC (2 s), but the daemon is not running: "
        "at its next start it will be in doubt.",
    ),
    "report pending": (
        detail(
            segment(S.SUBMITTED, submitted_at=NOW - 23_000, deadline_at=NOW + 48 * HOUR),
            state=MessageState.PROCESSED, delivery=Delivery.PENDING,
        ), READY, "",
        f"Submitted on channel sim1 at {T} 07:59:37 UTC; the status report has been pending for 23 s, "
        "waited for until 2027-01-17 08:00:00 UTC.",
    ),
    "some reports": (
        detail(
            segment(S.DELIVERED, submitted_at=NOW - 23_000), segment(S.SUBMITTED, seq=2, submitted_at=NOW - 20_000),
            state=MessageState.PROCESSED, delivery=Delivery.PENDING,
        ), READY, "",
        f"Submitted in 2 segments on channel sim1, the last at {T} 07:59:40 UTC; the status report has been "
        "pending for 20 s (1 of 2 segments are delivered).",
    ),
    "delivered": (
        detail(
            segment(S.DELIVERED, submitted_at=NOW - 23_000, reported_at=NOW - 20_000, tp_status=0),
            state=MessageState.PROCESSED, delivery=Delivery.DELIVERED,
        ), READY, "",
        f"Delivered at {T} 07:59:40 UTC, submitted on channel sim1 at {T} 07:59:37 UTC.",
    ),
    "undelivered": (
        detail(
            segment(S.UNDELIVERED, submitted_at=NOW - 23_000, tp_status=0x46),
            state=MessageState.PROCESSED, delivery=Delivery.UNDELIVERED,
        ), READY, "",
        f"Submitted on channel sim1 at {T} 07:59:37 UTC, but not delivered: validity period expired (TP-ST 0x46).",
    ),
    "no report": (
        detail(
            segment(S.NO_REPORT, submitted_at=NOW - 23_000), state=MessageState.PROCESSED, delivery=Delivery.UNKNOWN
        ), READY, "",
        f"Submitted on channel sim1 at {T} 07:59:37 UTC; whether it was delivered is unknown: no status report came "
        "in time.",
    ),
    "no report asked for": (
        detail(segment(S.SUBMITTED, submitted_at=NOW - 23_000), state=MessageState.PROCESSED, report=False), READY, "",
        f"Submitted on channel sim1 at {T} 07:59:37 UTC; no status report was asked for.",
    ),
    "in doubt": (
        detail(
            segment(S.IN_DOUBT, submitted_at=NOW - 60_000, deadline_at=NOW + 840_000),
            state=MessageState.IN_DOUBT, events=[event(S.IN_DOUBT, "no final result in 60 s")],
        ), READY, "",
        f"In doubt: it was handed to channel sim1 at {T} 07:59:00 UTC (no final result in 60 s) and may or may not "
        f"have been sent; it waits until {T} 08:14:00 UTC (14 min left) for a late result or status report and is then "
        "given up, never sent again by itself.",
    ),
    "in doubt, resend": (
        detail(
            segment(S.IN_DOUBT, submitted_at=NOW - 60_000, deadline_at=NOW + 840_000),
            state=MessageState.IN_DOUBT, in_doubt=InDoubtPolicy.RESEND,
        ), READY, "",
        f"In doubt: it was handed to channel sim1 at {T} 07:59:00 UTC and may or may not have been sent; it waits "
        f"until {T} 08:14:00 UTC (14 min left) for a late result or status report and is then sent "
        "again, by its policy.",
    ),
    "in doubt, hold": (
        detail(
            segment(S.IN_DOUBT, submitted_at=NOW - 60_000), state=MessageState.IN_DOUBT, in_doubt=InDoubtPolicy.HOLD
        ), READY, "",
        f"In doubt: it was handed to channel sim1 at {T} 07:59:00 UTC and may or may not have been sent; a late result "
        "or status report settles it, or an operator.",
    ),
    "in doubt, more to come": (
        detail(segment(S.IN_DOUBT, submitted_at=NOW - 60_000), replace(SEGMENT, seq=2), queue=schema.OUT), READY, "",
        f"In doubt: segment 1 of 2 was handed to channel sim1 at {T} 07:59:00 UTC and may or may not have been sent; "
        "a late result or status report settles it, or an operator; the rest of the message waits for that.",
    ),
    "abandoned": (
        detail(segment(S.ABANDONED, submitted_at=NOW - HOUR), state=MessageState.IN_DOUBT), READY, "",
        f"Handed to channel sim1 at {T} 07:00:00 UTC, and nobody knows whether it was sent: neither a result nor a "
        "status report came in time, so it was given up and is not sent again by itself.",
    ),
    "failed": (
        detail(
            segment(S.FAILED, tries=5), state=MessageState.FAILED, reason="CMS 21 rejected",
            events=[event(S.FAILED)], attempts=[attempt(outcome="not_sent")],
        ), READY, "",
        f"Failed at {T} 07:59:00 UTC (1 min ago) after 5 tries on channel sim1: CMS 21 rejected.",
    ),
    "failed in part": (
        detail(
            segment(S.DELIVERED), segment(S.FAILED, seq=2, tries=1), state=MessageState.FAILED, reason="CMS 1",
        ), READY, "",
        "Failed after 1 try: CMS 1; 1 of its 2 segments went out before.",
    ),
    "expired": (
        detail(segment(S.EXPIRED), state=MessageState.EXPIRED, expires_at=NOW - HOUR), READY, "",
        f"Expired at {T} 07:00:00 UTC, before it could be sent.",
    ),
    "cancelled": (
        detail(segment(S.CANCELLED), state=MessageState.CANCELLED, events=[event(S.CANCELLED, "wrong text", "crm")]),
        READY, "",
        f"Cancelled by crm at {T} 07:59:00 UTC (1 min ago): wrong text.",
    ),
    "blocked": (
        detail(segment(S.BLOCKED), state=MessageState.BLOCKED, events=[event(S.BLOCKED, "the number sent STOP")]),
        READY, "",
        f"Blocked at {T} 07:59:00 UTC (1 min ago), not sent: the number sent STOP.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_why_a_message_is_where_it_is(name: str) -> None:
    found, channels, paused, sentence = CASES[name]
    assert explain(found, channels, paused, NOW) == sentence


def test_every_state_has_a_case() -> None:
    assert {found.message.state for found, *_ in CASES.values()} == set(MessageState)
    assert {part.state for found, *_ in CASES.values() for part in found.segments} == set(S)


# The same over a real spool: what is said follows what happened.


class Clock:
    now = NOW

    def now_ms(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1000


@asynccontextmanager
async def opened(path: Path, clock: Clock) -> AsyncIterator[tuple[Store, Reader]]:
    database = open_database(f"sqlite:///{path}/spool.db")
    store = Store(database, "test", clock, Rules(RetryPolicy(2, (23_000,))))
    await store.open()
    reader = Reader(database)
    try:
        yield store, reader
    finally:
        await reader.close()
        await store.close()


def plan(message: Message) -> list[Segment]:
    return [Segment(message, 1, 1, b"\x01")]


async def test_what_is_said_follows_what_happened(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as (store, reader):
        line = Line("sim1", (await store.see_sim("sim1", SimIdentity("8959"), "")).sim_id)
        channels = [channel(sim_id=line.sim_id)]
        new = NewMessage("7373", "7373", "x", "gsm7", 1)
        (idm,) = (await store.accept([new])).ids

        async def said(views: list[ChannelView] | None = channels, paused: str = "") -> str:
            found = await reader.message(idm)
            assert found is not None
            return explain(found, views, paused, clock.now)

        assert await said() == "About to be taken by channel sim1."
        assert await said(None) == "Queued, but the daemon is not running."
        for tries in (1, 2):
            taken = await store.work(line, None, Want(lambda lane: True, plan))
            assert taken.claim is not None
            assert (await said()).startswith("Being submitted on channel sim1 since")
            refused = Result(
                taken.claim, Outcome.NOT_SENT, clock.now, clock.now, failure=FailureClass.NETWORK, code="CMS 38",
                detail="network out of order",
            )  # fmt: skip
            await store.work(line, refused, None)
            if tries == 1:
                assert await said() == (
                    f"To be tried again at {T} 08:00:23 UTC (in 23 s) after CMS 38 network out of order (1 try so far)."
                )
                clock.now += 23_000
                await store.advance()
        assert await said() == (
            f"Failed at {T} 08:00:23 UTC (0 s ago) after 2 tries on channel sim1: CMS 38 network out of order."
        )
