"""What it costs to take the next message, with few and with many in the spool."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.measure import Figures, spread
from bench.rows import CLOSED, Group, fill
from gatewayd.app import SWITCH_INTERVAL_S
from tests.spool.helpers import FakeClock, open_spool

CHANNEL = "m0"
CLOSED_SHARE = 0.999


def groups(messages: int, closed_lanes: int, needed: int) -> Sequence[Group]:
    """All in one open lane; or, with `closed_lanes`, all but 0.1 % (and what is needed) in lanes pinned to channels
    that are not there, more urgent and earlier than the rest.
    """
    if not closed_lanes:
        return [Group(max(messages, needed))]
    rest = max(int(messages * (1 - CLOSED_SHARE)), needed)
    return [Group(max(messages - rest, closed_lanes), pin=CLOSED, lanes=closed_lanes, priority=5), Group(rest)]


async def claim(directory: Path, messages: int, closed_lanes: int = 0, claims: int = 500) -> Figures:
    """One channel takes message after message: each time the outcome of the last and the next claim, in one commit.

    `claim_*_ms` is from the question to the answer, the fsync included; `claim_cpu_ms` is the processor's part, in
    which a search that grows would show. `first_claim_ms` is the first one after the start, which reads the lanes.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    path = directory / "spool.db"
    filled_s = fill(path, groups(messages, closed_lanes, claims + 10))
    clock = FakeClock(_now_ms())
    async with open_spool(f"sqlite:///{path}", clock=clock) as spool:
        line = await spool.sim(CHANNEL)
        begun = time.perf_counter()
        taken = await spool.claim(line)
        first_ms = 1000 * (time.perf_counter() - begun)
        times: list[float] = []
        used = time.process_time()
        for n in range(claims):
            assert taken is not None, f"only {n} messages could be claimed"
            clock.ms = _now_ms()
            sent = spool.sent(taken, n % 256)
            begun = time.perf_counter()
            taken = await spool.claim(line, sent)
            times.append(1000 * (time.perf_counter() - begun))
        used = time.process_time() - used
    return {
        "messages": messages,
        "lanes": 1 + closed_lanes,
        **spread("claim", times),
        "claim_cpu_ms": 1000 * used / claims,
        "first_claim_ms": first_ms,
        "made_in_s": filled_s,
    }


def _now_ms() -> int:
    return int(time.time() * 1000)
