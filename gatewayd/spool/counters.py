"""Ids that are given in the order of commits and never twice."""

from __future__ import annotations

from sqlalchemy import bindparam, update

from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.writer import Tx

MESSAGE, OUTBOX, RECEIVED = "message", "outbox", "inbound"

NEXT_IDS = Statement(
    update(schema.counters)
    .where(schema.counters.c.name == bindparam("b_name"))
    .values(value=schema.counters.c.value + bindparam("b_count"))
    .returning(schema.counters.c.value)
)


def next_ids(tx: Tx, counter: str, count: int) -> range:
    """`count` new ids. The counter's row stays locked until the commit, so ids become visible in their order."""
    row = tx.one(NEXT_IDS, {"b_name": counter, "b_count": count})
    assert row is not None
    return range(row[0] - count + 1, row[0] + 1)
