"""What endpoints have still to be told, what came of it, and what was given up: reading and writing `deliveries`.

A delivery is one event for one endpoint. Pending ones are told in the order of their ids; router/outbox.py does that.
Reads are pages, so that an endpoint that is a million events behind costs no more memory than another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select, update

from gatewayd.spool import schema
from gatewayd.spool.engine import Statement, set_to, storable
from gatewayd.spool.events import DEAD, DONE, PENDING
from gatewayd.spool.reader import MAX_PAGE, Reader
from gatewayd.spool.writer import Tx

STEP = 500  # rows moved in one transaction
MAX_ERROR = 500  # characters of an error that are kept
READS_AT_ONCE = 4  # so that the connections of people's reads are never used up

STATES = {"pending": PENDING, "done": DONE, "dead": DEAD}

_d = schema.deliveries.c
_o = schema.outbox.c
_pending = _d.state == schema.sqltext(PENDING)


@dataclass(frozen=True, slots=True)
class Pending:
    """A delivery that is not done. `group`: those of the same one are told in order (a message; 0 if it is of none).

    `url` and `format` are of callbacks. `attempts` counts tries that failed; `status` and `error` are of the last.
    """

    id: int
    outbox_id: int
    group: int
    url: str
    format: str
    attempts: int
    created_at: int
    next_at: int
    status: int | None
    error: str


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """A row of the log. `state` is a key of STATES; `type` and `at` are of the event, "" and None if it is gone."""

    id: int
    outbox_id: int
    endpoint: str
    url: str
    state: str
    attempts: int
    created_at: int
    next_at: int
    finished_at: int | None
    status: int | None
    error: str
    type: str
    at: int | None
    message_id: int | None


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a try: the delivery's new values."""

    id: int
    state: int
    attempts: int
    next_at: int
    finished_at: int | None
    status: int | None
    error: str


# Writing: operations for Writer.run.

TOLD = Statement(
    update(schema.deliveries)
    .where(_d.id == bindparam("b_id"), _pending)
    .values(**set_to("state", "attempts", "next_at", "finished_at", "status", "error"))
)
_overdue = (
    select(_d.id)
    .where(_d.endpoint == bindparam("b_endpoint"), _pending, _d.created_at <= bindparam("before"))
    .order_by(_d.id)
    .limit(schema.sqltext(STEP))
)
OVERDUE = Statement(
    update(schema.deliveries)
    .where(_d.id.in_(_overdue), _pending)
    .values(state=schema.sqltext(DEAD), **set_to("finished_at", "error"))
    .returning(_d.outbox_id)
)
AGAIN = Statement(
    update(schema.deliveries)
    .where(_d.id == bindparam("b_id"), _d.state == bindparam("b_state"))
    .values(state=schema.sqltext(PENDING), **set_to("attempts", "created_at", "next_at", "finished_at", "error"))
)


def record(tx: Tx, told: Sequence[Told]) -> None:
    """Keep what came of tries. A delivery that is not pending any more stays as it is."""
    for each in told:
        params = {
            "b_id": each.id,
            "v_state": each.state,
            "v_attempts": each.attempts,
            "v_next_at": each.next_at,
            "v_finished_at": each.finished_at,
            "v_status": each.status,
            "v_error": storable(each.error[:MAX_ERROR]),
        }
        tx.run(TOLD, params)


def give_up(tx: Tx, endpoint: str, before: int, error: str, now: int) -> list[int]:
    """Make dead letters of what an endpoint has had to be told since before a time, STEP at most; the events' ids."""
    params = {
        "b_endpoint": endpoint,
        "before": before,
        "v_finished_at": now,
        "v_error": storable(error[:MAX_ERROR]),
    }
    return sorted(int(row[0]) for row in tx.all(OVERDUE, params))


def replay(tx: Tx, found: Sequence[tuple[int, str]], state: int, actor: str, now: int) -> int:
    """Make deliveries (id, endpoint) in `state` pending again, as if they were new; how many still were in it.

    They keep their place: they are told before what is younger.
    """
    count = 0
    for delivery_id, endpoint in found:
        params = {
            "b_id": delivery_id,
            "b_state": state,
            "v_attempts": 0,
            "v_created_at": now,
            "v_next_at": now,
            "v_finished_at": None,
            "v_error": "",
        }
        if tx.run(AGAIN, params):
            count += 1
            tx.notices.endpoints.add(endpoint)
    if count:
        detail = f"{count} deliveries, {found[0][0]} to {found[-1][0]}"
        tx.add(schema.audit, {"at": now, "actor": actor, "action": "webhooks.replay", "detail": detail})
    return count


