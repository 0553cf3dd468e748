"""A daemon that wakes up in the past: what has a window waits, it says so everywhere, and a person's word ends it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from gatewayd.modems.simulator.process import simulator_process
from tests.daemon import DaemonProcess, configuration, daemon, until
from tests.spool.helpers import FakeClock, message, open_spool

NUMBER = "+59898344484"
ALWAYS = {"always": {"windows": [{"from": "00:00", "to": "24:00"}]}}


async def command(directory: Path, *words: str) -> str:
    """`gatewayd WORDS`; what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gatewayd", *words, "--socket", str(directory / "control.sock"),
        stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed
    return printed.decode()


async def trusted(gateway: DaemonProcess) -> str:
    async with gateway.session.get(f"http://{gateway.address}/metrics") as response:
        lines = (await response.text()).splitlines()
    return next(line.split()[1] for line in lines if line.startswith("gatewayd_clock_trusted "))


async def test_a_daemon_that_wakes_up_in_the_past(tmp_path: Path) -> None:
    """DESIGN §6, issue 4: a boot with yesterday's time."""
    tomorrow = FakeClock(int(time.time() * 1000) + 86_400_000)
    async with open_spool(f"sqlite:///{tmp_path}/spool.db", clock=tomorrow) as spool:
        await spool.accept(message(NUMBER, expires_at=1))
    async with simulator_process(modems=2, directory=tmp_path / "sim") as sim:
        config: dict[str, Any] = configuration(tmp_path, [sim.port(0), sim.port(1)], schedules=ALWAYS)
        config["channels"][0]["schedule"] = "always"
        async with daemon(tmp_path, config) as gateway:
            free = {"to": NUMBER, "text": "free", "channel": "m1"}
            bound = {"to": NUMBER, "text": "bound", "channel": "m0"}
            _, answer = await gateway.post("/api/v1/messages", json=[bound, free])
            waits, goes = (item["idm"] for item in answer["items"])
            await gateway.until(goes, lambda found: found["state"] == 2)
            assert (await gateway.message(waits))["state"] == 1, "it has a window, and nobody knows what time it is"

            shown = json.loads(await command(tmp_path, "clock", "--json"))
            assert not shown["trusted"]
            assert shown["accepted_at"] is None
            assert await trusted(gateway) == "0.0"
            assert "clock: NOT trusted: the clock reads" in await command(tmp_path, "status")
            assert "NOT trusted: the clock reads" in await command(tmp_path, "clock")

            assert "is trusted as it is" in await command(tmp_path, "clock", "accept")
            await gateway.until(waits, lambda found: found["state"] == 2)
            assert await trusted(gateway) == "1.0"
            assert "NOT trusted" not in await command(tmp_path, "status")
            assert (await command(tmp_path, "clock")).splitlines()[-1] == "trusted"

            async def told() -> bool:
                return any("the clock is trusted again" in line for line in gateway.log)

            await until(told, lambda: gateway.log)
            assert sum("waits: the clock reads" in line for line in gateway.log) == 1
