"""The one function that changes a segment's state, and the fold that follows from it into the message.

`move` looks the next state up in the life cycle, updates the row only if it is still in the state seen, and adds the
event row, all in the caller's transaction. `refold` then makes the message's row agree with its segments: state,
delivery, queue, lane, and whom it keeps waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, null, select, update

from gatewayd.errors import IllegalTransition
from gatewayd.model import Admission, Delivery, MessageClass, MessageState
from gatewayd.model import SegmentState as S
from gatewayd.spool import schema
from gatewayd.spool.engine import Params, Statement, set_to
from gatewayd.spool.events import OF_DELIVERY, OF_STATE, GatewayEvent
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.lifecycle import Command, fold, fold_delivery, next_state, touched
from gatewayd.spool.writer import Tx

_segments = schema.segments
_messages = schema.messages
_s = _segments.c
_m = _messages.c


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A segment as it stands in the spool."""

    message_id: int
    seq: int
    state: S
    tries: int
    attempt: int
    tp_mr: int | None
    submitted_at: int | None


_SEGMENT_COLUMNS = (_s.message_id, _s.seq, _s.state, _s.tries, _s.attempt, _s.tp_mr, _s.submitted_at)

SEGMENTS_OF = Statement(
    select(*_SEGMENT_COLUMNS).where(_s.message_id == bindparam("message_id")).order_by(_s.seq),
)

_SETTABLE = (
    "tries",
    "attempt",
    "sim_id",
    "channel",
    "tp_mr",
    "tp_mr_expected",
    "submitted_at",
    "deadline_at",
    "tp_status",
    "reported_at",
    "code",
    "parts_ok",
)

_updates: dict[tuple[str, ...], Statement] = {}  # one statement for each set of columns that is ever set


def segments_of(tx: Tx, message_id: int) -> list[SegmentRow]:
    """The message's segments, in order."""
    return [SegmentRow(row[0], row[1], S(row[2]), *row[3:]) for row in tx.all(SEGMENTS_OF, {"message_id": message_id})]


def move(
    tx: Tx,
    segment: SegmentRow,
    command: Command,
    now: int,
    *,
    values: Params | None = None,
    channel: str | None = None,
    actor: str = "",
    detail: str = "",
) -> S | None:
    """Apply `command` to the segment and record it; `values` are further columns of the segment to set.

    Returns the new state; None if the command came from outside and changes nothing (the event row says so). Raises
    IllegalTransition if the table does not have it, or if the row has meanwhile left the state given in `segment`.
    """
    target = next_state(segment.state, command)
    event(
        tx,
        segment.message_id,
        now,
        command.value,
        seq=segment.seq,
        from_state=segment.state,
        to_state=target,
        channel=channel,
        actor=actor,
        detail=detail,
    )
    if target is None:
        return None
    params = {"b_message": segment.message_id, "b_seq": segment.seq, "b_from": segment.state.value}
    params["b_to"] = target.value
    for name, value in (values or {}).items():
        params["v_" + name] = value
    if tx.run(_update_of(tuple(values or ())), params) != 1:
        raise IllegalTransition(f"segment {segment.message_id}/{segment.seq} is no longer {segment.state}")
    return target


def _update_of(columns: tuple[str, ...]) -> Statement:
    found = _updates.get(columns)
    if found is None:
        unknown = set(columns) - set(_SETTABLE)
        if unknown:
            raise IllegalTransition(f"not columns a move may set: {sorted(unknown)}")
        clause = (
            update(_segments)
            .where(
                _s.message_id == bindparam("b_message"), _s.seq == bindparam("b_seq"), _s.state == bindparam("b_from")
            )
            .values(state=bindparam("b_to"), **set_to(*columns))
        )
        found = _updates[columns] = Statement(clause)
    return found


def event(
    tx: Tx,
    message_id: int,
    now: int,
    name: str,
    *,
    seq: int | None = None,
    from_state: S | None = None,
    to_state: S | None = None,
    channel: str | None = None,
    actor: str = "",
    detail: str = "",
) -> None:
    """Add one row to the message's history."""
    tx.add(
        schema.events,
        {
            "message_id": message_id,
            "seq": seq,
            "at": now,
            "event": name,
            "from_state": None if from_state is None else from_state.value,
            "to_state": None if to_state is None else to_state.value,
            "channel": channel,
            "actor": actor,
            "detail": detail,
        },
    )


