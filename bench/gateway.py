"""Daemons and simulators of the benchmarks, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bench.measure import cpu_s
from gatewayd.modems.simulator.interfaces import Row
from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process
from tests.daemon import DaemonProcess, configuration, daemon, until

ROOT = Path(__file__).parents[1]
START_LIMIT_S = 120.0
MODEMS_PER_SIMULATOR = 32
WATCH_S = 0.05


@dataclass(frozen=True, slots=True)
class Simulators:
    """One or more simulators that look like one; modems count from 0 over all of them."""

    processes: Sequence[SimulatorProcess]
    ports: Sequence[str]

    def cpu_s(self) -> float:
        return sum(cpu_s(process.pid) for process in self.processes)

    async def wait(self, kind: str, count: int, timeout_s: float) -> None:
        """Until their ledgers have `count` rows of `kind` between them."""
        async with asyncio.timeout(timeout_s):
            while sum([(await each.control.counts()).get(kind, 0) for each in self.processes]) < count:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(WATCH_S)

    async def rows(self, kind: str) -> list[Row]:
        """The rows of `kind` of all ledgers. `modem` is made unique by the number of its simulator."""
        return [
            {**row, "modem": f"{number}/{row['modem']}"}
            for number, each in enumerate(self.processes)
            for row in await each.ledger(kind)
        ]


@asynccontextmanager
async def simulators(directory: Path, modems: int, latency_ms: float = 0) -> AsyncIterator[Simulators]:
    """Start as many simulators as it takes, so that they are not what is measured."""
    async with contextlib.AsyncExitStack() as stack:
        processes: list[SimulatorProcess] = []
        ports: list[str] = []
        while len(ports) < modems:
            number = len(processes)
            share = min(MODEMS_PER_SIMULATOR, modems - len(ports))
            process = await stack.enter_async_context(
                simulator_process(
                    modems=share,
                    directory=directory / f"sim{number}",
                    latency_ms=latency_ms,
                    number_base=f"+59899{number:02}",
                )
            )
            processes.append(process)
            ports += [process.port(i) for i in range(share)]
        yield Simulators(processes, ports)


@dataclass(frozen=True, slots=True)
class Started:
    """A daemon, and the monotonic seconds of its exec and of READY=1."""

    gateway: DaemonProcess
    exec_at: float
    ready_at: float


@asynccontextmanager
async def started(directory: Path, config: dict[str, Any], *, module: str = "gatewayd") -> AsyncIterator[Started]:
    """Start the daemon as systemd does, and note when it says READY. `module` runs it in another manner."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "gatewayd.yaml").write_text(yaml.safe_dump(config))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(directory / "notify"))
        notify.setblocking(False)
        environment = {"PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(directory / "notify")}
        exec_at = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, "run", "-c", str(directory / "gatewayd.yaml"),
            stderr=asyncio.subprocess.PIPE, cwd=directory, env=os.environ | environment,
        )  # fmt: skip
        assert process.stderr is not None
        log: list[str] = []
        reading = asyncio.create_task(_collect(process.stderr, log))
        try:
            status = await _ready(notify, process, log)
            ready_at = time.monotonic()
            reader = asyncio.create_task(_drop(notify))
            async with aiohttp.ClientSession() as session:
                yield Started(DaemonProcess(directory, status, process, session, log), exec_at, ready_at)
            reader.cancel()
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            await reading


async def _ready(notify: socket.socket, process: asyncio.subprocess.Process, log: list[str]) -> str:
    """Wait for READY=1; where HTTP listens."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(START_LIMIT_S):
        while True:
            receiving = asyncio.create_task(loop.sock_recv(notify, 4096))
            ended = asyncio.create_task(process.wait())
            await asyncio.wait({receiving, ended}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if not receiving.done():
                receiving.cancel()
                raise AssertionError(f"the daemon ended: {''.join(log)}")
            said = receiving.result().decode()
            if "READY=1" in said:
                return said.partition("HTTP on ")[2].split()[0]


async def _drop(notify: socket.socket) -> None:
    """Take what else the daemon says, or its watchdog would find the socket full."""
    while True:
        await asyncio.get_running_loop().sock_recv(notify, 4096)


async def _collect(stream: asyncio.StreamReader, log: list[str]) -> None:
    while line := await stream.readline():
        log.append(line.decode(errors="replace"))


async def all_ready(gateway: DaemonProcess) -> None:
    """Until every channel is ready."""

    async def ready() -> bool:
        return all(channel["state"] == "ready" for channel in await gateway.channels())

    await until(ready)


__all__ = ["DaemonProcess", "Simulators", "all_ready", "configuration", "daemon", "simulators", "started", "until"]
