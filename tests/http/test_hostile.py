"""What is no HTTP, or is meant to hurt: 4xx or a closed connection, nothing queued, and the next one is served."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewayd.http import api, routes
from tests.http.helpers import DEADLINE_S, FORM, SEND, Gateway, gateway

GOOD = {"destination": "098344484", "message": "x"}
BODY = b"destination=098344484&message=x"


def post(*headers: bytes, body: bytes = b"", path: bytes = b"/SendSMS") -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: x", b"X-API-Key: " + SEND.encode(), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


TYPE = f"Content-Type: {FORM}".encode()

HOSTILE: dict[str, tuple[list[bytes], set[int]]] = {
    "not HTTP": ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 50], {400}),
    "no request line": ([b"\r\n\r\nhello\r\n\r\n"], {400}),
    "an endless request line": ([b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n"], {400, 414}),
    "100000 headers": ([b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n"], {400, 431}),
    "one huge header": ([b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 200_000 + b"\r\n\r\n"], {400, 431}),
    "a header without a colon": ([b"GET /healthz HTTP/1.1\r\nHost: x\r\nhello\r\n\r\n"], {400}),
    "NUL in a header": ([b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n"], {400}),
    "absurd Content-Length": ([post(TYPE, b"Content-Length: 99999999999999999999999")], {400, 413}),
    "large Content-Length": ([post(TYPE, b"Content-Length: 9999999999", body=BODY)], {413}),
    "negative Content-Length": ([post(TYPE, b"Content-Length: -1", body=BODY)], {400}),
    "two Content-Lengths": ([post(TYPE, b"Content-Length: 31", b"Content-Length: 32", body=BODY)], {400}),
    "length and chunks": (
        [post(TYPE, b"Content-Length: 31", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")], {400}
    ),
    "bad chunks": ([post(TYPE, b"Transfer-Encoding: chunked", body=b"zz\r\nhello\r\n0\r\n\r\n")], {400}),
    "endless chunks": (
        [post(TYPE, b"Transfer-Encoding: chunked"), *[b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 40], {413}
    ),
    "a truncated body": ([post(TYPE, b"Content-Length: 100", body=BODY)], {400}),
    "an unknown method": ([b"BREW /SendSMS HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"], {400, 405}),
    "a path that is none": ([b"GET ../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"], {400, 404}),
    "a path with escapes": ([b"GET /%2e%2e/%00%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"], {400, 404}),
    "an unknown expectation": (
        [post(TYPE, b"Expect: 200-maybe", b"Connection: close", b"Content-Length: 31", body=BODY)], {417}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_hurts_is_refused_and_the_next_is_served(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    pieces, statuses = HOSTILE[name]
    async with gateway(tmp_path) as gate:
        # Half-closed where the end of what is sent is the point; a server may close before it has read all of it.
        answer = await gate.raw(*pieces, finish="truncated" in name)
        if answer or "truncated" in name:
            assert not answer or int(answer.split(b" ", 2)[1]) in statuses, answer[:200]
        assert gate.queued() == 0
        assert (await gate.send(data=GOOD)).status == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_malformed_request_gets_a_problem(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.raw(b"GET /healthz HTTP/1.1\r\nhello\r\n\r\n", finish=False)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"application/problem+json" in head
        assert json.loads(body)["status"] == 400


async def test_large_bodies_are_refused_by_what_they_announce_and_by_what_they_are(tmp_path: Path) -> None:
    async with gateway(tmp_path, max_body_octets=2048) as gate:

        async def chunks() -> Any:
            for _ in range(100):
                yield b"x" * 100

        for body in (b"x" * 3000, chunks()):
            answer = await gate.send(data=body, headers={"Content-Type": FORM})
            assert (answer.status, answer.fields) == (413, [])
        fits = await gate.send(data={**GOOD, "unknown": "x" * 1500})
        assert fits.status == 200


async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    async with gateway(tmp_path, body_timeout_s=0.05) as gate:
        answer = await gate.raw(post(TYPE, b"Content-Length: 100", body=BODY), finish=False)
        assert answer.split(b" ", 2)[1] == b"408"
        assert gate.queued() == 0


async def test_headers_that_never_end_are_not_waited_for(tmp_path: Path) -> None:
    async with gateway(tmp_path, idle_timeout_s=0.05) as gate:
        assert await gate.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n", finish=False) == b""


async def test_a_caller_who_hangs_up_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with gateway(tmp_path) as gate:
        for _ in range(20):
            _, writer = await asyncio.open_connection(*gate.server.address)
            writer.write(post(TYPE, b"Content-Length: 31", body=BODY[:10]))
            await writer.drain()
            writer.transport.abort()
        assert (await gate.send(data=GOOD)).status == 200
        assert gate.queued() == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_connections_beyond_the_limit_are_told(tmp_path: Path) -> None:
    async with gateway(tmp_path, max_connections=2) as gate:
        held = [await asyncio.open_connection(*gate.server.address) for _ in range(2)]
        for _, writer in held:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        for reader, _ in held:
            assert b"200" in await asyncio.wait_for(reader.readline(), DEADLINE_S)
        assert b"503" in (await gate.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", finish=False)).split(b"\r\n")[0]
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(DEADLINE_S):
            while b"200" not in await gate.raw(
                b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", finish=False
            ):
                pass


async def test_what_nobody_foresaw_is_logged_and_told_without_details(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(request: web.Request) -> web.Response:
        raise RuntimeError("secret inner workings")

    changed = [
        routes.Route("POST", route.path, broken, "", None, {}) if route.handler is api.resume else route
        for route in routes.ROUTES
    ]
    monkeypatch.setattr("gatewayd.http.server.ROUTES", changed)
    async with gateway(tmp_path) as gate:
        answer = await gate.send("/api/v1/resume")
        assert (answer.status, answer.fields) == (500, [])
        assert "secret" not in json.dumps(answer.json)
        assert (await gate.send(data=GOOD)).status == 200
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(logged) == 1
    assert logged[0].exc_info is not None


# Whatever the body is: no 5xx. One server for many examples.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8,
)  # fmt: skip
fields = st.sampled_from(
    ["to", "text", "class", "priority", "not_before", "expires_at", "channel", "in_doubt", "report", "campaign",
     "client_ref", "callback_url", "extra"]
)  # fmt: skip
plausible = st.fixed_dictionaries(
    {"to": st.sampled_from(["098344484", "+1", "7373", ""]) | st.text(), "text": st.text() | st.just("hello")},
    optional={
        "priority": st.integers() | st.none(),
        "not_before": st.datetimes().map(lambda moment: moment.isoformat() + "Z") | st.text(),
        "expires_at": st.datetimes().map(lambda moment: moment.isoformat() + "+14:00"),
        "client_ref": st.text(),
        "campaign": st.text(),
        "class": st.sampled_from(["alert", "system"]) | st.text(),
    },
)
json_bodies = (plausible | st.lists(plausible, max_size=3) | st.dictionaries(fields, json_values) | json_values).map(
    lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
)
form_octets = st.binary() | st.lists(
    st.tuples(
        st.sampled_from([b"destination", b"message", b"campaign", b"agent", b"%64", b""]),
        st.binary(max_size=20) | st.sampled_from([b"098344484", b"7373", b"hello+%F0%9F%98%80"]),
    ),
    max_size=6,
).map(lambda pairs: b"&".join(name + b"=" + value for name, value in pairs))
part = st.tuples(
    st.sampled_from(
        [b'Content-Disposition: form-data; name="message"', b"Content-Disposition: form-data; name=destination",
         b'Content-Disposition: form-data; name="agent"; filename="x"', b"Content-Disposition: \xff; name*=x''%FF",
         b"Content-Transfer-Encoding: base64", b"Content-Type: text/plain; charset=utf-7", b"", b":"]
    ),
    st.sampled_from([b"\r\n\r\n", b"\r\n", b"\n\n", b""]),
    st.binary(max_size=20),
    st.sampled_from([b"\r\n--B\r\n", b"\r\n--B--", b"\r\n--B", b"--B--\r\n"]),
).map(b"".join)  # fmt: skip
multipart_bodies = st.binary() | st.lists(part, max_size=5).map(lambda parts: b"--B\r\n" + b"".join(parts))
content_types = st.sampled_from(
    [FORM, f"{FORM}; charset=utf-8", f"{FORM}; charset=utf-16", "multipart/form-data; boundary=B",
     "multipart/form-data; boundary*=utf-8''B", "application/json", "application/json; charset=utf-8", "text/plain",
     "multipart/mixed; boundary=B", "", ";", "application/json;;=", "a/b; c*0=d; c*1=e; charset*=x''y"]
)  # fmt: skip
requests = (
    st.tuples(st.just("/SendSMS"), st.just(FORM), form_octets)
    | st.tuples(st.just("/SendSMS"), st.just("multipart/form-data; boundary=B"), multipart_bodies)
    | st.tuples(st.sampled_from(["/api/v1/messages", "/api/v1/pause"]), st.just("application/json"), json_bodies)
    | st.tuples(
        st.sampled_from(["/SendSMS", "/api/v1/messages"]),
        content_types,
        st.binary() | form_octets | json_bodies | multipart_bodies,
    )
)


def test_no_request_body_gives_5xx(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    running = gateway(tmp_path)
    gate: Gateway = loop.run_until_complete(running.__aenter__())
    try:

        @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
        @given(requests)
        def never(request: tuple[str, str, bytes]) -> None:
            path, content_type, body = request

            async def go() -> None:
                before = gate.queued()
                headers = {"Content-Type": content_type, "Idempotency-Key": "k"} if len(body) % 5 == 0 else {
                    "Content-Type": content_type
                }  # fmt: skip
                answer = await gate.send(path, key="gw_admin", data=body, headers=headers)
                assert answer.status < 500, (request, answer.json)
                if answer.status >= 400:
                    assert answer.headers["Content-Type"] == "application/problem+json"
                    assert gate.queued() == before

            loop.run_until_complete(go())

        never()
    finally:
        loop.run_until_complete(running.__aexit__(None, None, None))
        loop.close()
