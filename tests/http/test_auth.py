"""Who may ask: keys, scopes, trusted networks; proxies cannot be used to look trusted."""

from __future__ import annotations

import base64
import logging
import os
import pwd
import socket
from ipaddress import ip_network
from pathlib import Path

import aiohttp
import pytest

from tests.http.helpers import ADMIN, READ, SEND, TRUSTED, bearer, gateway

GOOD = {"destination": "098344484", "message": "x"}
LOCAL = (ip_network("127.0.0.0/8"),)
OFFICE = (ip_network("10.1.0.0/16"), ip_network("2001:db8::/32"))


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    "headers",
    [
        bearer(SEND),
        {"Authorization": f"bearer {SEND}"},
        {"X-API-Key": SEND},
        basic(f"anybody:{SEND}"),
        basic(f":{SEND}"),
    ],
)
async def test_a_key_is_taken_in_each_of_its_places(tmp_path: Path, headers: dict[str, str]) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.send(data=GOOD, key=None, headers=headers)
        assert answer.status == 200
        assert gate.row(answer.json["idm"])["api_key"] == "send"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("gw_unknown"),
        bearer(""),
        {"X-API-Key": ""},
        {"X-API-Key": "ñ"},
        basic("no colon"),
        {"Authorization": "Basic !"},
        {"Authorization": "Basic /w=="},
        {"Authorization": "Digest x"},
        {"Authorization": SEND},
    ],
)
async def test_without_a_known_key_nothing_is_taken(tmp_path: Path, headers: dict[str, str]) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.send(data=GOOD, key=None, headers=headers)
        assert (answer.status, answer.fields) == (401, [])
        assert "Bearer" in answer.headers["WWW-Authenticate"]
        assert gate.queued() == 0


async def test_an_unknown_key_is_refused_also_from_a_trusted_network(tmp_path: Path) -> None:
    async with gateway(tmp_path, **TRUSTED) as gate:
        assert (await gate.send(data=GOOD, key="gw_unknown")).status == 401
        assert (await gate.send(data=GOOD, key=None)).status == 200


async def test_a_scope_is_needed(tmp_path: Path) -> None:
    needs = {
        ("POST", "/SendSMS"): SEND,
        ("POST", "/Integra/resources/SMS/SendSMS"): SEND,
        ("POST", "/api/v1/messages"): SEND,
        ("GET", "/api/v1/messages"): READ,
        ("GET", "/api/v1/messages/1"): READ,
        ("GET", "/api/v1/channels"): ADMIN,
        ("POST", "/api/v1/channels/sim1/accept"): ADMIN,
        ("POST", "/api/v1/pause"): ADMIN,
        ("POST", "/api/v1/resume"): ADMIN,
        ("GET", "/api/v1/status"): ADMIN,
    }
    async with gateway(tmp_path) as gate:
        for (method, path), enough in needs.items():
            for key in (SEND, READ, ADMIN):
                answer = await gate.request(method, path, key=key)
                allowed = key in (enough, ADMIN)
                assert (answer.status == 403) is not allowed, (method, path, key)
                assert answer.status != 401
            assert (await gate.request(method, path)).status == 401
        assert gate.queued() == 0


async def test_a_trusted_network_needs_no_key_and_may_not_steer(tmp_path: Path) -> None:
    async with gateway(tmp_path, **TRUSTED) as gate:
        answer = await gate.send(data=GOOD, key=None)
        assert gate.row(answer.json["idm"])["api_key"] == "host 127.0.0.1"
        assert (await gate.get("/api/v1/messages", key=None)).status == 200
        assert (await gate.send("/api/v1/pause", key=None)).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"x-forwarded-anything": ""},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Origin": "https://example.org"},  # a web page in the browser of somebody on a trusted machine
    ],
)
async def test_what_was_forwarded_is_never_trusted(tmp_path: Path, headers: dict[str, str]) -> None:
    async with gateway(tmp_path, **TRUSTED) as gate:
        assert (await gate.send(data=GOOD, key=None, headers=headers)).status == 401
        assert (await gate.send(data=GOOD, key=SEND, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        ("10.1.2.3", 200),
        ("10.1.2.3:4711", 200),
        ("[2001:db8::7]:4711", 200),
        ("::ffff:10.1.2.3", 200),
        ("192.0.2.1", 401),
        ("10.1.2.3, 192.0.2.1", 401),  # what stands left of the rightmost untrusted hop may be a lie
        ("192.0.2.1, 10.1.2.3", 200),
        ("10.1.2.3, 127.0.0.5", 200),  # a chain of our own proxies
        ("192.0.2.1, 127.0.0.5", 401),
        ("unknown", 401),
        ("10.1.2.3, unknown", 401),
        ("", 401),
        ("10.1.2.3,", 401),
    ],
)
async def test_behind_a_trusted_proxy_the_rightmost_untrusted_hop_counts(
    tmp_path: Path, forwarded: str, status: int
) -> None:
    async with gateway(tmp_path, trusted_networks=OFFICE, trusted_proxies=LOCAL) as gate:
        headers = {"X-Forwarded-For": forwarded}
        assert (await gate.send(data=GOOD, key=None, headers=headers)).status == status