MESSAGE_FOR_FOLD = Statement(
    select(
        _m.state,
        _m.admission,
        _m.report,
        _m.queue,
        _m.due_at,
        _m.busy,
        _m.sim_id,
        _m.source,
        _m.target,
        _m.pin_channel,
        _m.avoid_sim_id,
        _m.priority,
        _m.position,
        _m.finished_at,
        _m.reason,
        _m.lane_id,
        _m.delivery,
        getattr(_m, "class"),
        _m.callback_url,
        _m.callback_format,
        _m.channel,
        _m.zone,
        _m.held,
        _m.wish,
    ).where(_m.id == bindparam("message_id"))
)

WISH_CANCEL, WISH_HOLD = "cancel", "hold"
"""Values of messages.wish: what an operator asked for while a channel had the message in its hands, or while it was in
doubt. `refold` grants it as soon as nothing of it is in hand; it lasts until nothing is in doubt either."""

OPERATOR = "operator"  # value of messages.held

ASKED = Statement(
    select(schema.events.c.actor, schema.events.c.detail)
    .where(schema.events.c.message_id == bindparam("message_id"), schema.events.c.event == bindparam("event"))
    .order_by(schema.events.c.id.desc())
    .limit(schema.sqltext(1))
)

FOLD = Statement(
    update(_messages)
    .where(_m.id == bindparam("b_id"))
    .values(
        set_to(
            "state",
            "delivery",
            "queue",
            "due_at",
            "busy",
            "touched",
            "sim_id",
            "lane_id",
            "owner",
            "owner_epoch",
            "reason",
            "updated_at",
            "finished_at",
            "avoid_sim_id",
            "waits_for",
            "held",
            "wish",
        )
    )
)

SET_ASIDE = Statement(
    update(_messages)
    .where(_m.id == bindparam("b_id"))
    .values(
        **set_to("reason", "updated_at"),
        queue=schema.sqltext(schema.OUT),
        busy=schema.sqltext(0),
        waits_for=null(),
    )
)

