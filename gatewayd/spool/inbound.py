"""What came in: each PDU is a row before the SIM may forget it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import bindparam, select

from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.writer import Tx

REMEMBERED_MS = 7 * 86_400_000  # an SMS centre that misses an acknowledgement repeats within days


@dataclass(frozen=True, slots=True)
class NewPart:
    """One received TPDU. `error`: why it could not be decoded (the fields below are then empty). Times in epoch ms."""

    channel: str
    sim_id: int
    raw: str
    listing: str
    storage: str = ""
    storage_index: int | None = None
    error: str | None = None
    originator: str = ""
    originator_ton: int | None = None
    sent_at: int | None = None
    pid: int | None = None
    dcs: int | None = None
    concat_ref: int | None = None
    concat_bits: int | None = None
    concat_total: int | None = None
    concat_seq: int | None = None
    text: str | None = None
    user_data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """The row's id, and the id of the earlier row it repeats, if it does."""

    id: int
    duplicate_of: int | None = None


_p = schema.inbound_parts.c
_COLUMNS = [column.name for column in schema.inbound_parts.columns if column.name not in {"id", "message_id"}]

SAME = Statement(
    select(_p.id, _p.listing)
    .where(
        _p.sim_id == bindparam("sim_id"),
        _p.digest == bindparam("digest"),
        _p.received_at >= bindparam("since"),
        _p.duplicate_of.is_(None),
    )
    .order_by(_p.id.desc())
)
NEW_PART = Statement(schema.inbound_parts.insert().returning(_p.id), columns=_COLUMNS)


def record(tx: Tx, part: NewPart, now: int) -> Kept:
    """Keep a received TPDU. The same octets from an earlier reading of the SIM are the same message seen again.

    Two equal PDUs in one reading are two messages: somebody did send the same twice.
    """
    digest = hashlib.sha256(part.raw.upper().encode()).digest()
    known = tx.all(SAME, {"sim_id": part.sim_id, "digest": digest, "since": now - REMEMBERED_MS})
    duplicate_of = None
    if known and all(listing != part.listing for _, listing in known):
        duplicate_of = int(known[0][0])
    values = {name: getattr(part, name) for name in _COLUMNS if name not in {"received_at", "digest", "duplicate_of"}}
    row = tx.one(NEW_PART, {**values, "received_at": now, "digest": digest, "duplicate_of": duplicate_of})
    assert row is not None
    return Kept(row[0], duplicate_of)
