"""What comes in: from one modem's memory, or handed over directly."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from pathlib import Path

from bench.gateway import DaemonProcess, Simulators, all_ready, configuration, simulators, started, until
from bench.measure import Figures, cpu_s


async def burst(directory: Path, messages: int, direct: bool = False) -> Figures:
    """`messages` at once for one modem: all on disk, handed over and off the SIM; or with `direct` acknowledged one by
    one (+CMT, AT+CNMA).
    """
    async with simulators(directory, 1) as sims:
        config = configuration(directory, sims.ports)
        config["channels"][0]["poll_interval"] = "1h"
        module = "bench.direct" if direct else "gatewayd"
        await _room_for(sims, messages)
        async with started(directory, config, module=module) as running:
            gateway = running.gateway
            await all_ready(gateway)
            before = cpu_s(gateway.pid)
            begun = time.monotonic()
            await _feed(sims, messages)
            await _all_in(gateway, sims, messages)
            took = time.monotonic() - begun
            used = cpu_s(gateway.pid) - before
        how = {row["how"].partition(":")[0] for row in await sims.rows("inbound")}
        assert how <= ({"+CMT"} if direct else {"SM", "ME"}), how
    return {"messages": messages, "per_second": messages / took, "cpu_ms_per_message": 1000 * used / messages}


async def stored(directory: Path, messages: int) -> Figures:
    """`messages` lie on the SIM when the daemon starts: from the first that is on disk until the SIM is empty."""
    async with simulators(directory, 1) as sims:
        await _room_for(sims, messages)
        await _feed(sims, messages)
        async with started(directory, configuration(directory, sims.ports)) as running:
            gateway = running.gateway
            before = cpu_s(gateway.pid)
            await _all_in(gateway, sims, messages)
            ended, used = time.time(), cpu_s(gateway.pid) - before
            database = directory / "spool.db"
        first_at = _first_received(database)
    return {
        "messages": messages,
        "per_second": messages / (ended - first_at),
        "cpu_ms_per_message": 1000 * used / messages,
    }


def _first_received(database: Path) -> float:
    """When the first part was put on disk, in epoch seconds."""
    connection = sqlite3.connect(database)
    try:
        return float(connection.execute("SELECT min(received_at) FROM inbound_parts").fetchone()[0]) / 1000
    finally:
        connection.close()


async def _room_for(sims: Simulators, messages: int) -> None:
    for store in ("SM", "ME"):
        await sims.processes[0].control.call({"do": "store", "modem": 0, "store": store, "size": messages})


async def _feed(sims: Simulators, messages: int) -> None:
    """All over one connection, without waiting between them: the network is not what is measured."""
    reader, writer = await asyncio.open_unix_connection(sims.processes[0].control.path)
    for n in range(messages):
        request = {"do": "inbound", "modem": 0, "from": f"+5989{n:07}", "text": f"Answer {n}"}
        writer.write(json.dumps(request).encode() + b"\n")
    for _ in range(messages):
        assert json.loads(await reader.readline())["ok"]
    writer.close()


async def _all_in(gateway: DaemonProcess, sims: Simulators, messages: int) -> None:
    control = sims.processes[0].control

    async def done() -> bool:
        _, page = await gateway.get("/api/v1/inbound", params={"after": messages - 1, "limit": 1})
        if not page["items"]:
            return False
        stores = [await control.call({"do": "store", "modem": 0, "store": store}) for store in ("SM", "ME")]
        return not any(each["slots"] for each in stores)

    await until(done)
