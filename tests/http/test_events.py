"""The stream of events, as a client of server-sent events sees it: nothing twice, nothing left out."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gatewayd.apikeys import KeyRing
from gatewayd.http.eventhub import EventHub
from gatewayd.http.schemas_inbound import check_event
from gatewayd.spool.events import CHANNEL, GatewayEvent
from gatewayd.spool.inbound import NewPart
from tests.http.helpers import DEADLINE_S, KEYS, READ, SEND, Gateway, bearer, gateway

URL = "/api/v1/events"
MESSAGES = "/api/v1/messages"


@dataclass
class Event:
    """One dispatched event: `id` is the client's last event id at that moment."""

    id: str
    type: str
    data: Any


@dataclass
class Client:
    """What a browser's EventSource does with the octets. Source: HTML Living Standard §9.2.6."""

    response: aiohttp.ClientResponse
    last_id: str = ""
    comments: list[str] = field(default_factory=list)

    async def block(self) -> Event | None:
        """The next block of lines; None if it is no event. Raises EOFError at the end of the stream."""
        type_, data = "message", ""
        while True:
            async with asyncio.timeout(DEADLINE_S):
                line = (await self.response.content.readline()).decode()
            if not line:
                raise EOFError
            name, _, value = line.rstrip("\n").partition(":")
            value = value.removeprefix(" ")
            match name:
                case "" if line == "\n":
                    return Event(self.last_id, type_, json.loads(data)) if data else None
                case "":
                    self.comments.append(value)
                case "id":
                    self.last_id = value
                case "event":
                    type_ = value
                case "data":
                    data += value

    async def event(self) -> Event:
        while (found := await self.block()) is None:
            pass
        check_event(found.data)
        assert found.data["type"] == found.type
        return found

    async def events(self, count: int) -> list[Event]:
        return [await self.event() for _ in range(count)]


async def ended(client: Client) -> None:
    """Read to the end of the stream: the server's doing, and a proper one."""
    with suppress(EOFError):
        while True:
            await client.block()


