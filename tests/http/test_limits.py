"""Rates of keys, and what becomes of those who try bad keys again and again."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.apikeys import ApiKey, KeyRing, Rate, Scope
from gatewayd.clock import SystemClock
from gatewayd.http import limits
from gatewayd.http.limits import Damping, RateLimiter, peer_name
from gatewayd.http.problems import HttpProblem
from tests.http import helpers
from tests.http.helpers import KEYS, READ, SEND, Answer, Gateway, bearer, gateway

GOOD = {"destination": "098344484", "message": "x"}
SHOP = "gw_shop"
LOCAL = (ip_network("127.0.0.0/8"),)


@dataclass
class StillClock(SystemClock):
    """Its monotonic time moves when told to."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return 1_790_000_000_000


def ring(rate: str | None, secret: str = SHOP) -> KeyRing:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    limited = None if rate is None else Rate.parse(rate)
    return KeyRing([*KEYS, ApiKey("shop", digest, frozenset({Scope.SEND}), datetime.now(UTC), rate=limited)])


def array(count: int, to: str = "098344484") -> dict[str, Any]:
    return {"json": [{"to": to, "text": f"{n}"} for n in range(count)], "key": SHOP}


def wait_of(answer: Answer, kind: str) -> int:
    """Retry-After of a 429."""
    assert answer.status == 429
    assert answer.fields == []
    assert answer.json["type"] == f"urn:gatewayd:problem:{kind}"
    return int(answer.headers["Retry-After"])


# Rates.


async def test_over_its_rate_a_key_gets_429_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helpers, "KEYS", ring("2/s"))
    clock = StillClock()
    async with gateway(tmp_path, clock=clock) as gate:
        assert [(await gate.send(data=GOOD, key=SHOP)).status for _ in range(2)] == [200, 200]
        assert wait_of(await gate.send(data=GOOD, key=SHOP), "rate-limited") == 1
        assert gate.queued() == 2
        assert (await gate.send(data=GOOD)).status == 200  # another key
        clock.now += 0.49
        assert (await gate.send(data=GOOD, key=SHOP)).status == 429
        clock.now += 0.01
        assert (await gate.send(data=GOOD, key=SHOP)).status == 200
        assert (await gate.send(data=GOOD, key=SHOP)).status == 429
        clock.now += 3600  # a quiet hour gives one second's worth, no more
        assert [(await gate.send(data=GOOD, key=SHOP)).status for _ in range(3)] == [200, 200, 429]


async def test_an_array_is_charged_by_its_messages_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "KEYS", ring("600/min"))
    clock = StillClock()
    async with gateway(tmp_path, clock=clock) as gate:
        path = "/api/v1/messages"
        assert (await gate.send(path, **array(7))).status == 202
        assert wait_of(await gate.send(path, **array(4)), "rate-limited") == 1
        assert (await gate.send(path, **array(3))).status == 202
        assert gate.queued() == 10
        clock.now += 1
        # More than ever come at once: taken from a full bucket, and the next one waits the longer.
        assert (await gate.send(path, **array(200))).status == 202
        assert wait_of(await gate.send(path, **array(1)), "rate-limited") == 20
        clock.now += 19.1
        assert (await gate.send(path, **array(1))).status == 202
        assert gate.queued() == 211


async def test_what_is_refused_or_answered_again_is_not_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helpers, "KEYS", ring("60/min"))
    clock = StillClock()
    async with gateway(tmp_path, clock=clock) as gate:
        headers = {"Idempotency-Key": "once"}
        bad = {"destination": "nonsense", "message": "x"}
        assert (await gate.send(data=bad, key=SHOP)).status == 422
        first = await gate.send(data=GOOD, key=SHOP, headers=headers)
        assert first.status == 200
        again = await gate.send(data=GOOD, key=SHOP, headers=headers)  # over the rate, and a repetition all the same
        assert (again.status, again.json) == (200, first.json)
        clock.now += 1
        again = await gate.send(data=GOOD, key=SHOP, headers=headers)  # within it: given back
        assert again.headers["Idempotency-Replayed"] == "true"
        other = {**GOOD, "message": "y"}
        assert (await gate.send(data=other, key=SHOP, headers=headers)).status == 409
        assert (await gate.send(data=GOOD, key=SHOP)).status == 200
        assert (await gate.send(data=GOOD, key=SHOP, headers={"Idempotency-Key": "new"})).status == 429
        assert gate.queued() == 2


async def test_many_at_once_are_counted_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "KEYS", ring("20/s"))
    async with gateway(tmp_path, clock=StillClock()) as gate:
        answers = await asyncio.gather(*[gate.send(data=GOOD, key=SHOP) for _ in range(60)])
        assert sorted(answer.status for answer in answers) == [200] * 20 + [429] * 40
        assert gate.queued() == 20


