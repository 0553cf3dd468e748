"""Backup and restore of a real daemon: nothing that was sent goes out again, and what is released goes out once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process
from tests.daemon import DaemonProcess, configuration, daemon, until
from tests.faults import all_ready, post, sent_times, start_that_fails
from tests.postgres import PostgresServer, running_server

MODEMS = 2
ROOT = Path(__file__).parents[1]


async def gatewayd(directory: Path, *arguments: str, status: int = 0) -> tuple[str, str]:
    """Run a command on the configuration in `directory`; what it says, and complains of."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gatewayd", *arguments, "-c", str(directory / "gatewayd.yaml"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == status, (out, err)
    return out.decode(), err.decode()


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[tuple[SimulatorProcess, PostgresServer]]:
    with running_server() as server:
        async with simulator_process(modems=MODEMS, directory=directory / "sim") as sim:
            yield sim, server


def config_of(directory: Path, **changes: Any) -> dict[str, Any]:
    ports = [str(directory / "sim" / f"modem{i}") for i in range(MODEMS)]
    return configuration(directory, ports, **changes)


async def states(gateway: DaemonProcess, idms: Any) -> dict[int, dict[str, Any]]:
    return {idm: await gateway.message(idm) for idm in idms}


async def all_sent(sim: SimulatorProcess, texts: set[str]) -> None:
    async def met() -> bool:
        return texts <= set(await sent_times(sim))

    await until(met)


async def check_paused_and_held(gateway: DaemonProcess, idms: Any, reason: str) -> None:
    found = await states(gateway, idms)
    assert all(reason in message["explain"] for message in found.values()), found
    assert all(message["state"] == 1 for message in found.values())
    assert any("sending is paused" in line and reason in line for line in gateway.log), gateway.log


async def release_and_resume(gateway: DaemonProcess) -> None:
    await gateway.operate("operations", {"action": "release", "filter": {"held": "restore"}, "reason": "checked"})

    async def released() -> bool:
        explained = [(await gateway.message(message["idm"]))["explain"] for message in await gateway.messages()]
        return not any("kept back" in sentence.lower() for sentence in explained)

    await until(released)
    await gateway.operate("resume")


async def test_backup_under_load_then_restore(tmp_path: Path) -> None:
    async with simulator_process(modems=MODEMS, directory=tmp_path / "sim") as sim:
        config = config_of(tmp_path)
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            before = await post(gateway, 20, "before")
            await all_sent(sim, set(before.values()))
            later = await post(gateway, 5, "later", not_before="2099-01-01T00:00:00Z")
            sent = asyncio.create_task(post(gateway, 300, "load"))
            out, _ = await gatewayd(tmp_path, "backup", str(tmp_path / "copy"), "--json")
            said = json.loads(out)
            assert said["octets"] == (tmp_path / "copy").stat().st_size
            _, refused = await gatewayd(tmp_path, "backup", str(tmp_path / "copy"), status=1)
            assert "--force" in refused
            load = await sent
            await all_sent(sim, set(load.values()))
            _, running = await gatewayd(tmp_path, "restore", str(tmp_path / "copy"), status=1)
            assert "stop the daemon first" in running
            after = await post(gateway, 5, "after")
            await all_sent(sim, set(after.values()))
        out, _ = await gatewayd(tmp_path, "restore", str(tmp_path / "copy"))
        assert "restored from backup of 20" in out
        assert list(tmp_path.glob("spool.db.before-restore-*"))
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            known = {message["idm"] for message in await gateway.messages()}
            assert set(before) | set(later) <= known
            unsent = [idm for idm in known if (await gateway.message(idm))["state"] == 1]
            assert set(later) <= set(unsent)
            await check_paused_and_held(gateway, unsent, "restored from backup of 20")
            (fresh,) = await post(gateway, 1, "fresh")
            assert fresh > max(*after, *known)
            assert "paused by gatewayd" in (await gateway.message(fresh))["explain"]
            once = await sent_times(sim)
            assert set(once.values()) == {1}
            assert "fresh 0" not in once
            await gateway.operate("resume")
            await gateway.until(fresh, lambda message: message["state"] == 2)
            assert await sent_times(sim) == once + Counter(["fresh 0"]), "resumed, but what is held stays"
        async with daemon(tmp_path, config) as gateway:  # it does not begin anew
            assert not any("restored" in line for line in gateway.log), gateway.log


async def test_what_is_released_goes_out_exactly_once(tmp_path: Path) -> None:
    async with simulator_process(modems=MODEMS, directory=tmp_path / "sim") as sim:
        config = config_of(tmp_path)
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            await gateway.operate("pause", {"reason": "the test"})
            waiting = await post(gateway, 8, "waiting")
            await gatewayd(tmp_path, "backup", str(tmp_path / "copy"))
        await gatewayd(tmp_path, "restore", str(tmp_path / "copy"), "--at", "2026-01-02T03:04:05Z")
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            await check_paused_and_held(gateway, waiting, "restored from backup of 2026-01-02 03:04:05 UTC")
            await release_and_resume(gateway)
            await all_sent(sim, set(waiting.values()))
            assert await sent_times(sim) == dict.fromkeys(waiting.values(), 1)


async def test_an_old_spool_copied_back_by_hand_is_noticed(tmp_path: Path) -> None:
    async with simulator_process(modems=MODEMS, directory=tmp_path / "sim") as sim:
        config = config_of(tmp_path)
        async with daemon(tmp_path, config) as gateway:
            await gateway.operate("pause", {"reason": "the test"})
            waiting = await post(gateway, 5, "waiting")
        shutil.copy(tmp_path / "spool.db", tmp_path / "old")
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            await gateway.operate("resume")
            await all_sent(sim, set(waiting.values()))
        shutil.copy(tmp_path / "old", tmp_path / "spool.db")
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            await check_paused_and_held(gateway, waiting, "older than its witness file")
            assert await sent_times(sim) == dict.fromkeys(waiting.values(), 1)


async def test_twenty_kills_are_no_false_alarm(tmp_path: Path) -> None:
    async with simulator_process(modems=MODEMS, directory=tmp_path / "sim") as sim:
        config = config_of(tmp_path)
        texts: set[str] = set()
        for round_ in range(20):
            async with daemon(tmp_path, config) as gateway:
                assert not any("paused" in line or "witness file," in line for line in gateway.log), gateway.log
                texts |= set((await post(gateway, 3, f"round {round_}")).values())
                await gateway.kill()
        assert (tmp_path / "spool.db.witness").exists()
        async with daemon(tmp_path, config) as gateway:
            assert not any("paused" in line for line in gateway.log), gateway.log
            assert len(await gateway.messages()) == 60
        assert set(await sent_times(sim)) <= texts


async def test_a_kill_while_all_is_held_is_made_good(tmp_path: Path) -> None:
    async with simulator_process(modems=MODEMS, directory=tmp_path / "sim") as sim:
        config = config_of(tmp_path)
        async with daemon(tmp_path, config) as gateway:
            await gateway.operate("pause", {"reason": "the test"})
            waiting = await post(gateway, 5, "waiting")
            await gatewayd(tmp_path, "backup", str(tmp_path / "copy"))
        await gatewayd(tmp_path, "restore", str(tmp_path / "copy"))
        os.environ["GATEWAYD_CRASH_AT"] = "start.recovered:1"
        try:
            status, _ = await start_that_fails(tmp_path, config)
        finally:
            del os.environ["GATEWAYD_CRASH_AT"]
        assert status == -9
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            await check_paused_and_held(gateway, waiting, "restored from backup of")
            assert await sent_times(sim) == {}


@pytest.mark.needs("initdb", "postgresql")
@pytest.mark.needs("pg_dump", "postgresql-client")
async def test_pg_dump_pg_restore_and_the_mark(tmp_path: Path) -> None:
    """Behaviour as on SQLite, with the server's own programs for the data."""
    async with running(tmp_path) as (sim, server):
        config = config_of(tmp_path, url=server.new_database())
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            await gateway.operate("pause", {"reason": "the test"})
            waiting = await post(gateway, 5, "waiting")
            await gatewayd(tmp_path, "backup", str(tmp_path / "copy"))
            await gateway.operate("resume")
            await all_sent(sim, set(waiting.values()))
        _, refused = await gatewayd(tmp_path, "restore", str(tmp_path / "copy"), status=1)
        assert "pg_restore" in refused
        config["spool"]["url"] = server.new_database()
        (tmp_path / "gatewayd.yaml").write_text(yaml.safe_dump(config))
        restoring = await asyncio.create_subprocess_exec(
            "pg_restore", f"--dbname={config['spool']['url']}", "--no-owner", str(tmp_path / "copy")
        )
        assert await restoring.wait() == 0
        out, _ = await gatewayd(tmp_path, "restore", "--mark-restored", "--at", "2026-01-02T03:04:05")
        assert "2026-01-02 03:04:05 UTC" in out
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            await check_paused_and_held(gateway, waiting, "restored from backup of 2026-01-02 03:04:05 UTC")
            await release_and_resume(gateway)
            await gateway.until(next(iter(waiting)), lambda message: message["state"] == 2)
