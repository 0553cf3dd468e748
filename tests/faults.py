"""What the fault tests share: a daemon in a hurry, a load for it, and what has to hold at the end."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gatewayd.modems.simulator.process import SimulatorProcess
from tests.daemon import DaemonProcess, configuration, until

SUBMIT_TIMEOUT = "1s"
DOUBT_WAIT = "2s"


def hasty(directory: Path, modems: int, **gateway: Any) -> dict[str, Any]:
    """A configuration that gives up soon, for modems 0 … of the simulator in `directory`/sim."""
    config = configuration(
        directory,
        [str(directory / "sim" / f"modem{i}") for i in range(modems)],
        gateway={"in_doubt": {"wait": DOUBT_WAIT}, "retry": {"backoff": ["100ms"]}, "report_wait": "3s", **gateway},
    )
    for channel in config["channels"]:
        channel["submit_timeout"] = SUBMIT_TIMEOUT
        channel["poll_interval"] = "500ms"
    return config


async def post(gateway: DaemonProcess, count: int, prefix: str = "text", **fields: Any) -> dict[int, str]:
    """Submit that many texts, each to a number of its own; the texts by idm."""
    texts = [f"{prefix} {i}" for i in range(count)]
    body = [{"to": f"+59898{i:04}77", "text": text, **fields} for i, text in enumerate(texts)]
    status, answer = await gateway.post("/api/v1/messages", json=body)
    assert status == 202, answer
    return {item["idm"]: text for item, text in zip(answer["items"], texts, strict=True)}


async def all_settled(gateway: DaemonProcess) -> dict[int, dict[str, Any]]:
    """Wait until every message has come to an end; them, with their history, by idm."""

    def open_(message: dict[str, Any]) -> bool:
        if message["state"] == 2:
            return bool(message["delivery"] == "pending")
        return bool(message["state"] == 1 or (message["state"] == 8 and message["delivery"] == "pending"))

    waiting: list[int] = []

    async def done() -> bool:
        waiting[:] = [m["idm"] for m in await gateway.messages() if open_(m)]
        return not waiting

    async def tell() -> object:
        return [(await gateway.message(idm))["explain"] for idm in waiting[:5]]

    try:
        await until(done)
    except AssertionError:
        raise AssertionError(f"not settled: {await tell()}") from None
    return {m["idm"]: await gateway.message(m["idm"]) for m in await gateway.messages()}


async def sent_times(sim: SimulatorProcess) -> Counter[str]:
    """How often each text was accepted by the SMS centre."""
    return Counter(row["text"] for row in await sim.ledger("submit"))


def check(accepted: Mapping[int, str], found: Mapping[int, dict[str, Any]], times: Mapping[str, int]) -> None:
    """Nothing lost, nothing twice, and what is said is true."""
    assert set(accepted) == set(found)
    assert {text: count for text, count in times.items() if count > 1} == {}, "sent twice"
    for idm, text in accepted.items():
        message = found[idm]
        state, explained = message["state"], message["explain"].lower()
        assert times.get(text, 0) == 1 or state in {5, 8}, f"lost: {message}"
        if state == 5:
            assert text not in times, f"said to have failed, but sent: {message}"
            assert explained.startswith("failed"), explained
        elif state == 8:
            assert "nobody knows" in explained or "in doubt" in explained or "given up" in explained, explained
        elif message["delivery"] == "delivered":
            assert explained.startswith("delivered"), explained


async def all_ready(gateway: DaemonProcess) -> None:
    async def ready() -> bool:
        return all(channel["state"] == "ready" for channel in await gateway.channels())

    await until(ready)


async def refuses(gateway: DaemonProcess, text: str) -> bool:
    """Whether a submission is answered with 503. Nothing of it must ever be seen again."""
    status, answer = await gateway.post("/SendSMS", data={"destination": "+59898344484", "message": text})
    assert status in {200, 503}, answer
    if status == 503:
        assert answer["status"] == 503, "a problem document"
    return bool(status == 503)


async def start_that_fails(directory: Path, config: dict[str, Any], *, limit: int | None = None) -> tuple[int, str]:
    """Start a daemon that must not come up: its exit status and all it said. `limit`: of RLIMIT_FSIZE."""
    path = directory / "other.yaml"
    path.write_text(yaml.safe_dump(config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gatewayd", "run", "-c", str(path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        cwd=directory, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    try:
        if limit is not None:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode()


def one_line(said: str) -> str:
    """The one line that a refusal consists of."""
    lines = [line for line in said.splitlines() if ": warning: " not in line]  # of the configuration: no such port
    assert len(lines) == 1, said
    return lines[0]
