"""What answers mean, how long is waited, what may be called, and how requests are signed."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import IPv4Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from gatewayd.config.destinations import MAX_URL, Reach, check_url, kind_of, named_address
from gatewayd.config.webhooks import signing_key
from gatewayd.router import signature
from gatewayd.router.calls import retry_after
from gatewayd.router.verdicts import BACKOFF_S, MAX_WAIT_S, Verdict, backoff_s, judge


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ((200, 201, 202, 204, 299), Verdict.DELIVERED),
        ((408, 429, 500, 502, 503, 504, 599), Verdict.DOWN),
        ((301, 302, 307, 308, 401, 403, 404), Verdict.LATER),
        ((400, 405, 409, 410, 413, 415, 418, 422), Verdict.REFUSED),
    ],
)
def test_statuses(statuses: tuple[int, ...], verdict: Verdict) -> None:
    assert {judge(status) for status in statuses} == {verdict}


@given(st.integers(1, 10_000), st.floats(0, 1), st.none() | st.floats(0, 1e12))
def test_waits_are_bounded(failures: int, jitter: float, asked: float | None) -> None:
    wait = backoff_s(failures, jitter, asked)
    step = BACKOFF_S[min(failures, len(BACKOFF_S)) - 1]
    assert min(0.75 * step, MAX_WAIT_S) <= wait <= MAX_WAIT_S
    assert wait >= min(asked or 0, MAX_WAIT_S)
    if asked is None:
        assert wait <= 1.25 * step


def test_retry_after() -> None:
    assert retry_after(None) is None
    assert retry_after(" 120 ") == 120
    assert retry_after("9" * 400) == 999_999_999
    assert retry_after("-1") is None
    assert retry_after("soon") is None
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True)
    assert 0 < (retry_after(in_a_minute) or 0) <= 60


@pytest.mark.parametrize(
    ("kind", "addresses"),
    [
        ("", "8.8.8.8 1.1.1.1 100.63.0.1 172.32.0.1 2606:4700::1111 64:ff9b::808:808 ::ffff:8.8.8.8 2002:808:808::1"),
        ("a loopback address", "127.0.0.1 127.255.0.9 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: ::127.0.0.1"),
        ("a private address", "10.0.0.1 172.16.5.5 192.168.1.1 100.64.0.1 100.127.255.255 fd00::1 fc00::1 fec0::1"),
        ("a private address", "::ffff:10.0.0.1 64:ff9b::a00:1 64:ff9b:1::a00:1 ::ffff:0:10.0.0.1"),
        ("a link-local address", "169.254.169.254 fe80::1 ::ffff:169.254.0.1"),
        ("a multicast address", "224.0.0.1 239.1.2.3 ff02::1"),
        ("the unspecified address", "0.0.0.0 :: ::ffff:0.0.0.0"),
        ("a reserved address", "0.1.2.3 240.0.0.1 255.255.255.255 192.0.2.1 198.18.0.1 2001:db8::1"),
    ],
)
def test_kinds_of_addresses(kind: str, addresses: str) -> None:
    assert {address: kind_of(ip_address(address)) for address in addresses.split()} == dict.fromkeys(
        addresses.split(), kind
    )


def test_reach() -> None:
    assert Reach().refusal(ip_address("10.1.2.3")) == "10.1.2.3 is a private address"
    assert Reach(private=True).refusal(ip_address("10.1.2.3")) == ""
    assert Reach(private=True).refusal(ip_address("0.0.0.0")) != ""
    assert Reach(private=True).refusal(ip_address("224.0.0.1")) != ""
    only = Reach(networks=(IPv4Network("10.1.0.0/16"), ip_network("fd00::/8")))
    assert only.refusal(ip_address("10.1.2.3")) == ""
    assert only.refusal(ip_address("fd00::1")) == ""
    assert only.refusal(ip_address("10.2.2.3")) != ""


@given(st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_no_disguise_makes_a_private_address_public(address: object) -> None:
    for disguise in (f"::ffff:{address}", f"64:ff9b::{address}", f"::{address}"):
        assert kind_of(ip_address(disguise)) == "a private address"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "http://",
        "http:///path",
        "//host/",
        "host/path",
        "http://user@host/",
        "http://user:word@host/",
        "http://host/#fragment",
        "http://host/#",
        "http://host:0/",
        "http://host:99999/",
        "http://host:port/",
        "http://[::1/",
        "http://ho st/",
        "http://host/\n",
        "http://host\\@other/",
        "http://ho%73t/",
        "http://hóst/",
        "http://host/" + "x" * MAX_URL,
    ],
)
def test_what_is_no_url_to_post_to(url: str) -> None:
    with pytest.raises(ValueError):
        check_url(url)


def test_urls_to_post_to() -> None:
    for url in ("http://host", "https://host:8443/a/b?c=d&e=%20", "http://[2606:4700::1]:80/", "HTTP://HOST/"):
        check_url(url)
    assert named_address("http://[::1]:80/") == ip_address("::1")
    assert named_address("http://LOCALHOST./") == ip_address("127.0.0.1")
    assert named_address("https://crm.example.com/") is None


@given(st.binary(min_size=1, max_size=64), st.text("ev-0123456789abcdef", min_size=1), st.binary())
def test_signatures_are_those_of_standard_webhooks(key: bytes, name: str, body: bytes) -> None:
    secret = f"whsec_{base64.b64encode(key).decode()}"
    now = int(datetime.now(UTC).timestamp())
    text = body.decode("latin-1").encode()
    headers = signature.headers(signing_key(secret), name, now, text)
    signed = Verifier(secret).sign(name, datetime.fromtimestamp(now, UTC), text.decode())
    assert headers["webhook-signature"] == signed
    other = signature.headers(b"another key", name, now, b"{}")
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(b"{}", other)


def test_secrets() -> None:
    assert signing_key("whsec_AAEC") == bytes([0, 1, 2])
    assert signing_key("sésame") == "sésame".encode()
    for bad in ("whsec_", "whsec_!", "whsec_A"):
        with pytest.raises(ValueError, match="base64"):
            signing_key(bad)
    assert "webhook-signature" not in signature.headers(None, "ev-1", 5, b"")
