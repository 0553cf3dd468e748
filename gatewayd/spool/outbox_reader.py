"""Reading the outbox: the events as applications are told of them, in the order of their commits.

A row of the outbox holds what may have changed since; the rest comes from the message, the inbound message or the
evidence it is about. router/events.py makes the document of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from gatewayd.model import MessageClass
from gatewayd.spool import schema
from gatewayd.spool.counters import OUTBOX
from gatewayd.spool.inbound_reader import COLUMNS as INBOUND_COLUMNS
from gatewayd.spool.inbound_reader import InboundView, inbound_view
from gatewayd.spool.reader import Reader

SCANNED = 1000  # rows of the outbox looked at for one page
AT_ONCE = 500  # ids in one statement

_o = schema.outbox.c
_m = schema.messages.c
_e = schema.optout_events.c
_counter = schema.counters.c


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """What does not change about a message. `accepted_at` in epoch ms."""

    id: int
    to: str
    class_: MessageClass
    campaign: str
    agent: str
    client_ref: str | None
    accepted_at: int


@dataclass(frozen=True, slots=True)
class OptOutFacts:
    """What does not change about evidence of an opt-out or opt-in. `at` in epoch ms."""

    id: int
    number: str
    scope: str
    at: int
    inbound_id: int | None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event with what it is about: one of `message`, `inbound`, `optout`; none of them for a channel.

    `id` counts in the order of commits, without holes. `data` is what was true then: of a message state, delivery and
    reason; of an opt-out state, prior_state, blocked and source; of a channel state and reason. Where retention has
    deleted what the event is about, its id is in `data` (`idm`, `id`). `channel` of a message is the one that had it
    last at that moment.
    """

    id: int
    at: int
    type: str
    channel: str | None
    data: Mapping[str, Any]
    message: MessageFacts | None = None
    inbound: InboundView | None = None
    optout: OptOutFacts | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in order, and up to which id (`last`) all were looked at, those not wanted included.

    `gap`: first and last id of events that followed and are not kept any more; the page begins after them.
    `newest` is the id of the newest event there was at that moment.
    """

    records: tuple[EventRecord, ...]
    last: int
    newest: int
    gap: tuple[int, int] | None = None

    @property
    def more(self) -> bool:
        return self.last < self.newest


_NEWEST = select(_counter.value).where(_counter.name == OUTBOX)
_OUTBOX = (_o.id, _o.at, _o.type, _o.channel, _o.data, _o.message_id, _o.inbound_id, _o.optout_event_id)
_MESSAGE = (
    _m.to_number, getattr(_m, "class").label("class_"), _m.campaign, _m.agent, _m.client_ref,
    _m.accepted_at,
)  # fmt: skip
_OPTOUT = (_e.number, _e.scope, _e.at, _e.inbound_id)
_RECORDS = (
    select(
        *(column.label(f"o_{column.name}") for column in _OUTBOX),
        *(column.label(f"m_{column.name}") for column in _MESSAGE),
        *(column.label(f"i_{column.name}") for column in INBOUND_COLUMNS),
        *(column.label(f"e_{column.name}") for column in _OPTOUT),
    )
    .select_from(schema.outbox)
    .join(schema.messages, _m.id == _o.message_id, isouter=True)
    .join(schema.inbound_messages, schema.inbound_messages.c.id == _o.inbound_id, isouter=True)
    .join(schema.optout_events, _e.id == _o.optout_event_id, isouter=True)
    .order_by(_o.id)
)


class OutboxReader:
    """Reads events. Every method raises SpoolError if the spool cannot be read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def newest(self) -> int:
        """The id of the newest event there ever was; 0 if there was none."""
        async with self._reader.snapshot() as connection:
            return await _newest(connection)

    async def oldest(self) -> int:
        """The id of the oldest event that is kept; one more than the newest if none is."""
        async with self._reader.snapshot() as connection:
            found = (await connection.execute(select(_o.id).order_by(_o.id).limit(1))).scalar()
            return await _newest(connection) + 1 if found is None else int(found)

    async def after(self, after: int, limit: int, wants: Callable[[str], bool] = lambda type_: True) -> EventPage:
        """Up to `limit` events after this id of types that `wants` takes.

        Looks at SCANNED rows at most: a page may have few events, or none, and more behind it (`more`). Ids have no
        holes, so one in what is kept means that events were forgotten; a page ends before it, the next one says so.
        """
        async with self._reader.snapshot() as connection:
            newest = await _newest(connection)
            statement = select(_o.id, _o.type).where(_o.id > after).order_by(_o.id).limit(SCANNED)
            rows = [(int(row[0]), str(row[1])) for row in await connection.execute(statement)]
            first = rows[0][0] if rows else newest + 1
            gap = (after + 1, first - 1) if first > after + 1 else None
            last = first - 1
            wanted: list[int] = []
            for event_id, type_ in rows:
                if event_id != last + 1 or len(wanted) == limit:
                    break
                last = event_id
                if wants(type_):
                    wanted.append(event_id)
            found = await _records(connection, wanted)
        return EventPage(tuple(found[event_id] for event_id in wanted), max(last, after), newest, gap)

    async def records(self, ids: Sequence[int]) -> dict[int, EventRecord]:
        """The events with these ids, those that are kept."""
        async with self._reader.snapshot() as connection:
            return await _records(connection, ids)


async def _newest(connection: AsyncConnection) -> int:
    """By the counter, which knows of events that are forgotten too."""
    return int((await connection.execute(_NEWEST)).scalar() or 0)


async def _records(connection: AsyncConnection, ids: Sequence[int]) -> dict[int, EventRecord]:
    found: dict[int, EventRecord] = {}
    for start in range(0, len(ids), AT_ONCE):
        statement = _RECORDS.where(_o.id.in_(ids[start : start + AT_ONCE]))
        for row in (await connection.execute(statement)).mappings():
            found[int(row["o_id"])] = _record(row)
    return found


def _record(row: RowMapping) -> EventRecord:
    data, message = json.loads(row["o_data"]), _message(row)
    if row["o_message_id"] is not None and message is None:
        data = {"idm": row["o_message_id"], **data}
    elif row["o_inbound_id"] is not None and row["i_id"] is None:
        data = {"id": row["o_inbound_id"], **data}
    return EventRecord(
        id=row["o_id"],
        at=row["o_at"],
        type=row["o_type"],
        channel=row["o_channel"],
        data=data,
        message=message,
        inbound=None if row["i_id"] is None else inbound_view(row, "i_"),
        optout=_optout(row),
    )


def _message(row: RowMapping) -> MessageFacts | None:
    if row["m_accepted_at"] is None:
        return None
    return MessageFacts(
        id=row["o_message_id"],
        to=row["m_to_number"],
        class_=MessageClass(row["m_class_"]),
        campaign=row["m_campaign"],
        agent=row["m_agent"],
        client_ref=row["m_client_ref"],
        accepted_at=row["m_accepted_at"],
    )


def _optout(row: RowMapping) -> OptOutFacts | None:
    if row["e_number"] is None:
        return None
    return OptOutFacts(row["o_optout_event_id"], row["e_number"], row["e_scope"], row["e_at"], row["e_inbound_id"])