@asynccontextmanager
async def stream(gate: Gateway, query: str = "", last_id: str | None = None) -> AsyncIterator[Client]:
    headers = bearer(READ) | ({} if last_id is None else {"Last-Event-ID": last_id})
    async with gate.client.get(gate.url + URL + query, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "text/event-stream"
        client = Client(response)
        assert await client.block() is None, "a greeting, with which the client knows where it is"
        yield client


async def send(gate: Gateway, count: int = 1) -> None:
    for _ in range(count):
        assert (await gate.send(MESSAGES, json={"to": "098344484", "text": "hello"})).status == 202


async def test_what_happens_is_told_at_once(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        await send(gate)
        async with stream(gate) as client:
            assert client.last_id == "1", "a client that loses its connection now goes on from here"
            await send(gate)
            event = await client.event()
            assert (event.id, event.type) == ("2", "message.accepted")
            assert event.data["id"] == f"ev-{gate.store.spool_id}-2"
            assert event.data["data"]["to"] == "+59898344484"
            await gate.store.receive(NewPart("sim1", 1, "AA", "l1", originator="+59898344484", text="a\nb", dcs=0))
            event = await client.event()
            assert (event.type, event.data["data"]["text"]) == ("inbound.received", "a\nb")


async def test_a_client_goes_on_exactly_where_it_was_also_after_a_restart(tmp_path: Path) -> None:
    seen: list[str] = []
    async with gateway(tmp_path) as gate:
        await send(gate, 5)
        async with stream(gate, "?after=0") as client:
            seen += [event.id for event in await client.events(3)]
        await send(gate, 2)
        async with stream(gate, "?after=0", seen[-1]) as client:  # EventSource asks for the same URL again
            seen += [event.id for event in await client.events(2)]
            last = client.last_id
    async with gateway(tmp_path) as gate, stream(gate, last_id=last) as client:
        seen += [event.id for event in await client.events(2)]
        await send(gate)
        seen.append((await client.event()).id)
    assert seen == [str(number) for number in range(1, 9)]


async def test_many_events_while_several_clients_begin_and_end(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        total = 700

        async def follow(begin: int) -> list[int]:
            seen: list[int] = []
            while not seen or seen[-1] < total:
                async with stream(gate, last_id=str(seen[-1] if seen else begin)) as client:
                    for _ in range(97):  # then it loses its connection
                        seen.append(int((await client.event()).id))
                        if seen[-1] == total:
                            break
            return seen

        async def write() -> None:
            for _ in range(total // 10):
                batch = [{"to": "098344484", "text": "hello"}] * 10
                assert (await gate.send(MESSAGES, json=batch)).status == 202

        *seen, _ = await asyncio.gather(follow(0), follow(0), follow(0), write())
        for each in seen:
            assert each == list(range(1, total + 1))


async def test_only_the_types_that_are_wanted(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        await send(gate, 3)
        await gate.store.note(GatewayEvent(CHANNEL, channel="sim1", data={"state": "ready", "reason": ""}))
        async with stream(gate, "?types=channel.*,inbound.received&after=0") as client:
            assert [(event.id, event.type) for event in await client.events(1)] == [("4", "channel.state")]
            await send(gate, 2)
            await gate.store.note(GatewayEvent(CHANNEL, channel="sim1", data={"state": "down", "reason": "x"}))
            assert (await client.event()).id == "7"


async def test_what_is_not_kept_any_more_is_said(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        await send(gate, 6)
        connection = sqlite3.connect(gate.path)
        connection.execute("DELETE FROM outbox WHERE id <= 4")
        connection.commit()
        connection.close()
        async with stream(gate, last_id="2") as client:
            gap, *rest = await client.events(3)
            assert (gap.type, gap.id) == ("stream.gap", "4")
            assert (gap.data["data"]["first"], gap.data["data"]["last"]) == (3, 4)
            assert [event.id for event in rest] == ["5", "6"]
        async with stream(gate, last_id=gap.id) as client:
            assert (await client.event()).id == "5", "it is said once"


async def test_an_id_from_the_future_is_of_another_spool(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        await send(gate, 2)
        async with stream(gate, last_id="99") as client:
            gap = await client.event()
            assert (gap.type, gap.id) == ("stream.gap", "2")
            assert "another spool" in gap.data["data"]["detail"]
            await send(gate)
            assert (await client.event()).id == "3"


async def test_a_quiet_stream_is_kept_alive_and_told_what_was_passed_over(tmp_path: Path) -> None:
    hub = EventHub(keep_alive_s=0.05)
    async with gateway(tmp_path, events=hub) as gate, stream(gate, "?types=inbound.*") as client:
        await send(gate, 2)
        while client.last_id != "2":
            assert await client.block() is None
        assert "keep-alive" in client.comments


async def test_events_of_another_instance_come_without_a_wake_up(tmp_path: Path) -> None:
    """On a shared database nobody here notices another instance's commit; the keep-alive looks."""
    async with gateway(tmp_path, events=EventHub(keep_alive_s=0.05)) as gate:
        gate.store.writer._on_commit = lambda notices: None  # as if it were another process that writes
        async with stream(gate) as client:
            await send(gate)
            assert (await client.event()).id == "1"


async def test_a_key_that_is_withdrawn_ends_its_streams(tmp_path: Path) -> None:
    keys = KEYS
    async with gateway(tmp_path, events=EventHub(keep_alive_s=0.05)) as gate:
        gate.context.authenticator._keys = lambda: keys
        async with stream(gate) as client:
            keys = KeyRing()
            await ended(client)


async def test_the_server_stops_although_streams_are_open(tmp_path: Path) -> None:
    async with gateway(tmp_path, shutdown_timeout_s=3600.0) as gate, stream(gate) as client, stream(gate) as other:
        await send(gate)
        assert (await client.event()).id == "1"
        await gate.server.stop()
        assert (await other.event()).id == "1"
        await ended(client)
        await ended(other)


async def test_there_are_so_many_streams_and_no_more(tmp_path: Path) -> None:
    hub = EventHub(max_streams=2)
    async with gateway(tmp_path, events=hub) as gate:
        async with stream(gate), stream(gate):
            answer = await gate.get(URL)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
            assert "2 streams" in answer.json["detail"]
            assert (await gate.request("HEAD", URL, key=READ)).status == 200, "this is no stream"
        while hub.streams:  # the server sees that the clients are gone
            await asyncio.sleep(0.01)
        async with stream(gate):
            assert hub.streams == 1


async def test_a_client_that_takes_nothing_is_cut_off_and_disturbs_nobody(tmp_path: Path) -> None:
    hub = EventHub(stall_s=0.2)
    async with gateway(tmp_path, events=hub) as gate:
        _, writer = await asyncio.open_connection(*gate.server.address, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(f"GET {URL}?after=0 HTTP/1.1\r\nHost: x\r\nX-API-Key: {READ}\r\n\r\n".encode())
        async with stream(gate) as client:
            while hub.streams < 2:
                await asyncio.sleep(0.01)
            long = "x" * 1500  # its reason is in every event: they are long
            sent = 0
            while hub.streams > 1:
                events = [GatewayEvent(CHANNEL, channel="sim1", data={"state": "down", "reason": long})] * 500
                await gate.store.writer.run(lambda tx, events=events: tx.notices.events.extend(events))  # type: ignore[misc]
                sent += len(events)
                assert (await client.events(len(events)))[-1].id == str(sent)
                assert sent < 100_000
        writer.close()


BAD = {
    "unknown type": ("?types=message.*,nothing", {}, 422, ["types"]),
    "no types": ("?types=", {}, 422, ["types"]),
    "bad position": ("?after=-1", {}, 422, ["after"]),
    "unknown parameter": ("?since=1", {}, 422, ["since"]),
    "bad Last-Event-ID": ("", {"Last-Event-ID": "ev-1"}, 400, ["Last-Event-ID"]),
    "huge Last-Event-ID": ("", {"Last-Event-ID": "9" * 30}, 400, ["Last-Event-ID"]),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_not_acceptable_is_named(tmp_path: Path, name: str) -> None:
    query, headers, status, fields = BAD[name]
    async with gateway(tmp_path) as gate:
        answer = await gate.get(URL + query, headers=headers)
        assert (answer.status, answer.fields) == (status, fields)
        assert "message.*" in answer.json["detail"] if fields == ["types"] else True


async def test_who_may_listen(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        assert (await gate.get(URL, key=None)).status == 401
        assert (await gate.get(URL, key=SEND)).status == 403