async def test_keys_without_a_rate_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "KEYS", ring(None))
    async with gateway(tmp_path, clock=StillClock(), trusted_networks=LOCAL) as gate:
        assert (await gate.send("/api/v1/messages", **array(500))).status == 202
        assert (await gate.send("/api/v1/messages", json=array(500)["json"], key=None)).status == 202


def test_a_changed_rate_counts_at_once() -> None:
    clock, keys = StillClock(), [ring("100/s")]
    rates = RateLimiter(lambda: keys[0], clock)
    rates.take("shop", 100)
    clock.now += 10
    keys[0] = ring("1/s")
    rates.take("shop", 1)
    with pytest.raises(HttpProblem):
        rates.take("shop", 1)
    keys[0] = ring(None)
    rates.take("shop", 1000)


@given(
    st.sampled_from(["1/s", "7/s", "90/min", "1/min", "999999/s"]),
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 30)), max_size=60),
)
def test_over_any_time_no_more_than_the_rate_and_one_array(rate: str, asked: list[tuple[float, int]]) -> None:
    """And whoever waits as long as he is told gets through."""
    clock = StillClock()
    rates = RateLimiter(lambda: ring(rate), clock)
    limit = Rate.parse(rate)
    taken = 0
    for pause, messages in asked:
        clock.now += pause
        try:
            rates.take("shop", messages)
        except HttpProblem as problem:
            clock.now += int(problem.headers["Retry-After"])
            rates.take("shop", messages)
        taken += messages
        assert taken <= limit.per_s * (clock.now - 1000) + limit.burst + messages + 1e-6


# Segments.


async def test_segments_per_day_are_counted_where_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(SHOP.encode()).hexdigest()
    scopes = frozenset({Scope.SEND})
    key = ApiKey("shop", digest, scopes, datetime.now(UTC), rate=Rate(5, "s"), segments_per_day=5)
    monkeypatch.setattr(helpers, "KEYS", KeyRing([*KEYS, key]))
    long = {**GOOD, "message": "x" * 400}  # 3 segments
    async with gateway(tmp_path, clock=StillClock()) as gate:
        once = {"Idempotency-Key": "once"}
        first = await gate.send(data=long, key=SHOP, headers=once)
        assert first.status == 200
        again = await gate.send(data=long, key=SHOP, headers=once)
        assert (again.status, again.json) == (200, first.json)
        answer = await gate.send("/api/v1/messages", **array(3))
        assert 0 < wait_of(answer, "segment-limit") <= 86400
        assert "5 segments per day (UTC); 3 are used and 3 more" in answer.json["detail"]
        assert gate.queued() == 1
        assert (await gate.send("/api/v1/messages", **array(2))).status == 202
        # Waiting does not help: no day has room for it. And what was refused is not charged to the rate.
        hopeless = await gate.send("/api/v1/messages", **array(6))
        assert (hopeless.status, hopeless.json["type"]) == (429, "urn:gatewayd:problem:rate-limited")
        gate.context.clock.now += 1  # type: ignore[attr-defined]
        hopeless = await gate.send("/api/v1/messages", **array(6))
        assert (hopeless.status, hopeless.json["type"]) == (422, "urn:gatewayd:problem:segment-limit")
        assert "Retry-After" not in hopeless.headers
        assert (await gate.send("/api/v1/messages", **array(5))).status == 429
        assert gate.queued() == 3


async def test_concurrent_requests_use_exactly_the_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(SHOP.encode()).hexdigest()
    key = ApiKey("shop", digest, frozenset({Scope.SEND}), datetime.now(UTC), segments_per_hour=20)
    monkeypatch.setattr(helpers, "KEYS", KeyRing([*KEYS, key]))
    async with gateway(tmp_path, clock=StillClock()) as gate:
        answers = await asyncio.gather(*[gate.send(data=GOOD, key=SHOP) for _ in range(60)])
        assert sorted(answer.status for answer in answers) == [200] * 20 + [429] * 40
        assert gate.queued() == 20


# Bad keys.


async def fail(gate: Gateway, times: int, headers: dict[str, str] | None = None) -> list[int]:
    sent = {**bearer("gw_wrong"), **(headers or {})}
    return [(await gate.get("/api/v1/messages", key=None, headers=sent)).status for _ in range(times)]


