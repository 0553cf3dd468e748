"""One rig: modems that survive, applications that retry, and a daemon that is killed again and again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import re
import select
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process
from tests.crash.books import Books, Found, Sent, Verdict, verdict
from tests.crash.plan import RANDOM, STARTING, STOPPING, Kill
from tests.daemon import DaemonProcess, configuration

MODEMS = 3
CLIENTS = 3
LATENCY_MS = 15
REPORT_DELAY_MS = 10
MOST_SENT, MOST_WRITTEN = 60, 8  # in one life
LONG = "a text that takes two segments, for one of them may be in doubt while the other was never sent " * 2
LIMIT_S = 60.0  # for anything to happen
ADDRESS = re.compile(rb"HTTP on (\S+)")
ROOT = Path(__file__).parents[2]


class HarnessError(Exception):
    """The run proves nothing: what was to happen did not."""


@dataclass
class Daemon:
    """A daemon's process, which may die at any time. `api` is None until it listens."""

    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    directory: Path
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[str] = field(default_factory=list)
    api: DaemonProcess | None = None
    reading: asyncio.Task[None] | None = None
    died_at: asyncio.Future[float] | None = None

    @property
    def last_words(self) -> str:
        return "".join(self.log[-3:]).strip()

    async def read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode(errors="replace"))
            if self.api is None and (found := ADDRESS.search(line)):
                address = found.group(1).decode()
                self.api = DaemonProcess(self.directory, address, self.process, self.session, self.log)
                self.listening.set()

    async def up(self) -> bool:
        """Whether it came to listen before it died."""
        waiting = asyncio.create_task(self.listening.wait())
        dying = asyncio.create_task(self.dead())
        try:
            async with asyncio.timeout(LIMIT_S):
                await asyncio.wait({waiting, dying}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            dying.cancel()
        return self.listening.is_set()

    async def dead(self) -> int:
        """Wait for its end, and all it said; the exit status. `died_at` has the time, to the millisecond."""
        async with asyncio.timeout(LIMIT_S):
            status = await self.process.wait()
            if self.reading is not None:
                await asyncio.shield(self.reading)
        return status

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class Rig:
    """Everything around the daemon. `run` is all there is to do with it."""

    def __init__(self, directory: Path, seed: int, kills: list[Kill], pycache: Path) -> None:
        """`pycache`: where compiled modules may lie, for most of the time of a run is the time of starts."""
        self._directory = directory
        self._kills = kills
        self._chance = random.Random(seed)
        self.books = Books()
        self._numbers = itertools.count()
        self._life = 0
        self._sent = self._written = 0  # in this life
        self._daemon: Daemon | None = None
        self._reached = asyncio.Event()  # somebody can be asked
        self._ending = False
        self._deaf_from = 0.0
        self._listener: asyncio.Task[None] | None = None
        self._watchers = ThreadPoolExecutor(2, "death")
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(pycache)}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)

    async def run(self) -> Verdict:
        """All kills, then a daemon that is left alone until everything has settled, and what it all came to."""
        async with (
            _receiver(self.books) as url,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            simulator_process(
                modems=MODEMS, directory=self._directory / "sim", latency_ms=LATENCY_MS, report_delay_ms=REPORT_DELAY_MS
            ) as sim,
        ):
            config = self._configuration(sim, url)
            (self._directory / "gatewayd.yaml").write_text(yaml.safe_dump(config))
            async with asyncio.TaskGroup() as tasks:
                clients = [tasks.create_task(self._client(session), name=f"client {i}") for i in range(CLIENTS)]
                writer = tasks.create_task(self._write_to(sim), name="subscribers")
                for kill in self._kills:
                    await self._live(session, kill)
                    self._life += 1
                self._ending = True
                daemon = await self._start(session, "")
                try:
                    await self._listening(daemon)
                    assert daemon.api is not None
                    assert self._listener is not None
                    await self._listener
                    await asyncio.gather(*clients, writer)
                    found = await self._settled(daemon.api, sim)
                    daemon.signal(signal.SIGTERM)
                    if (status := await daemon.dead()) != 0:
                        raise HarnessError(f"the last daemon ended with {status}: {daemon.last_words}")
                finally:
                    await self._end(daemon)
        return verdict(self.books, found)

    def _configuration(self, sim: SimulatorProcess, url: str) -> dict[str, Any]:
        config = configuration(
            self._directory,
            [sim.port(i) for i in range(MODEMS)],
            gateway={"in_doubt": {"wait": "2s"}, "retry": {"backoff": ["100ms"]}, "report_wait": "1h"},
            webhooks=[{"name": "crm", "url": url, "allow_private": True}],
        )
        for channel in config["channels"]:
            channel["poll_interval"] = "500ms"
        return config

    # One life.

    async def _live(self, session: aiohttp.ClientSession, kill: Kill) -> None:
        self._sent = self._written = 0
        daemon = await self._start(session, kill.point)
        try:
            if kill.kind == STARTING:
                await asyncio.sleep(kill.after_s)
                daemon.signal(signal.SIGKILL)
            elif await self._listening(daemon):
                if kill.kind in (RANDOM, STOPPING, "stop.closing"):
                    await asyncio.sleep(kill.after_s)
                    daemon.signal(signal.SIGKILL if kill.kind == RANDOM else signal.SIGTERM)
                if kill.kind == STOPPING:
                    await asyncio.sleep(kill.after_s / 2)
                    daemon.signal(signal.SIGKILL)
            try:
                status = await daemon.dead()
            except TimeoutError:
                raise HarnessError(f"{kill} was not reached in {LIMIT_S:g} s: {daemon.last_words}") from None
            if status != -signal.SIGKILL and not (kill.kind == STOPPING and status == 0):
                raise HarnessError(f"{kill}: the daemon ended by itself, with {status}: {daemon.last_words}")
        finally:
            self._reached.clear()
            await self._end(daemon)
        assert daemon.died_at is not None
        self._deaf_from = min(self._deaf_from, await daemon.died_at)
        self.books.in_hand.append(in_hand(self._directory / "spool.db"))

    async def _start(self, session: aiohttp.ClientSession, point: str) -> Daemon:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gatewayd", "run", "-c", str(self._directory / "gatewayd.yaml"),
            stderr=asyncio.subprocess.PIPE, cwd=self._directory, env=self._environment | {"GATEWAYD_CRASH_AT": point},
        )  # fmt: skip
        daemon = Daemon(process, session, self._directory)
        daemon.reading = asyncio.create_task(daemon.read(), name="log")
        daemon.died_at = asyncio.get_running_loop().run_in_executor(self._watchers, _died_at, process.pid)
        self._daemon = daemon
        return daemon

    async def _listening(self, daemon: Daemon) -> bool:
        """Let the load reach it, once it listens; False if it died before."""
        if not await daemon.up():
            return False
        self._reached.set()
        self._listener = asyncio.create_task(self._until_all_are_heard(daemon), name="listener")
        return True

    async def _until_all_are_heard(self, daemon: Daemon) -> None:
        """Note from when on every modem has a listener. It may die before."""
        assert daemon.api is not None
        with contextlib.suppress(aiohttp.ClientError, OSError, ValueError):
            while {channel["state"] for channel in await daemon.api.channels()} != {"ready"}:
                await asyncio.sleep(0.05)
            self.books.deaf.append((self._deaf_from, time.time()))
            self._deaf_from = float("inf")

    async def _end(self, daemon: Daemon) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
            self._listener = None
        daemon.signal(signal.SIGKILL)
        await daemon.dead()

    # The load.

    async def _client(self, session: aiohttp.ClientSession) -> None:
        """An application: one submission after the other, each retried until it is answered."""
        while not self._ending:
            await self._reached.wait()
            if self._sent >= MOST_SENT:
                await asyncio.sleep(0.02)
                continue
            self._sent += 1
            n = next(self._numbers)
            to = f"+5989{n // 1000 % 10}{n % 1000:03}577"
            sent = Sent(self._life, to, f"{n}: {LONG}" if n % 5 == 0 else f"out {n}")
            self.books.submitted[to] = sent
            self.books.answered[to] = await self._ask(session, sent)
            if n % 7 == 0:
                again = await self._ask(session, sent)
                if again != self.books.answered[to]:
                    self.books.contradicted.append(f"{to} is {self.books.answered[to]}, and then {again}")

    async def _ask(self, session: aiohttp.ClientSession, sent: Sent) -> int:
        form = {"destination": sent.to, "message": sent.text}
        while True:
            await self._reached.wait()
            assert self._daemon is not None
            assert self._daemon.api is not None
            url = f"http://{self._daemon.api.address}/SendSMS"
            try:
                async with (
                    asyncio.timeout(10),
                    session.post(url, data=form, headers={"Idempotency-Key": sent.to}) as got,
                ):
                    if got.status == 503:
                        continue
                    answer = await got.json(content_type=None)
                    if got.status != 200:
                        raise HarnessError(f"{sent}: {got.status}, {answer}")
                    return int(answer["idm"])
            except (aiohttp.ClientError, OSError, ValueError):  # it died before, or while, it answered
                await asyncio.sleep(0.01)

    async def _write_to(self, sim: SimulatorProcess) -> None:
        """Subscribers who write, whether anybody listens or not."""
        n = 0
        while not self._ending:
            if self._written < MOST_WRITTEN:
                self._written += 1
                sender = f"+5989{n:05}88"
                text = f"in {n} " + ("largo, con ñ y 🙂 " * 8 if n % 3 == 0 else "")
                self.books.written[sender] = (self._life, text)
                await sim.control.call({"do": "inbound", "modem": n % MODEMS, "from": sender, "text": text})
                n += 1
            await asyncio.sleep(self._chance.uniform(0.01, 0.1))

    # The end.

    async def _settled(self, api: DaemonProcess, sim: SimulatorProcess) -> Found:
        """Wait until nothing more will happen by itself."""
        open_: list[Any] = []

        async def sent() -> bool:
            open_[:] = [message for message in await api.messages() if message["state"] == 1]
            return not open_

        async def taken() -> bool:
            open_[:] = [status for i in range(MODEMS) if (status := await _stored(sim, i))]
            return not open_

        async def told() -> bool:
            ids = {event["data"]["id"] for event in self.books.told if event["type"] == "inbound.received"}
            open_[:] = [message for message in await _inbound(api) if message["id"] not in ids]
            return not open_

        async def reported() -> bool:
            open_[:] = verdict(self.books, await _found(api, sim)).faults
            return not open_

        for done in (sent, taken, told):
            await _until(done, lambda: f"{open_[:3]}")
        with contextlib.suppress(HarnessError):  # what is still open then is a fault, and the verdict says so
            await _until(reported, lambda: "", 5.0, 0.5)
        return await _found(api, sim)


