"""Sticky senders: which SIM wrote to a number last, so that the next text comes from the same number."""

from __future__ import annotations

from sqlalchemy import bindparam, select, update

from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.writer import Tx

_s = schema.senders.c

SENDER = Statement(select(_s.sim_id).where(_s.number == bindparam("number")))
SENT_BY = Statement(
    update(schema.senders)
    .where(_s.number == bindparam("b_number"))
    .values(sim_id=bindparam("v_sim_id"), at=bindparam("v_at"))
)
FIRST_SENT_BY = Statement(schema.senders.insert(), columns=["number", "sim_id", "at"])


def sender(tx: Tx, number: str) -> int:
    """The SIM that wrote to the number last; 0 if none did."""
    row = tx.one(SENDER, {"number": number})
    return 0 if row is None else int(row[0])


def wrote(tx: Tx, number: str, sim_id: int, now: int) -> None:
    """The SIM has written to the number."""
    if tx.run(SENT_BY, {"b_number": number, "v_sim_id": sim_id, "v_at": now}) == 0:
        tx.run(FIRST_SENT_BY, {"number": number, "sim_id": sim_id, "at": now})
