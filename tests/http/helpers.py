"""A real server on real sockets over a real spool."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp

from gatewayd.apikeys import ApiKey, KeyRing, Scope
from gatewayd.clock import SystemClock
from gatewayd.http.context import HttpContext, HttpSettings
from gatewayd.http.eventhub import EventHub
from gatewayd.http.server import Server
from gatewayd.model import ChannelState, ChannelStatus
from gatewayd.router.clocktrust import ClockTrust
from gatewayd.router.control import ChannelView, Serving
from gatewayd.router.submission import SubmissionSettings, Submitter
from gatewayd.spool.engine import SqliteDatabase, open_database
from gatewayd.spool.lanes import Lane
from gatewayd.spool.reader import Reader
from gatewayd.spool.store import Store
from gatewayd.spool.work import Rules

SEND, READ, ADMIN, RESEND = "gw_send", "gw_read", "gw_admin", "gw_resend"
DEADLINE_S = 30
FORM = "application/x-www-form-urlencoded"


def _key(secret: str, *scopes: Scope, in_doubt_resend: bool = False) -> ApiKey:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return ApiKey(secret.removeprefix("gw_"), digest, frozenset(scopes), datetime.now(UTC), in_doubt_resend)


KEYS = KeyRing(
    [
        _key(SEND, Scope.SEND),
        _key(READ, Scope.READ),
        _key(ADMIN, Scope.ADMIN),
        _key(RESEND, Scope.SEND, in_doubt_resend=True),
    ]
)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def view(name: str, state: ChannelState = ChannelState.READY, **fields: Any) -> ChannelView:
    values: dict[str, Any] = {
        "sim_id": 1, "interval_s": 6.0, "next_start_in_s": 0.0, "in_hand": None,
        "submitted": 0, "not_sent": 0, "doubtful": 0,
    }  # fmt: skip
    status = ChannelStatus(name, state, fields.pop("since_ms", 1_800_000_000_000), fields.pop("reason", ""))
    return ChannelView(status, **{**values, **fields})


@dataclass
class Operator:
    """Stands for the dispatcher, whose modems these tests do not need."""

    views: list[ChannelView] = field(default_factory=lambda: [view("sim1"), view("sim2", ChannelState.DOWN)])
    why: str = ""
    said: list[tuple[str, ...]] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    served: list[tuple[str, str]] = field(default_factory=list)

    def channels(self) -> list[ChannelView]:
        return self.views

    def serving(self, lane: Lane) -> list[Serving]:
        self.served.append((lane.source, lane.target))
        return [Serving("sim1", ""), Serving("sim2", "it is down", 1_800_000_000_000)]

    def paused(self) -> str:
        return self.why

    async def pause(self, actor: str, reason: str) -> None:
        self.said.append(("pause", actor, reason))
        self.why = f"paused by {actor}: {reason}"

    async def resume(self, actor: str) -> None:
        self.said.append(("resume", actor))
        self.why = ""

    async def set_channel_mode(self, name: str, mode: str, actor: str, reason: str) -> None:
        index = {view.status.name: number for number, view in enumerate(self.views)}[name]
        self.said.append(("mode", name, mode, actor, reason))
        said = f"{mode} by {actor}: {reason}" if mode else ""
        self.views[index] = replace(self.views[index], mode=mode, mode_reason=said)

    async def accept_sim(self, channel: str, actor: str) -> bool:
        self.said.append(("accept", channel, actor))
        return channel in self.changed


@dataclass
class Gateway:
    """A running server and what it works with."""

    server: Server
    context: HttpContext
    store: Store
    operator: Operator
    path: Path
    client: aiohttp.ClientSession
    draining: bool = False

    @property
    def url(self) -> str:
        host, port = self.server.address
        return f"http://{host}:{port}"

    def queued(self) -> int:
        """How many messages are in the spool, read by another hand."""
        connection = sqlite3.connect(self.path)
        try:
            return int(connection.execute("SELECT count(*) FROM messages").fetchone()[0])
        finally:
            connection.close()

    def row(self, idm: int) -> dict[str, Any]:
        connection = sqlite3.connect(self.path)
        connection.row_factory = sqlite3.Row
        try:
            return dict(connection.execute("SELECT * FROM messages WHERE id = ?", (idm,)).fetchone())
        finally:
            connection.close()

    async def send(self, path: str = "/SendSMS", *, key: str | None = SEND, **arguments: Any) -> Answer:
        return await self.request("POST", path, key=key, **arguments)

    async def get(self, path: str, *, key: str | None = READ, **arguments: Any) -> Answer:
        return await self.request("GET", path, key=key, **arguments)

    async def request(self, method: str, path: str, *, key: str | None = None, **arguments: Any) -> Answer:
        headers = {**(bearer(key) if key else {}), **arguments.pop("headers", {})}
        async with self.client.request(method, self.url + path, headers=headers, **arguments) as response:
            content = await response.read()
            document = await response.json(content_type=None) if content else None
            return Answer(response.status, document, response.headers)

    async def raw(self, *pieces: bytes, finish: bool = True) -> bytes:
        """Write octets to a connection; everything that comes back until the server closes it or answered."""
        reader, writer = await asyncio.open_connection(*self.server.address)
        received = b""
        try:
            async with asyncio.timeout(DEADLINE_S):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                if finish:
                    writer.write_eof()
                received = await reader.read()
        except ConnectionError:
            pass  # it had enough of us: what it said before is in `received`
        finally:
            writer.close()
        return received


@dataclass
class Answer:
    status: int
    json: Any
    headers: Mapping[str, str]

    @property
    def fields(self) -> list[str]:
        """Which fields a problem names."""
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.json["status"] == self.status
        assert {"type", "title", "detail"} <= set(self.json)
        return [error["field"] for error in self.json["errors"]]


@asynccontextmanager
async def gateway(
    folder: Path,
    *,
    submission: SubmissionSettings | None = None,
    clock: SystemClock | None = None,
    events: EventHub | None = None,
    **settings: Any,
) -> AsyncIterator[Gateway]:
    path = folder / "spool.db"
    clock = clock or SystemClock()
    database = open_database(f"sqlite:///{path}")
    assert isinstance(database, SqliteDatabase)
    hub = events or EventHub()
    store = Store(database, "test", clock, Rules(), on_commit=lambda notices: hub.notify() if notices.events else None)
    await store.open()
    reader = Reader(database)
    operator = Operator()
    submission = submission or SubmissionSettings("UY", channels=frozenset({"sim1", "sim2"}))
    submitter = Submitter(submission, store, clock)
    async with aiohttp.ClientSession() as client:
        context = HttpContext(
            HttpSettings(**{"port": 0, **settings}), submitter, store, reader, operator, lambda: KEYS, clock, "gw1",
            draining=lambda: running.draining, events=hub, trust=ClockTrust(store, clock, require_sync=False),
        )  # fmt: skip
        server = Server(context)
        context.operations.start()
        running = Gateway(server, context, store, operator, path, client)
        await server.start()
        try:
            yield running
        finally:
            await context.operations.stop()
            await server.stop()
            await reader.close()
            await store.close()


TRUSTED = {"trusted_networks": (ip_network("127.0.0.0/8"),)}
