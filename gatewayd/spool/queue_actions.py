"""What an operator's word does to one message: cancel, hold, release, requeue, priority, route, an end to its doubt.

Each is a function of the message as it stands in the transaction. What the life cycle does not allow is no error: the
message is left as it is, and the answer says why. What a channel has in its hands is called back where that is still
possible, and the wish is kept (messages.wish) until the outcome is known: `moves.refold` grants it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import bindparam, update

from gatewayd.clock import iso
from gatewayd.model import Admission, InDoubtPolicy, MessageClass, MessageState
from gatewayd.model import SegmentState as S
from gatewayd.spool import optouts, schema
from gatewayd.spool.engine import Params, Statement, set_to
from gatewayd.spool.lifecycle import Command, touched
from gatewayd.spool.moves import (
    OPERATOR,
    WISH_CANCEL,
    WISH_HOLD,
    SegmentRow,
    event,
    move,
    refold,
    segments_of,
)
from gatewayd.spool.orders import Action, Applied, Means, Meant, Order, meant
from gatewayd.spool.pins import PIN
from gatewayd.spool.writer import Tx

_m = schema.messages.c


def _set(*columns: str) -> Statement:
    return Statement(update(schema.messages).where(_m.id == bindparam("b_id")).values(set_to(*columns)))


SET_WISH = _set("wish")
SET_PRIORITY = _set("priority", "updated_at")
SET_ROUTE = _set("target", "pin_channel", "route", "avoid_sim_id")
SET_EXPIRY = _set("expires_at")

_AS_NEW: Params = {
    "tries": 0, "tp_mr": None, "tp_mr_expected": None, "submitted_at": None, "deadline_at": None, "tp_status": None,
    "reported_at": None, "code": "",
}  # fmt: skip
"""Columns of a segment that begins anew. Its attempts keep their numbers."""

_BACK = frozenset({S.FAILED, S.EXPIRED, S.CANCELLED})
_WAITING = frozenset({S.QUEUED, S.HELD})


def apply(tx: Tx, means: Means, message_id: int, order: Order) -> Applied | None:
    """Do to one message what was ordered; None if there is no such message."""
    message = meant(tx, message_id)
    if message is None:
        return None
    if message.admission != Admission.ADMITTED.value:
        return Applied(False, "it was never queued: its number is none")
    return _ACTIONS[order.action](tx, means, message, segments_of(tx, message_id), order)


def _cancel(tx: Tx, means: Means, message: Meant, segments: list[SegmentRow], order: Order) -> Applied:
    states = {segment.state for segment in segments}
    if S.SUBMITTING in states:
        return _ask(tx, means, message, order, WISH_CANCEL)
    waiting = [segment for segment in segments if segment.state in _WAITING]
    again = S.IN_DOUBT in states and message.policy is InDoubtPolicy.RESEND and message.wish != WISH_CANCEL
    if not waiting and not again:
        return Applied(False, _not_open(message, states))
    if again:
        _wish(tx, message, order, WISH_CANCEL, means.now)
    for segment in waiting:
        move(tx, segment, Command.CANCEL, means.now, actor=order.actor, detail=order.reason)
    refold(tx, means.book, message.id, means.now, means.owner, reason=_sentence("cancelled", order))
    if S.IN_DOUBT in states:
        return Applied(True, "what is left of it is cancelled; a part of it stays in doubt, and is not sent again")
    return Applied(True, "cancelled" if not touched(states) else "the rest of it is cancelled; a part had gone out")


def _hold(tx: Tx, means: Means, message: Meant, segments: list[SegmentRow], order: Order) -> Applied:
    states = {segment.state for segment in segments}
    if S.SUBMITTING in states:
        return _ask(tx, means, message, order, WISH_HOLD)
    queued = [segment for segment in segments if segment.state is S.QUEUED]
    again = S.IN_DOUBT in states and message.policy is InDoubtPolicy.RESEND and not message.wish
    if not queued and not again:
        return Applied(False, f"it is held already ({message.held or 'by the gateway'})" if S.HELD in states
                       else _not_open(message, states))  # fmt: skip
    if again:
        _wish(tx, message, order, WISH_HOLD, means.now)
    for segment in queued:
        move(tx, segment, Command.HOLD, means.now, actor=order.actor, detail=order.reason)
    refold(tx, means.book, message.id, means.now, means.owner, reason=_sentence("held", order), held=OPERATOR)
    return Applied(True, "held")


def _ask(tx: Tx, means: Means, message: Meant, order: Order, wish: str) -> Applied:
    """Of a message in a channel's hands: call it back if its PDU is not written yet, and keep the wish."""
    if message.wish in {wish, WISH_CANCEL}:
        return Applied(False, f"it is being sent, and was asked to {message.wish} already")
    _wish(tx, message, order, wish, means.now)
    if message.owner == means.owner.instance:
        means.book.recall(message.id, f"called back before it was sent: {wish} asked by {order.actor}")
        tx.notices.recalled = True
    return Applied(True, f"it is being sent: called back if that is still possible, else {wish} for what is left of it")


