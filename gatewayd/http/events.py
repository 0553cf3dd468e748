"""GET /api/v1/events: what happens, as server-sent events, from the outbox and not from memory.

A stream goes on exactly where a client left off, also after a restart of the daemon: the id of an event is its place
in the outbox. Source: HTML Living Standard §9.2 (server-sent events). docs/api.md "Events".
"""

from __future__ import annotations

import logging
from asyncio import timeout
from collections.abc import Callable
from typing import Any

from aiohttp import web

from gatewayd import __version__
from gatewayd.apikeys import Scope
from gatewayd.errors import SpoolError
from gatewayd.http.context import CONTEXT, HttpContext
from gatewayd.http.parameters import id_of, is_id, parameter, query_of
from gatewayd.http.problems import HttpProblem, dumps
from gatewayd.router.events import GAP, document, gap
from gatewayd.spool.events import TYPES, Subscription
from gatewayd.spool.outbox_reader import EventPage, OutboxReader

log = logging.getLogger("gatewayd.http")

EVENT_STREAM = "text/event-stream"
LAST_EVENT_ID = "Last-Event-ID"
RETRY_MS = 3000  # when a client that lost its connection is to try again
_CHUNK = 1 << 15  # octets written at once
_PATTERNS = ("*", *sorted({f"{type_.partition('.')[0]}.*" for type_ in TYPES}))


async def events(request: web.Request) -> web.StreamResponse:
    """A stream of events, from `Last-Event-ID` or `after` on, or of those to come."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.READ)
    query = query_of(request, ("types", "after"))
    types = parameter(query, "types", _types) or ("*",)
    after = _last_event_id(request)
    if after is None:
        after = parameter(query, "after", id_of("the id of an event"))
    headers = {"Content-Type": EVENT_STREAM, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if request.method == "HEAD":
        return web.Response(headers=headers)
    with context.events.admitted(request):
        newest = await OutboxReader(context.reader).newest()
        response = web.StreamResponse(headers=headers)
        stream = _Stream(context, request, response, Subscription("", types).wants)
        try:
            await response.prepare(request)
            await stream.run(after, newest)
        except (ConnectionError, TimeoutError):  # the client is gone, or takes nothing any more
            if request.transport is not None:
                request.transport.abort()
        except SpoolError as error:
            log.debug("a stream of events ends, its client will ask again: %s", error)
        return response


class _Stream:
    """One client's stream. `_last`: up to where it was told all it wants; `_known`: what id it knows of."""

    def __init__(
        self, context: HttpContext, request: web.Request, response: web.StreamResponse, wants: Callable[[str], bool]
    ) -> None:
        self._context = context
        self._hub = context.events
        self._request = request
        self._response = response
        self._wants = wants
        self._outbox = OutboxReader(context.reader)
        self._last = self._known = 0
        self._ask_again = 0.0  # monotonic: when it is looked whether the client may still read

    async def run(self, after: int | None, newest: int) -> None:
        """Tell events until the client may not, or we stop. Raises ConnectionError, TimeoutError, SpoolError."""
        await self._write(
            _block(comment=f"gatewayd {__version__}", retry=RETRY_MS, id=newest if after is None else None)
        )
        self._last = self._known = newest if after is None else after
        if self._last > newest:
            await self._unknown(newest)
        behind = self._last < newest
        fresh = False
        while not self._hub.closed and self._may_read():
            if behind:
                page = await self._hub.catch_up(self._outbox, self._last, self._wants)
                await self._tell(page)
                behind = page.more
                continue
            tail = await self._hub.tail(self._outbox, self._last, fresh=fresh)
            await self._tell(tail.page)
            if tail.page.more:
                continue
            try:
                async with timeout(self._hub.keep_alive_s):
                    await tail.changed.wait()
                fresh = False
            except TimeoutError:
                await self._keep_alive()
                fresh = True

    async def _tell(self, page: EventPage) -> None:
        if page.gap is not None:
            first, last = page.gap
            said = f"events {first} to {last} are not kept any more; the lists of messages and inbound have what became"
            await self._write(self._gap(first, last, said))
        waiting = b""
        for record in page.records:
            if not self._wants(record.type):
                continue
            waiting += _block(
                id=record.id, event=record.type, data=dumps(document(record, self._context.store.spool_id))
            )
            self._known = record.id
            if len(waiting) >= _CHUNK:
                await self._write(waiting)
                waiting = b""
        if waiting:
            await self._write(waiting)
        self._last = page.last

    async def _unknown(self, newest: int) -> None:
        """The client knows of events that are not there."""
        said = f"the newest event here is {newest}: is this another spool, or one restored from a backup?"
        block = self._gap(newest + 1, self._last, said, id_=newest)
        self._last = self._known = newest
        await self._write(block)

    def _gap(self, first: int, last: int, detail: str, id_: int | None = None) -> bytes:
        now = self._context.clock.now_ms()
        self._known = last if id_ is None else id_
        return _block(
            id=self._known, event=GAP, data=dumps(gap(first, last, self._context.store.spool_id, now, detail))
        )

    async def _keep_alive(self) -> None:
        """So that nothing between takes the connection for dead. What was passed over need not be looked at again."""
        await self._write(_block(comment="keep-alive", id=self._last if self._last > self._known else None))
        self._known = max(self._last, self._known)

    async def _write(self, octets: bytes) -> None:
        """Raises TimeoutError if the client takes nothing for too long: no more than a chunk waits for it here."""
        async with timeout(self._hub.stall_s):
            await self._response.write(octets)

    def _may_read(self) -> bool:
        """Whether the client's key is still good: a stream outlives many reloads."""
        now = self._context.clock.monotonic()
        if now < self._ask_again:
            return True
        self._ask_again = now + self._hub.keep_alive_s
        try:
            self._context.authenticator.require(self._request, Scope.READ)
        except HttpProblem:
            return False
        return True


def _block(*, comment: str = "", **fields: Any) -> bytes:
    """One event; or fields alone, which the client heeds and which are no event. No value has a line end in it."""
    lines = [f": {comment}"] if comment else []
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return ("\n".join(lines) + "\n\n").encode()


def _last_event_id(request: web.Request) -> int | None:
    """What a client that connects again has seen last. Raises HttpProblem (400) if it is no id of ours."""
    given = request.headers.get(LAST_EVENT_ID, "")
    if not given:
        return None
    if not is_id(given):
        reason = "the id of an event of this stream is expected, a number"
        raise HttpProblem(400, "invalid-header", f"{LAST_EVENT_ID}: {reason}", errors=[(LAST_EVENT_ID, reason)])
    return int(given)


def _types(value: str) -> tuple[str, ...]:
    types = tuple(part.strip() for part in value.split(","))
    if not all(type_ in TYPES or type_ in _PATTERNS for type_ in types):
        raise ValueError(f"one or more of {', '.join((*_PATTERNS, *TYPES))} (with commas between them)")
    return types
