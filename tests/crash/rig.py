"""One rig: modems that survive, applications that retry, and a daemon that is killed again and again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process
from tests.crash.aftermath import Hands, aftermath, prepare
from tests.crash.books import Books, Found, Verdict, verdict
from tests.crash.load import CLIENTS, KEPT, SLOW, TURN, HarnessError, Load
from tests.crash.plan import RANDOM, STARTING, STOPPING, Kill
from tests.crash.process import LIMIT_S, Daemon, died_at
from tests.crash.queue_books import Rules, archived, judge, read, reading
from tests.daemon import DaemonProcess, configuration

MODEMS = 4
LATENCY_MS = 15
REPORT_DELAY_MS = 10
INTERVALS_MS = {TURN: 30, SLOW: 1500}  # of the dialers; the second is longer than a start takes
QUOTA, SMALL_QUOTA = 100_000, 30  # segments a month; the small one is the last modem's
ROOT = Path(__file__).parents[2]


class Rig:
    """Everything around the daemon. `run` is all there is to do with it."""

    def __init__(self, directory: Path, seed: int, kills: list[Kill], pycache: Path, url: str = "") -> None:
        """`pycache`: where compiled modules may lie, for most of the time of a run is the time of starts. `url`: of the
        spool, where it is not on SQLite.
        """
        self._directory = directory
        self._url = url or f"sqlite:///{directory}/spool.db"
        self._kills = kills
        self.books = Books()
        self._load = Load(directory, self.books, random.Random(seed))
        self._archive = directory / "archive"
        self._found = Found([], {}, [])
        self._life = 0
        self._deaf_from = 0.0
        self._listener: asyncio.Task[None] | None = None
        self._watchers = ThreadPoolExecutor(2, "death")
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(pycache)}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)

    async def run(self) -> Verdict:
        """All kills, then a daemon that is left alone until everything has settled, and what it all came to."""
        self._archive.mkdir()
        async with (
            _receiver(self.books) as url,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            simulator_process(
                modems=MODEMS, directory=self._directory / "sim", latency_ms=LATENCY_MS, report_delay_ms=REPORT_DELAY_MS
            ) as sim,
        ):
            (self._directory / "gatewayd.yaml").write_text(yaml.safe_dump(self._configuration(sim, url)))
            lives = [kill for kill in self._kills if not kill.is_of_restore]
            restores = [kill for kill in self._kills if kill.is_of_restore]
            hands = self._hands(session)
            waiting: dict[int, str] = {}
            async with asyncio.TaskGroup() as tasks:
                load = [tasks.create_task(self._load.client(session), name=f"client {i}") for i in range(CLIENTS)]
                load.append(tasks.create_task(self._load.subscribers(sim, MODEMS), name="subscribers"))
                load.append(tasks.create_task(self._load.operator(), name="operator"))
                for kill in lives:
                    await self._live(session, kill, hands)
                    self._life += 1
                self._load.end()

                async def settle(api: DaemonProcess) -> None:
                    assert self._listener is not None
                    await self._listener
                    await asyncio.gather(*load)
                    await self._load.last_orders()
                    self._found = await self._settled(api, sim)
                    if restores:
                        waiting.update(await prepare(hands, api, sim))

                self._load.new_life(self._life)
                await hands.lives(settle)
            result = judge(self.books, self._found, read(self._url, self._archive), self._rules(sim))
            if restores:
                await aftermath(hands, sim, restores, waiting, max(waiting), result)
        return result

    def _hands(self, session: aiohttp.ClientSession) -> Hands:
        async def command(point: str, words: Sequence[str]) -> tuple[int, str]:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gatewayd", *words, "-c", str(self._directory / "gatewayd.yaml"),
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=self._directory,
                env=self._environment | {"GATEWAYD_CRASH_AT": point},
            )  # fmt: skip
            async with asyncio.timeout(LIMIT_S):
                output, _ = await process.communicate()
            return process.returncode or 0, output.decode(errors="replace")

        async def dies(point: str) -> tuple[int, str]:
            daemon = await self._start(session, point, "gatewayd")
            try:
                return await daemon.dead(), daemon.last_words
            finally:
                await self._end(daemon)

        async def lives(meanwhile: Callable[[DaemonProcess], Awaitable[None]]) -> None:
            daemon = await self._start(session, "", "gatewayd")
            try:
                if not await self._listening(daemon) or daemon.api is None:
                    raise HarnessError(f"the daemon does not start: {daemon.last_words}")
                await meanwhile(daemon.api)
                daemon.signal(signal.SIGTERM)
                if (status := await daemon.dead()) != 0:
                    raise HarnessError(f"the daemon ended with {status}: {daemon.last_words}")
            finally:
                await self._end(daemon)

        return Hands(self._directory, command, dies, lives)

    def _configuration(self, sim: SimulatorProcess, url: str) -> dict[str, Any]:
        """A pool of channels, the dial string's, and one outside it whose quota is soon spent."""
        *pool, small = (f"m{i}" for i in range(MODEMS))
        config = configuration(
            self._directory,
            [sim.port(i) for i in range(MODEMS)],
            url=self._url,
            gateway={
                "in_doubt": {"wait": "2s"},
                "retry": {"backoff": ["100ms"]},
                "report_wait": "1h",
                "duplicates": {"within": "1h", "action": "refuse"},
                "retention": {"archive_dir": str(self._archive)},
            },
            webhooks=[{"name": "crm", "url": url, "allow_private": True}],
            routes=[
                {
                    "name": "vip", "match": {"class": ["agent"]}, "to": [{"channel": small}, {"group": "pool"}],
                    "sticky": True,
                }
            ],
            dialers=[
                {
                    "name": campaign, "campaigns": [campaign], "pacing": {"interval": f"{interval}ms"},
                    **({"to": [{"group": "pool"}], "dial_string": f"0.{len(pool) - 1}"} if campaign == TURN else {}),
                }
                for campaign, interval in INTERVALS_MS.items()
            ],
        )  # fmt: skip
        for channel in config["channels"]:
            channel["poll_interval"] = "500ms"
            of_pool = channel["name"] in pool
            channel["tags"] = ["pool"] if of_pool else []
            # Its month does not end while this runs.
            reset_day = (datetime.now(UTC).day + 14) % 28 + 1
            channel["quota"] = {"per_month": QUOTA if of_pool else SMALL_QUOTA, "reset_day": reset_day}
        return config

    def _rules(self, sim: SimulatorProcess) -> Rules:
        *pool, small = range(MODEMS)
        sims = {sim.number(i): (sim.iccid(i), SMALL_QUOTA if i == small else QUOTA) for i in range(MODEMS)}
        return Rules(INTERVALS_MS, TURN, [f"m{i}" for i in pool], sims)

    # One life.

    async def _live(self, session: aiohttp.ClientSession, kill: Kill, hands: Hands) -> None:
        self._load.new_life(self._life)
        daemon = await self._start(session, "" if kill.is_of_backup else kill.point)
        try:
            if kill.kind == STARTING:
                await asyncio.sleep(kill.after_s)
                daemon.signal(signal.SIGKILL)
            elif await self._listening(daemon):
                if kill.is_of_backup:
                    await self._back_up(kill, hands)
                if kill.kind in (RANDOM, STOPPING, "stop.closing") or kill.is_of_backup:
                    await asyncio.sleep(kill.after_s)
                    by_itself = kill.kind in (STOPPING, "stop.closing")
                    daemon.signal(signal.SIGTERM if by_itself else signal.SIGKILL)
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
            self._load.cease()
            await self._end(daemon)
        assert daemon.died_at is not None
        self._deaf_from = min(self._deaf_from, await daemon.died_at)
        self.books.in_hand.append(await self._in_hand())

    async def _in_hand(self) -> set[tuple[int, int, int]]:
        """What a dead daemon has left marked as handed to a SIM: SIM, message and segment."""
        try:
            with reading(self._url) as rows:
                if not self._url.startswith("sqlite:"):
                    await _until(lambda: _is_alone(rows), lambda: "the server's side of the dead daemon's connections")
                return set(rows("SELECT sim_id, message_id, seq FROM segments WHERE state = 'SUBMITTING'"))
        except LookupError:  # it died before it had made its tables
            return set()

    async def _back_up(self, kill: Kill, hands: Hands) -> None:
        """One that dies leaves no backup, and the next one makes one."""
        target = self._directory / f"backup{self._life}"
        words = ["backup", str(target)]
        status, said = await hands.command(kill.point, words)
        if status != -signal.SIGKILL or target.exists():
            raise HarnessError(f"{kill}: ended by itself, with {status}: {said}")
        status, said = await hands.command("", words)
        if status or list(self._directory.glob(f"{target.name}.*")):
            raise HarnessError(f"after {kill} there is no backup: {status}, {said}")

    async def _start(self, session: aiohttp.ClientSession, point: str, module: str = "tests.crash.hurried") -> Daemon:
        self.books.begun.append(int(time.time() * 1000))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, "run", "-c", str(self._directory / "gatewayd.yaml"),
            stderr=asyncio.subprocess.PIPE, cwd=self._directory, env=self._environment | {"GATEWAYD_CRASH_AT": point},
        )  # fmt: skip
        daemon = Daemon(process, session, self._directory)
        daemon.reading = asyncio.create_task(daemon.read(), name="log")
        daemon.died_at = asyncio.get_running_loop().run_in_executor(self._watchers, died_at, process.pid)
        return daemon

    async def _listening(self, daemon: Daemon) -> bool:
        """Let the load reach it, once it listens; False if it died before."""
        if not await daemon.up():
            return False
        assert daemon.api is not None
        self._load.begin(daemon.api)
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

    # The end.

    async def _settled(self, api: DaemonProcess, sim: SimulatorProcess) -> Found:
        """Wait until nothing more will happen by itself."""
        open_: list[Any] = []

        async def sent() -> bool:
            open_[:] = [
                message
                for message in await api.messages()
                if message["state"] == 1 and (message["campaign"], message["held"]) != (KEPT, "operator")
            ]
            return not open_

        async def taken() -> bool:
            open_[:] = [status for i in range(MODEMS) if (status := await _stored(sim, i))]
            return not open_

        async def told() -> bool:
            ids = {event["data"]["id"] for event in self.books.told if event["type"] == "inbound.received"}
            open_[:] = [message for message in await _inbound(api) if message["id"] not in ids]
            return not open_

        async def reported() -> bool:
            open_[:] = verdict(self.books, await self._look(api, sim)).faults
            return not open_

        for done in (sent, taken, told):
            await _until(done, lambda: f"{open_[:3]}")
        with contextlib.suppress(HarnessError):  # what is still open then is a fault, and the verdict says so
            await _until(reported, lambda: "", 5.0, 0.5)
        return await self._look(api, sim)

    async def _look(self, api: DaemonProcess, sim: SimulatorProcess) -> Found:
        """With what retention has taken out of the spool: the last daemon takes nothing out."""
        messages = {message["idm"]: await api.message(message["idm"]) for message in await api.messages()}
        gone = {idm: record for idm, record in archived(self._archive).items() if idm not in messages}
        return Found(await sim.ledger(), {**gone, **messages}, await _inbound(api), gone.keys())


async def _is_alone(rows: Callable[[str], list[Any]]) -> bool:
    """Whether nobody else has a connection: the server may not be done with a dead daemon's last transaction yet."""
    others = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    return not rows(f"SELECT pid FROM pg_stat_activity WHERE {others}")


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
