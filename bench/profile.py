"""What the daemon's processor time goes into: samples of its threads' stacks, taken from outside by py-spy."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from bench.accept import load
from bench.gateway import all_ready, configuration, daemon, simulators
from bench.measure import cpu_s

RATE = 500  # samples a second
MODEMS = 8
AREAS = (  # the first part of a file's path that fits, from the innermost frame outwards
    ("modems/pdu/", "PDU codec"),
    ("modems/at/", "AT engine"),
    ("modems/", "channel: the dialogue with the modem"),
    ("serial_asyncio", "serial port"),
    ("serial/", "serial port"),
    ("spool/", "the spool's own code"),
    ("router/", "dispatcher, submission, inbound"),
    ("msglog", "log"),
    ("logging/", "log"),
    ("gatewayd/logs", "log"),
    ("prometheus_client", "metrics"),
    ("gatewayd/metrics", "metrics"),
    ("gatewayd/http/", "HTTP"),
    ("aiohttp", "HTTP"),
    ("multidict", "HTTP"),
    ("yarl", "HTTP"),
    ("phonenumbers", "dispatcher, submission, inbound"),
    ("asyncio/", "event loop"),
    ("selectors", "event loop"),
    ("threading", "handing over between threads"),
)
WAITING = frozenset({"_connection_worker_thread", "_worker", "Writer._take", "wait", "Condition.wait"})
"""Innermost functions of threads that have nothing to do; to py-spy they seem to work."""
SQLITE = frozenset(
    {"_execute", "flush", "control", "one", "all", "run"}
)  # of writer.Tx: what is innermost calls SQLite


async def profile(scale: float = 1.0) -> dict[str, Any]:
    """Messages one by one over HTTP, out over 8 instant modems, each reported as delivered: all of it at once.

    Raises SystemExit where py-spy is missing.
    """
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        sys.exit(f"py-spy is missing: {sys.executable} -m pip install py-spy")
    messages = int(8000 * scale)
    with tempfile.TemporaryDirectory(prefix="gatewayd-bench-") as folder:
        directory = Path(folder)
        async with (
            simulators(directory, MODEMS) as sims,
            daemon(directory, configuration(directory, sims.ports)) as gateway,
        ):
            await all_ready(gateway)
            arguments = (
                "record",
                "--pid",
                str(gateway.pid),
                "--rate",
                str(RATE),
                "--format",
                "raw",
                "--threads",
                "--nonblocking",
            )
            sampling = await asyncio.create_subprocess_exec(
                spy, *arguments, "--duration", "unlimited", "--output", str(directory / "stacks"),
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            await asyncio.sleep(1)  # it reads the program's symbols
            before = cpu_s(gateway.pid)
            await load(gateway, 4, messages, 0)
            await sims.wait("report", messages, 300)
            used = cpu_s(gateway.pid) - before
            sampling.send_signal(signal.SIGINT)
            _, said = await sampling.communicate()
        stacks = directory / "stacks"
        if not stacks.exists():
            sys.exit(f"py-spy gave nothing: {said.decode(errors='replace')}")
        areas = summed(stacks.read_text())
    return {"messages": messages, "cpu_ms_per_message": 1000 * used / messages, "areas": areas}


def summed(stacks: str) -> list[tuple[str, str, float]]:
    """Thread, area and share of all samples, largest first. `stacks`: a line for each stack, its count at the end."""
    found: Counter[tuple[str, str]] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if frames and frames[-1].partition(" (")[0] in WAITING:
            continue
        found[_thread(thread), area_of(frames)] += int(count)
    total = sum(found.values())
    return [(thread, area, count / total) for (thread, area), count in found.most_common()]


def area_of(frames: list[str]) -> str:
    """What a stack is at, by its innermost frame that says so. Frames as "function (file:line)"."""
    for frame in reversed(frames):
        function, _, place = frame.partition(" (")
        if "spool/writer.py" in place and function.rpartition(".")[2] in SQLITE:
            return "SQLite"
        for part, area in AREAS:
            if part in place:
                return area
    return "other"


def _thread(name: str) -> str:
    if "MainThread" in name:
        return "event loop"
    if "spool-writer" in name:
        return "writer"
    return "others"
