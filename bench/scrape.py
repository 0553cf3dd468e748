"""What /metrics costs: a scrape of a gateway with many channels, and the counting itself, for each message."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.gateway import configuration, daemon, simulators, until
from bench.measure import Figures, cpu_s, spread
from gatewayd import metrics
from gatewayd.model import FailureClass, MessageClass, Outcome


async def scrape(directory: Path, modems: int, scrapes: int) -> Figures:
    """GET /metrics of a daemon that has sent over all its channels: from the request to the last octet."""
    took: list[float] = []
    async with (
        simulators(directory, modems) as sims,
        daemon(directory, configuration(directory, sims.ports)) as gateway,
    ):
        body = [{"to": f"+5989{i:05}77", "text": f"Message {i}"} for i in range(10 * modems)]
        await gateway.post("/api/v1/messages", json=body[:1000])

        async def all_sent() -> bool:
            return all(channel["submitted"] for channel in await gateway.channels())

        await until(all_sent)
        before = cpu_s(gateway.pid)
        for _ in range(scrapes):
            begun = time.perf_counter()
            async with gateway.session.get(f"http://{gateway.address}/metrics") as response:
                text = await response.text()
            took.append(1000 * (time.perf_counter() - begun))
        used = cpu_s(gateway.pid) - before
    return {"lines": len(text.splitlines()), **spread("answer", took), "cpu_ms_per_scrape": 1000 * used / scrapes}


@dataclass
class _Event:
    type: str
    class_: MessageClass | None = MessageClass.APPLICATION
    data: dict[str, Any] = field(default_factory=dict)


def counting(messages: int) -> Figures:
    """All that is counted for one message that is sent at once and delivered, the HTTP request included."""
    metrics.prepare(["m0"], routes=[("POST", "/SendSMS")])
    events = [_Event("message.accepted"), _Event("message.sent"), _Event("message.delivered")]

    def one() -> None:
        metrics.request("POST", "/SendSMS", 200, 0.002)
        metrics.observe(events)
        metrics.line_idle("m0", 0.002)
        metrics.attempt("m0", Outcome.SENT, FailureClass.NETWORK, started_ms=0, finished_ms=1500, code="")
        for _ in range(3):
            metrics.commit(1, 0.002)

    return {"messages": messages, "cpu_ms_per_message": _time(one, messages)}


def _time(call: Callable[[], None], times: int) -> float:
    begun = time.process_time()
    for _ in range(times):
        call()
    return 1000 * (time.process_time() - begun) / times
