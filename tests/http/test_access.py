"""The access log, what the metrics are told, and the headers of every answer."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gatewayd import msglog
from gatewayd.http import routes
from gatewayd.http.routes import Route
from tests.http.helpers import DEADLINE_S, READ, SEND, Operator, bearer, gateway

GOOD = {"destination": "098344484", "message": "my secret text"}


class Log:
    """Stands in for msglog.access, and for the metrics."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[tuple[str, str, int, float, str, str, int]] = []
        self.seen: list[tuple[str, str, int]] = []
        self.arrived = asyncio.Event()
        monkeypatch.setattr(msglog, "access", self._line)

    def _line(self, *fields: Any) -> None:
        self.lines.append(fields)
        self.arrived.set()

    def on_request(self, method: str, template: str, status: int, took_s: float) -> None:
        assert took_s >= 0
        self.seen.append((method, template, status))


async def test_a_line_for_each_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    async with gateway(tmp_path) as gate:
        gate.context.on_request = log.on_request
        sent = await gate.send(data=GOOD)
        await gate.get(f"/api/v1/messages/{sent.json['idm']}?x=098344484")
        await gate.get("/api/v1/messages", key=SEND)
        await gate.get("/api/v1/messages", key="gw_wrong")
        await gate.get("/098344484/my-secret", key=None)
        await gate.request("DELETE", "/SendSMS")
        await gate.request("PROPFIND", "/SendSMS")
        await gate.request("HEAD", "/healthz")
    rows = [(*line[:3], line[4], line[5]) for line in log.lines]
    assert rows == [
        ("POST", "/SendSMS", 200, "send", "127.0.0.1"),
        ("GET", "/api/v1/messages/{idm}", 200, "read", "127.0.0.1"),
        ("GET", "/api/v1/messages", 403, "send", "127.0.0.1"),
        ("GET", "/api/v1/messages", 401, "", "127.0.0.1"),
        ("GET", "(no such path)", 404, "", "127.0.0.1"),
        ("DELETE", "(no such path)", 405, "", "127.0.0.1"),
        ("OTHER", "(no such path)", 405, "", "127.0.0.1"),
        ("HEAD", "/healthz", 200, "", "127.0.0.1"),
    ]
    assert log.seen == [row[:3] for row in rows]
    assert all(line[3] >= 0 for line in log.lines)
    assert log.lines[0][6] > 20
    assert log.lines[-1][6] == 0  # HEAD has no body
    assert "098344484" not in str(log.lines)


async def test_the_size_is_that_of_the_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    async with gateway(tmp_path) as gate, gate.client.get(gate.url + "/healthz") as response:
        assert log.lines[0][6] == len(await response.read())


async def test_the_real_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with gateway(tmp_path) as gate:
        await gate.send(data=GOOD)
        await gate.get("/healthz", key=None)
    lines = [record.getMessage() for record in caplog.records if record.name == "gatewayd.access"]
    assert len(lines) == 1  # probes only at DEBUG
    assert "method=POST" in lines[0]
    assert "by=send" in lines[0]


async def test_it_can_be_turned_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    async with gateway(tmp_path, access_log=False) as gate:
        gate.context.on_request = log.on_request
        await gate.send(data=GOOD)
        await gate.raw(b"\x16\x03")
    assert log.lines == []
    assert log.seen == [("POST", "/SendSMS", 200), ("OTHER", "(malformed)", 400)]  # the metrics count all the same


async def test_our_own_command_line_is_no_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log(monkeypatch)
    path = str(tmp_path / "control.sock")
    async with (
        gateway(tmp_path, control_socket=path),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as client,
    ):
        for level in (logging.INFO, logging.DEBUG):
            caplog.set_level(level, "gatewayd.access")
            async with client.get("http://local/api/v1/status") as response:
                assert response.status == 200
            async with client.get("http://local/api/v1/messages/99") as response:
                assert response.status == 404
    assert [(line[1], line[2]) for line in log.lines] == [
        ("/api/v1/messages/{idm}", 404),
        ("/api/v1/status", 200),
        ("/api/v1/messages/{idm}", 404),
    ]
    assert all(line[4].startswith("uid ") for line in log.lines)


