"""Draining a queue that is full from the start, as the emulated modems see it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from bench.gateway import DaemonProcess, Simulators, all_ready, configuration, daemon, simulators
from bench.measure import Figures, cpu_s, spread

LIMIT_S = 300.0
BATCH = 1000


async def drain(directory: Path, modems: int, latency_ms: float, messages: int, report: bool = False) -> Figures:
    """Send `messages` over `modems`, each of which takes `latency_ms` on the air for one. With `report` each is
    reported as delivered.
    """
    async with (
        simulators(directory, modems, latency_ms) as sims,
        daemon(directory, configuration(directory, sims.ports)) as gateway,
    ):
        await gateway.operate("pause", {"reason": "bench"})
        await submit(gateway, messages, report)
        await all_ready(gateway)
        before, simulated = cpu_s(gateway.pid), sims.cpu_s()
        await gateway.operate("resume")
        await sims.wait("report" if report else "answered", messages, LIMIT_S)
        used, simulated = cpu_s(gateway.pid) - before, sims.cpu_s() - simulated
        found = await seen_by_modems(sims, messages, latency_ms)
    found["cpu_ms_per_message"] = 1000 * used / messages
    found["simulator_cpu_ms_per_message"] = 1000 * simulated / messages
    return found


async def submit(gateway: DaemonProcess, messages: int, report: bool = False) -> None:
    """Hand in messages, each to a number of its own."""
    body = [{"to": f"+5989{i:05}77", "text": f"Message {i}", "report": report} for i in range(messages)]
    for start in range(0, messages, BATCH):
        status, answer = await gateway.post("/api/v1/messages", json=body[start : start + BATCH])
        assert status == 202, answer


async def seen_by_modems(sims: Simulators, messages: int, latency_ms: float) -> Figures:
    """Rate, idle gaps and use of the air, from the ledgers. Raises AssertionError if a message is lost or doubled.

    Idle gap: from a final result to the next AT+CMGS on the same modem. Air: the share of the time between a modem's
    first AT+CMGS and its last final result that the emulated network took.
    """
    submitted = await sims.rows("submit")
    answered = await sims.rows("answered")
    assert len({row["to"] for row in submitted}) == len(submitted) == messages, "lost or doubled"
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    sent: dict[str, int] = defaultdict(int)
    for row in submitted:
        first[row["modem"]] = min(row["cmgs_at"], first.get(row["modem"], row["cmgs_at"]))
        sent[row["modem"]] += 1
    for row in answered:
        last[row["modem"]] = max(row["final_at"], last.get(row["modem"], 0.0))
    gaps = [1000 * (row["cmgs_at"] - row["prev_final_at"]) for row in submitted if row["prev_final_at"] is not None]
    figures: Figures = {
        "messages": messages,
        "per_second": messages / (max(last.values()) - min(first.values())),
        **spread("idle_gap", gaps or [0.0]),
    }
    if latency_ms:
        busy = sum(last[modem] - first[modem] for modem in sent)
        figures["air_utilisation"] = sum(sent.values()) * latency_ms / 1000 / busy
    return figures
