"""Pages of messages by a filter, how many it means, and the operations on them: what lists show, in bounded time.

A filter that fits a few of ten million messages is walked in steps. A page may then hold fewer messages than asked
for, or none, and still not be the last: its `next` says where to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gatewayd.spool import filters, operations, schema
from gatewayd.spool.filters import Filter
from gatewayd.spool.operations import Operation
from gatewayd.spool.reader import MessageView, Reader, read_messages

PAGE_SCAN = 20_000  # rows looked at for one page
COUNT_SCAN = 500_000  # rows looked at for a count
STEP_SCAN = 5000  # rows looked at by one statement
MAX_COUNT = 10_000  # messages counted

_o = schema.operations.c


@dataclass(frozen=True, slots=True)
class Page:
    """`next`: `after` of the next page; None on the last one."""

    items: tuple[MessageView, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class Counted:
    """How many messages a filter means; `more`: there are, or may be, more than were counted."""

    count: int
    more: bool


class MessageReader:
    """Reads lists of messages and of operations over a `Reader`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def page(self, wanted: Filter, *, after: int | None, limit: int, descending: bool = False) -> Page:
        """Up to `limit` messages that the filter means, in order of their ids, those that follow `after` in it."""
        size = min(limit + 1, STEP_SCAN) if filters.is_exact(wanted) else STEP_SCAN
        ids: list[int] = []
        looked_at = 0
        reached = after
        async with self._reader.snapshot() as connection:
            while True:
                found = await _step(connection, wanted, reached, size, descending)
                ids += found.ids
                looked_at += max(found.looked_at, 1)
                reached = found.reached
                if reached is None or len(ids) > limit or looked_at >= PAGE_SCAN:
                    break
            if len(ids) > limit:
                ids = ids[:limit]
                reached = ids[-1]
            return Page(await read_messages(connection, ids), reached)

    async def count(self, wanted: Filter) -> Counted:
        """How many messages a filter means, as far as that can be told in bounded time."""
        count = looked_at = 0
        reached: int | None = None
        while True:
            async with self._reader.snapshot() as connection:
                found = await _step(connection, wanted, reached, STEP_SCAN, False)
            count += len(found.ids)
            looked_at += max(found.looked_at, 1)
            reached = found.reached
            if reached is None:
                return Counted(count, False)
            if count >= MAX_COUNT or looked_at >= COUNT_SCAN:
                return Counted(count, True)

    async def operations(self, *, limit: int, before: int | None = None) -> list[Operation]:
        """The newest operations first, those before an id."""
        statement = select(*operations.COLUMNS).order_by(_o.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(_o.id < before)
        async with self._reader.snapshot() as connection:
            return [operations.of_row(tuple(row)) for row in await connection.execute(statement)]

    async def operation(self, operation_id: int) -> Operation | None:
        """One operation; None if there is none with this id."""
        statement = select(*operations.COLUMNS).where(_o.id == operation_id)
        async with self._reader.snapshot() as connection:
            row = (await connection.execute(statement)).first()
        return None if row is None else operations.of_row(tuple(row))


async def _step(
    connection: AsyncConnection, wanted: Filter, after: int | None, limit: int, descending: bool
) -> filters.Found:
    step = filters.step(wanted, after, limit, descending=descending)
    pages: list[Sequence[tuple[int, int]]] = []
    for query in step.queries:
        rows = await connection.execute(query.clause, query.params)
        pages.append([(row[0], row[1]) for row in rows])
    return step.outcome(pages)