# Reading.

_PENDING = (
    _d.id, _d.outbox_id, func.coalesce(_o.message_id, 0), _d.url, _d.format, _d.attempts, _d.created_at, _d.next_at,
    _d.status, _d.error,
)  # fmt: skip
_LOG = (
    _d.id, _d.outbox_id, _d.endpoint, _d.url, _d.state, _d.attempts, _d.created_at, _d.next_at, _d.finished_at,
    _d.status, _d.error, func.coalesce(_o.type, ""), _o.at, _o.message_id,
)  # fmt: skip
_WORDS = {number: word for word, number in STATES.items()}


class DeliveryReader:
    """Reads deliveries. Every method raises SpoolError if the spool cannot be read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._turns = asyncio.Semaphore(READS_AT_ONCE)

    async def endpoints(self, after: str, limit: int = MAX_PAGE) -> list[str]:
        """Endpoints that have something to be told, by name, those that follow `after`."""
        statement = (
            select(_d.endpoint)
            .where(_pending, _d.endpoint > after)
            .group_by(_d.endpoint)
            .order_by(_d.endpoint)
            .limit(limit)
        )
        return [str(row[0]) for row in await self._rows(statement)]

    async def heads(self, endpoint: str, after: int, limit: int) -> list[Pending]:
        """What an endpoint has still to be told, in order, those that follow the delivery `after`."""
        statement = (
            select(*_PENDING)
            .join_from(schema.deliveries, schema.outbox, _o.id == _d.outbox_id, isouter=True)
            .where(_d.endpoint == endpoint, _pending, _d.id > after)
            .order_by(_d.id)
            .limit(limit)
        )
        return [Pending(*row) for row in await self._rows(statement)]

    async def log(
        self,
        *,
        endpoint: str | None = None,
        state: str | None = None,
        after: int | None = None,
        limit: int = 100,
        descending: bool = False,
    ) -> list[DeliveryView]:
        """Up to `limit` deliveries in order of their ids, those that follow `after` in that order."""
        statement = (
            select(*_LOG)
            .join_from(schema.deliveries, schema.outbox, _o.id == _d.outbox_id, isouter=True)
            .order_by(_d.id.desc() if descending else _d.id)
            .limit(min(limit, MAX_PAGE + 1))
        )
        if endpoint is not None:
            statement = statement.where(_d.endpoint == endpoint)
        if state is not None:
            statement = statement.where(_d.state == schema.sqltext(STATES[state]))
        if after is not None:
            statement = statement.where(_d.id < after if descending else _d.id > after)
        return [_view(row) for row in await self._rows(statement)]

    async def ended(
        self,
        state: int,
        *,
        endpoint: str | None = None,
        ids: Sequence[int] | None = None,
        since: int | None = None,
        until: int | None = None,
        after: int = 0,
    ) -> list[tuple[int, str]]:
        """Up to STEP deliveries (id, endpoint) in `state` after the delivery `after`, to be told once more.

        `since` (from) and `until` (before) are of the event, in epoch ms.
        """
        statement = select(_d.id, _d.endpoint).where(_d.state == schema.sqltext(state), _d.id > after)
        if endpoint is not None:
            statement = statement.where(_d.endpoint == endpoint)
        if ids is not None:
            statement = statement.where(_d.id.in_(ids))
        if since is not None or until is not None:
            statement = statement.join(schema.outbox, _o.id == _d.outbox_id)
        if since is not None:
            statement = statement.where(_o.at >= since)
        if until is not None:
            statement = statement.where(_o.at < until)
        return [(int(row[0]), str(row[1])) for row in await self._rows(statement.order_by(_d.id).limit(STEP))]

    async def _rows(self, statement: Any) -> list[Any]:
        async with self._turns, self._reader.snapshot() as connection:
            return list(await connection.execute(statement))


def _view(row: Any) -> DeliveryView:
    values = list(row)
    values[4] = _WORDS[values[4]]
    return DeliveryView(*values)
