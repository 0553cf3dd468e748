"""What the spool does by itself: starting up, and what time does."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial

from sqlalchemy import bindparam, func, null, select, update

from gatewayd.model import InDoubtPolicy, Outcome
from gatewayd.model import SegmentState as S
from gatewayd.spool import inbound, quota, reports, restored, retention, schema
from gatewayd.spool.engine import Statement, set_to
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.lifecycle import Command
from gatewayd.spool.moves import WISH_CANCEL, Owner, event, move, refold, segments_of, set_aside
from gatewayd.spool.queue_actions import end_rest
from gatewayd.spool.quota import SimQuota
from gatewayd.spool.settings import NEW_SETTING, SPOOL_ID, setting
from gatewayd.spool.witness import Known, look
from gatewayd.spool.work import Claim, Line, Rules, finish_attempt, into_doubt
from gatewayd.spool.writer import STEP, Tx

_m = schema.messages.c
_s = schema.segments.c
_a = schema.attempts.c
_busy = schema.messages.alias("b")

NEW_INSTANCE = Statement(
    schema.instances.insert(), columns=["id", "epoch", "started_at", "stopped_at", "pid", "version"]
)
NEXT_EPOCH = Statement(
    update(schema.instances)
    .where(schema.instances.c.id == bindparam("b_id"))
    .values(set_to("epoch", "started_at", "stopped_at", "pid", "version"))
)
STOPPED = Statement(
    update(schema.instances)
    .where(schema.instances.c.id == bindparam("b_id"), schema.instances.c.epoch == bindparam("b_epoch"))
    .values(stopped_at=bindparam("v_at"))
)
BUSY_OF = Statement(
    select(_m.id, _m.in_doubt).where(_m.busy == schema.sqltext(1), _m.owner == bindparam("owner")),
)
BUSY_OF_ALL = Statement(select(_m.id, _m.in_doubt).where(_m.busy == schema.sqltext(1), _m.owner.is_not(None)))
IN_HAND = Statement(
    select(_s.seq, _s.sim_id, _s.channel, _s.attempt, _a.intent_at)
    .join_from(
        schema.segments,
        schema.attempts,
        (_a.message_id == _s.message_id) & (_a.seq == _s.seq) & (_a.number == _s.attempt),
    )
    .where(_s.message_id == bindparam("message_id"), _s.state == schema.sqltext(S.SUBMITTING))
)
ORPHANS_BEHIND = Statement(
    update(schema.messages)
    .where(
        _m.queue == schema.sqltext(schema.BEHIND),
        _m.waits_for.not_in(select(_busy.c.id).where(_busy.c.busy == schema.sqltext(1))),
    )
    .values(queue=schema.sqltext(schema.DUE), waits_for=null(), due_at=bindparam("v_due_at"))
)
NEWEST_EVENT = Statement(
    select(schema.events.c.at).order_by(schema.events.c.id.desc()).limit(schema.sqltext(1)),
)
DELAYS_FROM_THE_FUTURE = Statement(
    update(schema.messages)
    .where(
        schema.PUT_OFF,
        _m.updated_at > bindparam("b_now"),
        _m.not_before.is_(None) | (_m.not_before <= bindparam("b_now")),
    )
    .values(due_at=bindparam("b_now") + _m.due_at - _m.updated_at, updated_at=bindparam("b_now"))
)
DEADLINES_FROM_THE_FUTURE = Statement(
    update(schema.segments)
    .where(_s.deadline_at.is_not(None), _s.submitted_at > bindparam("b_now"))
    .values(deadline_at=bindparam("b_now") + _s.deadline_at - _s.submitted_at, submitted_at=bindparam("b_now"))
)
CAME_DUE = Statement(
    select(_m.id, _m.lane_id, _m.priority, _m.position)
    .where(schema.PUT_OFF, _m.due_at <= bindparam("now"))
    .order_by(_m.due_at)
    .limit(schema.sqltext(STEP))
)
MAKE_DUE = Statement(
    update(schema.messages).where(_m.id == bindparam("b_id")).values(queue=schema.sqltext(schema.DUE), waits_for=null())
)
NEXT_DUE = Statement(select(func.min(_m.due_at)).where(schema.PUT_OFF))
PAST_DEADLINE = Statement(
    select(_s.message_id, _s.seq)
    .where(_s.deadline_at.is_not(None), _s.deadline_at <= bindparam("now"))
    .order_by(_s.deadline_at)
    .limit(schema.sqltext(STEP))
)
NO_DEADLINE = Statement(
    update(schema.segments)
    .where(_s.message_id == bindparam("b_message"), _s.seq == bindparam("b_seq"))
    .values(deadline_at=null())
)
NEXT_DEADLINE = Statement(select(func.min(_s.deadline_at)).where(_s.deadline_at.is_not(None)))
EXPIRED = Statement(
    select(_m.id)
    .where(_m.expires_at.is_not(None), _m.queue > schema.sqltext(schema.OUT), _m.expires_at <= bindparam("now"))
    .limit(schema.sqltext(STEP))
)
NEXT_EXPIRY = Statement(
    select(func.min(_m.expires_at)).where(_m.expires_at.is_not(None), _m.queue > schema.sqltext(schema.OUT))
)
POLICY_OF = Statement(select(_m.in_doubt, _m.wish).where(_m.id == bindparam("id")))


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a start found: the epoch it opened, and the segments that the last run had in hands.

    `spool_id` tells this spool from all others (8 hex digits): event ids are made of it. `restored`: why it is not the
    newest of its kind, "" if it is (see restored.py).
    """

    epoch: int
    spool_id: str
    in_doubt: tuple[tuple[int, int], ...]
    restored: str = ""


