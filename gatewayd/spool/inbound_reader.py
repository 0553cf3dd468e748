"""Reading what came in: messages as they were handed over, and the PDUs they are made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gatewayd.spool import schema
from gatewayd.spool.reader import MAX_PAGE, Reader

MAX_DUPLICATES = 100  # redeliveries of one message that are shown

_i = schema.inbound_messages.c
_p = schema.inbound_parts.c


@dataclass(frozen=True, slots=True)
class InboundView:
    """An inbound message. Times in epoch ms: `at` it was handed over, `received_at` its first part came.

    `kind` is text, data or undecodable (`error` says why). `number` is the sender as E.164 or short code, "" if it is
    neither; `originator` as received; `recipient` the SIM's own number, "" if unknown. `parts` of `parts_total` are in
    it; `continues` is the message that was handed over without them. `intent` and `tier`: the opt-out rules' verdict.
    """

    id: int
    at: int
    received_at: int
    channel: str
    sim_id: int
    kind: str
    originator: str
    number: str
    recipient: str
    sent_at: int | None
    text: str | None
    data: bytes | None
    pid: int | None
    dcs: int | None
    parts: int
    parts_total: int
    continues: int | None
    error: str | None
    intent: str
    tier: str
    rule: str

    @property
    def partial(self) -> bool:
        return self.parts < self.parts_total or self.continues is not None


@dataclass(frozen=True, slots=True)
class DuplicateView:
    """The same PDU seen again: where and when. It was handed to nobody."""

    id: int
    received_at: int
    listing: str
    storage: str
    storage_index: int | None


@dataclass(frozen=True, slots=True)
class PartView:
    """One received PDU (`raw`: hex, SMSC address included). `listing` names the reading of the SIM it came in."""

    id: int
    received_at: int
    channel: str
    raw: str
    listing: str
    storage: str
    storage_index: int | None
    sent_at: int | None
    concat_ref: int | None
    concat_bits: int | None
    concat_total: int | None
    concat_seq: int | None
    text: str | None
    error: str | None
    duplicates: tuple[DuplicateView, ...] = ()


@dataclass(frozen=True, slots=True)
class InboundDetail:
    """An inbound message and its parts in their order, all of one moment."""

    message: InboundView
    parts: tuple[PartView, ...]


COLUMNS = tuple(getattr(_i, name) for name in InboundView.__dataclass_fields__)
_PART = tuple(getattr(_p, name) for name in PartView.__dataclass_fields__ if name != "duplicates")
_DUPLICATE = tuple(getattr(_p, name) for name in DuplicateView.__dataclass_fields__)


class InboundReader:
    """Reads inbound messages. Every method raises SpoolError if the spool cannot be read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def inbound(
        self, *, after: int | None = None, limit: int = 100, number: str | None = None, descending: bool = False
    ) -> list[InboundView]:
        """Up to `limit` messages in the order they were handed over (or the other way), after this id in that order.

        `number`: only from this E.164 number or short code.
        """
        statement = select(*COLUMNS).order_by(_i.id.desc() if descending else _i.id).limit(min(limit, MAX_PAGE + 1))
        if after is not None:
            statement = statement.where(_i.id < after if descending else _i.id > after)
        if number is not None:
            statement = statement.where(_i.number == number)
        async with self._reader.snapshot() as connection:
            return [inbound_view(row) for row in (await connection.execute(statement)).mappings()]

    async def one(self, inbound_id: int) -> InboundDetail | None:
        """A message with its raw parts; None if there is none with this id."""
        async with self._reader.snapshot() as connection:
            found = (await connection.execute(select(*COLUMNS).where(_i.id == inbound_id))).mappings().first()
            if found is None:
                return None
            statement = select(*_PART, _p.digest).where(_p.message_id == inbound_id)
            rows = (await connection.execute(statement.order_by(_p.concat_seq, _p.id))).mappings().all()
            again = await _duplicates(connection, found["sim_id"], {bytes(row["digest"]) for row in rows})
        parts = tuple(
            PartView(**{column.name: row[column.name] for column in _PART}, duplicates=again[row["id"]]) for row in rows
        )
        return InboundDetail(inbound_view(found), parts)


async def _duplicates(
    connection: AsyncConnection, sim_id: int, digests: set[bytes]
) -> defaultdict[int, tuple[DuplicateView, ...]]:
    """By the part they repeat. A repetition has the SIM and the octets of what it repeats: the index is on those."""
    found: defaultdict[int, tuple[DuplicateView, ...]] = defaultdict(tuple)
    statement = (
        select(*_DUPLICATE, _p.duplicate_of)
        .where(_p.sim_id == sim_id, _p.digest.in_(sorted(digests)), _p.duplicate_of.is_not(None))
        .limit(MAX_DUPLICATES)
    )
    for *values, duplicate_of in sorted(tuple(row) for row in await connection.execute(statement)):
        found[duplicate_of] += (DuplicateView(*values),)
    return found


def inbound_view(row: Mapping[Any, Any], prefix: str = "") -> InboundView:
    """The view of a row of COLUMNS, each labelled with `prefix` and its name."""
    values = {name: row[prefix + name] for name in InboundView.__dataclass_fields__}
    if values["data"] is not None:
        values["data"] = bytes(values["data"])
    return InboundView(**values)
