"""What happens when the spool cannot be written: 503, nothing kept, and the daemon goes on."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gatewayd.http import monitoring, schemas
from gatewayd.model import ChannelState
from gatewayd.spool import engine
from tests.http.helpers import Gateway, gateway, view

GOOD = {"destination": "098344484", "message": "x"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(monitoring, "PROBE_INTERVAL_S", 0.0)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """The spool as another process locks it."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@contextmanager
def full(path: Path) -> Iterator[None]:
    """A disk on which the spool's files cannot grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.with_name(path.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_health_and_readiness_need_no_key(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        health = await gate.request("GET", "/healthz")
        schemas.Health.model_validate(health.json)
        assert health.status == 200
        ready = await gate.request("GET", "/readyz")
        schemas.Readiness.model_validate(ready.json)
        assert (ready.status, ready.json) == (
            200,
            {"ready": True, "reasons": [], "channels_ready": 1, "channels": 2},
        )
        assert (await gate.request("HEAD", "/readyz")).status == 200
        gate.operator.views = [view("sim1", ChannelState.DOWN)]
        ready = await gate.request("GET", "/readyz")
        assert (ready.status, ready.json["channels_ready"]) == (200, 0)  # it takes messages all the same


async def test_a_daemon_that_stops_is_not_ready_but_lives(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.draining = True
        ready = await gate.request("GET", "/readyz")
        assert (ready.status, ready.json["reasons"]) == (503, ["the daemon is stopping"])
        assert (await gate.request("GET", "/healthz")).status == 200


async def refuses(gate: Gateway) -> None:
    for path, body in (("/SendSMS", {"data": GOOD}), ("/api/v1/messages", {"json": {"to": "7373", "text": "x"}})):
        answer = await gate.send(path, **body)
        assert (answer.status, answer.fields) == (503, [])
        assert int(answer.headers["Retry-After"]) >= 1
    ready = await gate.request("GET", "/readyz")
    assert (ready.status, len(ready.json["reasons"])) == (503, 1)
    assert ready.json["reasons"][0].startswith("the spool takes no writes")
    assert (await gate.request("GET", "/healthz")).status == 200


async def accepts(gate: Gateway) -> None:
    assert (await gate.request("GET", "/readyz")).status == 200
    assert (await gate.send(data=GOOD)).status == 200


async def test_a_locked_spool_is_503_and_nothing_is_kept(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        await accepts(gate)
        with locked(gate.path):
            await refuses(gate)
        assert gate.queued() == 1
        await accepts(gate)
        assert gate.queued() == 2


async def test_a_full_disk_is_503_and_nothing_is_kept(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        await accepts(gate)
        with full(gate.path):
            await refuses(gate)
        assert gate.queued() == 1
        await accepts(gate)
        assert gate.queued() == 2


async def test_an_idempotency_key_is_not_used_up_by_a_503(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        headers = {"Idempotency-Key": "k"}
        with locked(gate.path):
            assert (await gate.send(data=GOOD, headers=headers)).status == 503
        answer = await gate.send(data=GOOD, headers=headers)
        assert (answer.status, "Idempotency-Replayed" in answer.headers) == (200, False)
        assert gate.queued() == 1


async def test_a_spool_that_is_only_slow_does_not_make_readiness_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 20.0)
    monkeypatch.setattr(monitoring, "PROBE_TIMEOUT_S", 0.05)
    async with gateway(tmp_path) as gate:
        with locked(gate.path):
            answers = await asyncio.gather(*(gate.request("GET", "/readyz") for _ in range(5)))
            assert {answer.status for answer in answers} == {503}
        async with asyncio.timeout(30):
            while (await gate.request("GET", "/readyz")).status != 200:
                pass


async def test_many_who_ask_share_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "PROBE_INTERVAL_S", 3600.0)
    async with gateway(tmp_path) as gate:
        await asyncio.sleep(0)  # what looks for operations under way has asked,
        await gate.store.writer.run(lambda tx: None)  # and has its answer
        before = gate.store.writer.stats.operations
        answers = await asyncio.gather(*(gate.request("GET", "/readyz") for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert gate.store.writer.stats.operations == before + 1