def _wish(tx: Tx, message: Meant, order: Order, wish: str, now: int) -> None:
    tx.run(SET_WISH, {"b_id": message.id, "v_wish": wish})
    event(tx, message.id, now, f"{wish} asked", actor=order.actor, detail=order.reason)


def _release(tx: Tx, means: Means, message: Meant, segments: list[SegmentRow], order: Order) -> Applied:
    held = [segment for segment in segments if segment.state is S.HELD]
    states = {segment.state for segment in segments}
    aside = S.QUEUED in states and message.queue == schema.OUT and not states & {S.SUBMITTING, S.IN_DOUBT}
    if message.wish == WISH_HOLD:
        tx.run(SET_WISH, {"b_id": message.id, "v_wish": ""})
        event(tx, message.id, means.now, "hold taken back", actor=order.actor, detail=order.reason)
        if not held:
            return Applied(True, "it is not to be held any more")
    elif not held and not aside:
        return Applied(False, "it is not held" if S.QUEUED in states else _not_open(message, states))
    blocked = _blocked(tx, means, message)
    if blocked is not None:
        optouts.block(tx, means.book, message.id, blocked, means.owner, means.now)
        return Applied(True, f"blocked instead: {blocked.sentence}")
    if message.pin and message.pin not in means.channels:
        return _keep_for_pin(tx, means, message, order)
    for segment in held:
        move(tx, segment, Command.RELEASE, means.now, actor=order.actor, detail=order.reason)
    if not held:
        event(tx, message.id, means.now, Command.RELEASE.value, actor=order.actor, detail=order.reason)
    refold(tx, means.book, message.id, means.now, means.owner, reason="")
    return Applied(True, "released")


def _keep_for_pin(tx: Tx, means: Means, message: Meant, order: Order) -> Applied:
    """What is pinned to a channel that is not there stays held, until it is back."""
    said = f"held: the configuration has no channel {message.pin}, which it is pinned to"
    if message.held == PIN:
        return Applied(False, said)
    event(tx, message.id, means.now, "released", actor=order.actor, detail=said)
    refold(tx, means.book, message.id, means.now, means.owner, reason=said, held=PIN)
    return Applied(True, said)


def _requeue(tx: Tx, means: Means, message: Meant, segments: list[SegmentRow], order: Order) -> Applied:
    states = {segment.state for segment in segments}
    if states & {S.QUEUED, S.HELD, S.SUBMITTING, S.IN_DOUBT}:
        return Applied(False, _not_over(states))
    if S.ABANDONED in states and not order.may_double:
        return Applied(False, "it may have been sent: in doubt when it was given up; say may_double to send it again")
    back = [segment for segment in segments if segment.state in _BACK or segment.state is S.ABANDONED]
    if not back:
        return Applied(False, _not_open(message, states))
    return _send_again(tx, means, message, segments, back, order)


def _resend(tx: Tx, means: Means, message: Meant, segments: list[SegmentRow], order: Order) -> Applied:
    """What is in doubt goes out again, with what was given up for its sake."""
    states = {segment.state for segment in segments}
    if not states & {S.IN_DOUBT, S.ABANDONED}:
        return Applied(False, "it is not in doubt")
    given_up = S.ABANDONED in states and not states & {S.QUEUED, S.HELD, S.SUBMITTING}
    wanted = {S.IN_DOUBT, S.ABANDONED} | (_BACK if given_up else frozenset())
    back = [segment for segment in segments if segment.state in wanted]
    return _send_again(tx, means, message, segments, back, order)


