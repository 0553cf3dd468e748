"""`make bench`: what the gateway reaches on this machine, on emulated modems in a process of their own.

Prints a table, and with --json one object a line. Every message is on disk before its answer; the figures move with the
machine, so compare in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.scrape import counting, scrape
from gatewayd.modems.simulator.process import simulator_process
from tests.daemon import DaemonProcess, configuration, daemon, until

TICKS = os.sysconf("SC_CLK_TCK")


def _cpu_s(pid: int) -> float:
    """Processor time a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def _load(gateway: DaemonProcess, connections: int, requests: int, batch: int = 0) -> dict[str, Any]:
    host, port = gateway.address.rsplit(":", 1)
    arguments = [host, port, str(connections), str(requests), str(batch)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return dict(json.loads(output))


async def drain(modems: int, messages: int, latency_ms: float) -> dict[str, Any]:
    """Drain a queue that is full from the start."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        async with simulator_process(modems=modems, directory=directory / "sim", latency_ms=latency_ms) as sim:
            config = configuration(directory, [sim.port(i) for i in range(modems)])
            async with daemon(directory, config) as gateway:
                await gateway.operate("pause", {"reason": "bench"})
                body = [{"to": f"+5989{i:05}77", "text": f"Message {i}", "report": False} for i in range(messages)]
                for start in range(0, messages, 1000):
                    status, answer = await gateway.post("/api/v1/messages", json=body[start : start + 1000])
                    assert status == 202, answer

                async def all_ready() -> bool:
                    return all(channel["state"] == "ready" for channel in await gateway.channels())

                await until(all_ready)
                cpu = _cpu_s(gateway.pid)
                await gateway.operate("resume")
                await sim.control.wait("answered", messages, timeout_s=300)
                cpu = _cpu_s(gateway.pid) - cpu
                rows = await sim.ledger("submit")
                finals = [row["final_at"] for row in await sim.ledger("answered")]
    assert len({row["to"] for row in rows}) == len(rows) == messages, "lost or doubled"
    first, last = min(row["cmgs_at"] for row in rows), max(finals)
    gaps = sorted(1000 * (row["cmgs_at"] - row["prev_final_at"]) for row in rows if row["prev_final_at"] is not None)
    air = messages * latency_ms / 1000 / modems
    return {
        "case": f"drain {modems} modem{'s' * (modems > 1)}, {latency_ms:g} ms",
        "messages": messages,
        "per_second": messages / (last - first),
        "idle_gap_median_ms": statistics.median(gaps),
        "idle_gap_p99_ms": gaps[int(len(gaps) * 0.99)],
        "cpu_ms_per_message": 1000 * cpu / messages,
        "air_utilisation": air / (last - first) if latency_ms else None,
    }


async def accept(connections: int, requests: int, batch: int = 0) -> dict[str, Any]:
    """Accept without sending."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        config = configuration(directory, [])
        async with daemon(directory, config) as gateway:
            await _load(gateway, connections, min(200, requests), batch)
            cpu = _cpu_s(gateway.pid)
            result = await _load(gateway, connections, requests, batch)
            cpu = _cpu_s(gateway.pid) - cpu
            assert set(result["statuses"]) == {"202" if batch else "200"}, result
    what = f"batches of {batch}" if batch else "single"
    return {
        "case": f"accept {connections} connection{'s' * (connections > 1)}, {what}",
        "messages": result["messages"],
        "per_second": result["per_second"],
        "p50_ms": result["p50_ms"],
        "p99_ms": result["p99_ms"],
        "cpu_ms_per_message": 1000 * cpu / result["messages"],
    }


async def inbound(messages: int) -> dict[str, Any]:
    """Read what lies on one SIM: on disk, handed over, told in the outbox, and off the SIM."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        async with simulator_process(modems=1, directory=directory / "sim") as sim:
            await sim.control.call({"do": "store", "modem": 0, "store": "ME", "size": messages})
            config = configuration(directory, [sim.port(0)])
            config["channels"][0]["poll_interval"] = "1h"
            async with daemon(directory, config) as gateway:

                async def ready() -> bool:
                    return all(channel["state"] == "ready" for channel in await gateway.channels())

                await until(ready)
                cpu = _cpu_s(gateway.pid)
                begun = time.monotonic()
                for n in range(messages):
                    text = {"from": f"+5989{n:07}", "text": f"Answer {n}"}
                    await sim.control.call({"do": "inbound", "modem": 0, **text})

                async def gone() -> bool:
                    _, page = await gateway.get("/api/v1/inbound", params={"after": messages - 1, "limit": 1})
                    left = await sim.control.call({"do": "store", "modem": 0, "store": "ME"})
                    return bool(page["items"]) and not left["slots"]

                await until(gone)
                took = time.monotonic() - begun
                cpu = _cpu_s(gateway.pid) - cpu
    return {
        "case": f"inbound, {messages} on one SIM",
        "messages": messages,
        "per_second": messages / took,
        "cpu_ms_per_message": 1000 * cpu / messages,
    }


async def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    scale = 1 if not arguments.quick else 0.2
    return [
        await drain(1, int(1000 * scale), 0),
        await drain(8, int(4000 * scale), 0),
        await drain(8, int(800 * scale), 200),
        await accept(1, int(2000 * scale)),
        await accept(64, int(10_000 * scale)),
        await accept(4, max(4, int(40 * scale)), 1000),
        await inbound(int(500 * scale)),
        await scrape(64, int(200 * scale), _cpu_s),
        counting(int(50_000 * scale)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work")
    arguments = parser.parse_args()
    results = asyncio.run(run(arguments))
    if arguments.json:
        for result in results:
            print(json.dumps(result))
        return
    table = Table(
        "case", "messages/s", "idle gap median / p99 ms", "answer median / p99 ms", "CPU ms/message (scrape)", "air"
    )
    for result in results:
        gap = (
            f"{result['idle_gap_median_ms']:.1f} / {result['idle_gap_p99_ms']:.1f}"
            if "idle_gap_median_ms" in result
            else ""
        )
        answer = f"{result['p50_ms']:.1f} / {result['p99_ms']:.1f}" if "p50_ms" in result else ""
        air = f"{result['air_utilisation']:.1%}" if result.get("air_utilisation") else ""
        cpu = f"{result.get('cpu_ms_per_message', result.get('cpu_ms_per_scrape')):.3g}"
        rate = f"{result['per_second']:.0f}" if "per_second" in result else ""
        table.add_row(result["case"], rate, gap, answer, cpu, air)
    Console().print(table)


if __name__ == "__main__":
    main()
