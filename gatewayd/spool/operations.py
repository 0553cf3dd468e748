"""Operations on the queue: what operators do to a few messages at once, and to many in small steps.

An operation is a row before anything is done. A few ids are dealt with in the transaction that answers. Whatever else
is meant is worked off in steps, one operation after the other in the order they were given, each step a transaction of
its own: so sending goes on beside it, and after a crash it goes on where it was. What is accepted later is not meant.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import bindparam, func, select, update

from gatewayd.model import MessageState
from gatewayd.spool import filters, schema
from gatewayd.spool.engine import Row, Statement, set_to
from gatewayd.spool.filters import Filter
from gatewayd.spool.moves import event
from gatewayd.spool.orders import ACTS_ON, Action, Applied, Means, Order
from gatewayd.spool.queue_actions import apply
from gatewayd.spool.settings import audit
from gatewayd.spool.writer import Tx

DIRECT = 20  # ids that are dealt with at once
STEP = 100  # messages changed in one transaction
STEP_TIME_S = 0.01  # or for as long, whichever ends first: claims wait for it
SCAN = 1000  # rows of each state looked at in one transaction

RUNNING, DONE, STOPPED = "running", "done", "stopped"
"""Values of operations.state."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation as it stands. `matched` messages were meant, of which `changed` were in a state to be changed.

    `cursor`: how far it has come, of `last_id`. Times in epoch ms.
    """

    id: int
    at: int
    order: Order
    wanted: Filter
    last_id: int
    cursor: int
    matched: int
    changed: int
    state: str
    finished_at: int | None


@dataclass(frozen=True, slots=True)
class Begun:
    """`results`: of each id, where it was dealt with at once; None: there is no such message."""

    operation: Operation
    results: tuple[tuple[int, Applied | None], ...] = ()


_o = schema.operations.c
COLUMNS = (
    _o.id, _o.at, _o.actor, _o.action, _o.filter, _o.value, _o.reason, _o.last_id, _o.cursor, _o.matched, _o.changed,
    _o.state, _o.finished_at,
)  # fmt: skip

NEWEST_MESSAGE = Statement(select(func.max(schema.messages.c.id)))
NEW_OPERATION = Statement(
    schema.operations.insert().returning(_o.id),
    columns=[column.name for column in schema.operations.columns if column.name != "id"],
)
FIRST_RUNNING = Statement(
    select(*COLUMNS).where(_o.state == schema.sqltext(RUNNING)).order_by(_o.id).limit(schema.sqltext(1))
)
PROGRESS = Statement(
    update(schema.operations)
    .where(_o.id == bindparam("b_id"), _o.state == schema.sqltext(RUNNING), _o.cursor == bindparam("b_cursor"))
    .values(set_to("cursor", "matched", "changed", "state", "finished_at"))
)
STOP = Statement(
    update(schema.operations)
    .where(_o.id == bindparam("b_id"), _o.state == schema.sqltext(RUNNING))
    .values(state=schema.sqltext(STOPPED), finished_at=bindparam("v_at"))
)


def of_row(row: Row) -> Operation:
    """An operation of a row of COLUMNS."""
    id_, at, actor, action, wanted, value, reason, *rest = row
    order = Order.kept(action, actor, reason, value)
    return Operation(id_, at, order, Filter.from_json(wanted), *rest)


def meant_by(order: Order, wanted: Filter) -> Filter:
    """What a filter means for an action, where it says neither states nor ids: what the action can change at all."""
    if order.action is Action.SENT or order.action is Action.GIVE_UP or order.action is Action.RESEND:
        return wanted if wanted.ids else replace(wanted, in_doubt=True)
    if order.action is Action.REQUEUE and order.may_double:
        return filters.for_states(wanted, (*ACTS_ON[Action.REQUEUE], MessageState.IN_DOUBT))
    return filters.for_states(wanted, ACTS_ON[order.action], only_resent=order.action is not Action.REQUEUE)


def begin(tx: Tx, means: Means, order: Order, wanted: Filter) -> Begun:
    """Begin an operation; a few ids are dealt with at once, and answered one by one."""
    tx.flush()
    row = tx.one(NEWEST_MESSAGE, {})
    last_id = 0 if row is None or row[0] is None else int(row[0])
    wanted = meant_by(order, wanted)
    few = 0 < len(set(wanted.ids)) <= DIRECT
    results = _at_once(tx, means, order, wanted) if few else ()
    found = [result for _, result in results if result is not None]
    values: dict[str, Any] = {
        "at": means.now,
        "actor": order.actor,
        "action": order.action.value,
        "filter": wanted.to_json(),
        "value": order.value,
        "reason": order.reason,
        "last_id": last_id,
        "cursor": last_id if few else 0,
        "matched": len(found),
        "changed": sum(result.changed for result in found),
        "state": DONE if few else RUNNING,
        "finished_at": means.now if few else None,
    }
    made = tx.one(NEW_OPERATION, values)
    assert made is not None
    operation_id = int(made[0])
    _audit(tx, operation_id, order, wanted, means.now)
    rest = (values[name] for name in ("last_id", "cursor", "matched", "changed", "state", "finished_at"))
    return Begun(Operation(operation_id, means.now, order, wanted, *rest), results)


def _audit(tx: Tx, operation_id: int, order: Order, wanted: Filter, now: int) -> None:
    detail: dict[str, Any] = {"operation": operation_id, "filter": wanted.given}
    if order.value:
        detail["value"] = json.loads(order.value)
    if order.reason:
        detail["reason"] = order.reason
    audit(tx, order.actor, f"messages {order.action.value}", json.dumps(detail, separators=(",", ":")), now)


def _at_once(tx: Tx, means: Means, order: Order, wanted: Filter) -> tuple[tuple[int, Applied | None], ...]:
    found = filters.step(wanted, None, SCAN)
    matching = set(found.outcome([tx.all(query.statement, query.params) for query in found.queries]).ids)
    ids = dict.fromkeys(wanted.ids)
    return tuple((each, _apply(tx, means, each, order) if each in matching else None) for each in ids)


def _apply(tx: Tx, means: Means, message_id: int, order: Order) -> Applied | None:
    """Apply it to one message; one that cannot be dealt with stops no others."""

    def failed(error: Exception) -> Applied:
        said = f"{order.action.value} cannot be done: {type(error).__name__}: {error}"
        event(tx, message_id, means.now, "operation not applied", actor=order.actor, detail=said)
        return Applied(False, said)

    return tx.guard(partial(apply, tx, means, message_id, order), failed)


def step(tx: Tx, means: Means) -> Operation | None:
    """Work off one step of the oldest operation that is under way; None: there is none."""
    begun = time.monotonic()  # only bounds the step; what is done is the same however it is cut
    tx.flush()
    row = tx.one(FIRST_RUNNING, {})
    if row is None:
        return None
    operation = of_row(row)
    walk = filters.step(operation.wanted, operation.cursor, SCAN, last=operation.last_id)
    found = walk.outcome([tx.all(query.statement, query.params) for query in walk.queries])
    reached, matched, changed = found.reached, 0, 0
    cursor = operation.cursor
    for message_id in found.ids:
        if matched and (matched == STEP or time.monotonic() - begun > STEP_TIME_S):
            reached = cursor
            break
        applied = _apply(tx, means, message_id, operation.order)
        cursor = message_id
        matched += 1
        changed += applied is not None and applied.changed
    return _progressed(tx, operation, reached, matched, changed, means.now)


def _progressed(tx: Tx, operation: Operation, reached: int | None, matched: int, changed: int, now: int) -> Operation:
    """Write down how far it has come. `reached` None: it is done."""
    done = reached is None
    after = replace(
        operation,
        cursor=operation.last_id if reached is None else reached,
        matched=operation.matched + matched,
        changed=operation.changed + changed,
        state=DONE if done else RUNNING,
        finished_at=now if done else None,
    )
    values = {
        "v_cursor": after.cursor,
        "v_matched": after.matched,
        "v_changed": after.changed,
        "v_state": after.state,
        "v_finished_at": after.finished_at,
    }
    if tx.run(PROGRESS, {"b_id": operation.id, "b_cursor": operation.cursor, **values}) != 1:
        raise RuntimeError(f"operation {operation.id} was worked off by somebody else meanwhile")
    return after


def stop(tx: Tx, operation_id: int, actor: str, now: int) -> bool:
    """End an operation where it is; what it has done stays done. False: it is not under way."""
    if tx.run(STOP, {"b_id": operation_id, "v_at": now}) != 1:
        return False
    audit(tx, actor, "operation stop", str(operation_id), now)
    return True
