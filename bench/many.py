"""A daemon with a million messages waiting: its start, its memory, and what it answers meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from bench.gateway import DaemonProcess, all_ready, configuration, simulators, started
from bench.measure import Figures, cold, cpu_s, percentile, resident_mib, spread
from bench.rows import Group, fill

QUIET_S = 3.0  # how long a daemon is left alone before its memory is looked at
ASKED = 20  # times for each answer
LOOK_EVERY_S = 0.5


async def start(directory: Path, messages: int) -> Figures:
    """From exec to READY, and to the first AT+CMGS, with `messages` to send and nothing of the file in memory."""
    path = directory / "spool.db"
    fill(path, [Group(messages)])
    cold(path)
    async with simulators(directory, 1) as sims, started(directory, configuration(directory, sims.ports)) as running:
        await sims.wait("submit", 1, 60)
        first = min(row["cmgs_at"] for row in await sims.rows("submit"))
    return {
        "messages": messages,
        "ready_s": running.ready_at - running.exec_at,
        "first_cmgs_s": first - running.exec_at,
    }


async def memory(directory: Path, messages: int, drained: int = 2000) -> Figures:
    """Resident memory with `messages` waiting: at rest, after people and Prometheus have looked, and while it sends."""
    fill(directory / "spool.db", [Group(messages)])
    async with simulators(directory, 8) as sims, started(directory, configuration(directory, sims.ports)) as running:
        gateway = running.gateway
        await gateway.operate("pause", {"reason": "bench"})
        await all_ready(gateway)
        await asyncio.sleep(QUIET_S)
        idle = resident_mib(gateway.pid)
        async with _asking(gateway) as ask:
            for path in ("/metrics", "/api/v1/status", "/api/v1/messages?limit=1000"):
                await ask(path)
        looked = resident_mib(gateway.pid)
        await gateway.operate("resume")
        await sims.wait("answered", min(drained, messages), 120)
        draining = resident_mib(gateway.pid)
    return {"messages": messages, "idle_mib": idle, "looked_at_mib": looked, "draining_mib": draining}


async def reads(directory: Path, messages: int) -> Figures:
    """How long questions take with `messages` waiting: the first of each kind, then the median of more."""
    fill(directory / "spool.db", [Group(messages)])
    found: Figures = {"messages": messages}
    async with simulators(directory, 1) as sims, started(directory, configuration(directory, sims.ports)) as running:
        await running.gateway.operate("pause", {"reason": "bench"})
        await all_ready(running.gateway)
        async with _asking(running.gateway) as ask:
            for name, path in _questions(messages).items():
                times = [await ask(path) for _ in range(ASKED + 1)]
                found[f"{name}_first_ms"] = times[0]
                found[f"{name}_median_ms"] = percentile(times[1:], 0.5)
    return found


def _questions(messages: int) -> dict[str, str]:
    listed = "/api/v1/messages?limit=100"
    return {
        "message_at_front": "/api/v1/messages/5",
        "message_in_the_middle": f"/api/v1/messages/{messages // 2}",
        "list": listed,
        "list_from_the_end": f"{listed}&order=desc",
        "list_by_state": f"{listed}&state=to_process&after={messages // 2}",
        "list_none_in_state": f"{listed}&state=failed",
        "list_by_client_ref": f"/api/v1/messages?client_ref=ref-{messages // 2}",
        "metrics": "/metrics",
        "status": "/api/v1/status",
    }


async def watched(directory: Path, messages: int, modems: int, latency_ms: float, drained: int) -> Figures:
    """Drain with `messages` waiting while somebody asks for /metrics and the status twice a second: the idle gap."""
    fill(directory / "spool.db", [Group(messages)])
    async with (
        simulators(directory, modems, latency_ms) as sims,
        started(directory, configuration(directory, sims.ports)) as running,
    ):
        gateway = running.gateway
        await all_ready(gateway)
        before = cpu_s(gateway.pid)
        looking = asyncio.create_task(_look(gateway))
        await sims.wait("answered", drained, 120)
        used = cpu_s(gateway.pid) - before
        await gateway.operate("pause", {"reason": "bench"})
        assert not looking.done(), looking
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        rows = await sims.rows("submit")
    gaps = [1000 * (row["cmgs_at"] - row["prev_final_at"]) for row in rows if row["prev_final_at"] is not None]
    return {"messages": messages, **spread("idle_gap", gaps), "cpu_ms_per_message": 1000 * used / len(rows)}


async def _look(gateway: DaemonProcess) -> None:
    async with _asking(gateway) as ask:
        while True:
            await ask("/metrics")
            await ask("/api/v1/status")
            await asyncio.sleep(LOOK_EVERY_S)


@asynccontextmanager
async def _asking(gateway: DaemonProcess) -> AsyncIterator[Callable[[str], Awaitable[float]]]:
    """GET over the control socket: a function that gives the milliseconds until the last octet of the answer."""
    connector = aiohttp.UnixConnector(str(gateway.directory / "control.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(path: str) -> float:
            begun = time.perf_counter()
            async with session.get(f"http://gatewayd{path}") as response:
                await response.read()
                assert response.status == 200, (path, response.status)
            return 1000 * (time.perf_counter() - begun)

        yield ask
