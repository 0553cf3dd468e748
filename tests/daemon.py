"""A real daemon in a process of its own, against the simulator in another: for end-to-end tests and the bench."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from gatewayd.modems.simulator.process import SimulatorProcess

START_LIMIT_S = 30
WAIT_LIMIT_S = 60
LISTENING = re.compile(rb"HTTP on (\S+)")


def configuration(
    directory: Path, ports: Sequence[str], *, interval: str = "0s", url: str = "", **changes: Any
) -> dict[str, Any]:
    """A configuration with one channel for each port: m0, m1, … `changes` replace top-level keys."""
    config: dict[str, Any] = {
        "gateway": {
            "home_country": "UY",
            "control_socket": str(directory / "control.sock"),
            "clock": {"require_sync": False},  # a machine for tests may have started just now
        },
        "spool": {"url": url or f"sqlite:///{directory}/spool.db"},
        "http": {"listen": "127.0.0.1:0", "trusted_networks": ["127.0.0.0/8"]},
        "channels": [
            {"name": f"m{i}", "type": "modem", "port": port, "pacing": {"interval": interval}}
            for i, port in enumerate(ports)
        ],
    }
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    return config


@dataclass
class DaemonProcess:
    """One running daemon. `log` fills with its standard error."""

    directory: Path
    address: str
    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    log: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    async def post(self, path: str, **arguments: Any) -> tuple[int, Any]:
        """POST; status and decoded body."""
        async with self.session.post(f"http://{self.address}{path}", **arguments) as response:
            return response.status, await response.json(content_type=None)

    async def get(self, path: str, **arguments: Any) -> tuple[int, Any]:
        async with self.session.get(f"http://{self.address}{path}", **arguments) as response:
            return response.status, await response.json(content_type=None)

    async def channels(self) -> list[dict[str, Any]]:
        """What the channels are doing, as the control socket says."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.directory / "control.sock"))) as session,
            session.get("http://gatewayd/api/v1/channels") as response,
        ):
            return list((await response.json())["items"])

    async def operate(self, path: str, body: Any = None) -> Any:
        """POST over the control socket, as the command line does."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.directory / "control.sock"))) as session,
            session.post(f"http://gatewayd/api/v1/{path}", json=body or {}) as response,
        ):
            answer = await response.json()
            assert response.status < 300, answer
            return answer

    async def send(self, to: str, text: str, **arguments: Any) -> int:
        """POST /SendSMS; the idm."""
        status, answer = await self.post("/SendSMS", data={"destination": to, "message": text}, **arguments)
        assert status == 200, answer
        return int(answer["idm"])

    async def message(self, idm: int) -> dict[str, Any]:
        status, answer = await self.get(f"/api/v1/messages/{idm}")
        assert status == 200, answer
        return dict(answer)

    async def messages(self) -> list[dict[str, Any]]:
        """Every message, page by page."""
        found: list[dict[str, Any]] = []
        after = 0
        while True:
            status, page = await self.get("/api/v1/messages", params={"after": after, "limit": 1000})
            assert status == 200, page
            if not page["items"]:
                return found
            found += page["items"]
            after = found[-1]["idm"]

    async def until(self, idm: int, met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask for the message until `met`."""
        found: dict[str, Any] = {}

        async def done() -> bool:
            nonlocal found
            found = await self.message(idm)
            return met(found)

        await until(done, lambda: found)
        return found

    async def reload(self, config: dict[str, Any]) -> str:
        """Write another configuration, send SIGHUP; the line of the log that says what came of it."""
        (self.directory / "gatewayd.yaml").write_text(yaml.safe_dump(config))
        seen = len(self.log)
        self.process.send_signal(signal.SIGHUP)
        found = ""

        async def answered() -> bool:
            nonlocal found
            lines = self.log[seen:]
            found = next((line for line in lines if "configuration re" in line or "the reload failed" in line), "")
            return bool(found)

        await until(answered, lambda: self.log[seen:])
        return found

    async def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


async def until(met: Callable[[], Any], tell: Callable[[], object] = lambda: "") -> None:
    """Poll `met` (an async function) until it is true; bounded, and `tell` says what was last seen."""
    try:
        async with asyncio.timeout(WAIT_LIMIT_S):
            while not await met():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"did not happen in {WAIT_LIMIT_S} s; last seen: {tell()}") from None


@asynccontextmanager
async def daemon(
    directory: Path, config: dict[str, Any], *, module: str = "gatewayd", **environment: str
) -> AsyncIterator[DaemonProcess]:
    """Start `gatewayd run` and wait until it listens; end it at exit. `module`: what stands in for gatewayd's."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "gatewayd.yaml"
    path.write_text(yaml.safe_dump(config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, "run", "-c", str(path), stderr=asyncio.subprocess.PIPE, cwd=directory,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), **environment},
    )  # fmt: skip
    log: list[str] = []
    assert process.stderr is not None
    reading: asyncio.Task[None] | None = None
    try:
        address = ""
        async with asyncio.timeout(START_LIMIT_S):
            while not address:
                line = await process.stderr.readline()
                assert line, f"the daemon ended: {''.join(log)}"
                log.append(line.decode(errors="replace"))
                if found := LISTENING.search(line):
                    address = found.group(1).decode()
        reading = asyncio.create_task(_collect(process.stderr, log))
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            running = DaemonProcess(directory, address, process, session, log)
            yield running
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(40):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if reading is not None:
            await reading


async def _collect(stream: asyncio.StreamReader, log: list[str]) -> None:
    while line := await stream.readline():
        log.append(line.decode(errors="replace"))


async def delivered(simulator: SimulatorProcess) -> list[str]:
    """The texts that arrived whole at emulated subscribers, in order of arrival."""
    return [row["text"] for row in await simulator.ledger("delivered")]


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
