"""What is forgotten by age, a bounded step at a time: used Idempotency-Keys, deliveries that ended, events told, and
what guards and quotas remember. Messages, and what came in, are kept by the configuration's rules: prune.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, delete, or_, select, tuple_

from gatewayd.spool import quota, schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.events import DEAD, DONE
from gatewayd.spool.writer import STEP, Tx

KEY_LIFE_MS = 7 * 86_400_000  # of an Idempotency-Key
TOLD_LIFE_MS = 7 * 86_400_000  # of an event, once everybody was told
DEAD_LIFE_MS = 30 * 86_400_000  # of a delivery that was given up, during which it can be replayed
TEXT_LIFE_MS = 7 * 86_400_000  # of what the guard against repeated texts remembers: its longest window
FAULT_LIFE_MS = 30 * 86_400_000  # of a number that failed, after its last failure
SWEEP_ROWS = 2000  # events looked at in one transaction
SWEEP_REST_MS = 600_000  # between two walks through the old events

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
_t = schema.recent_texts.c
_t_old = select(_t.digest).where(_t.at < bindparam("before")).order_by(_t.at).limit(schema.sqltext(STEP))
OLD_TEXTS = Statement(delete(schema.recent_texts).where(_t.digest.in_(_t_old)))
_f = schema.number_faults.c
_f_old = (
    select(_f.number)
    .where(_f.last_at < bindparam("before"), or_(_f.until.is_(None), _f.until < bindparam("now")))
    .order_by(_f.last_at)
    .limit(schema.sqltext(STEP))
)
OLD_FAULTS = Statement(delete(schema.number_faults).where(_f.number.in_(_f_old)))
_e = schema.outbox.c
EVENTS_FROM = Statement(
    select(_e.id, _e.at).where(_e.id > bindparam("after")).order_by(_e.id).limit(schema.sqltext(SWEEP_ROWS))
)
OLD_EVENTS = Statement(
    delete(schema.outbox).where(
        _e.id > bindparam("after"),
        _e.id <= bindparam("last"),
        ~select(_d.id).where(_d.outbox_id == _e.id).exists(),
    )
)


@dataclass(slots=True)
class Sweep:
    """How far the walk through old events has come: what dead letters keep must not be looked at again and again."""

    after: int = 0
    rests_until: int = 0


def forget(tx: Tx, sweep: Sweep, now: int) -> bool:
    """Forget a step of what is old enough; whether there is more."""
    keys = tx.run(OLD_KEYS, {"before": now - KEY_LIFE_MS})
    ended = tx.run(OLD_DELIVERIES, {"before": now - TOLD_LIFE_MS, "dead_before": now - DEAD_LIFE_MS})
    texts = tx.run(OLD_TEXTS, {"before": now - TEXT_LIFE_MS})
    faults = tx.run(OLD_FAULTS, {"before": now - FAULT_LIFE_MS, "now": now})
    recipients = quota.forget_recipients(tx, now)
    return _sweep(tx, sweep, now) or recipients or max(keys, ended, texts, faults) == STEP


def _sweep(tx: Tx, sweep: Sweep, now: int) -> bool:
    """Ids and times of events grow together, so a walk by id ends at the first that is young."""
    if now < sweep.rests_until <= now + SWEEP_REST_MS:
        return False
    found = tx.all(EVENTS_FROM, {"after": sweep.after})
    old = [event_id for event_id, at in found if at < now - TOLD_LIFE_MS]
    if old:
        tx.run(OLD_EVENTS, {"after": sweep.after, "last": old[-1]})
    if len(old) == SWEEP_ROWS:
        sweep.after = old[-1]
        return True
    sweep.after, sweep.rests_until = 0, now + SWEEP_REST_MS
    return False