BEHIND = Statement(
    select(_m.id, _m.lane_id, _m.priority, _m.position).where(
        _m.waits_for == bindparam("message_id"), _m.queue == schema.sqltext(schema.BEHIND)
    )
)
RELEASE = Statement(
    update(_messages)
    .where(_m.id == bindparam("b_id"))
    .values(queue=schema.sqltext(schema.DUE), waits_for=null(), due_at=bindparam("v_due_at"))
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose daemon holds what is in flight."""

    instance: str
    epoch: int


def refold(
    tx: Tx,
    book: LaneBook,
    message_id: int,
    now: int,
    owner: Owner,
    *,
    due_at: int | None = None,
    reason: str | None = None,
    avoid_sim_id: int | None = None,
    bind_sim_id: int | None = None,
    held: str | None = None,
) -> MessageState:
    """Make the message's row agree with its segments.

    `due_at`: when it may be claimed again (None: as it was). `reason`: the last thing to say about it. `avoid_sim_id`:
    a SIM that refused it. `bind_sim_id`: the SIM that has it in hands now. `held`: who keeps it back, if it
    is held. Unknown messages raise IllegalTransition.
    """
    row = tx.one(MESSAGE_FOR_FOLD, {"message_id": message_id})
    if row is None:
        raise IllegalTransition(f"message {message_id} does not exist")
    (was, admission, report, queue, old_due, was_busy, sim_id, source, target, pin, avoid, priority, position) = row[
        :13
    ]
    finished_at, old_reason, old_lane, old_delivery = row[13:17]
    zone, old_held, wish = row[21:]
    segments = segments_of(tx, message_id)
    states = [segment.state for segment in segments]
    if wish and S.SUBMITTING not in states:
        states, reason = _grant(tx, segments, wish, reason, now)
        held = OPERATOR if wish == WISH_HOLD else held
    state = fold(states, Admission(admission))
    in_hand = S.SUBMITTING in states
    is_touched = touched(states)
    sim_id = bind_sim_id if bind_sim_id is not None else sim_id
    if not in_hand and not is_touched:
        sim_id = None  # only an untouched message may move to another channel
    avoid = avoid if avoid_sim_id is None else avoid_sim_id
    due = old_due if due_at is None else due_at
    new_queue = _queue(states, due, now)
    busy = int(in_hand or (is_touched and state is MessageState.TO_PROCESS))
    lane = book.find(tx, source, target, pin, (sim_id or 0) if is_touched else 0, 0 if is_touched else avoid, zone)
    keeper = (old_held if held is None else held) if S.HELD in states else ""
    if state is not MessageState.TO_PROCESS and (was == MessageState.TO_PROCESS or finished_at is None):
        finished_at = now
    elif state is MessageState.TO_PROCESS:
        finished_at = None
    delivery = fold_delivery(states, bool(report))
    said = old_reason if reason is None else reason
    tx.run(
        FOLD,
        {
            "b_id": message_id,
            "v_state": state.value,
            "v_delivery": delivery.value,
            "v_queue": new_queue,
            "v_due_at": due,
            "v_busy": busy,
            "v_touched": int(is_touched),
            "v_sim_id": sim_id,
            "v_lane_id": lane.id,
            "v_owner": owner.instance if in_hand else None,
            "v_owner_epoch": owner.epoch if in_hand else None,
            "v_reason": said,
            "v_updated_at": now,
            "v_finished_at": finished_at,
            "v_avoid_sim_id": avoid,
            "v_waits_for": None,
            "v_held": keeper,
            "v_wish": wish if in_hand or S.IN_DOUBT in states else "",
        },
    )
    if new_queue == schema.DUE and (queue != schema.DUE or lane.id != old_lane):
        book.added(lane.id, (-priority, position, message_id))
        tx.notices.claimable(lane)
    elif new_queue == schema.LATER:
        tx.notices.at(due)
    if was_busy and not busy:
        _release_behind(tx, book, message_id, now)
    if state != was or delivery != old_delivery:
        data = {"state": state.value, "delivery": delivery.value, "reason": said, "segments": len(states)}
        _tell(tx, message_id, MessageState(was), state, Delivery(old_delivery), delivery, data, *row[17:21])
    return state


def _grant(tx: Tx, segments: list[SegmentRow], wish: str, reason: str | None, now: int) -> tuple[list[S], str | None]:
    """Cancel or hold what is left of a message that was in a channel's hands when an operator asked for it.

    Returns the states as they are now, and what to say about the message.
    """
    tx.flush()
    asked = tx.one(ASKED, {"message_id": segments[0].message_id, "event": f"{wish} asked"})
    actor, detail = ("", "") if asked is None else asked
    command = Command.HOLD if wish == WISH_HOLD else Command.CANCEL
    states = []
    for segment in segments:
        state: S | None = segment.state
        if state is S.QUEUED or (state is S.HELD and command is Command.CANCEL):
            state = move(tx, segment, command, now, actor=actor, detail=detail)
            reason = f"{command.value} by {actor}{f': {detail}' if detail else ''}"
        assert state is not None
        states.append(state)
    return states, reason


def _tell(
    tx: Tx,
    message_id: int,
    was: MessageState,
    state: MessageState,
    old_delivery: Delivery,
    delivery: Delivery,
    data: Params,
    class_: str,
    callback_url: str | None,
    callback_format: str,
    channel: str | None,
) -> None:
    """The events of a message whose state or delivery became another one: the state's first."""
    types = []
    if state is not was and state in OF_STATE:
        types.append(OF_STATE[state])
    if delivery is not old_delivery and delivery in OF_DELIVERY:
        types.append(OF_DELIVERY[delivery])
    for type_ in types:
        tx.notices.events.append(
            GatewayEvent(
                type_,
                message_id=message_id,
                channel=channel,
                data=data,
                class_=MessageClass(class_),
                state=state,
                delivery=delivery,
                callback_url=callback_url,
                callback_format=callback_format,
            )
        )


def _queue(states: list[S], due_at: int, now: int) -> int:
    """Where the message stands in the queue: claimable only while nothing of it is in hand, in doubt or held."""
    if S.SUBMITTING in states or S.IN_DOUBT in states:
        return schema.OUT
    if S.HELD in states:
        return schema.KEPT
    if S.QUEUED not in states:
        return schema.OUT
    if due_at > now:
        return schema.LATER
    return schema.DUE


def _release_behind(tx: Tx, book: LaneBook, message_id: int, now: int) -> None:
    """Let go of the messages that waited so as not to come between this one's segments."""
    for waiting, lane_id, priority, position in tx.all(BEHIND, {"message_id": message_id}):
        tx.run(RELEASE, {"b_id": waiting, "v_due_at": now})
        book.added(lane_id, (-priority, position, waiting))
        tx.notices.claimable(book.get(tx, lane_id))


def set_aside(tx: Tx, book: LaneBook, message_id: int, now: int, error: Exception) -> None:
    """Keep a message back whose rows our own code cannot deal with: it is shown, and stops nothing else."""
    said = f"kept back, it cannot be dealt with: {type(error).__name__}: {error}"

    def hold() -> None:
        for segment in segments_of(tx, message_id):
            if segment.state is S.QUEUED:
                move(tx, segment, Command.HOLD, now, detail=said)

    tx.guard(hold, lambda again: event(tx, message_id, now, "set aside", detail=said))
    tx.run(SET_ASIDE, {"b_id": message_id, "v_reason": said, "v_updated_at": now})
    _release_behind(tx, book, message_id, now)
