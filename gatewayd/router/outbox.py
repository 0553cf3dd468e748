"""Tells endpoints of events: whose turn it is, and when. What happens in a turn: outbox_turn.py.

An endpoint has a line only while there is something to tell it, and a task and connections only while it has its turn.
Webhooks, which an administrator configured, have their turn at once. Callbacks go to hosts that anybody with an API key
may name, so only so many have theirs at the same time, and those that failed last, and those that were never called,
share a few places of their own: ten thousand hosts that do not answer take neither the sockets nor the time of one that
does.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import logging
import random
import secrets
from collections import OrderedDict, deque
from collections.abc import Collection, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from gatewayd.clock import Clock, iso
from gatewayd.errors import SpoolError
from gatewayd.msglog import Trouble
from gatewayd.router import signature
from gatewayd.router.calls import calling
from gatewayd.router.endpoints import Manner, WebhookSettings
from gatewayd.router.outbox_turn import JSON, Last, Line, Tools, Turn
from gatewayd.router.recorder import Recorder
from gatewayd.router.verdicts import MAX_WAIT_S, Answer
from gatewayd.spool import deliveries
from gatewayd.spool.deliveries import STEP, DeliveryReader
from gatewayd.spool.events import webhook_endpoint
from gatewayd.spool.outbox_reader import OutboxReader
from gatewayd.spool.reader import Reader
from gatewayd.spool.store import Store

log = logging.getLogger("gatewayd.webhook")

PARALLEL = 8  # calls to one callback host at once
SOUND, NEW, SUSPECT = 32, 16, 16  # callback hosts that have their turn at once: that answered last, never, not last
REMEMBERED = 10_000  # hosts that answered last, also while there is nothing to tell them
LOOKUPS = 8  # threads that look names up, for each kind
SPOOL_WAIT_S = 5.0  # after the spool could not be read
FAULT_WAIT_S = 60.0  # after a failure of ours
CLOSE_S = 1.0  # of a stop, for what is left when the calls are over


@dataclass(slots=True)
class _Pool:
    """Lines whose turn it is, and how many of them can have it at once."""

    free: int
    waiting: deque[_Entry] = field(default_factory=deque)
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(LOOKUPS, thread_name_prefix="outbox-names")
    )


@dataclass(slots=True, eq=False)
class _Entry:
    """A line and where it stands: `ready` (in a pool), `running`, or waiting until `wake_at` (monotonic)."""

    line: Line
    ready: bool = False
    running: bool = False
    wake_at: float | None = None


@dataclass(frozen=True, slots=True)
class WebhookView:
    """A configured webhook as it is now. `last`: None if it was not called since the start. `retry_in_s`: until its
    next try, where it failed.
    """

    settings: WebhookSettings
    last: Last | None
    failures: int
    retry_in_s: float | None


class Outbox:
    """Runs from `start()` to `stop()`; all calls from the event loop.

    Times come from `clock`: after one that does not move by itself was moved, `look_at_clock()` finds what is due.
    """

    def __init__(self, store: Store, reader: Reader, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._webhooks: dict[str, WebhookSettings] = {}
        self._callbacks = Manner()
        self._entries: dict[str, _Entry] = {}
        self._last: dict[str, Last] = {}  # of webhooks, also of those that have nothing to be told now
        self._due: list[tuple[float, int, _Entry]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = False
        self._own, self._sound, self._new, self._suspect = _Pool(1_000_000), _Pool(SOUND), _Pool(NEW), _Pool(SUSPECT)
        self._answered: OrderedDict[str, None] = OrderedDict()  # callback hosts of `_sound`, the last one last
        self._trouble = Trouble(log)
        self.deliveries = DeliveryReader(reader)
        self._tools = Tools(
            store.writer,
            self.deliveries,
            OutboxReader(reader),
            Recorder(store.writer),
            clock,
            lambda: store.spool_id,
            lambda: not self._running,
            random.Random(),
        )

    def configure(self, webhooks: Iterable[WebhookSettings], callbacks: Manner) -> None:
        """Call these, and in this manner, from now on. What failed is tried at once where something changed.

        What a webhook that is gone has still to be told stays, and goes on when it returns.
        """
        before, self._webhooks = self._webhooks, {webhook.endpoint: webhook for webhook in webhooks}
        callbacks_changed, self._callbacks = callbacks != self._callbacks, callbacks
        for endpoint in {*before, *self._webhooks}:
            settings = self._webhooks.get(endpoint)
            if settings == before.get(endpoint):
                continue
            if endpoint not in self._webhooks:
                self._last.pop(endpoint, None)
            if (entry := self._entries.get(endpoint)) is not None:
                entry.line.dropped = True  # a turn goes on by the old settings: it ends after the call it is in
            if self._manner(endpoint) is not None:
                self._touch(endpoint, eager=True)
            elif entry is not None and not entry.running:
                self._forget(entry)
        if callbacks_changed:
            for endpoint, entry in list(self._entries.items()):
                if not entry.line.serial:
                    entry.line.dropped = entry.running
                    self._touch(endpoint, eager=True)

    async def start(self) -> None:
        """Look at what is pending, and begin. Raises SpoolError."""
        self._running = True
        await self._look_for_pending()

    async def stop(self, timeout_s: float) -> None:
        """Begin no more calls, wait for those that are under way, but no longer than this; what is cut off is told
        again after the next start.
        """
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._tools.recorder.stop(CLOSE_S)
        for pool in (self._own, self._sound, self._new, self._suspect):
            pool.threads.shutdown(wait=False, cancel_futures=True)

    def notify(self, endpoints: Collection[str]) -> None:
        """These have something new to be told: it is committed."""
        for endpoint in endpoints:
            self._touch(endpoint)

    def look_again(self) -> None:
        """What was committed may be unknown here: look at all that is pending."""
        self._begin(self._look_for_pending_later(), "outbox look")

    def look_at_clock(self) -> None:
        """Give those their turn whose time has come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock.monotonic()
        while self._due and self._due[0][0] <= now:
            wake_at, _, entry = heapq.heappop(self._due)
            if entry.wake_at == wake_at and not entry.ready and not entry.running:
                self._make_ready(entry)
        if self._due and self._running:
            self._timer = asyncio.get_running_loop().call_later(max(0.001, self._due[0][0] - now), self.look_at_clock)

    # For people.

    def views(self) -> list[WebhookView]:
        """The configured webhooks, in the order of the configuration."""
        return [self._view(settings) for settings in self._webhooks.values()]

    def failing_callbacks(self) -> int:
        """How many hosts of callbacks failed last and will be tried again."""
        return sum(not entry.line.serial and entry.line.failures > 0 for entry in self._entries.values())

    async def test(self, name: str) -> Answer | None:
        """Send the event `webhook.test` to a webhook now; it is in no order, and not kept. None: there is no such one.

        If it gets through, what waits for its next try is tried at once.
        """
        settings = self._webhooks.get(webhook_endpoint(name))
        if settings is None:
            return None
        now = self._clock.now_ms()
        event = f"ev-test-{secrets.token_hex(8)}"
        document = {"id": event, "type": "webhook.test", "at": iso(now), "data": {"webhook": name}}
        content = json.dumps(document, separators=(",", ":")).encode()
        manner = settings.manner
        headers = {"Content-Type": JSON, **signature.headers(manner.key, event, now // 1000, content)}
        async with calling(manner.reach, self._own.threads, 1) as caller:
            answer = await caller.call("POST", settings.url, headers, content, manner.timeout_s)
        self._last[settings.endpoint] = Last(self._clock.now_ms(), answer.status, answer.error)
        if not answer.error and settings.endpoint in self._entries:
            self._touch(settings.endpoint, eager=True)
        return answer

    async def replay(
        self,
        actor: str,
        state: int,
        *,
        endpoint: str | None = None,
        ids: Sequence[int] | None = None,
        since: int | None = None,
        until: int | None = None,
        after: int = 0,
    ) -> tuple[int, int | None]:
        """Tell once more what is in `state` (DEAD, DONE): STEP deliveries at the most, by id, those after `after`.

        Returns how many, and `after` for the next step (None: that was all). Raises SpoolError.
        """
        found = await self.deliveries.ended(state, endpoint=endpoint, ids=ids, since=since, until=until, after=after)
        if not found:
            return 0, None
        now = self._clock.now_ms()
        count = await self._store.writer.run(
            lambda tx: deliveries.replay(tx, found, state, actor, now), rows=len(found)
        )
        for endpoint in {each for _, each in found}:
            if (entry := self._entries.get(endpoint)) is not None:
                entry.line.anew = True
            self._touch(endpoint)
        return count, found[-1][0] if len(found) == STEP else None

    def _view(self, settings: WebhookSettings) -> WebhookView:
        entry = self._entries.get(settings.endpoint)
        last = self._last.get(settings.endpoint)
        if entry is not None and entry.line.last is not None and (last is None or entry.line.last.at > last.at):
            last = entry.line.last
        if entry is None:
            return WebhookView(settings, last, 0, None)
        wake_at = entry.wake_at
        retry_in_s = None if wake_at is None else max(0.0, wake_at - self._clock.monotonic())
        return WebhookView(settings, last, entry.line.failures, retry_in_s)

    # Whose turn it is.

    def _manner(self, endpoint: str) -> Manner | None:
        """How an endpoint is called; None if it is not."""
        if endpoint.startswith("callback:"):
            return self._callbacks
        settings = self._webhooks.get(endpoint)
        return settings.manner if settings is not None and settings.enabled else None

    def _touch(self, endpoint: str, *, eager: bool = False) -> None:
        """Give an endpoint its turn, unless it is left alone for a while; `eager`: also then."""
        if not self._running or self._manner(endpoint) is None:
            return
        entry = self._entries.get(endpoint)
        if entry is None:
            entry = self._entries[endpoint] = _Entry(Line(endpoint, endpoint.startswith("webhook:")))
        line = entry.line
        line.eager = line.eager or eager
        if entry.running:
            line.again = True
        elif entry.wake_at is None or eager or not (line.serial or line.failures):
            self._make_ready(entry)

    def _make_ready(self, entry: _Entry) -> None:
        if not entry.ready:
            entry.ready, entry.wake_at = True, None
            pool = self._pool(entry.line)
            pool.waiting.append(entry)
            self._fill(pool)

    def _pool(self, line: Line) -> _Pool:
        if line.serial:
            return self._own
        if line.failures:
            return self._suspect
        return self._sound if line.endpoint in self._answered else self._new

    def _fill(self, pool: _Pool) -> None:
        while pool.free and pool.waiting and self._running:
            entry = pool.waiting.popleft()
            if entry.ready:
                entry.ready, entry.running = False, True
                pool.free -= 1
                self._begin(self._turn(entry, pool), f"outbox {entry.line.shown}")

    async def _turn(self, entry: _Entry, pool: _Pool) -> None:
        wait_s: float | None = 0.0
        try:
            wait_s = await self._run(entry.line, pool)
            if self._trouble.active:
                self._trouble.recovered("what endpoints are to be told can be read again")
        except SpoolError as error:
            self._trouble.failed(None, "what endpoints are to be told cannot be read: %s", error)
            wait_s = SPOOL_WAIT_S
        except Exception:
            log.exception("telling %s failed; that is tried again", entry.line.shown)
            wait_s = FAULT_WAIT_S
        finally:
            pool.free += 1
            entry.running = False
            self._settle(entry, wait_s)
            self._fill(pool)

    async def _run(self, line: Line, pool: _Pool) -> float | None:
        manner = self._manner(line.endpoint)
        if manner is None:
            return 0.0
        line.dropped = False
        settings = self._webhooks.get(line.endpoint)
        url = "" if settings is None else settings.url
        async with calling(manner.reach, pool.threads, PARALLEL) as caller:
            return await Turn(line, url, manner, caller, self._tools, PARALLEL).run()

    def _settle(self, entry: _Entry, wait_s: float | None) -> None:
        line = entry.line
        if line.endpoint in self._webhooks and line.last is not None:
            self._last[line.endpoint] = line.last
        if not line.serial:
            self._remember(line)
        if self._manner(line.endpoint) is None:
            self._forget(entry)
        elif (
            wait_s == 0
            or line.eager
            or ((line.again or line.anew) and (wait_s is None or not (line.serial or line.failures)))
        ):
            self._make_ready(entry)
        elif wait_s is None:
            self._forget(entry)
        else:
            # Bounded, for the wall clock that it was made with may have jumped.
            entry.wake_at = self._clock.monotonic() + min(wait_s, MAX_WAIT_S)
            heapq.heappush(self._due, (entry.wake_at, next(self._numbers), entry))
            if self._due[0][2] is entry:
                self.look_at_clock()

    def _remember(self, line: Line) -> None:
        """Whether a callback host answered last."""
        self._answered.pop(line.endpoint, None)
        if line.failures == 0 and line.last is not None and line.last.status is not None:
            self._answered[line.endpoint] = None
            if len(self._answered) > REMEMBERED:
                self._answered.popitem(last=False)

    def _forget(self, entry: _Entry) -> None:
        entry.ready, entry.wake_at = False, None
        self._entries.pop(entry.line.endpoint, None)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_for_pending(self) -> None:
        after = ""
        while True:
            found = await self.deliveries.endpoints(after)
            self.notify(found)
            if not found:
                return
            after = found[-1]

    async def _look_for_pending_later(self) -> None:
        while self._running:
            try:
                await self._look_for_pending()
            except SpoolError as error:
                self._trouble.failed(None, "what endpoints are to be told cannot be read: %s", error)
                await asyncio.sleep(SPOOL_WAIT_S)
            else:
                return