def _died_at(pid: int) -> float:
    """Wait in a thread until a process ends; when that was: the event loop of the harness may be late."""
    with contextlib.suppress(ProcessLookupError):  # it is over
        fd = os.pidfd_open(pid)
        try:
            select.select([fd], [], [])
        finally:
            os.close(fd)
    return time.time()


def in_hand(path: Path) -> set[tuple[int, int, int]]:
    """What a dead daemon has left marked as handed to a SIM: SIM, message and segment."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as spool:
        try:
            return set(spool.execute("SELECT sim_id, message_id, seq FROM segments WHERE state = 'SUBMITTING'"))
        except sqlite3.OperationalError:  # it died before it had made its tables
            return set()


async def _found(api: DaemonProcess, sim: SimulatorProcess) -> Found:
    messages = [await api.message(message["idm"]) for message in await api.messages()]
    return Found(await sim.ledger(), {message["idm"]: message for message in messages}, await _inbound(api))


async def _inbound(api: DaemonProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = 0
    while after is not None:
        status, page = await api.get("/api/v1/inbound", params={"after": after, "limit": 100})
        if status != 200:
            raise HarnessError(f"inbound messages cannot be listed: {page}")
        found += page["items"]
        after = page["next"]
    return found


async def _stored(sim: SimulatorProcess, modem: int) -> dict[str, Any]:
    """What lies in a modem, or waits for it in the network; {} if nothing does."""
    status = await sim.control.call({"do": "status", "modem": modem})
    found = {"waiting": status["sim"]["waiting"]} if status["sim"]["waiting"] else {}
    for store in ("ME", "SM"):
        if slots := (await sim.control.call({"do": "store", "modem": modem, "store": store}))["slots"]:
            found[store] = slots
    return found


async def _until(
    done: Callable[[], Awaitable[bool]], tell: Callable[[], str], limit_s: float = LIMIT_S, pause_s: float = 0.05
) -> None:
    try:
        async with asyncio.timeout(limit_s):
            while not await done():
                await asyncio.sleep(pause_s)
    except TimeoutError:
        raise HarnessError(f"did not settle in {limit_s:g} s: {tell()}") from None


@asynccontextmanager
async def _receiver(books: Books) -> AsyncIterator[str]:
    """An application's webhook: it writes down what it is told."""

    async def take(request: web.Request) -> web.Response:
        books.told.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()
