"""kill -9 in the middle of a drain: nothing lost, nothing twice, doubt shown (promises 1 and 2)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

from gatewayd.modems.simulator.process import simulator_process
from tests.daemon import configuration, daemon, until

MODEMS = 4
MESSAGES = 200
KILLS = 20


async def test_twenty_kills_in_a_drain_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    moment = random.Random(20261123)
    config = configuration(tmp_path, [str(tmp_path / "sim" / f"modem{i}") for i in range(MODEMS)])
    async with simulator_process(modems=MODEMS, directory=tmp_path / "sim", latency_ms=60) as sim:
        async with daemon(tmp_path, config) as gateway:
            body = [{"to": f"+59898{i:04}77", "text": f"text {i}"} for i in range(MESSAGES)]
            status, answer = await gateway.post("/api/v1/messages", json=body)
            assert status == 202, answer
            accepted = {item["idm"]: f"text {i}" for i, item in enumerate(answer["items"])}
            assert len(accepted) == MESSAGES
            await gateway.kill()
        for kill in range(KILLS):
            sent = len(await sim.ledger("submit"))
            async with daemon(tmp_path, config) as gateway:
                await sim.control.wait("submit", sent + moment.randrange(1, 8), timeout_s=60)
                await asyncio.sleep(moment.uniform(0, 0.06))  # anywhere within a submission, not a synchronisation
                before = {m["idm"] for m in await _doubtful(gateway)}
                await gateway.kill()
            async with daemon(tmp_path, config) as gateway:
                doubtful = {m["idm"] for m in await _doubtful(gateway)}
                assert len(doubtful - before) <= MODEMS, f"kill {kill}: more in doubt than the channels had in hand"
                if kill + 1 < KILLS:
                    await gateway.kill()
                    continue

                async def done() -> bool:
                    return not [m for m in await gateway.messages() if m["state"] == 1]

                await until(done)
                found = {m["idm"]: m for m in await gateway.messages()}
        assert set(found) == set(accepted), "every accepted message is there"
        times = Counter(row["text"] for row in await sim.ledger("submit"))
        assert [text for text, count in times.items() if count > 1] == [], "nothing went out twice"
        for idm, text in accepted.items():
            assert times[text] == 1 or found[idm]["state"] == 8, f"{text} is lost: {found[idm]}"
        assert {m["state"] for m in found.values()} <= {2, 8}


async def _doubtful(gateway: Any) -> list[dict[str, Any]]:
    return [m for m in await gateway.messages() if m["state"] == 8]