async def test_from_the_tenth_failure_on_there_is_429_and_a_good_key_passes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gatewayd.http")
    clock = StillClock()
    async with gateway(tmp_path, clock=clock) as gate:
        assert await fail(gate, 12) == [401] * 9 + [429] * 3
        waits = []
        for _ in range(6):
            answer = await gate.send(data=GOOD, key=None, headers={"Authorization": "Digest x"})
            waits.append(wait_of(answer, "too-many-failures"))
        assert waits == [120, 240, 300, 300, 300, 300]
        assert (await gate.send(data=GOOD)).status == 200
        assert (await gate.get("/api/v1/messages", key=None)).status == 401  # no key is no bad key
        assert len([r for r in caplog.records if r.name == "gatewayd.http" and r.levelno == logging.WARNING]) == 1
        assert (gate.context.authenticator.damping.failures, gate.context.authenticator.damping.refused) == (18, 9)
        clock.now += 301
        assert (await gate.send(data=GOOD)).status == 200
        assert "bad API keys from 127.0.0.1 have ceased for now, 9 requests were refused" in caplog.text
        assert await fail(gate, 1) == [401]


async def test_failures_that_are_far_apart_are_no_attack(tmp_path: Path) -> None:
    clock = StillClock()
    async with gateway(tmp_path, clock=clock) as gate:
        for _ in range(30):
            assert await fail(gate, 1) == [401]
            clock.now += 60 / 9 + 0.01
        assert await fail(gate, 9) == [401] + [429] * 8


async def test_behind_a_trusted_proxy_each_client_counts_for_itself(tmp_path: Path) -> None:
    async with gateway(tmp_path, clock=StillClock(), trusted_proxies=LOCAL) as gate:
        assert await fail(gate, 10, {"X-Forwarded-For": "10.1.2.3"}) == [401] * 9 + [429]
        assert await fail(gate, 1, {"X-Forwarded-For": "10.1.2.4"}) == [401]
        assert await fail(gate, 1, {"X-Forwarded-For": "192.0.2.9, 10.1.2.3"}) == [429]
        assert await fail(gate, 9, {"X-Forwarded-For": "2001:db8:1:2::1"}) == [401] * 9
        assert await fail(gate, 1, {"X-Forwarded-For": "2001:db8:1:2:ffff::9"}) == [429]
        assert await fail(gate, 1, {"X-Forwarded-For": "2001:db8:1:3::1"}) == [401]


async def test_a_forged_forwarding_helps_nobody(tmp_path: Path) -> None:
    async with gateway(tmp_path, clock=StillClock()) as gate:
        statuses = [(await fail(gate, 1, {"X-Forwarded-For": f"10.0.0.{n}"}))[0] for n in range(12)]
        assert statuses == [401] * 9 + [429] * 3


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        (None, "an unknown address"),
    ],
)
def test_who_counts_as_one(address: str | None, name: str) -> None:
    assert peer_name(None if address is None else ip_address(address)) == name


def test_an_episode_after_another_begins_where_that_one_ended() -> None:
    clock = StillClock()
    damping = Damping(clock)
    waits = []
    for _ in range(7):
        for _ in range(9):
            assert damping.failed(ip_address("192.0.2.1")) is None
        waits.append(damping.failed(ip_address("192.0.2.1")))
        clock.now += waits[-1] or 0  # waits as told, and tries again
    assert waits == [15, 30, 60, 120, 240, 300, 300]
    clock.now += limits.REMEMBERED_S
    for _ in range(9):
        damping.failed(ip_address("192.0.2.1"))
    assert damping.failed(ip_address("192.0.2.1")) == 15


def test_memory_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    clock = StillClock()
    damping = Damping(clock)
    for number in range(3 * limits.MAX_PEERS):
        damping.failed(ip_address(0x0A000000 + number))
    assert len(damping) == limits.MAX_PEERS
    assert damping.failures == 3 * limits.MAX_PEERS
    victim = ip_address("192.0.2.1")
    for _ in range(20):
        damping.failed(victim)
    for number in range(2 * limits.MAX_PEERS):
        damping.failed(ip_address(0x0B000000 + number))
    assert damping.failed(victim) is None  # forgotten: it begins anew
    clock.now += 10_000
    damping.settle()
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


async def test_the_documented_statuses_hold_429(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        document = (await gate.get("/api/v1/openapi.json", key=None)).json
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                assert ("429" in operation["responses"]) is bool(operation["security"]), (method, path)


async def test_a_good_key_is_not_delayed_by_an_attack_on_its_address(tmp_path: Path) -> None:
    async with gateway(tmp_path, clock=StillClock()) as gate:
        await fail(gate, 15)
        for key in (SEND, READ):
            answer = await gate.request("GET", "/api/v1/messages", key=key)
            assert answer.status == (403 if key == SEND else 200)