def _send_again(
    tx: Tx, means: Means, message: Meant, segments: Sequence[SegmentRow], back: Sequence[SegmentRow], order: Order
) -> Applied:
    now = means.now
    if message.text_dropped_at is not None:
        return Applied(False, f"its text was dropped at {_time(message.text_dropped_at)} (retention): send a new one")
    if any(segment.state is S.BLOCKED for segment in segments):
        return Applied(False, "a part of it was blocked by an opt-out")
    blocked = _blocked(tx, means, message)
    if blocked is not None:
        return Applied(False, f"not sent again: {blocked.sentence}")
    late = _too_late(message, order, now)
    if late:
        return Applied(False, late)
    doubtful = any(segment.state in {S.IN_DOUBT, S.ABANDONED} for segment in back)
    detail = "; ".join(filter(None, [order.reason, _new_expiry(tx, message, order, now)]))
    for segment in back:
        said = detail
        if segment.state in {S.IN_DOUBT, S.ABANDONED}:
            said = "; ".join(filter(None, ["it may arrive twice", detail]))
        move(tx, segment, Command.REQUEUE, now, values=_AS_NEW, actor=order.actor, detail=said)
    tx.run(SET_WISH, {"b_id": message.id, "v_wish": ""})
    due_at = max(now, message.not_before or 0)
    reason = _sentence("queued again", order)
    if message.pin and message.pin not in means.channels:
        return _requeue_held(tx, means, message, order, due_at)
    refold(tx, means.book, message.id, now, means.owner, due_at=due_at, reason=reason, avoid_sim_id=0)
    if message.expires_at is not None or order.expires_at is not None:
        tx.notices.at(now)
    return Applied(True, "queued again; it may arrive twice" if doubtful else "queued again")


def _requeue_held(tx: Tx, means: Means, message: Meant, order: Order, due_at: int) -> Applied:
    said = f"held: the configuration has no channel {message.pin}, which it is pinned to"
    tx.flush()
    for segment in segments_of(tx, message.id):
        if segment.state is S.QUEUED:
            move(tx, segment, Command.HOLD, means.now, actor=order.actor, detail=said)
    refold(tx, means.book, message.id, means.now, means.owner, due_at=due_at, reason=said, held=PIN)
    return Applied(True, said)


def _too_late(message: Meant, order: Order, now: int) -> str:
    """Why its time makes it senseless to queue it again; "" if it does not."""
    if message.class_ is MessageClass.SYSTEM and message.expires_at is not None and message.expires_at <= now:
        return f"it answers a STOP, START or HELP, and had to be sent by {_time(message.expires_at)}"
    if order.expires_at is not None and message.not_before is not None and order.expires_at <= message.not_before:
        return f"it is not to be sent before {_time(message.not_before)}, when it would have expired"
    return ""


def _new_expiry(tx: Tx, message: Meant, order: Order, now: int) -> str:
    """Give it another time to expire, or lift one that has passed; what there is to say of that."""
    expires_at = order.expires_at
    if expires_at is None:
        if message.expires_at is None or message.expires_at > now:
            return ""
        tx.run(SET_EXPIRY, {"b_id": message.id, "v_expires_at": None})
        return "it expires no more"
    tx.run(SET_EXPIRY, {"b_id": message.id, "v_expires_at": expires_at})
    return f"it expires at {_time(expires_at)}"


def _priority(tx: Tx, means: Means, message: Meant, segments: list[SegmentRow], order: Order) -> Applied:
    states = {segment.state for segment in segments}
    if message.state is not MessageState.TO_PROCESS:
        return Applied(False, _not_open(message, states))
    if message.priority == order.priority:
        return Applied(False, f"its priority is {order.priority} already")
    tx.run(SET_PRIORITY, {"b_id": message.id, "v_priority": order.priority, "v_updated_at": means.now})
    detail = f"{message.priority} before, {order.priority} now{f': {order.reason}' if order.reason else ''}"
    event(tx, message.id, means.now, "priority changed", actor=order.actor, detail=detail)
    if message.queue == schema.DUE:
        means.book.stale(message.lane_id)
    return Applied(True, f"priority {order.priority}, {message.priority} before")


def _route(tx: Tx, means: Means, message: Meant, segments: list[SegmentRow], order: Order) -> Applied:
    states = {segment.state for segment in segments}
    if message.state is not MessageState.TO_PROCESS:
        return Applied(False, _not_open(message, states))
    if S.SUBMITTING in states:
        return Applied(False, "it is being sent just now")
    if touched(states):
        return Applied(False, "it is partly sent, and the rest stays with its SIM")
    if order.channel and order.channel not in means.channels:  # a reload took it away while this is worked off
        return Applied(False, f"the configuration has no channel {order.channel} any more")
    now, where = means.now, _where(order.target, order.channel)
    if (message.target, message.pin) == (order.target, order.channel):
        return Applied(False, f"it goes to {where} already")
    values = {"v_target": order.target, "v_pin_channel": order.channel, "v_route": "", "v_avoid_sim_id": 0}
    tx.run(SET_ROUTE, {"b_id": message.id, **values})
    detail = f"{_where(message.target, message.pin)} before, {where} now{f': {order.reason}' if order.reason else ''}"
    event(tx, message.id, now, "route changed", actor=order.actor, detail=detail)
    if message.held == PIN:
        for segment in segments:
            if segment.state is S.HELD:
                move(tx, segment, Command.RELEASE, now, actor=order.actor, detail="its route was changed")
    refold(tx, means.book, message.id, now, means.owner, reason="" if message.held == PIN else None)
    return Applied(True, f"goes to {where}")