async def test_a_proxy_that_says_something_else_than_x_forwarded_for_is_not_understood(tmp_path: Path) -> None:
    async with gateway(tmp_path, trusted_networks=OFFICE + LOCAL, trusted_proxies=LOCAL) as gate:
        for headers in (
            {"Forwarded": "for=10.1.2.3"},
            {"X-Forwarded-Proto": "https"},
            {"X-Forwarded-For": "10.1.2.3", "Forwarded": "for=10.1.2.3"},
        ):
            assert (await gate.send(data=GOOD, key=None, headers=headers)).status == 401


async def test_several_x_forwarded_for_headers_are_one_list(tmp_path: Path) -> None:
    async with gateway(tmp_path, trusted_networks=OFFICE, trusted_proxies=LOCAL) as gate:
        body = b"destination=7373&message=x"
        for last, status in ((b"192.0.2.1", b"401"), (b"10.1.2.3", b"200")):
            answer = await gate.raw(
                b"POST /SendSMS HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: 10.1.2.3\r\n"
                b"X-Forwarded-For: " + last + b"\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body,
                finish=False,
            )
            assert answer.split()[1] == status


async def test_no_secret_is_logged_or_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with gateway(tmp_path) as gate:
        for headers in (bearer("gw_wrong_secret"), {"X-API-Key": "gw_wrong_secret"}, basic("u:gw_wrong_secret")):
            answer = await gate.send(data=GOOD, key=None, headers=headers)
            assert "wrong_secret" not in str(answer)
        await gate.send(data=GOOD)
    mine = [record.getMessage() for record in caplog.records if record.name.startswith("gatewayd")]
    assert not any("wrong_secret" in line or SEND in line for line in mine)


async def test_on_the_control_socket_the_uid_is_the_actor(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    async with (
        gateway(tmp_path, control_socket=path) as gate,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as client,
    ):
        async with client.post("http://local/api/v1/pause", json={"reason": "r"}) as response:
            assert response.status == 200
        actor = f"uid {os.getuid()} ({pwd.getpwuid(os.getuid()).pw_name})"
        assert gate.operator.said == [("pause", actor, "r")]
        document = {"to": "7373", "text": "x", "in_doubt": "resend"}
        async with client.post("http://local/api/v1/messages", json=document) as response:
            assert response.status == 202
            row = gate.row((await response.json())["idm"])
            assert (row["in_doubt"], row["api_key"]) == ("resend", actor)
        headers = bearer("gw_unknown")
        async with client.get("http://local/api/v1/status", headers=headers) as response:
            assert response.status == 200  # who may open the socket needs no key


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("localhost:8080", 200),
        ("LOCALHOST.", 200),
        (socket.gethostname(), 200),
        ("gateway.example.com:8080", 200),
        ("evil.example", 401),
        ("evil.example:8080", 401),
        ("127.0.0.1.evil.example", 401),
        ("localhost.evil.example:80", 401),
    ],
)
async def test_a_name_that_is_made_to_stand_for_our_address_reads_nothing_without_a_key(
    tmp_path: Path, host: str, status: int
) -> None:
    """DNS rebinding: the web page's own name is in what it asks for."""
    async with gateway(
        tmp_path, trusted_networks=(ip_network("127.0.0.0/8"),), host_names=("Gateway.Example.com",)
    ) as gate:
        answer = await gate.get("/api/v1/messages", key=None, headers={"Host": host})
        assert answer.status == status, answer.json
        if status == 401:
            assert "http.host_names" in answer.json["detail"]
        assert (await gate.get("/api/v1/messages", headers={"Host": host})).status == 200, "a key is as good as ever"
