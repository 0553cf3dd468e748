"""Taking messages over HTTP, each on disk before its answer."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from bench.gateway import ROOT, DaemonProcess, configuration, daemon
from bench.measure import Figures, cpu_s

WARM_UP = 200


async def accept(directory: Path, connections: int, requests: int, batch: int = 0) -> Figures:
    """Accept without sending: single forms, or arrays of `batch` messages."""
    async with daemon(directory, configuration(directory, [])) as gateway:
        await load(gateway, connections, min(WARM_UP, requests) if not batch else connections, batch)
        before = cpu_s(gateway.pid)
        result = await load(gateway, connections, requests, batch)
        used = cpu_s(gateway.pid) - before
    assert set(result["statuses"]) == {"202" if batch else "200"}, result
    return {
        "messages": result["messages"],
        "per_second": result["per_second"],
        "answer_median_ms": result["p50_ms"],
        "answer_p99_ms": result["p99_ms"],
        "cpu_ms_per_message": 1000 * used / result["messages"],
    }


async def load(gateway: DaemonProcess, connections: int, requests: int, batch: int) -> dict[str, Any]:
    """Submit from a process of its own; what `bench.load` prints."""
    host, port = gateway.address.rsplit(":", 1)
    arguments = [host, port, str(connections), str(requests), str(batch)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return dict(json.loads(output))