async def test_behind_a_trusted_proxy_the_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    async with gateway(tmp_path, trusted_proxies=(ip_network("127.0.0.0/8"),)) as gate:
        await gate.send(data=GOOD, headers={"X-Forwarded-For": "192.0.2.1, 10.1.2.3"})
        await gate.send(data=GOOD, headers={"X-Forwarded-For": "nonsense"})
    async with gateway(tmp_path) as gate:
        await gate.send(data=GOOD, headers={"X-Forwarded-For": "10.1.2.3"})
    assert [line[5] for line in log.lines] == ["10.1.2.3", "127.0.0.1", "127.0.0.1"]


def with_route(monkeypatch: pytest.MonkeyPatch, handler: Any) -> None:
    """A route of the test's own."""
    route = Route("GET", "/test", handler, "For the test.", None, {200: None})
    monkeypatch.setattr("gatewayd.http.server.ROUTES", (*routes.ROUTES, route))


async def test_a_stream_is_logged_when_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, go_on = Log(monkeypatch), asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await go_on.wait()
        await response.write(b"data: 2\n\n")
        return response

    with_route(monkeypatch, stream)
    async with gateway(tmp_path) as gate, gate.client.get(gate.url + "/test") as response:
        assert await response.content.readline() == b"data: 1\n"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert log.lines == []
        go_on.set()
        await response.read()
        assert [line[1:3] for line in log.lines] == [("/test", 200)]
        assert log.lines[0][6] >= len(b"data: 1\n\ndata: 2\n\n")


async def test_a_stream_that_ends_with_the_daemon_is_logged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(monkeypatch)

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await asyncio.Event().wait()
        return response

    with_route(monkeypatch, stream)
    async with gateway(tmp_path, shutdown_timeout_s=0.05) as gate:
        async with gate.client.get(gate.url + "/test") as response:
            await response.content.readline()
            await gate.server.stop()
        async with asyncio.timeout(DEADLINE_S):
            await log.arrived.wait()
        assert [line[1:3] for line in log.lines] == [("/test", 200)]


async def test_a_failure_of_ours_is_logged_as_500(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)

    class Broken(Operator):
        def channels(self) -> Any:
            raise ValueError("a bug")

    async with gateway(tmp_path) as gate:
        gate.context.control = Broken()
        assert (await gate.get("/readyz", key=None)).status == 500
    assert [line[1:3] for line in log.lines] == [("/readyz", 500)]


SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "gatewayd",
}


async def test_every_answer_carries_the_headers(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        answers = [
            await gate.send(data=GOOD),
            await gate.get("/api/v1/messages"),
            await gate.get("/api/v1/messages", key="gw_wrong"),
            await gate.get("/api/v1/openapi.json", key=None),
            await gate.get("/healthz", key=None),
            await gate.get("/nothing", key=None),
            await gate.request("PUT", "/SendSMS"),
            await gate.request("HEAD", "/healthz"),
            await gate.send(data=GOOD, headers={"Expect": "nonsense"}),
        ]
        for answer in answers:
            assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY
            assert "Strict-Transport-Security" not in answer.headers
        assert answers[-1].status == 417
        raw = await gate.raw(b"no HTTP at all\r\n\r\n", finish=False)
        for name, value in SECURITY.items():
            assert f"{name}: {value}\r\n".encode() in raw
        assert b"aiohttp" not in raw


async def test_a_refused_connection_tells_nothing_either(tmp_path: Path) -> None:
    async with gateway(tmp_path, max_connections=1) as gate:
        async with gate.client.get(gate.url + "/healthz", headers=bearer(READ)) as response:
            await response.read()
        raw = await gate.raw(b"", finish=False)
        assert raw.startswith(b"HTTP/1.1 503")
        assert b"no-store" in raw
        assert b"aiohttp" not in raw


async def test_who_waits_to_be_told_to_go_on_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    async with gateway(tmp_path) as gate:
        async with gate.client.post(gate.url + "/SendSMS", data=GOOD, headers=bearer(SEND), expect100=True) as response:
            assert response.status == 200
        async with gate.client.post(gate.url + "/SendSMS", data=GOOD, headers={"Expect": "nonsense"}) as response:
            assert response.status == 417
    assert [line[1:3] for line in log.lines] == [("/SendSMS", 200), ("/SendSMS", 417)]
