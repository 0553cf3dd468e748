"""Endpoints on real sockets that behave as told, and an outbox over a real spool that tells them."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from gatewayd.config.destinations import Reach
from gatewayd.router.endpoints import Manner, WebhookSettings, subscriptions
from gatewayd.router.outbox import Outbox
from gatewayd.spool.engine import open_database
from gatewayd.spool.events import CHANNEL, GatewayEvent
from gatewayd.spool.reader import Reader
from gatewayd.spool.store import Store
from gatewayd.spool.work import Rules
from gatewayd.spool.writer import Notices
from tests.daemon import until
from tests.spool.helpers import FakeClock, Spool

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LIMIT_S = 60
HERE = Reach(private=True)


@dataclass
class Got:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """Answers each request with what `answer` gives: a status, or a response. `busy` is the most it had at once."""

    answer: Callable[[Got], Any] = lambda got: 200
    got: list[Got] = field(default_factory=list)
    answered: list[Got] = field(default_factory=list)
    now: int = 0
    busy: int = 0
    port: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        got = Got(request.method, request.path_qs, dict(request.headers.items()), await request.read())
        self.got.append(got)
        self.now += 1
        self.busy = max(self.busy, self.now)
        await self._tell()
        try:
            result = self.answer(got)
            if isinstance(result, Awaitable):
                result = await result
        finally:
            self.now -= 1
        self.answered.append(got)
        await self._tell()
        return result if isinstance(result, web.StreamResponse) else web.Response(status=result)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait for a request after which `met`."""
        async with asyncio.timeout(LIMIT_S), self._changed:
            await self._changed.wait_for(met)

    async def until_got(self, count: int) -> list[Got]:
        await self.until(lambda: len(self.got) >= count)
        return self.got


@asynccontextmanager
async def receiver(answer: Callable[[Got], Any] = lambda got: 200, host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    made = Receiver(answer)
    server = web.Server(made.handle, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0, backlog=1024)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


class Never:
    """An answer that does not come until it is let go."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def __call__(self, got: Got) -> int:
        await self.released.wait()
        return 200


def webhook(name: str, url: str, **fields: Any) -> WebhookSettings:
    values: dict[str, Any] = {"key": None, "reach": HERE, "timeout_s": 30.0, "give_up_ms": 86_400_000}
    manner = Manner(**{key: fields.pop(key, value) for key, value in values.items()})
    return WebhookSettings(name, url, manner, **fields)


@dataclass
class Post:
    """A running outbox and what it works with."""

    outbox: Outbox
    store: Store
    reader: Reader
    clock: FakeClock
    spool: Spool

    def configure(self, *webhooks: WebhookSettings, callbacks: Manner | None = None) -> None:
        manner = callbacks or Manner(reach=HERE, timeout_s=30.0)
        self.store.configure(Rules(), self.store._intake, subscriptions(webhooks))
        self.outbox.configure(webhooks, manner)

    async def event(self, *reasons: object) -> None:
        """An event for each of these, in one commit each."""
        for reason in reasons:
            data = {"state": "ready", "reason": str(reason)}
            await self.store.note(GatewayEvent(CHANNEL, channel="m0", data=data))

    async def said(self, idm: int, type_: str, url: str, format_: str = "") -> None:
        """An event of a message that has a callback."""
        data = {"state": 2, "delivery": "pending", "reason": "", "segments": 1}
        event = GatewayEvent(type_, message_id=idm, data=data, callback_url=url, callback_format=format_)
        await self.store.note(event)

    async def rests(self, name: str) -> float:
        """Wait until a webhook failed and waits for its next try; in how many seconds that is."""

        async def waiting() -> bool:
            return self._view(name).retry_in_s is not None

        await until(waiting, lambda: self._view(name))
        return self._view(name).retry_in_s or 0.0

    def later(self, seconds: float) -> None:
        self.clock.ms += math.ceil(seconds * 1000)
        self.outbox.look_at_clock()

    def _view(self, name: str) -> Any:
        return next(view for view in self.outbox.views() if view.settings.name == name)

    async def log(self, state: str | None = None, endpoint: str | None = None) -> list[Any]:
        return await self.outbox.deliveries.log(state=state, endpoint=endpoint, limit=1000)

    async def settled(self, count: int, state: str = "done") -> list[Any]:
        """Wait until so many deliveries are in `state`."""
        found: list[Any] = []

        async def there() -> bool:
            nonlocal found
            found = await self.log(state)
            return len(found) >= count

        await until(there, lambda: found)
        return found


@asynccontextmanager
async def post(url: str, *webhooks: WebhookSettings, clock: FakeClock | None = None) -> AsyncIterator[Post]:
    """An open spool with an outbox that runs and is told of every commit."""
    clock = clock or FakeClock()
    database = open_database(url)

    def committed(notices: Notices) -> None:
        outbox.notify(notices.endpoints)

    store = Store(database, "gw1", clock, Rules(), on_commit=committed)
    reader = Reader(database, clock)
    outbox = Outbox(store, reader, clock)
    await store.open()
    try:
        made = Post(outbox, store, reader, clock, Spool(store, clock, database))
        made.configure(*webhooks)
        await outbox.start()
        yield made
    finally:
        await outbox.stop(0)
        await reader.close()
        await store.close()
