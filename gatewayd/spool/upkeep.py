"""What the spool does by itself: starting up, time passing, SIMs and switches."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import bindparam, delete, func, null, or_, select, tuple_, update

from gatewayd.model import InDoubtPolicy, Outcome, SimIdentity
from gatewayd.model import SegmentState as S
from gatewayd.spool import inbound, schema
from gatewayd.spool.engine import Statement, set_to
from gatewayd.spool.events import DEAD, DONE
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.lifecycle import Command
from gatewayd.spool.moves import Owner, event, move, refold, segments_of, set_aside
from gatewayd.spool.work import Claim, Line, Rules, finish_attempt, into_doubt
from gatewayd.spool.writer import Tx

SPOOL_ID = "spool_id"  # name of the setting
STEP = 500  # rows moved in one transaction, so that no claim waits long
KEY_LIFE_MS = 7 * 86_400_000  # of an Idempotency-Key
TOLD_LIFE_MS = 7 * 86_400_000  # of an event, once everybody was told
RESULT_WITHIN_MS = 780_000  # a modem may still owe the result of a submission: 180 s, then 600 s (gsm-modem.md §3)
DEAD_LIFE_MS = 30 * 86_400_000  # of a delivery that was given up, during which it can be replayed

_m = schema.messages.c
_s = schema.segments.c
_a = schema.attempts.c
_busy = schema.messages.alias("b")

EPOCH = Statement(select(schema.instances.c.epoch).where(schema.instances.c.id == bindparam("id")))
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
_old = (
    select(schema.idempotency.c.api_key, schema.idempotency.c.key)
    .where(schema.idempotency.c.created_at < bindparam("before"))
    .order_by(schema.idempotency.c.created_at)
    .limit(schema.sqltext(STEP))
)
OLD_KEYS = Statement(
    delete(schema.idempotency).where(tuple_(schema.idempotency.c.api_key, schema.idempotency.c.key).in_(_old))
)
_d = schema.deliveries.c
_told = (
    select(_d.id)
    .where(
        or_(
            (_d.state == schema.sqltext(DONE)) & (_d.finished_at < bindparam("before")),
            (_d.state == schema.sqltext(DEAD)) & (_d.finished_at < bindparam("dead_before")),
        )
    )
    .limit(schema.sqltext(STEP))
)
OLD_DELIVERIES = Statement(delete(schema.deliveries).where(_d.id.in_(_told)))
_e = schema.outbox.c
_needed = select(_d.id).where(_d.outbox_id == _e.id).exists()
_old_events = select(_e.id).where(_e.at < bindparam("before"), ~_needed).order_by(_e.at).limit(schema.sqltext(STEP))
OLD_EVENTS = Statement(delete(schema.outbox).where(_e.id.in_(_old_events.correlate(None))))
_of_pin = (schema.PINNED, _m.pin_channel == bindparam("channel"))
PINS = Statement(select(schema.lanes.c.channel).where(schema.lanes.c.channel != schema.sqltext("")))
TO_HOLD = Statement(
    select(_m.id).where(*_of_pin, _m.queue > schema.sqltext(schema.OUT)).order_by(_m.id).limit(schema.sqltext(STEP))
)
TO_RELEASE = Statement(
    select(_m.id)
    .where(*_of_pin, _m.queue == schema.sqltext(schema.OUT), _m.reason == bindparam("reason"))
    .order_by(_m.id)
    .limit(schema.sqltext(STEP))
)
POLICY_OF = Statement(select(_m.in_doubt).where(_m.id == bindparam("id")))


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a start found: the epoch it opened, and the segments that the last run had in hands.

    `spool_id` tells this spool from all others (8 hex digits): event ids are made of it.
    """

    epoch: int
    spool_id: str
    in_doubt: tuple[tuple[int, int], ...]


