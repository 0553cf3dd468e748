"""What the service manager is told: over a real datagram socket, by real processes, with the test as the manager."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import yaml

from gatewayd.modems.simulator.process import simulator_process
from gatewayd.service import Heart, Notifier, Watchdog, task_heart, watchdog_period_s
from tests.daemon import configuration

LIMIT_S = 60
PERIOD_S = 1.0
"""The watchdog's period in these tests."""


class Manager:
    """A service manager's end of $NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def close(self) -> None:
        self._socket.close()

    async def next(self, limit_s: float = LIMIT_S) -> dict[str, str]:
        """The next datagram, as variables. Raises TimeoutError."""
        async with asyncio.timeout(limit_s):
            data = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
        return dict(line.split("=", 1) for line in data.decode().splitlines())

    async def until(self, key: str) -> dict[str, str]:
        """The next datagram that has `key`."""
        while True:
            found = await self.next()
            if key in found:
                return found

    async def silent(self, for_s: float) -> None:
        """Return when nothing came for a while; what is under way before that is dropped."""
        async with asyncio.timeout(LIMIT_S):
            with contextlib.suppress(TimeoutError):
                while True:
                    await self.next(for_s)

    def nothing(self) -> bool:
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        return False


@contextmanager
def listening(address: str) -> Iterator[Manager]:
    found = Manager(address)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with listening(str(tmp_path / "notify")) as found:
        yield found


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_each_notice_as_sd_notify_has_it(kind: str, tmp_path: Path) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@gatewayd-test-{os.getpid()}"
    with listening(address) as manager:
        notifier = Notifier({"NOTIFY_SOCKET": address})
        notifier.starting("500 held so far")
        assert await manager.next() == {"EXTEND_TIMEOUT_USEC": "60000000", "STATUS": "500 held so far"}
        notifier.ready("HTTP on 127.0.0.1:8080")
        assert await manager.next() == {"READY": "1", "STATUS": "HTTP on 127.0.0.1:8080"}
        notifier.ready()
        assert await manager.next() == {"READY": "1"}
        notifier.status("two\nlines, é")
        assert await manager.next() == {"STATUS": "two lines, é"}  # a newline would begin another variable
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier.reloading()
        told = await manager.next()
        assert told["RELOADING"] == "1"
        assert before <= int(told["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier.stopping()
        assert await manager.next() == {"STOPPING": "1"}
        notifier.watchdog()
        assert await manager.next() == {"WATCHDOG": "1"}
        notifier.status("")
        assert manager.nothing()


def test_without_a_service_manager_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({})
    for notice in (notifier.ready, notifier.reloading, notifier.stopping, notifier.watchdog):
        notice()
    assert caplog.records == []


@pytest.mark.parametrize("address", ["/nowhere/notify", "x" * 200, "vsock:2:1", "/a\0b"])
def test_a_manager_out_of_reach_is_noted_once_and_raises_nothing(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.watchdog()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "the service manager cannot be told READY=1" in record.getMessage()


def test_a_manager_that_does_not_read_holds_nothing_up(manager: Manager) -> None:
    """The queue of a datagram socket is short; who writes on waits, but not for ever."""
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                filler.sendto(b"STATUS=x", manager.address)
    notifier.watchdog()


@pytest.mark.parametrize(
    ("variables", "period_s"),
    [
        ({"WATCHDOG_USEC": "120000000"}, 120.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_whom_the_manager_watches(variables: dict[str, str], period_s: float | None) -> None:
    assert watchdog_period_s(variables) == period_s


class SwitchedHeart:
    """Beats while `alive` is set; `how` it dies is chosen."""

    def __init__(self, name: str, how: str = "hangs") -> None:
        self.name = name
        self.alive = True
        self.how = how

    async def beat(self) -> None:
        if self.alive:
            return
        if self.how == "raises":
            raise RuntimeError("the modem ate it")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.how == "hangs":
                raise
            await asyncio.Event().wait()  # deaf to being cancelled


@asynccontextmanager
async def watched(manager: Manager, hearts: Sequence[Heart]) -> AsyncIterator[None]:
    variables = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(int(PERIOD_S * 1e6))}
    watchdog = Watchdog(Notifier(variables), lambda: hearts, variables)
    task = asyncio.create_task(watchdog.run(), name="watchdog")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("how", ["hangs", "raises", "is deaf"])
async def test_fed_while_every_heart_beats(how: str, manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    good, bad = SwitchedHeart("dispatcher m0"), SwitchedHeart("spool writer", how)
    async with watched(manager, [good, bad]):
        for _ in range(3):
            assert await manager.next() == {"WATCHDOG": "1"}
        bad.alive = False
        await manager.silent(2 * PERIOD_S)
        critical = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
        assert len(critical) == 1, "once, however long it lasts"
        assert critical[0].startswith("spool writer does not answer: ")
        assert ("the modem ate it" if how == "raises" else "no heartbeat within") in critical[0]
        bad.alive = True
        assert await manager.next() == {"WATCHDOG": "1"}
        assert "spool writer answers again; the watchdog is fed" in caplog.messages
    if how == "is deaf":
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


async def test_a_task_that_waits_is_alive_and_one_that_ended_is_not(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    failing = asyncio.Event()

    async def work() -> None:
        await failing.wait()
        raise ValueError("no such lane")

    task = asyncio.create_task(work(), name="dispatcher m0")
    async with watched(manager, [task_heart(task)]):
        for _ in range(6):  # two periods in which it did nothing
            assert await manager.next() == {"WATCHDOG": "1"}
        failing.set()
        await manager.silent(2 * PERIOD_S)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert said.startswith("dispatcher m0 does not answer: its task failed: ValueError('no such lane')")
    assert task.exception() is not None


async def test_hearts_that_cannot_be_asked_for_are_no_silent_death(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    variables = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(int(PERIOD_S * 1e6))}
    broken = True

    def hearts() -> list[Heart]:
        if broken:
            raise KeyError("m0")
        return []

    task = asyncio.create_task(Watchdog(Notifier(variables), hearts, variables).run(), name="watchdog")
    await manager.silent(PERIOD_S)
    assert any(record.levelno == logging.CRITICAL and record.exc_info for record in caplog.records)
    broken = False
    assert await manager.next() == {"WATCHDOG": "1"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_nobody_watches(manager: Manager) -> None:
    variables = {"NOTIFY_SOCKET": manager.address}
    async with asyncio.timeout(LIMIT_S):
        await Watchdog(Notifier(variables), list, variables).run()
    assert manager.nothing()


HANG_ON_SIGNAL = """
import signal, sys, time
def hang(number, frame):
    sys.stderr.write("hanging\\n")
    time.sleep(100000)
