"""A simulator in a process of its own, for tests and benchmarks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gatewayd.modems.simulator.control import SimulatorControl, SimulatorError
from gatewayd.modems.simulator.interfaces import Row
from gatewayd.modems.simulator.server import SOCKET_NAME

START_LIMIT_S = 30.0
STOP_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class SimulatorProcess:
    """A running simulator. Modems count from 0."""

    control: SimulatorControl
    pid: int
    _modems: list[tuple[str, str, str]]

    def port(self, modem: int = 0) -> str:
        """The path of a modem's serial device."""
        return self._modems[modem][0]

    def number(self, modem: int = 0) -> str:
        """The E.164 number of its SIM."""
        return self._modems[modem][1]

    def iccid(self, modem: int = 0) -> str:
        return self._modems[modem][2]

    async def ledger(self, kind: str | None = None) -> list[Row]:
        """The rows of the SMS centre's ledger, all or of one kind."""
        return await self.control.ledger(kind)


@asynccontextmanager
async def simulator_process(
    *,
    modems: int = 1,
    directory: Path,
    latency_ms: float = 0,
    report_delay_ms: float = 0,
    personality: str = "generic",
    number_base: str = "+5989900",
) -> AsyncIterator[SimulatorProcess]:
    """Start a simulator and wait until it is ready; end it at exit. It ends by itself if this process dies."""
    arguments = {
        "--modems": modems,
        "--dir": directory,
        "--latency-ms": latency_ms,
        "--report-delay-ms": report_delay_ms,
        "--personality": personality,
        "--number-base": number_base,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gatewayd.modems.simulator",
        "--exit-on-eof",
        *(str(part) for pair in arguments.items() for part in pair),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        process_group=0,  # Ctrl-C at the terminal is for who uses it: the modems stay until that one is done
    )
    try:
        lines = await _until_ready(process)
        control = SimulatorControl(directory / SOCKET_NAME)
        yield SimulatorProcess(control, process.pid, lines)
    finally:
        await _stop(process)


async def _until_ready(process: asyncio.subprocess.Process) -> list[tuple[str, str, str]]:
    assert process.stdout is not None
    modems: list[tuple[str, str, str]] = []
    async with asyncio.timeout(START_LIMIT_S):
        while line := (await process.stdout.readline()).decode().strip():
            if line == "ready":
                return modems
            path, number, iccid = line.rsplit(" ", 2)
            modems.append((path, number, iccid))
    raise SimulatorError(f"the simulator ended at once, with code {await process.wait()}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_LIMIT_S):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
