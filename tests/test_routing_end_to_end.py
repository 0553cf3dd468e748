"""Routes, strict turn and guards, with a real daemon and emulated modems: what really went out, and by which SIM."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process
from tests.daemon import DaemonProcess, configuration, daemon, until
from tests.test_cli import gateway as command

CAMPAIGN = {"class": "campaign", "campaign": "spring"}


async def submit(gateway: DaemonProcess, count: int, begin: int = 0, **fields: Any) -> list[int]:
    """So many messages to as many numbers, all sent when this returns; their ids."""
    batch = [{"to": f"+5989900{begin + index:04}", "text": f"text {begin + index}", **fields} for index in range(count)]
    status, answer = await gateway.post("/api/v1/messages", json=batch)
    assert status == 202, answer
    ids = [item["idm"] for item in answer["items"]]
    for idm in ids:
        await gateway.until(idm, lambda message: message["state"] == 2)
    return ids


async def all_ready(gateway: DaemonProcess) -> None:
    """A port that is not up yet would be passed over."""
    found: list[str] = []

    async def ready() -> bool:
        found[:] = [channel["state"] for channel in await gateway.channels()]
        return set(found) == {"ready"}

    await until(ready, lambda: found)


async def senders(sim: SimulatorProcess, modems: int) -> list[int]:
    """The modems that submitted, in the order the network saw it."""
    known = [sim.number(index) for index in range(modems)]
    return [known.index(row["from"]) for row in await sim.ledger("submit")]


async def test_the_turn_of_a_dial_string_is_strict_and_outlives_a_restart(tmp_path: Path) -> None:
    """S4-26, S4-28: (0.3) is 4 channels used cyclically 0-1-2-3-0-…"""
    async with simulator_process(modems=4, directory=tmp_path / "sim") as sim:
        config = configuration(tmp_path, [sim.port(index) for index in range(4)])
        config["dialers"] = [{"name": "spring", "campaigns": ["spring"], "dial_string": "(0.3)"}]
        used: list[str] = []
        for begin, count in ((0, 6), (6, 7)):
            async with daemon(tmp_path, config) as gateway:
                await all_ready(gateway)
                ids = await submit(gateway, count, begin=begin, **CAMPAIGN)
                used += [(await gateway.message(idm))["channel"] for idm in ids]
                assert await gateway.stop() == 0
        assert used == [f"m{index % 4}" for index in range(13)]
        assert sorted(await senders(sim, 4)) == sorted(index % 4 for index in range(13))


async def test_routes_choose_the_channel_and_a_reload_changes_them(tmp_path: Path) -> None:
    async with simulator_process(modems=3, directory=tmp_path / "sim") as sim:
        config = configuration(tmp_path, [sim.port(index) for index in range(3)])
        config["channels"][1]["tags"] = ["group"]
        config["routes"] = [
            {"name": "alerts", "match": {"class": ["alert"]}, "to": [{"channel": "m2"}]},
            {
                "name": "shares",
                "match": {"prefix": ["+598"]},
                "to": [{"channel": "m0", "weight": 1}, {"group": "group", "weight": 2}],
                "choose": "weighted",
            },
        ]
        async with daemon(tmp_path, config) as gateway:
            await submit(gateway, 2, **{"class": "alert"})
            assert await senders(sim, 3) == [2, 2]
            await submit(gateway, 9, begin=10)
            assert sorted((await senders(sim, 3))[2:]) == [0] * 3 + [1] * 6
            words = ("routes", "test", "+59899000000", "--json", "--socket", str(tmp_path / "control.sock"))
            done = await asyncio.to_thread(command, *words)
            assert done.returncode == 0, done
            tried = json.loads(done.stdout)
            assert tried["route"] == "shares"
            assert {each["channel"]: each["obstacle"] for each in tried["channels"]}.keys() == {"m0", "m1"}
            config["routes"] = [{"name": "all", "to": [{"channel": "m0"}]}]
            assert "configuration reloaded" in await gateway.reload(config)
            await submit(gateway, 4, begin=20)
            assert (await senders(sim, 3))[11:] == [0] * 4


async def test_a_duplicate_is_refused_over_a_restart_and_taken_when_the_guard_is_off(tmp_path: Path) -> None:
    message = {"to": "+59899000000", "text": "once"}
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim:
        config = configuration(tmp_path, [sim.port(0)], gateway={"duplicates": {"action": "refuse", "within": "1h"}})
        async with daemon(tmp_path, config) as gateway:
            status, first = await gateway.post("/api/v1/messages", json=message)
            assert status == 202
            await gateway.until(first["idm"], lambda found: found["state"] == 2)
            await gateway.kill()
        async with daemon(tmp_path, config) as gateway:
            status, refused = await gateway.post("/api/v1/messages", json=message)
            assert (status, refused["duplicate_of"]) == (409, first["idm"])

            async def said() -> bool:
                return any("refused, a duplicate" in line for line in gateway.log)

            await until(said, lambda: gateway.log)
            config["gateway"]["duplicates"]["action"] = "off"
            await gateway.reload(config)
            status, second = await gateway.post("/api/v1/messages", json=message)
            assert status == 202
            await gateway.until(second["idm"], lambda found: found["state"] == 2)
        assert len(await sim.ledger("submit")) == 2
