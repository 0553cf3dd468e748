"""The daemon with its spool on PostgreSQL: the same flow, and what a server that goes away does to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatewayd.modems.simulator.process import simulator_process
from tests.crash.plan import RANDOM, Kill
from tests.crash.rig import Rig
from tests.daemon import configuration, daemon, delivered
from tests.faults import all_ready, all_settled, check, one_line, post, refuses, sent_times, start_that_fails
from tests.postgres import PostgresServer, running_server

pytestmark = pytest.mark.needs("initdb", "postgresql")

MODEMS = 4
MESSAGES = 60


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this module's own, because its tests stop it."""
    with running_server() as running:
        yield running


def on(server: PostgresServer, directory: Path, modems: int, **gateway: Any) -> dict[str, Any]:
    """A configuration with its spool in an empty database."""
    ports = [str(directory / "sim" / f"modem{i}") for i in range(modems)]
    rules = {"in_doubt": {"wait": "3s"}, "report_wait": "5s", "retry": {"backoff": ["100ms"]}, **gateway}
    return configuration(directory, ports, url=server.new_database(), gateway=rules)


async def test_a_post_goes_out_and_its_report_comes_back(tmp_path: Path, server: PostgresServer) -> None:
    text = "Grüße aus Montevideo, così è la vita 🙂 " * 6
    async with simulator_process(modems=2, directory=tmp_path / "sim") as sim:
        config = on(server, tmp_path, 2)
        async with daemon(tmp_path, config) as gateway:
            headers = {"Idempotency-Key": "order-7"}
            idm = await gateway.send("098344484", text, headers=headers)
            message = await gateway.until(idm, lambda found: found["delivery"] == "delivered")
            assert message["state"] == 2
            assert await delivered(sim) == [text]
            assert await gateway.send("098344484", text, headers=headers) == idm
            status, problem = await gateway.post("/SendSMS", data={"destination": "098344484"}, headers=headers)
            assert status in {400, 409, 422}, problem
            refused = await gateway.send("+59899999001", "to an unassigned number: CMS 1")
            assert "CMS 1" in (await gateway.until(refused, lambda found: found["state"] == 5))["explain"]
            await sim.control.call({"do": "inbound", "modem": 0, "from": "+59898123401", "text": "and back"})
            assert await gateway.stop() == 0
        async with daemon(tmp_path, config) as gateway:
            assert [m["idm"] for m in await gateway.messages()] == [idm, refused]
            assert (await gateway.message(idm))["delivery"] == "delivered"


KILLS = ("writer.before_commit:30", "operation.applied:3", "", "writer.committed:40", "modem.handed_over:6", "")


async def test_kills_under_the_load_of_the_crash_rig(tmp_path: Path, server: PostgresServer) -> None:
    """Turns, intervals, quotas, operations on the queue and retention, as `make crash` looks at them on SQLite."""
    kinds = [point.partition(":") for point in KILLS]
    kills = [Kill(kind or RANDOM, int(passage or 1), 0.3) for kind, _, passage in kinds]
    found = await Rig(tmp_path, 1, kills, tmp_path / "pycache", server.new_database()).run()
    assert found.faults == []
    assert sum(tally.accepted for tally in found.tallies) > 5 * len(kills), "the load was on"


async def test_a_server_that_crashes_in_a_drain_is_waited_for(tmp_path: Path, server: PostgresServer) -> None:
    config = on(server, tmp_path, MODEMS)
    async with (
        simulator_process(modems=MODEMS, directory=tmp_path / "sim", latency_ms=30) as sim,
        daemon(tmp_path, config) as gateway,
    ):
        accepted = await post(gateway, MESSAGES)
        for turn in range(2):
            await sim.control.wait("submit", 10 + 20 * turn)
            await asyncio.to_thread(server.stop)
            try:
                assert await refuses(gateway, f"refused {turn}")
                assert (await gateway.get("/healthz"))[0] == 200
                assert (await gateway.get("/readyz"))[0] == 503
            finally:
                await asyncio.to_thread(server.start)
        found = await all_settled(gateway)
        check(accepted, found, await sent_times(sim))
        assert {m["state"] for m in found.values()} <= {2, 8}
        assert len([m for m in found.values() if m["state"] == 8]) <= 2 * MODEMS
        await all_ready(gateway)
        last = await gateway.send("+59898344484", "after")
        await gateway.until(last, lambda message: message["delivery"] == "delivered")
        assert gateway.process.returncode is None


async def test_connections_that_are_cut_are_made_again(tmp_path: Path, server: PostgresServer) -> None:
    """The lock on the instance goes with the writer's connection, and comes back with it."""
    import psycopg

    config = on(server, tmp_path, MODEMS)
    async with (
        simulator_process(modems=MODEMS, directory=tmp_path / "sim", latency_ms=30) as sim,
        daemon(tmp_path, config) as gateway,
    ):
        accepted = await post(gateway, MESSAGES)
        with psycopg.connect(config["spool"]["url"], autocommit=True) as other:
            for turn in range(4):
                await sim.control.wait("submit", 5 + 10 * turn)
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        found = await all_settled(gateway)
        check(accepted, found, await sent_times(sim))
        assert {m["state"] for m in found.values()} == {2}
        code, said = await start_that_fails(tmp_path, other_daemon(tmp_path, config))
        assert (code, "already runs" in said) == (1, True), said


async def test_a_second_daemon_of_the_same_instance_is_refused_and_the_first_goes_on(
    tmp_path: Path, server: PostgresServer
) -> None:
    config = on(server, tmp_path, 1)
    async with simulator_process(modems=1, directory=tmp_path / "sim"), daemon(tmp_path, config) as gateway:
        code, said = await start_that_fails(tmp_path, other_daemon(tmp_path, config))
        assert code == 1
        assert "'gw1' already runs" in one_line(said)
        idm = await gateway.send("+59898344484", "still here")
        await gateway.until(idm, lambda found: found["delivery"] == "delivered")


def other_daemon(directory: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a second daemon beside the first."""
    return {**config, "gateway": {**config["gateway"], "control_socket": str(directory / "other.sock")}}


async def test_a_server_that_is_not_there_is_named(tmp_path: Path, server: PostgresServer) -> None:
    config = configuration(tmp_path, ["/dev/no-such-modem"], url="postgresql://gatewayd@/spool?host=/nonexistent")
    code, said = await start_that_fails(tmp_path, config)
    assert code == 1
    assert "cannot start" in said
    assert "/nonexistent" in said
    assert "Traceback" not in said