def _said_sent(tx: Tx, means: Means, message: Meant, segments: list[SegmentRow], order: Order) -> Applied:
    """An operator knows that it went out. A status report still settles whether it arrived."""
    doubtful = [segment for segment in segments if segment.state is S.IN_DOUBT]
    if not doubtful:
        given_up = any(segment.state is S.ABANDONED for segment in segments)
        return Applied(False, "it was given up already; only a status report can say that it was sent" if given_up
                       else "it is not in doubt")  # fmt: skip
    deadline = means.now + means.report_wait_ms if message.report else None
    for segment in doubtful:
        values = {"deadline_at": deadline, "parts_ok": 1}
        move(tx, segment, Command.SAID_SENT, means.now, values=values, actor=order.actor, detail=order.reason)
    if deadline is not None:
        tx.notices.at(deadline)
    refold(tx, means.book, message.id, means.now, means.owner, reason="")
    return Applied(True, "taken for sent; a status report may still say more")


def _give_up(tx: Tx, means: Means, message: Meant, segments: list[SegmentRow], order: Order) -> Applied:
    doubtful = [segment for segment in segments if segment.state is S.IN_DOUBT]
    if not doubtful:
        return Applied(False, "it is not in doubt")
    for segment in doubtful:
        move(tx, segment, Command.ABANDON, means.now, values={"deadline_at": None}, actor=order.actor,
             detail=order.reason)  # fmt: skip
    end_rest(tx, segments, f"segment {doubtful[0].seq} was given up in doubt", means.now, order.actor)
    refold(tx, means.book, message.id, means.now, means.owner, reason=_sentence("given up in doubt", order))
    return Applied(True, "given up; it may or may not have been sent")


def end_rest(tx: Tx, segments: Sequence[SegmentRow], detail: str, now: int, actor: str = "") -> None:
    """End what still waits of a message of which one part was given up: half a text is worth nothing."""
    for segment in segments:
        if segment.state is S.QUEUED:
            move(tx, segment, Command.GIVEN_UP, now, actor=actor, detail=detail)
        elif segment.state is S.HELD:
            move(tx, segment, Command.CANCEL, now, actor=actor, detail=detail)


_Act = Callable[[Tx, Means, Meant, list[SegmentRow], Order], Applied]
_ACTIONS: dict[Action, _Act] = {
    Action.CANCEL: _cancel,
    Action.HOLD: _hold,
    Action.RELEASE: _release,
    Action.REQUEUE: _requeue,
    Action.PRIORITY: _priority,
    Action.ROUTE: _route,
    Action.SENT: _said_sent,
    Action.RESEND: _resend,
    Action.GIVE_UP: _give_up,
}


def _blocked(tx: Tx, means: Means, message: Meant) -> optouts.OptOut | None:
    return optouts.blocking(tx, message.to, message.class_)


def _sentence(what: str, order: Order) -> str:
    return f"{what} by {order.actor}{f': {order.reason}' if order.reason else ''}"


def _where(target: str, channel: str) -> str:
    if channel:
        return f"channel {channel}"
    return "any channel" if target == "any" else target


def _not_open(message: Meant, states: set[S]) -> str:
    """Why nothing can be done about it any more."""
    if S.IN_DOUBT in states:
        return "it is in doubt: nobody knows whether it was sent; `gatewayd messages resolve` settles that"
    if S.SUBMITTING in states:
        return "it is being sent"
    said = {
        MessageState.PROCESSED: "it was sent already",
        MessageState.BLOCKED: "it is blocked: its number has opted out",
        MessageState.FAILED: "it has failed already",
        MessageState.EXPIRED: "it has expired already",
        MessageState.CANCELLED: "it is cancelled already",
        MessageState.IN_DOUBT: "it was given up in doubt",
    }
    return said.get(message.state, "it waits for its turn" if S.QUEUED in states else "it is held")


def _not_over(states: set[S]) -> str:
    if S.IN_DOUBT in states:
        return "it is in doubt: `gatewayd messages resolve` first"
    if S.SUBMITTING in states:
        return "it is being sent"
    return "it is held: release it" if S.HELD in states else "it is queued already"


def _time(epoch_ms: int) -> str:
    return f"{(iso(epoch_ms) or '')[:19].replace('T', ' ')} UTC"