def open_epoch(
    tx: Tx,
    book: LaneBook,
    instance: str,
    pid: int,
    version: str,
    now: int,
    rules: Rules,
    witness: Known | None = None,
) -> Recovery:
    """Begin a new epoch of this instance: what the last one had in its hands is in doubt. Touches only one's own.

    Of a spool that was restored, or that its `witness` knows to be older, all that was in anybody's hands is in doubt.
    """
    here = look(tx, instance, now)
    reason = restored.why(tx, here, witness)
    epoch = here.epoch + 1
    if witness is not None and (witness.spool_id, witness.instance) == (here.spool_id, instance):
        epoch = max(epoch, witness.epoch + 1)
    values = {"epoch": epoch, "started_at": now, "stopped_at": None, "pid": pid, "version": version}
    if here.epoch == 0:
        tx.run(NEW_INSTANCE, {"id": instance, **values})
    else:
        tx.run(NEXT_EPOCH, {"b_id": instance, **{"v_" + name: value for name, value in values.items()}})
    owner = Owner(instance, epoch)
    newest = tx.one(NEWEST_EVENT, {})
    if newest is not None and newest[0] > now:
        clock_went_back(tx, now)
    in_hand = _in_hand(tx, None if reason else instance)
    for held in in_hand:
        tx.guard(
            partial(_doubt_in_hand, tx, book, held, now, owner, rules),
            partial(set_aside, tx, book, held.message_id, now),
        )
    tx.run(ORPHANS_BEHIND, {"v_due_at": now})
    book.forget()
    spool_id = setting(tx, SPOOL_ID)
    if spool_id is None:
        spool_id = secrets.token_hex(4)
        tx.run(NEW_SETTING, {"name": SPOOL_ID, "value": spool_id})
    if reason:
        restored.begin(tx, reason, here, witness, now)
    return Recovery(epoch, spool_id, tuple((held.message_id, held.seq) for held in in_hand), reason)


@dataclass(frozen=True, slots=True)
class _InHand:
    """A segment marked SUBMITTING, and the attempt at it."""

    message_id: int
    policy: str
    seq: int
    line: Line
    attempt: int
    intent_at: int


def _in_hand(tx: Tx, instance: str | None) -> list[_InHand]:
    """What the instance's channels have in their hands (None: anybody's). Two steps, so that no engine reads all
    segments for it.
    """
    busy = tx.all(BUSY_OF_ALL, {}) if instance is None else tx.all(BUSY_OF, {"owner": instance})
    return [
        _InHand(message_id, policy, seq, Line(channel, sim_id), attempt, intent_at)
        for message_id, policy in busy
        for seq, sim_id, channel, attempt, intent_at in tx.all(IN_HAND, {"message_id": message_id})
    ]


def _doubt_in_hand(tx: Tx, book: LaneBook, held: _InHand, now: int, owner: Owner, rules: Rules) -> None:
    segment = segments_of(tx, held.message_id)[held.seq - 1]
    detail = f"the daemon ended while {held.line.channel} had it in its hands"
    finish_attempt(tx, held.message_id, held.seq, held.attempt, Outcome.IN_DOUBT, finished_at=now, detail=detail)
    policy = InDoubtPolicy(held.policy)
    into_doubt(tx, book, segment, held.line, policy, held.intent_at, now, owner, rules, detail)


def clock_went_back(tx: Tx, now: int) -> None:
    """Delays and deadlines set by a clock that was ahead count from `now`: else they would last for as long as it was.

    What a submitter asked for (not_before, expires_at) stays.
    """
    tx.flush()
    tx.run(DELAYS_FROM_THE_FUTURE, {"b_now": now})
    tx.run(DEADLINES_FROM_THE_FUTURE, {"b_now": now})
    inbound.clock_went_back(tx, now)


def give_back(tx: Tx, book: LaneBook, line: Line, holds: Claim | None, owner: Owner, now: int) -> int:
    """Requeue what is marked as in this channel's hands but for `holds`, which it has; returns how many.

    For after a commit of which nobody knows whether it took place: the channel never got the claim, so nothing was
    sent.
    """
    tx.flush()
    kept = None if holds is None else (holds.message_id, holds.segment.seq, holds.attempt)
    detail = "its claim was never confirmed"
    given = 0
    for held in _in_hand(tx, owner.instance):
        message_id, seq = held.message_id, held.seq
        if held.line.channel == line.channel and (message_id, seq, held.attempt) != kept:
            finish_attempt(tx, message_id, seq, held.attempt, Outcome.NOT_SENT, finished_at=now, detail=detail)
            to = tx.one(reports.RECIPIENT, {"id": message_id})
            if to is not None:
                sim_quota = book.quotas.get(held.line.sim_id, SimQuota())
                quota.give_back(tx, held.line.sim_id, sim_quota, to[0], held.intent_at)
            segment = segments_of(tx, message_id)[seq - 1]
            move(tx, segment, Command.NOT_SENT, now, channel=line.channel, detail=detail)
            refold(tx, book, message_id, now, owner, due_at=now)
            given += 1
    return given


