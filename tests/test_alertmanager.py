"""A real Alertmanager posts to a real daemon: one SMS for each group and status, whatever happens to the answers.

Asserted on what the SMS centre got. Between the two stands a relay that can lose, spoil or hold back answers.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from gatewayd.config import parse
from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process
from tests.daemon import DaemonProcess, configuration, daemon, until
from tests.faults import all_ready

pytestmark = pytest.mark.needs("prometheus-alertmanager", "prometheus-alertmanager")

ONCALL = "+59898344484"
GONE = 2**20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Relay:
    """Passes posts on. `spoil` gets each answer's status and says which one to give instead; GONE: none at all."""

    target: str
    url: str = ""
    seen: list[tuple[str, int, Any]] = field(default_factory=list)  # path, status and answer of the daemon
    spoil: Callable[[web.Request, int], Awaitable[int]] | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"Content-Type": request.headers["Content-Type"]}
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.post(self.target + request.path, data=body, headers=headers) as response,
            ):
                status, answer = response.status, await response.read()
        except aiohttp.ClientError:
            return web.Response(status=502)
        self.seen.append((request.path, status, json.loads(answer)))
        if self.spoil is not None:
            status = await self.spoil(request, status)
        if status == GONE:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionError("the answer is lost")
        return web.Response(status=status, body=answer)


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[Relay]:
    made = Relay(f"http://127.0.0.1:{port}")
    app = web.Application()
    app.router.add_post("/{path:.*}", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        await runner.cleanup()


@dataclass
class Alertmanager:
    """A running Alertmanager."""

    url: str
    session: aiohttp.ClientSession
    log: Path

    async def fire(self, name: str, *, resolved: bool = False, **labels: str) -> None:
        """An alert begins, or is over."""
        now = datetime.now(UTC)
        ends = now - timedelta(seconds=1) if resolved else now + timedelta(hours=1)
        alert = {
            "labels": {"alertname": name, "severity": "critical", **labels},
            "annotations": {"summary": f"{name} is not well"},
            "startsAt": (now - timedelta(minutes=1)).replace(microsecond=0).isoformat() if not resolved else None,
            "endsAt": ends.isoformat(),
        }
        body = [{key: value for key, value in alert.items() if value is not None}]
        async with self.session.post(f"{self.url}/api/v2/alerts", json=body) as response:
            assert response.status == 200, await response.text()


@asynccontextmanager
async def alertmanager(directory: Path, hook: str) -> AsyncIterator[Alertmanager]:
    """Start one that posts at once, and again every second as long as an alert fires."""
    directory.mkdir()
    config = {
        "route": {
            "receiver": "sms", "group_by": ["alertname"],
            "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1s",
        },
        "receivers": [{"name": "sms", "webhook_configs": [{"url": hook, "send_resolved": True}]}],
    }  # fmt: skip
    (directory / "alertmanager.yml").write_text(yaml.safe_dump(config))
    port, log = free_port(), directory / "log"
    binary = shutil.which("prometheus-alertmanager")
    assert binary is not None
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            binary, f"--config.file={directory}/alertmanager.yml", f"--storage.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
            stdout=output, stderr=output,
        )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as session:
            running = Alertmanager(f"http://127.0.0.1:{port}", session, log)

            async def ready() -> bool:
                assert process.returncode is None, log.read_text()
                try:
                    async with session.get(f"{running.url}/-/ready") as response:
                        return response.status == 200
                except aiohttp.ClientError:
                    return False

            await until(ready, log.read_text)
            yield running
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def config(directory: Path, port: int) -> dict[str, Any]:
    group = {"name": "oncall", "to": [ONCALL]}
    return configuration(
        directory,
        [str(directory / "sim" / "modem0")],
        http={"listen": f"127.0.0.1:{port}", "alertmanager": {"groups": [group]}},
    )


async def sent(sim: SimulatorProcess) -> Counter[str]:
    """How often the SMS centre took each text."""
    rows = await sim.ledger("submit")
    assert {row["to"] for row in rows} <= {ONCALL}
    return Counter(row["text"] for row in rows)


async def sent_once(sim: SimulatorProcess, *beginnings: str) -> None:
    """Wait until texts that begin so have come, and no other, each once."""

    async def there() -> bool:
        return len(await sent(sim)) >= len(beginnings)

    await until(there)
    found = await sent(sim)
    for beginning in beginnings:
        assert [count for text, count in found.items() if text.startswith(beginning)] == [1], found
    assert len(found) == len(beginnings), found