def open_epoch(tx: Tx, book: LaneBook, instance: str, pid: int, version: str, now: int, rules: Rules) -> Recovery:
    """Begin a new epoch of this instance: what the last one had in its hands is in doubt. Touches only one's own."""
    row = tx.one(EPOCH, {"id": instance})
    epoch = 1 if row is None else row[0] + 1
    values = {"epoch": epoch, "started_at": now, "stopped_at": None, "pid": pid, "version": version}
    if row is None:
        tx.run(NEW_INSTANCE, {"id": instance, **values})
    else:
        tx.run(NEXT_EPOCH, {"b_id": instance, **{"v_" + name: value for name, value in values.items()}})
    owner = Owner(instance, epoch)
    newest = tx.one(NEWEST_EVENT, {})
    if newest is not None and newest[0] > now:
        clock_went_back(tx, now)
    in_hand = _in_hand(tx, instance)
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
    return Recovery(epoch, spool_id, tuple((held.message_id, held.seq) for held in in_hand))


@dataclass(frozen=True, slots=True)
class _InHand:
    """A segment marked SUBMITTING, and the attempt at it."""

    message_id: int
    policy: str
    seq: int
    line: Line
    attempt: int
    intent_at: int


def _in_hand(tx: Tx, instance: str) -> list[_InHand]:
    """What this instance's channels have in their hands. Two steps, so that no engine reads all segments for it."""
    return [
        _InHand(message_id, policy, seq, Line(channel, sim_id), attempt, intent_at)
        for message_id, policy in tx.all(BUSY_OF, {"owner": instance})
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
            segment = segments_of(tx, message_id)[seq - 1]
            move(tx, segment, Command.NOT_SENT, now, channel=line.channel, detail=detail)
            refold(tx, book, message_id, now, owner, due_at=now)
            given += 1
    return given


@dataclass(frozen=True, slots=True)
class Settled:
    """How many messages were held and released; `more`: it was a step of it, so ask again."""

    held: int = 0
    released: int = 0
    more: bool = False


def settle_pins(tx: Tx, book: LaneBook, channels: frozenset[str], owner: Owner, now: int) -> Settled:
    """Hold what is pinned to channels that the configuration does not have; release what was held for a channel that
    is back. A bounded step of it.
    """
    tx.flush()
    held = released = 0
    more = False
    for channel in sorted({row[0] for row in tx.all(PINS, {})}):
        reason = f"held: the configuration has no channel {channel}, which it is pinned to"
        if channel in channels:
            rows = tx.all(TO_RELEASE, {"channel": channel, "reason": reason})
            released += len(rows)
            command, source, said, left = Command.RELEASE, S.HELD, f"channel {channel} is back", ""
        else:
            rows = tx.all(TO_HOLD, {"channel": channel})
            held += len(rows)
            command, source, said, left = Command.HOLD, S.QUEUED, reason, reason
        more = more or len(rows) == STEP
        for (message_id,) in rows:
            tx.guard(
                partial(_settle, tx, book, message_id, source, command, said, left, now, owner),
                partial(set_aside, tx, book, message_id, now),
            )
    return Settled(held, released, more)


def _settle(
    tx: Tx, book: LaneBook, message_id: int, source: S, command: Command, said: str, left: str, now: int, owner: Owner
) -> None:
    for segment in segments_of(tx, message_id):
        if segment.state is source:
            move(tx, segment, command, now, detail=said)
    refold(tx, book, message_id, now, owner, reason=left)


def close_epoch(tx: Tx, owner: Owner, now: int) -> None:
    """Note a clean stop."""
    tx.run(STOPPED, {"b_id": owner.instance, "b_epoch": owner.epoch, "v_at": now})


@dataclass(frozen=True, slots=True)
class Advanced:
    """When to come again (epoch ms), None for never; and what was handed over without all of its parts."""

    again_at: int | None
    handed_over: tuple[inbound.HandedOver, ...] = ()


def advance(tx: Tx, desk: inbound.Desk, now: int, rules: Rules) -> Advanced:
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
    forgotten = tx.run(OLD_KEYS, {"before": now - KEY_LIFE_MS})
    told = _forget_told(tx, now)
    handed_over = tuple(desk.handed_over)
    if max(len(due), len(expired), len(past), overdue, forgotten, told) == STEP:
        return Advanced(now, handed_over)
    nexts = [tx.one(statement, {}) for statement in (NEXT_DUE, NEXT_DEADLINE, NEXT_EXPIRY, inbound.NEXT_DEADLINE)]
    again_at = min((row[0] for row in nexts if row is not None and row[0] is not None), default=None)
    return Advanced(again_at, handed_over)


def _forget_told(tx: Tx, now: int) -> int:
    """Forget deliveries that ended long ago, and events that no delivery needs; how many at the most of either."""
    ended = tx.run(OLD_DELIVERIES, {"before": now - TOLD_LIFE_MS, "dead_before": now - DEAD_LIFE_MS})
    return max(ended, tx.run(OLD_EVENTS, {"before": now - TOLD_LIFE_MS}))


def _expire(tx: Tx, book: LaneBook, message_id: int, now: int, owner: Owner) -> None:
    for segment in segments_of(tx, message_id):
        if segment.state is S.QUEUED:
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
    if policy is InDoubtPolicy.RESEND and segment.tries < rules.retry.attempts:
        move(tx, segment, Command.RESEND, now, values={**cleared, "submitted_at": None},
             detail="policy resend: it may arrive twice")  # fmt: skip
        refold(tx, book, segment.message_id, now, owner, due_at=now, reason="sent again by its policy")
        return
    said = "neither a late result nor a status report came; it may or may not have been sent"
    move(tx, segment, Command.ABANDON, now, values=cleared, detail=said)
    for other in segments:
        if other.state is S.QUEUED:
            move(tx, other, Command.GIVEN_UP, now, detail=f"segment {segment.seq} was given up in doubt")
    refold(tx, book, segment.message_id, now, owner, reason=said)


_sims = schema.sims.c
_channels = schema.channels.c

_SIM = select(_sims.id, _sims.iccid, _sims.imsi, _sims.last_submit_at)
SIM_BY_ICCID = Statement(_SIM.where(_sims.iccid == bindparam("iccid")))
SIM_BY_IMSI = Statement(_SIM.where(_sims.imsi == bindparam("imsi")))
NEW_SIM = Statement(
    schema.sims.insert().returning(_sims.id),
    columns=["iccid", "imsi", "number", "first_seen_at", "last_seen_at", "owner", "owner_epoch"],
)
SEEN_SIM = Statement(
    update(schema.sims)
    .where(_sims.id == bindparam("b_id"))
    .values(set_to("iccid", "imsi", "number", "last_seen_at", "owner", "owner_epoch"))
)
CHANNEL = Statement(select(_channels.sim_id, _channels.seen_sim_id).where(_channels.name == bindparam("name")))
NEW_CHANNEL = Statement(schema.channels.insert(), columns=["name", "sim_id", "paired_at", "seen_sim_id"])
PAIR = Statement(
    update(schema.channels)
    .where(_channels.name == bindparam("b_name"))
    .values(sim_id=bindparam("v_sim_id"), paired_at=bindparam("v_at"), seen_sim_id=bindparam("v_seen"))
)
WITHOUT_RESULT = Statement(
    select(func.max(_s.submitted_at)).where(
        _s.sim_id == bindparam("sim_id"),
        _s.tp_mr.is_(None),
        _s.submitted_at.is_not(None),
        _s.submitted_at >= bindparam("since"),
        _s.state.in_([schema.sqltext(state.value) for state in (S.IN_DOUBT, S.ABANDONED)]),
    )
)
SEEN_OTHER = Statement(
    update(schema.channels).where(_channels.name == bindparam("b_name")).values(seen_sim_id=bindparam("v_seen"))
)


@dataclass(frozen=True, slots=True)
class Pairing:
    """The SIM's id in the spool; `changed`: the channel was paired with another one (`paired`): park it.

    `last_submit_at`: when a submission over this SIM was last begun (epoch ms), None if none ever was. `owes_until`: so
    long the result of one may still come that was given up (epoch ms; 0: none).
    """

    sim_id: int
    changed: bool = False
    paired: SimIdentity = field(default_factory=SimIdentity)
    last_submit_at: int | None = None
    owes_until: int = 0


def see_sim(tx: Tx, channel: str, identity: SimIdentity, number: str, now: int, owner: Owner) -> Pairing:
    """Note the SIM found in a channel: paired at first sight, durably; another one later is a change."""
    by_iccid = tx.one(SIM_BY_ICCID, {"iccid": identity.iccid}) if identity.iccid else None
    by_imsi = tx.one(SIM_BY_IMSI, {"imsi": identity.imsi}) if identity.imsi else None
    row = by_iccid or by_imsi
    values = {"number": number, "last_seen_at": now, "owner": owner.instance, "owner_epoch": owner.epoch}
    if row is None:
        made = tx.one(
            NEW_SIM,
            {"iccid": identity.iccid or None, "imsi": identity.imsi or None, "first_seen_at": now, **values},
        )
        assert made is not None
        sim_id = int(made[0])
    else:
        sim_id = int(row[0])
        # An IMSI known of another row (seen when this SIM's ICCID could not be read) stays there.
        imsi = identity.imsi if by_imsi is None or by_imsi[0] == sim_id else None
        known = {"iccid": identity.iccid or row[1], "imsi": imsi or row[2], **values}
        tx.run(SEEN_SIM, {"b_id": sim_id, **{"v_" + name: value for name, value in known.items()}})
    paired = tx.one(CHANNEL, {"name": channel})
    if paired is None:
        tx.run(NEW_CHANNEL, {"name": channel, "sim_id": sim_id, "paired_at": now, "seen_sim_id": None})
    elif paired[0] != sim_id:
        tx.run(SEEN_OTHER, {"b_name": channel, "v_seen": sim_id})
        return Pairing(sim_id, True, _identity(tx, paired[0]))
    elif paired[1] is not None:
        tx.run(SEEN_OTHER, {"b_name": channel, "v_seen": None})
    owed = tx.one(WITHOUT_RESULT, {"sim_id": sim_id, "since": now - RESULT_WITHIN_MS})
    owes_until = 0 if owed is None or owed[0] is None else min(owed[0], now) + RESULT_WITHIN_MS
    return Pairing(sim_id, last_submit_at=None if row is None else row[3], owes_until=owes_until)


SIM_BY_ID = Statement(select(_sims.iccid, _sims.imsi).where(_sims.id == bindparam("id")))


def _identity(tx: Tx, sim_id: int) -> SimIdentity:
    row = tx.one(SIM_BY_ID, {"id": sim_id})
    return SimIdentity() if row is None else SimIdentity(row[0] or "", row[1] or "")


def accept_sim(tx: Tx, channel: str, actor: str, now: int) -> bool:
    """Pair the channel with the SIM that is in it now. False if there is nothing to accept."""
    row = tx.one(CHANNEL, {"name": channel})
    if row is None or row[1] is None:
        return False
    tx.run(PAIR, {"b_name": channel, "v_sim_id": row[1], "v_at": now, "v_seen": None})
    audit(tx, actor, "channel accept", channel, now)
    return True


SETTING = Statement(select(schema.settings.c.value).where(schema.settings.c.name == bindparam("name")))
SET = Statement(
    update(schema.settings).where(schema.settings.c.name == bindparam("b_name")).values(value=bindparam("v_value"))
)
NEW_SETTING = Statement(schema.settings.insert(), columns=["name", "value"])


def setting(tx: Tx, name: str) -> str | None:
    """A durable switch; None if it was never set."""
    row = tx.one(SETTING, {"name": name})
    return None if row is None else str(row[0])


def set_setting(tx: Tx, name: str, value: str, actor: str, now: int) -> None:
    """Change a durable switch, and note who did."""
    if tx.run(SET, {"b_name": name, "v_value": value}) == 0:
        tx.run(NEW_SETTING, {"name": name, "value": value})
    audit(tx, actor, f"set {name}", value, now)


def audit(tx: Tx, actor: str, action: str, detail: str, now: int) -> None:
    """Note what somebody did."""
    tx.add(schema.audit, {"at": now, "actor": actor, "action": action, "detail": detail})
