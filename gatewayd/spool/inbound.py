"""What came in: each PDU is a row before the SIM may forget it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import bindparam, select

from gatewayd.spool import schema
from gatewayd.spool.engine import Statement, storable
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
    select(_p.id, _p.listing, _p.storage, _p.storage_index, _p.duplicate_of)
    .where(_p.sim_id == bindparam("sim_id"), _p.digest == bindparam("digest"), _p.received_at >= bindparam("since"))
    .order_by(_p.id)
)
NEW_PART = Statement(schema.inbound_parts.insert().returning(_p.id), columns=_COLUMNS)


def record(tx: Tx, part: NewPart, now: int) -> Kept:
    """Keep a received TPDU. The same octets from an earlier reading of the SIM are the same message seen again.

    Two equal PDUs in one reading are two messages: somebody did send the same twice. So of several in a reading as
    many are repetitions as earlier readings had messages. The same place in the same reading is this very call, made
    again because nobody knows whether its commit took place.
    """
    digest = hashlib.sha256(part.raw.upper().encode()).digest()
    known = tx.all(SAME, {"sim_id": part.sim_id, "digest": digest, "since": now - REMEMBERED_MS})
    place = (part.listing, part.storage, part.storage_index)
    for part_id, *found, duplicate_of in known:
        if tuple(found) == place:
            return Kept(part_id, duplicate_of)
    repeated = sum(listing == part.listing and of is not None for _, listing, _, _, of in known)
    messages = [part_id for part_id, listing, _, _, of in known if listing != part.listing and of is None]
    duplicate_of = messages[repeated] if repeated < len(messages) else None
    values = {name: getattr(part, name) for name in _COLUMNS if name not in {"received_at", "digest", "duplicate_of"}}
    values = {name: storable(value) if isinstance(value, str) else value for name, value in values.items()}
    row = tx.one(NEW_PART, {**values, "received_at": now, "digest": digest, "duplicate_of": duplicate_of})
    assert row is not None
    return Kept(row[0], duplicate_of)
