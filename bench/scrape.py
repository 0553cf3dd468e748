"""What /metrics costs: a scrape of a gateway with many channels, and the counting itself, for each message."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatewayd import metrics
from gatewayd.model import MessageClass, Outcome, Retry
from gatewayd.modems.simulator.process import simulator_process
from tests.daemon import configuration, daemon, until


async def scrape(modems: int, scrapes: int, cpu_s: Callable[[int], float]) -> dict[str, Any]:
    """GET /metrics of a daemon that has sent over all its channels: from the request to the last octet.

    `cpu_s` gives the processor time a process has used.
    """
    took: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        async with simulator_process(modems=modems, directory=directory / "sim") as sim:
            config = configuration(directory, [sim.port(i) for i in range(modems)])
            async with daemon(directory, config) as gateway:
                body = [{"to": f"+5989{i:05}77", "text": f"Message {i}"} for i in range(10 * modems)]
                await gateway.post("/api/v1/messages", json=body[:1000])

                async def all_sent() -> bool:
                    return all(channel["submitted"] for channel in await gateway.channels())

                await until(all_sent)
                cpu = cpu_s(gateway.pid)
                for _ in range(scrapes):
                    begun = time.perf_counter()
                    async with gateway.session.get(f"http://{gateway.address}/metrics") as response:
                        text = await response.text()
                    took.append(1000 * (time.perf_counter() - begun))
                cpu = cpu_s(gateway.pid) - cpu
    took.sort()
    return {
        "case": f"scrape of {modems} channels, {len(text.splitlines())} lines",
        "p50_ms": statistics.median(took),
        "p99_ms": took[int(len(took) * 0.99)],
        "cpu_ms_per_scrape": 1000 * cpu / scrapes,
    }


@dataclass
class _Event:
    type: str
    class_: MessageClass | None = MessageClass.APPLICATION
    data: dict[str, Any] = field(default_factory=dict)


def counting(messages: int) -> dict[str, Any]:
    """All that is counted for one message that is sent at once and delivered, the HTTP request included."""
    metrics.prepare(["m0"], routes=[("POST", "/SendSMS")])
    events = [_Event("message.accepted"), _Event("message.sent"), _Event("message.delivered")]

    def one() -> None:
        metrics.request("POST", "/SendSMS", 200, 0.002)
        metrics.observe(events)
        metrics.line_idle("m0", 0.002)
        metrics.attempt("m0", Outcome.SENT, Retry.LATER, started_ms=0, finished_ms=1500, code="")
        for _ in range(3):
            metrics.commit(1, 0.002)

    return {"case": "counting one message", "messages": messages, "cpu_ms_per_message": _time(one, messages)}


def _time(call: Callable[[], None], times: int) -> float:
    begun = time.process_time()
    for _ in range(times):
        call()
    return 1000 * (time.process_time() - begun) / times
