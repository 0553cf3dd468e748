"""Quotas of a running daemon: work moves to the next SIM, a kill gives nothing again, a reload does."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process
from tests.daemon import DaemonProcess, configuration, daemon, delivered, until

RESET_DAY = (datetime.now(UTC).day + 14) % 28 + 1  # never tomorrow: no month ends while the test runs


def limited(directory: Path, sim: SimulatorProcess, *per_month: int) -> dict[str, Any]:
    """A daemon with a modem for each of the limits."""
    config = configuration(directory, [sim.port(index) for index in range(len(per_month))])
    for channel, limit in zip(config["channels"], per_month, strict=True):
        channel["quota"] = {"per_month": limit, "reset_day": RESET_DAY}
    return config


async def sent(running: DaemonProcess) -> list[int]:
    """Segments of this month, by SIM."""
    connector = aiohttp.UnixConnector(str(running.directory / "control.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://gatewayd/api/v1/sims") as response,
    ):
        items = (await response.json())["items"]
    return sorted(next(each["used"] for each in item["usage"] if each["period"] == "month") for item in items)


async def explained(running: DaemonProcess) -> list[str]:
    """What is said of each message that still waits."""
    waiting = [each["idm"] for each in await running.messages() if each["state"] == 1]
    return [(await running.message(idm))["explain"] for idm in waiting]


async def test_quotas_hold_over_sims_kills_and_reloads(tmp_path: Path) -> None:
    """Promise 8: of ten messages five are allowed; five go out, and not one more until the quota is another."""
    async with simulator_process(modems=2, directory=tmp_path / "sim") as sim:
        async with daemon(tmp_path, limited(tmp_path, sim, 2, 3)) as running:
            for i in range(10):
                await running.send(f"+5989834448{i}", f"number {i}")
            said: list[str] = []

            async def five_wait_for_the_quota() -> bool:
                said[:] = await explained(running)
                return len(said) == 5 and all("quota" in sentence for sentence in said)

            await until(five_wait_for_the_quota, lambda: said)
            assert await sent(running) == [2, 3]
            await running.kill()
        async with daemon(tmp_path, limited(tmp_path, sim, 2, 3)) as running:
            await until(five_wait_for_the_quota, lambda: said)
            assert await sent(running) == [2, 3]
            assert len(await delivered(sim)) == 5
            await running.reload(limited(tmp_path, sim, 2, 5))

            async def seven() -> bool:
                return len(await delivered(sim)) == 7

            await until(seven)
            await running.reload(limited(tmp_path, sim, 100, 5))

            async def all_out() -> bool:
                return sorted(await delivered(sim)) == sorted(f"number {i}" for i in range(10))

            await until(all_out)
            assert sum(await sent(running)) == 10
            assert sum(await sent(running)) == len(await sim.ledger("submit"))