def close_epoch(tx: Tx, owner: Owner, now: int) -> None:
    """Note a clean stop."""
    tx.run(STOPPED, {"b_id": owner.instance, "b_epoch": owner.epoch, "v_at": now})


@dataclass(frozen=True, slots=True)
class Advanced:
    """When to come again (epoch ms), None for never; and what was handed over without all of its parts."""

    again_at: int | None
    handed_over: tuple[inbound.HandedOver, ...] = ()


def advance(tx: Tx, desk: inbound.Desk, sweep: retention.Sweep, now: int, rules: Rules) -> Advanced:
    """Do what has become due by `now`, a bounded step of it."""
    book, owner = desk.book, desk.owner
    tx.flush()
    due = tx.all(CAME_DUE, {"now": now})
    for message_id, lane_id, priority, position in due:
        tx.run(MAKE_DUE, {"b_id": message_id})
        book.added(lane_id, (-priority, position, message_id))
        tx.notices.claimable(book.get(tx, lane_id))
    expired = tx.all(EXPIRED, {"now": now})
    for (message_id,) in expired:
        tx.guard(partial(_expire, tx, book, message_id, now, owner), partial(set_aside, tx, book, message_id, now))
    past = tx.all(PAST_DEADLINE, {"now": now})
    for message_id, seq in past:
        tx.guard(
            partial(_pass_deadline, tx, book, message_id, seq, now, owner, rules),
            partial(_drop_deadline, tx, message_id, seq, now),
        )
    overdue = inbound.hand_over_overdue(tx, desk, now, STEP)
    forgetful = retention.forget(tx, sweep, now)
    handed_over = tuple(desk.handed_over)
    if forgetful or max(len(due), len(expired), len(past), overdue) == STEP:
        return Advanced(now, handed_over)
    nexts = [tx.one(statement, {}) for statement in (NEXT_DUE, NEXT_DEADLINE, NEXT_EXPIRY, inbound.NEXT_DEADLINE)]
    again_at = min((row[0] for row in nexts if row is not None and row[0] is not None), default=None)
    return Advanced(again_at, handed_over)


def _expire(tx: Tx, book: LaneBook, message_id: int, now: int, owner: Owner) -> None:
    for segment in segments_of(tx, message_id):
        if segment.state in {S.QUEUED, S.HELD}:
            move(tx, segment, Command.EXPIRE, now, detail="its time passed before it could be sent")
    refold(tx, book, message_id, now, owner, reason="expired before it could be sent")


def _drop_deadline(tx: Tx, message_id: int, seq: int, now: int, error: Exception) -> None:
    tx.run(NO_DEADLINE, {"b_message": message_id, "b_seq": seq})
    event(tx, message_id, now, "deadline dropped", seq=seq, detail=f"it cannot be dealt with: {error}")


def _pass_deadline(tx: Tx, book: LaneBook, message_id: int, seq: int, now: int, owner: Owner, rules: Rules) -> None:
    """Nothing was heard of a segment in time: no report of it, or no end to its doubt."""
    segments = segments_of(tx, message_id)
    segment = segments[seq - 1]
    cleared = {"deadline_at": None}
    if segment.state is S.SUBMITTED:
        move(tx, segment, Command.NO_REPORT, now, values=cleared, detail="no status report came in time")
        refold(tx, book, segment.message_id, now, owner)
        return
    if segment.state is not S.IN_DOUBT:
        tx.run(NO_DEADLINE, {"b_message": message_id, "b_seq": seq})
        return
    row = tx.one(POLICY_OF, {"id": segment.message_id})
    policy = InDoubtPolicy(row[0]) if row is not None else InDoubtPolicy.FAIL
    cancelled = row is not None and row[1] == WISH_CANCEL  # then its policy sends nothing again
    if policy is InDoubtPolicy.RESEND and segment.tries < rules.retry.attempts and not cancelled:
        move(tx, segment, Command.RESEND, now, values={**cleared, "submitted_at": None},
             detail="policy resend: it may arrive twice")  # fmt: skip
        refold(tx, book, segment.message_id, now, owner, due_at=now, reason="sent again by its policy")
        return
    said = "neither a late result nor a status report came; it may or may not have been sent"
    move(tx, segment, Command.ABANDON, now, values=cleared, detail=said)
    end_rest(tx, segments, f"segment {segment.seq} was given up in doubt", now)
    refold(tx, book, segment.message_id, now, owner, reason=said)
