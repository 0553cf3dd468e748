"""Every case by its name. `make bench` runs those that are not large, `make bench-large` the large ones."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from bench.accept import accept
from bench.claim import claim
from bench.drain import drain
from bench.inbound import burst, stored
from bench.many import memory, reads, start, watched
from bench.measure import Figures
from bench.scrape import counting, scrape

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """`run` is given an empty folder and a scale: 1, or less for less work. `rows`: messages it makes in a spool."""

    name: str
    what: str
    run: Callable[[Path, float], Awaitable[Figures]]
    rows: int = 0
    large: bool = False

    async def __call__(self, folder: Path, scale: float = 1.0) -> Figures:
        with tempfile.TemporaryDirectory(dir=folder, prefix="gatewayd-bench-") as directory:
            return await self.run(Path(directory), scale)


def _scaled(number: int, scale: float, least: int = 1) -> int:
    return max(least, int(number * scale))


def _drain(modems: int, latency_ms: int, messages: int, report: bool = False) -> Case:
    least = 2 * modems
    what = f"{modems} modem{'s' * (modems > 1)}, {latency_ms} ms on the air"
    return Case(
        f"drain-{modems}-{latency_ms}" + ("-reports" if report else ""),
        f"drain, {what}" + (", each reported as delivered" if report else ""),
        lambda folder, scale: drain(folder, modems, latency_ms, _scaled(messages, scale, least), report),
    )


def _accept(connections: int, requests: int, batch: int = 0) -> Case:
    what = f"batches of {batch}" if batch else "one message a request"
    return Case(
        f"accept-{connections}" + (f"-batch-{batch}" if batch else ""),
        f"accept, {connections} connection{'s' * (connections > 1)}, {what}",
        lambda folder, scale: accept(folder, connections, _scaled(requests, scale, connections), batch),
    )


def _power(messages: int) -> str:
    return f"1e{len(str(messages)) - 1}"


def _claim(messages: int, closed_lanes: int = 0) -> Case:
    where = f", 99.9 % of them in {closed_lanes} closed lanes" if closed_lanes else ""
    return Case(
        f"claim-{_power(messages)}" + (f"-closed-{closed_lanes}" if closed_lanes else ""),
        f"claim the next of {messages}{where}",
        lambda folder, scale: claim(folder, _scaled(messages, scale, 100), closed_lanes, _scaled(500, scale, 20)),
        rows=messages,
        large=messages > MILLION,
    )


def _start(messages: int) -> Case:
    return Case(
        f"start-{_power(messages)}",
        f"start with {messages} waiting, nothing of the file in memory",
        lambda folder, scale: start(folder, _scaled(messages, scale, 100)),
        rows=messages,
        large=messages > MILLION,
    )


def _memory(messages: int) -> Case:
    return Case(
        f"memory-{_power(messages)}",
        f"resident memory with {messages} waiting",
        lambda folder, scale: memory(folder, _scaled(messages, scale, 100), _scaled(2000, scale, 20)),
        rows=messages,
        large=messages > MILLION,
    )


def _reads(messages: int) -> Case:
    return Case(
        f"reads-{_power(messages)}",
        f"questions with {messages} waiting",
        lambda folder, scale: reads(folder, _scaled(messages, scale, 100)),
        rows=messages,
        large=messages > MILLION,
    )


def _watched(messages: int) -> Case:
    return Case(
        f"watched-{_power(messages)}",
        f"drain 8 modems, 200 ms, with {messages} waiting and /metrics and the status asked for twice a second",
        lambda folder, scale: watched(folder, _scaled(messages, scale, 400), 8, 200, _scaled(600, scale, 20)),
        rows=messages,
        large=messages > MILLION,
    )


async def _counting(folder: Path, scale: float) -> Figures:
    return counting(_scaled(50_000, scale))


CASES: tuple[Case, ...] = (
    _drain(1, 0, 1000),
    _drain(8, 0, 4000),
    _drain(32, 0, 6000),
    _drain(64, 0, 6000),
    _drain(8, 0, 3000, report=True),
    _drain(1, 200, 60),
    _drain(8, 200, 480),
    _drain(32, 200, 2560),
    _drain(64, 200, 5120),
    _drain(1, 3000, 8),
    _drain(8, 3000, 64),
    _drain(32, 3000, 256),
    _drain(64, 3000, 512),
    _accept(1, 2000),
    _accept(64, 10_000),
    _accept(4, 40, batch=1000),
    Case("inbound-stored", "inbound, 500 on the SIM at the start", lambda d, s: stored(d, _scaled(500, s))),
    Case("inbound-burst", "inbound, 500 at once for one modem", lambda d, s: burst(d, _scaled(500, s))),
    Case("inbound-direct", "inbound, 500 handed over directly", lambda d, s: burst(d, _scaled(500, s), direct=True)),
    *(_claim(messages, lanes) for messages in (1000, 10_000, 100_000, MILLION) for lanes in (0, 20)),
    *(_claim(messages, 2000) for messages in (10_000, MILLION)),
    _start(MILLION),
    _memory(MILLION),
    _reads(MILLION),
    _watched(MILLION),
    Case("scrape-64", "scrape of 64 channels", lambda d, s: scrape(d, _scaled(64, s), _scaled(200, s))),
    Case("counting", "what metrics cost for one message", _counting),
    *(_claim(10 * MILLION, lanes) for lanes in (0, 20)),
    _start(10 * MILLION),
    _memory(10 * MILLION),
    _reads(10 * MILLION),
    _watched(10 * MILLION),
)
