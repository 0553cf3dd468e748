"""What comes in, as applications and those who write STOP meet it: a real daemon, emulated modems and subscribers."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process
from tests.daemon import DaemonProcess, configuration, daemon, until

ANSWERS, STOPS = "+59898123401", "+59898123402"
NUMBER = "+59898344484"
LONG = "Esta es una respuesta larga, con eñe y 🙂: " * 8
KILLS = 20


@dataclass
class Receiver:
    """An application's endpoint: what it was told, in order."""

    url: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.events if event["type"] == type_]


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()

    async def take(request: web.Request) -> web.Response:
        found.events.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield found
    finally:
        await runner.cleanup()


def _hook(url: str) -> dict[str, Any]:
    return {"name": "crm", "url": url, "allow_private": True}


async def _inbound(gateway: DaemonProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = 0
    while True:
        status, page = await gateway.get("/api/v1/inbound", params={"after": after, "limit": 100})
        assert status == 200, page
        found += page["items"]
        if page["next"] is None:
            return found
        after = page["next"]


async def _until_inbound(gateway: DaemonProcess, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        nonlocal found
        found = await _inbound(gateway)
        return len(found) >= count

    await until(there, lambda: found)
    return found


async def _write(sim: SimulatorProcess, sender: str, text: str, modem: int = 0) -> None:
    await sim.control.call({"do": "inbound", "modem": modem, "from": sender, "text": text})


async def _stream(gateway: DaemonProcess, last: int, count: int) -> list[tuple[int, str, dict[str, Any]]]:
    """So many events of the stream after the one with id `last`."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    headers = {"Last-Event-ID": str(last)}
    fields: dict[str, str] = {}
    async with (
        asyncio.timeout(30),
        gateway.session.get(f"http://{gateway.address}/api/v1/events", headers=headers) as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        async for raw in response.content:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
                fields = {}
                if len(found) == count:
                    break
    return found


async def test_a_reply_is_listed_and_told_at_the_webhook_and_in_the_stream(tmp_path: Path) -> None:
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim, receiver() as app:
        config = configuration(tmp_path, [sim.port(0)], webhooks=[_hook(app.url)])
        config["channels"][0]["number"] = sim.number(0)
        async with daemon(tmp_path, config) as gateway:
            idm = await gateway.send(ANSWERS, LONG)
            (found,) = await _until_inbound(gateway, 1)
            assert found["from"] == ANSWERS
            assert found["to"] == sim.number(0)
            assert found["text"] == f"Re: {LONG}"
            assert (found["partial"], found["parts"]) == (False, found["parts_total"])
            assert found["parts"] > 1
            await gateway.until(idm, lambda message: message["delivery"] == "delivered")

            async def told() -> bool:
                return bool(app.of("inbound.received")) and bool(app.of("message.delivered"))

            await until(told, lambda: app.events)
            (received,) = app.of("inbound.received")
            assert (received["id"], received["text"]) == (found["id"], found["text"])
            types = [event["type"] for event in app.events if event["data"].get("idm") == idm]
            assert types == ["message.accepted", "message.sent", "message.delivered"]
            streamed = await _stream(gateway, 0, len(app.events))
            assert [event for _, _, event in streamed] == app.events, "the stream and the webhook tell the same"
            ids = [event_id for event_id, _, _ in streamed]
            assert ids == sorted(ids)
            assert await _stream(gateway, ids[1], 1) == [streamed[2]], "and goes on where a reader left off"


async def test_stop_is_confirmed_once_and_nothing_goes_out_any_more(tmp_path: Path) -> None:
    """S2-73, S2-74: after STOP nothing is sent; SendSMS answers state 3."""
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim:
        config = configuration(tmp_path, [sim.port(0)])
        async with daemon(tmp_path, config) as gateway:
            await gateway.send(STOPS, "news")
            await _until_inbound(gateway, 1)

            async def confirmed() -> bool:
                return len([row for row in await sim.ledger("delivered") if row["to"] == STOPS]) == 2

            await until(confirmed)
            _, answer = await gateway.post("/SendSMS", data={"destination": "098123402", "message": "more news"})
            assert (answer["state"], answer["state_name"]) == (3, "blocked")
            assert "STOP" in answer["reason"]
            await _write(sim, STOPS, "Stop!!")
            await _until_inbound(gateway, 2)
            _, answer = await gateway.post(
                "/api/v1/messages", json=[{"to": STOPS, "text": "x"}, {"to": NUMBER, "text": "y"}]
            )
            assert (answer["accepted"], answer["blocked"], answer["refused"]) == (1, 1, 0)
            await gateway.until(answer["items"][1]["idm"], lambda message: message["state"] == 2)
            texts = [row["text"] for row in await sim.ledger("submit") if row["to"] == STOPS]
            assert texts[0] == "news"
            assert texts[1].startswith("You will get no more messages")
            assert len(texts) == 2, "one confirmation, although STOP came twice"

            await _write(sim, STOPS, "START")
            await _until_inbound(gateway, 3)
            idm = await gateway.send(STOPS, "welcome back")
            await gateway.until(idm, lambda message: message["state"] == 2)
            assert len([row for row in await sim.ledger("submit") if row["to"] == STOPS]) == 4


async def test_stop_reaches_a_message_between_at_cmgs_and_its_pdu(tmp_path: Path) -> None:
    """Promise 5: what is queued is blocked with the STOP's commit, and what a modem was asked to prompt for is called
    back: ESC instead of the PDU.
    """
    async with simulator_process(modems=2, directory=tmp_path / "sim") as sim:
        config = configuration(tmp_path, [sim.port(0), sim.port(1)])
        async with daemon(tmp_path, config) as gateway:
            await sim.control.call(
                {"do": "fault", "modem": 0, "name": "late_prompt", "parameters": {"after_s": 1.5}, "count": 1}
            )
            bodies = [{"to": NUMBER, "text": f"offer {n}", "channel": "m0"} for n in range(3)]
            _, answer = await gateway.post("/api/v1/messages", json=bodies)
            in_hand, *queued = [item["idm"] for item in answer["items"]]
            await gateway.until(in_hand, lambda message: message["segments"][0]["state"] == "SUBMITTING")
            await _write(sim, NUMBER, "stop please", modem=1)
            for idm in (in_hand, *queued):
                message = await gateway.until(idm, lambda found: found["state"] == 3)
                assert "STOP" in message["explain"]
                assert [attempt["outcome"] for attempt in message["attempts"]] == ["not_sent"] * (idm == in_hand)
            assert len(await sim.ledger("cancelled")) == 1, "ESC came instead of the PDU"

            async def confirmed() -> bool:
                return bool(await sim.ledger("submit"))

            await until(confirmed)
            assert [row["to"] for row in await sim.ledger("submit")] == [NUMBER], "the confirmation, and nothing else"
            assert (await sim.ledger("submit"))[0]["from"] == sim.number(1), "over the SIM that was written to"


async def test_words_that_are_no_stop_opt_nobody_out(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0)])) as gateway,
    ):
        texts = ["please stop by at 5", "non-stop", "STOP 12345", "I can't stop laughing", "stop texting me"]
        for text in texts:
            await _write(sim, NUMBER, text)
        found = await _until_inbound(gateway, len(texts))
        assert sorted(message["text"] for message in found) == sorted(texts)
        assert {message["text"]: message["tier"] for message in found}["stop texting me"] == "B", "shown, not lost"
        idm = await gateway.send(NUMBER, "still welcome")
        await gateway.until(idm, lambda message: message["state"] == 2)
        assert [row["text"] for row in await sim.ledger("submit")] == ["still welcome"]


async def test_an_undecodable_pdu_is_shown_and_leaves_the_sim(tmp_path: Path) -> None:
    """Promise 3: kept raw and shown, never refused."""
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0)])) as gateway,
    ):
        await sim.control.call({"do": "inbound", "modem": 0, "from": NUMBER, "tpdu": "040B915989"})
        (found,) = await _until_inbound(gateway, 1)
        assert (found["kind"], found["text"]) == ("undecodable", None)
        assert found["error"]
        _, detail = await gateway.get(f"/api/v1/inbound/{found['id']}")
        assert "040B915989" in json.dumps(detail)

        async def empty() -> bool:
            stores = [await sim.control.call({"do": "store", "modem": 0, "store": name}) for name in ("SM", "ME")]
            return not any(store["slots"] for store in stores)

        await until(empty)


async def test_twenty_kills_lose_no_inbound_and_hand_none_over_twice(tmp_path: Path) -> None:
    """Promise 3 and the issue's own: kill -9 with inbound and reports flowing, twenty times."""
    moment = random.Random(20261128)
    written: list[str] = []
    async with (
        simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=20) as sim,
        receiver() as app,
    ):
        config = configuration(tmp_path, [sim.port(0), sim.port(1)], webhooks=[_hook(app.url)])
        sent = 0
        for kill in range(KILLS):
            async with daemon(tmp_path, config) as gateway:
                body = [{"to": f"+59898{sent + i:04}77", "text": f"out {sent + i}"} for i in range(6)]
                sent += 6
                assert (await gateway.post("/api/v1/messages", json=body))[0] == 202
                for n in range(5):
                    text = f"in {kill}/{n} " + ("largo, con ñ y 🙂 " * 12 if n % 3 == 0 else "")
                    written.append(text)
                    await _write(sim, f"+59899{kill:02}{n:02}11", text, modem=n % 2)
                async with asyncio.timeout(30):  # anywhere in the work, not a synchronisation
                    await asyncio.sleep(moment.uniform(0, 0.25))
                await gateway.kill()
        async with daemon(tmp_path, config) as gateway:
            found = await _until_inbound(gateway, len(written))

            async def told() -> bool:
                ids = {event["id"] for event in app.events if event["type"] == "inbound.received"}
                return len(ids) >= len(written)

            await until(told, lambda: len(app.events))
            assert Counter(message["text"] for message in found) == Counter(written), "none lost, none twice"
            handed: dict[str, set[tuple[str, int]]] = {}
            for event in app.events:
                if event["type"] == "inbound.received":
                    handed.setdefault(event["data"]["text"], set()).add((event["id"], event["data"]["id"]))
            assert set(handed) == set(written)
            assert all(len(ids) == 1 for ids in handed.values()), "told again, perhaps, but under one id"
            times = Counter(row["text"] for row in await sim.ledger("submit"))
            assert not [text for text, count in times.items() if count > 1]
            stored = [message["id"] for message in found]
            assert len(set(stored)) == len(stored)
