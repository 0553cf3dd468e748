"""What the streams of events share: the wake-up after a commit, one read for all, and their number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

from gatewayd.http.problems import HttpProblem
from gatewayd.spool.outbox_reader import EventPage, OutboxReader

PAGE = 100  # events of one read
TAILS = 32  # reads that are remembered
READERS = 4  # streams that are far behind and read at the same time: others want to read the spool too
GATHER_S = 0.02  # after a wake-up: what is committed meanwhile comes with the same read
RETRY_AFTER_S = 10


@dataclass(frozen=True, slots=True)
class Tail:
    """What was read after an id. `changed` is set once there may be more than that."""

    page: EventPage
    changed: asyncio.Event


class EventHub:
    """All streams of one daemon. `notify()` when events were committed, `close()` before the server stops."""

    def __init__(self, *, keep_alive_s: float = 15.0, stall_s: float = 30.0, max_streams: int = 64) -> None:
        self.keep_alive_s = keep_alive_s
        self.stall_s = stall_s  # how long a client may take nothing of what is sent
        self.max_streams = max_streams
        self.closed = False
        self._changed = asyncio.Event()
        self._streams: dict[int, web.Request] = {}
        self._reading = asyncio.Lock()
        self._catching_up = asyncio.Semaphore(READERS)
        self._tails: dict[int, Tail] = {}  # by the id they begin after, the last read last
        self._newest = 0

    @property
    def streams(self) -> int:
        """How many are open."""
        return sum(_is_open(request) for request in self._streams.values())

    def notify(self) -> None:
        """There are new events: call it in the event loop, after their commit."""
        self._changed.set()
        if not self.closed:
            self._changed = asyncio.Event()

    def close(self) -> None:
        """End all streams, take no more: from now on nobody waits for events."""
        self.closed = True
        self._changed.set()

    @contextmanager
    def admitted(self, request: web.Request) -> Iterator[None]:
        """Counts one stream. Raises HttpProblem (503) if there are too many."""
        if self.closed:
            raise _full("the gateway is stopping")
        if self.streams >= self.max_streams:
            raise _full(f"{self.max_streams} streams of events are open, and that is all there can be")
        self._streams[id(request)] = request
        try:
            yield
        finally:
            del self._streams[id(request)]

    async def tail(self, outbox: OutboxReader, after: int, *, fresh: bool = False) -> Tail:
        """The events after this id, of all types: streams that are about up to date share what is read.

        `fresh` reads in any case: another instance on the same database wakes nobody here.
        """
        async with self._reading:
            known = self._tails.get(after)
            if known is not None and not fresh and (known.page.last > after or not known.changed.is_set()):
                return known
            if not fresh and after >= self._newest:
                await asyncio.sleep(GATHER_S)
            changed = self._changed
            found = Tail(await outbox.after(after, PAGE), changed)
            self._newest = max(self._newest, found.page.newest)
            self._tails.pop(after, None)
            self._tails[after] = found
            if len(self._tails) > TAILS:
                del self._tails[next(iter(self._tails))]
            return found

    async def catch_up(self, outbox: OutboxReader, after: int, wants: Callable[[str], bool]) -> EventPage:
        """The wanted events after this id, for a stream that is far behind; a few of them at a time."""
        async with self._catching_up:
            return await outbox.after(after, PAGE, wants)


def _is_open(request: web.Request) -> bool:
    """Whether the client is still there, as far as the connection knows."""
    return request.transport is not None and not request.transport.is_closing()


def _full(detail: str) -> HttpProblem:
    return HttpProblem(503, "no-stream", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
