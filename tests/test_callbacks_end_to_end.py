"""A message's own callback, ours and Kannel's, from the submission to the call; and a stop while everything hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from aiohttp import web
from yarl import URL

from gatewayd.modems.simulator.process import simulator_process
from tests.daemon import DaemonProcess, configuration, daemon, until

NUMBER = "+59898344484"
FAILS = "+59898344405"


@dataclass
class Endpoint:
    """Takes calls; `hang`: answers none of them."""

    url: str = ""
    posts: list[dict[str, Any]] = field(default_factory=list)
    gets: list[dict[str, list[str]]] = field(default_factory=list)


@asynccontextmanager
async def endpoint(*, hang: bool = False) -> AsyncIterator[Endpoint]:
    found = Endpoint()
    over = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        if request.method == "POST":
            found.posts.append(await request.json())
        else:
            found.gets.append(parse_qs(request.query_string, keep_blank_values=True))
        if hang:
            await over.wait()
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/cb", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/cb"
    try:
        yield found
    finally:
        over.set()
        await runner.cleanup()


async def _ready(gateway: DaemonProcess) -> bool:
    return all(channel["state"] == "ready" for channel in await gateway.channels())


CALLBACKS = {"callbacks": {"allow_private": True}}


async def test_a_message_tells_its_own_callback_what_becomes_of_it(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        endpoint() as app,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0)], http=CALLBACKS)) as gateway,
    ):
        body = [{"to": to, "text": "hi", "callback_url": app.url, "client_ref": to} for to in (NUMBER, FAILS)]
        status, answer = await gateway.post("/api/v1/messages", json=body)
        assert status == 202, answer

        async def told() -> bool:
            return len(app.posts) == 6

        await until(told, lambda: app.posts)
        types = {to: [post["type"] for post in app.posts if post["data"]["client_ref"] == to] for to in (NUMBER, FAILS)}
        assert types[NUMBER] == ["message.accepted", "message.sent", "message.delivered"]
        assert types[FAILS] == ["message.accepted", "message.sent", "message.undelivered"]


async def test_kannels_clients_get_kannels_delivery_reports(tmp_path: Path) -> None:
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim, endpoint() as app:
        http = {**CALLBACKS, "kannel": {"enabled": True}}
        async with daemon(tmp_path, configuration(tmp_path, [sim.port(0)], http=http)) as gateway:
            await until(lambda: _ready(gateway))
            dlr = quote(f"{app.url}?d=%d&to=%p&from=%P&id=%I&smsc=%i", safe="")
            for to in (NUMBER, FAILS):
                query = f"to={quote(to)}&from=1234&text=Hello&dlr-mask=31&dlr-url={dlr}"
                url = f"http://{gateway.address}/cgi-bin/sendsms?{query}"
                async with gateway.session.get(URL(url, encoded=True)) as response:
                    assert (response.status, await response.text()) == (202, "0: Accepted for delivery")

            async def told() -> bool:
                return len(app.gets) == 4

            await until(told, lambda: app.gets)
            values = {to: [call["d"] for call in app.gets if call["to"] == [to]] for to in (NUMBER, FAILS)}
            assert values == {NUMBER: [["8"], ["1"]], FAILS: [["8"], ["2"]]}
            assert {tuple(call["smsc"]) for call in app.gets} == {("m0",)}


async def test_a_stop_is_bounded_whatever_hangs(tmp_path: Path) -> None:
    """A modem that never answers, an endpoint that never answers, a stream that is read by nobody."""
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim, endpoint(hang=True) as app:
        gateway_keys = {
            "home_country": "UY",
            "control_socket": str(tmp_path / "control.sock"),
            "shutdown_timeout": "1s",
        }
        hook = {"name": "crm", "url": app.url, "allow_private": True, "timeout": "2m"}
        config = configuration(tmp_path, [sim.port(0)], gateway=gateway_keys, webhooks=[hook])
        async with daemon(tmp_path, config) as gateway:
            await sim.control.call({"do": "fault", "modem": 0, "name": "silent", "parameters": {"sent": False}})
            async with gateway.session.get(f"http://{gateway.address}/api/v1/events") as stream:
                assert stream.status == 200
                idm = await gateway.send(NUMBER, "who answers?")
                await gateway.until(idm, lambda message: message["segments"][0]["state"] == "SUBMITTING")

                async def called() -> bool:
                    return bool(app.posts)

                await until(called)
                async with asyncio.timeout(30):
                    assert await gateway.stop() == 0
        assert any("stopped" in line for line in gateway.log)
        async with daemon(tmp_path, config) as gateway:
            message = await gateway.message(idm)
            assert message["state"] in {1, 8}, "in doubt, or never left"