signal.signal(signal.SIGUSR1, hang)
"""
BARE_LOOP = (
    HANG_ON_SIGNAL
    + """
import asyncio
from gatewayd.service import Notifier, Watchdog, task_heart
async def main():
    notifier = Notifier()
    waits = asyncio.create_task(asyncio.Event().wait(), name="dispatcher m0")
    watchdog = asyncio.create_task(Watchdog(notifier, lambda: [task_heart(waits)]).run(), name="watchdog")
    notifier.ready("waiting")
    await asyncio.gather(waits, watchdog)
asyncio.run(main())
"""
)
DAEMON = (
    HANG_ON_SIGNAL
    + """
from gatewayd.cli import main
sys.argv = ["gatewayd", "run", "-c", sys.argv[1]]
main()
"""
)


@asynccontextmanager
async def managed(manager: Manager, script: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that the manager watches, from READY=1 on."""
    variables = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": str(int(PERIOD_S * 1e6)),
        "PYTHONFAULTHANDLER": "1",  # as the unit has it
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *arguments, stderr=asyncio.subprocess.PIPE, env=os.environ | variables
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def hangs_and_is_killed(manager: Manager, process: asyncio.subprocess.Process) -> str:
    """Hang its loop; kill it as systemd does when nothing feeds the watchdog. What it said on standard error."""
    process.send_signal(signal.SIGUSR1)
    await manager.silent(3 * PERIOD_S)
    assert process.returncode is None, "it hangs, it did not end"
    process.send_signal(signal.SIGABRT)
    async with asyncio.timeout(LIMIT_S):
        _, said = await process.communicate()
    assert process.returncode == -signal.SIGABRT
    return said.decode()


async def test_a_loop_that_hangs_is_killed_and_one_that_waits_is_not(manager: Manager) -> None:
    async with managed(manager, BARE_LOOP) as process:
        assert (await manager.until("READY"))["STATUS"] == "waiting"
        for _ in range(9):  # three periods
            await manager.until("WATCHDOG")
        said = await hangs_and_is_killed(manager, process)
    assert "hanging" in said
    assert "in hang" in said, "the journal shows where it stood"


async def test_the_daemon_is_ready_when_http_listens_feeds_while_it_waits_and_is_killed_when_it_hangs(
    manager: Manager, tmp_path: Path
) -> None:
    async with simulator_process(modems=1, directory=tmp_path / "sim") as simulator:
        path = tmp_path / "gatewayd.yaml"
        path.write_text(yaml.safe_dump(configuration(tmp_path, [simulator.port(0)])))
        async with managed(manager, DAEMON, str(path)) as process:
            status = (await manager.until("READY"))["STATUS"]
            host, _, port = status.rpartition(" ")[2].rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port))  # at once: it listens
            writer.close()
            await writer.wait_closed()
            for _ in range(9):  # nothing to send, nothing happens: that is no reason to be killed
                await manager.until("WATCHDOG")
            said = await hangs_and_is_killed(manager, process)
    assert "in hang" in said


async def test_the_daemon_says_that_it_stops(manager: Manager, tmp_path: Path) -> None:
    path = tmp_path / "gatewayd.yaml"
    path.write_text(yaml.safe_dump(configuration(tmp_path, [])))
    async with managed(manager, DAEMON, str(path)) as process:
        await manager.until("READY")
        process.terminate()
        await manager.until("STOPPING")
        async with asyncio.timeout(LIMIT_S):
            await process.communicate()
        assert process.returncode == 0
