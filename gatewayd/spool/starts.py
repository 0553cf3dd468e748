"""When each dialer began its last message, so that its interval holds over a restart. Written with the intent."""

from __future__ import annotations

from sqlalchemy import bindparam, select, update

from gatewayd.model import Outcome
from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.writer import Tx

_d = schema.dialer_starts.c
_a = schema.attempts.c

ALL_STARTS = Statement(select(_d.source, _d.message_id, _d.intent_at))
ATTEMPT = Statement(
    select(_a.started_at, _a.finished_at, _a.outcome)
    .where(_a.message_id == bindparam("message_id"), _a.intent_at == bindparam("intent_at"))
    .order_by(_a.message_id, _a.seq, _a.number)
    .limit(schema.sqltext(1))
)
STARTED_AGAIN = Statement(
    update(schema.dialer_starts)
    .where(_d.source == bindparam("b_source"))
    .values(message_id=bindparam("v_message_id"), intent_at=bindparam("v_intent_at"))
)
FIRST_START = Statement(schema.dialer_starts.insert(), columns=["source", "message_id", "intent_at"])


def note(tx: Tx, source: str, message_id: int, intent_at: int) -> None:
    """A message of a source (dialer:NAME) is about to be begun."""
    if tx.run(STARTED_AGAIN, {"b_source": source, "v_message_id": message_id, "v_intent_at": intent_at}) == 0:
        tx.run(FIRST_START, {"source": source, "message_id": message_id, "intent_at": intent_at})


def last(tx: Tx, now: int) -> dict[str, int]:
    """When each source began its last message, epoch ms; the latest it may have been, where that is not known, and
    `now` where its record is gone.
    """
    tx.flush()
    found: dict[str, int] = {}
    for source, message_id, intent_at in tx.all(ALL_STARTS, {}):
        attempt = tx.one(ATTEMPT, {"message_id": message_id, "intent_at": intent_at})
        started_at, finished_at, outcome = (now, None, None) if attempt is None else attempt
        if started_at is None and outcome == Outcome.IN_DOUBT.value:
            started_at = finished_at  # when the next start of the daemon found it
        found[source] = intent_at if started_at is None else started_at
    return found