async def more(hook: Relay, posts: int) -> None:
    """Wait for that many posts that the daemon answers with 200."""
    since = len(hook.seen)

    async def came() -> bool:
        return sum(status == 200 for _, status, _ in hook.seen[since:]) >= posts

    await until(came, lambda: hook.seen[since:])


async def test_one_sms_for_each_group_and_status(tmp_path: Path) -> None:
    """Firing, still firing (posted again each second), resolved, and firing anew."""
    port = free_port()
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, config(tmp_path, port)) as gateway,
        relay(port) as hook,
        alertmanager(tmp_path / "am", f"{hook.url}/alertmanager/oncall") as alerts,
    ):
        await all_ready(gateway)
        await alerts.fire("HighLoad", instance="web1")
        await alerts.fire("DiskFull", instance="db1")
        await sent_once(sim, "FIRING 1: HighLoad (critical): web1: HighLoad is not well", "FIRING 1: DiskFull")
        await more(hook, 4)
        await sent_once(sim, "FIRING 1: HighLoad", "FIRING 1: DiskFull")
        await alerts.fire("HighLoad", instance="web1", resolved=True)
        await sent_once(sim, "FIRING 1: HighLoad", "FIRING 1: DiskFull", "RESOLVED 1: HighLoad")
        await more(hook, 2)
        await alerts.fire("DiskFull", instance="db2")  # the group has changed
        await sent_once(
            sim, "FIRING 1: HighLoad", "FIRING 1: DiskFull", "RESOLVED 1: HighLoad", "FIRING 2: DiskFull (critical): db"
        )
        assert sum(not answer["duplicate"] for _, _, answer in hook.seen) == 4
        assert sum(answer["duplicate"] for _, _, answer in hook.seen) >= 4
        (message,) = [m for m in await gateway.messages() if m["text"].startswith("FIRING 1: HighLoad")]
        assert (message["class"], message["priority"], message["segment_count"]) == ("alert", 9000, 1)


@pytest.mark.parametrize(("fault", "times"), [("lost", 2), ("spoilt", 2), ("late", 1), ("killed", 2)])
async def test_an_answer_that_does_not_arrive_sends_nothing_twice(tmp_path: Path, fault: str, times: int) -> None:
    """The text is on disk and the answer does not come: Alertmanager posts again, and is told the answer of then."""
    port = free_port()
    settings = config(tmp_path, port)
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        relay(port) as hook,
        alertmanager(tmp_path / "am", f"{hook.url}/alertmanager/oncall") as alerts,
    ):
        faults = 0

        async def spoil(request: web.Request, status: int) -> int:
            nonlocal faults
            faults += 1
            if faults > times:
                return status
            if fault == "late":  # until Alertmanager has given up, which takes it 10 s at least
                await until(lambda: asyncio.sleep(0, request.transport is None or request.transport.is_closing()))
            elif fault == "killed":
                await running[-1].kill()
            return 503 if fault == "spoilt" else GONE

        hook.spoil = spoil
        running: list[DaemonProcess] = []

        async def live() -> None:
            """Run the daemon, and start it again when it was killed."""
            while True:
                async with daemon(tmp_path, settings) as gateway:
                    running.append(gateway)
                    await gateway.process.wait()

        living = asyncio.create_task(live())
        try:
            await until(lambda: asyncio.sleep(0, bool(running)))
            await alerts.fire("HighLoad", instance="web1")
            await more(hook, 4)
            await sent_once(sim, "FIRING 1: HighLoad")
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
        assert not living.done() or living.cancelled(), "the daemon did not start again"
        answers = [answer for _, status, answer in hook.seen if status == 200]
        assert [answer["duplicate"] for answer in answers[:4]] == [False, True, True, True]
        assert len({tuple(answer["idm"]) for answer in answers}) == 1
        assert len(running) == (1 + times if fault == "killed" else 1)


def test_the_examples_in_the_document_are_right(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs/dropins.md").read_text()
    ours, theirs = [], []
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        (theirs if "webhook_configs" in block else ours).append(block)
    assert (len(ours), len(theirs)) == (2, 1)
    for block in ours:
        parse(f"{block}\nspool: {{url: 'sqlite:////x/spool.db'}}\nchannels: []\n")
    path = tmp_path / "alertmanager.yml"
    path.write_text(theirs[0])
    amtool = shutil.which("amtool")
    assert amtool is not None, "it comes with Debian's prometheus-alertmanager"
    subprocess.run([amtool, "check-config", str(path)], check=True, capture_output=True, timeout=60)
