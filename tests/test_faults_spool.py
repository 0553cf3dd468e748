"""A disk that is full, a spool that is locked or damaged, and a daemon that is killed or stopped under load.

Asserted on what the SMS centre got, and on what the daemon says of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pty
import random
import resource
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest

from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process
from gatewayd.spool.migrate import HEAD
from tests.daemon import DaemonProcess, configuration, daemon, until
from tests.faults import (
    all_ready,
    all_settled,
    check,
    hasty,
    one_line,
    post,
    refuses,
    sent_times,
    start_that_fails,
)


def disk_full(gateway: DaemonProcess, full: bool) -> None:
    """From now on no file of the daemon takes another octet, or all do again."""
    limit = 1 if full else resource.RLIM_INFINITY
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


async def test_a_full_disk_stops_the_work_and_loses_nothing(tmp_path: Path) -> None:
    config = configuration(tmp_path, [str(tmp_path / "sim" / f"modem{i}") for i in range(2)])
    async with (
        simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=50) as sim,
        daemon(tmp_path, config) as gateway,
    ):
        accepted = await post(gateway, 30)
        await sim.control.wait("submit", 6)
        disk_full(gateway, True)
        for i in range(3):
            assert await refuses(gateway, f"refused {i}")
        status, answer = await gateway.get("/readyz")
        assert (status, len(answer["reasons"])) == (503, 1)
        assert answer["reasons"][0].startswith("the spool takes no writes: ")
        assert (await gateway.get("/healthz"))[0] == 200
        assert len(await gateway.messages()) == 30, "what is there can be read"
        in_hand = len(await sim.ledger("submit"))
        for i in range(3, 6):
            await sim.control.call({"do": "inbound", "modem": 0, "from": "+59898123401", "text": f"in {i}"})
            assert await refuses(gateway, f"refused {i}")
        await asyncio.sleep(1)  # time in which a gateway that resends would do so
        assert len(await sim.ledger("submit")) - in_hand <= 2, "at most what the channels had in hand"
        disk_full(gateway, False)
        found = await all_settled(gateway)
        check(accepted, found, await sent_times(sim))
        assert {m["delivery"] for m in found.values()} == {"delivered"}
        with contextlib.closing(spool_of(tmp_path)) as spool:

            async def kept() -> bool:
                return sorted(received(spool)) == ["in 3", "in 4", "in 5"]

            await until(kept, lambda: received(spool))
        last = await gateway.send("+59898344484", "after")
        await gateway.until(last, lambda m: m["delivery"] == "delivered")
        assert not [text for text in await sent_times(sim) if text.startswith("refused")]


async def test_sigterm_while_the_disk_is_full_ends_in_time_and_doubles_nothing(tmp_path: Path) -> None:
    config = configuration(
        tmp_path,
        [str(tmp_path / "sim" / f"modem{i}") for i in range(2)],
        gateway={"shutdown_timeout": "1s", "in_doubt": {"wait": "3s"}, "report_wait": "3s"},
    )
    async with simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=100) as sim:
        async with daemon(tmp_path, config) as gateway:
            accepted = await post(gateway, 20)
            await sim.control.wait("submit", 4)
            disk_full(gateway, True)
            assert await refuses(gateway, "refused")
            async with asyncio.timeout(10):
                assert await gateway.stop() == 0
        code, said = await start_that_fails(tmp_path, config, limit=1)
        assert code == 1, said
        assert "Traceback" not in said, said
        async with daemon(tmp_path, config) as gateway:
            found = await all_settled(gateway)
            check(accepted, found, await sent_times(sim))
            assert {m["state"] for m in found.values()} <= {2, 8}


async def test_a_locked_spool_is_waited_for_then_refused_then_used_again(tmp_path: Path) -> None:
    config = configuration(tmp_path, [str(tmp_path / "sim" / f"modem{i}") for i in range(2)])
    async with (
        simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=50) as sim,
        daemon(tmp_path, config) as gateway,
    ):
        accepted = await post(gateway, 30)
        await sim.control.wait("submit", 6)
        with contextlib.closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            posting = asyncio.create_task(refuses(gateway, "refused"))
            while not posting.done():
                begun = time.monotonic()
                assert (await gateway.get("/healthz"))[0] == 200
                assert len(await gateway.messages()) == 30
                assert time.monotonic() - begun < 2, "reads do not wait for the lock"
                await asyncio.wait({posting}, timeout=0.2)
            assert await posting
            other.execute("ROLLBACK")
        found = await all_settled(gateway)
        check(accepted, found, await sent_times(sim))
        assert {m["delivery"] for m in found.values()} == {"delivered"}
        assert len(await gateway.messages()) == 30, "what was refused is not there"


async def test_a_second_daemon_on_the_spool_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0)])) as gateway,
    ):
        config = configuration(
            tmp_path, ["/dev/no-such-modem"], gateway={"control_socket": str(tmp_path / "other.sock"), "instance": "b"}
        )
        code, said = await start_that_fails(tmp_path, config)
        assert code == 1
        line = one_line(said)
        assert f"process {gateway.pid}" in line
        assert "in use" in line
        idm = await gateway.send("+59898344484", "still here")
        await gateway.until(idm, lambda found: found["delivery"] == "delivered")


async def test_a_spool_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    config = configuration(tmp_path, ["/dev/no-such-modem"])
    async with daemon(tmp_path, config) as gateway:
        assert await gateway.stop() == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as spool:
        spool.execute("UPDATE alembic_version SET version_num = '9999'")
    code, said = await start_that_fails(tmp_path, config)
    assert code == 1
    line = one_line(said)
    assert "schema 9999" in line
    assert "newer" in line
    with contextlib.closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as spool:
        spool.execute("UPDATE alembic_version SET version_num = ?", (HEAD,))
    async with daemon(tmp_path, config) as gateway:
        assert (await gateway.get("/readyz"))[0] == 200


@pytest.mark.parametrize("damage", ["overwritten", "cut off", "no file"])
async def test_a_damaged_spool_is_named_and_nothing_starts(tmp_path: Path, damage: str) -> None:
    config = configuration(tmp_path, ["/dev/no-such-modem"])
    async with daemon(tmp_path, config) as gateway:
        assert await gateway.stop() == 0
    path = tmp_path / "spool.db"
    whole = path.read_bytes()
    if damage == "overwritten":
        path.write_bytes(random.Random(7).randbytes(len(whole)))
    elif damage == "cut off":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.unlink()
        path.mkdir()
    code, said = await start_that_fails(tmp_path, config)
    assert code == 1, said
    assert str(path) in one_line(said)


def spool_of(directory: Path) -> sqlite3.Connection:
    """A reader of the daemon's spool."""
    return sqlite3.connect(f"file:{directory}/spool.db?mode=ro", uri=True)


def received(spool: sqlite3.Connection) -> list[str]:
    """The texts that came in, without repetitions."""
    return [row[0] for row in spool.execute("SELECT text FROM inbound_parts WHERE duplicate_of IS NULL")]


# The daemon itself


async def test_kills_while_messages_and_reports_come_in_lose_none(tmp_path: Path) -> None:
    """Promise 3. A report that the modem passes on at once (+CDS) while nobody listens is the modem's to lose."""
    moment = random.Random(42)
    config = hasty(tmp_path, 2, in_doubt={"wait": "4s"}, report_wait="4s")
    inbound = itertools.count()
    deaf: list[tuple[float, float]] = []  # when nobody listened, epoch seconds
    accepted: dict[int, str] = {}
    async with simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=20, report_delay_ms=30) as sim:
        for kill in range(4):
            begun = time.time()
            async with daemon(tmp_path, config) as gateway:
                await all_ready(gateway)
                deaf.append((deaf.pop()[0] if deaf else begun, time.time()))
                accepted |= await post(gateway, 20, f"out {kill},")
                until_then = time.monotonic() + moment.uniform(0.1, 0.4)
                while time.monotonic() < until_then:
                    n = next(inbound)
                    said = {"modem": n % 2, "from": "+59898123401", "text": f"in {n}"}
                    await sim.control.call({"do": "inbound", **said})
                deaf.append((time.time() - 0.2, 0))
                await gateway.kill()
        texts = [f"in {n}" for n in range(next(inbound))]
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            deaf.append((deaf.pop()[0], time.time()))
            found = await all_settled(gateway)
            with contextlib.closing(spool_of(tmp_path)) as spool:
                await until_empty(sim, 2)
                assert Counter(received(spool)) == Counter(texts), "each exactly once"
            check(accepted, found, await sent_times(sim))
            submits = {row["n"]: row["text"] for row in await sim.ledger("submit")}
            for row in await sim.ledger("report"):
                (message,) = [m for m in found.values() if m["text"] == submits[row["submit"]]]
                lost = row["how"] in {"+CDS", "dropped"} and any(start < row["t"] < end for start, end in deaf)
                assert message["delivery"] == "delivered" or lost, (row, message, deaf)


async def test_a_message_that_comes_again_is_kept_as_a_repetition(tmp_path: Path) -> None:
    """An SMS centre that missed the acknowledgement sends the same octets again."""
    config = configuration(tmp_path, [str(tmp_path / "sim" / "modem0")])
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim:
        async with daemon(tmp_path, config) as gateway:
            await sim.control.call({"do": "inbound", "modem": 0, "from": "+59898123401", "text": "hello"})
            await sim.control.wait("inbound")
            await until_empty(sim, 1)
            await gateway.kill()
        (row,) = await sim.ledger("inbound")
        await sim.control.call({"do": "inbound", "modem": 0, "tpdu": row["tpdu"]})
        async with daemon(tmp_path, config):
            await until_empty(sim, 1)
            await sim.control.call({"do": "inbound", "modem": 0, "tpdu": row["tpdu"]})
            await until_empty(sim, 1)
        with contextlib.closing(spool_of(tmp_path)) as spool:
            parts = spool.execute("SELECT id, text, duplicate_of FROM inbound_parts ORDER BY id").fetchall()
            assert parts == [(1, "hello", None), (2, "hello", 1), (3, "hello", 1)]


async def until_empty(sim: SimulatorProcess, modems: int) -> None:
    """Until no modem stores a message, and the network keeps none for one."""

    async def empty() -> bool:
        for modem in range(modems):
            status = await sim.control.call({"do": "status", "modem": modem})
            stores = [await sim.control.call({"do": "store", "modem": modem, "store": name}) for name in ("ME", "SM")]
            if status["sim"]["waiting"] or any(store["slots"] for store in stores):
                return False
        return True

    await until(empty)


async def test_a_full_store_is_emptied_and_the_network_delivers_the_rest(tmp_path: Path) -> None:
    config = configuration(tmp_path, [str(tmp_path / "sim" / "modem0")])
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim:
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            await gateway.kill()
        await sim.control.call({"do": "store", "modem": 0, "store": "ME", "size": 3})
        await sim.control.call({"do": "store", "modem": 0, "store": "SM", "size": 2})
        for i in range(8):
            await sim.control.call({"do": "inbound", "modem": 0, "from": "+59898123401", "text": f"in {i}"})
        assert (await sim.control.call({"do": "status", "modem": 0}))["sim"]["waiting"] == 5
        async with daemon(tmp_path, config) as gateway:
            await until_empty(sim, 1)
            for i in range(8, 12):  # class 2 goes to the SIM, whatever store is chosen
                said = {"modem": 0, "from": "+59898123401", "text": f"in {i}", "class": 2}
                await sim.control.call({"do": "inbound", **said})
            await until_empty(sim, 1)
            await gateway.until(await gateway.send("+59898344484", "out"), lambda m: m["delivery"] == "delivered")
        with contextlib.closing(spool_of(tmp_path)) as spool:
            assert sorted(received(spool)) == sorted(f"in {i}" for i in range(12))


async def test_sigterm_under_load_waits_for_slow_modems_and_leaves_no_doubt(tmp_path: Path) -> None:
    config = configuration(
        tmp_path, [str(tmp_path / "sim" / f"modem{i}") for i in range(4)], gateway={"shutdown_timeout": "15s"}
    )
    async with simulator_process(modems=4, directory=tmp_path / "sim") as sim:
        await sim.control.call({"do": "latency", "ms": [300, 2000]})
        async with daemon(tmp_path, config) as gateway:
            accepted = await post(gateway, 20)
            await sim.control.wait("submit", 6)
            async with asyncio.timeout(20):
                assert await gateway.stop() == 0
            answered = len(await sim.ledger("answered"))
            assert answered == len(await sim.ledger("submit")) < 20, "what was in hand was waited for, no more began"
        await sim.control.call({"do": "latency", "ms": 0})
        async with daemon(tmp_path, config) as gateway:
            assert not [m for m in await gateway.messages() if m["state"] == 8]
            found = await all_settled(gateway)
            check(accepted, found, await sent_times(sim))
            assert {m["state"] for m in found.values()} == {2}


async def test_sigterm_does_not_wait_for_a_modem_that_never_answers(tmp_path: Path) -> None:
    config = configuration(
        tmp_path,
        [str(tmp_path / "sim" / "modem0")],
        gateway={"shutdown_timeout": "500ms", "in_doubt": {"wait": "1s"}},
    )
    async with simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=3_600_000) as sim:
        async with daemon(tmp_path, config) as gateway:
            await sim.control.call({"do": "fault", "modem": 0, "name": "silent"})
            accepted = await post(gateway, 3)
            await sim.control.wait("submit")
            async with asyncio.timeout(8):
                assert await gateway.stop() == 0
            assert len(await sim.ledger("submit")) == 1
        async with daemon(tmp_path, config) as gateway:
            await gateway.until(1, lambda m: m["delivery"] == "unknown")
            message = await gateway.message(1)
            assert message["state"] == 8
            assert "the daemon stopped" in message["attempts"][0]["detail"]
            for idm in (2, 3):
                await gateway.until(idm, lambda m: m["state"] == 2)
            assert await sent_times(sim) == dict.fromkeys(accepted.values(), 1)


async def test_sigterm_does_not_wait_for_a_port_that_does_not_answer(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    try:
        async with daemon(tmp_path, configuration(tmp_path, [os.ttyname(slave)])) as gateway:

            async def probing() -> bool:
                return bool((await gateway.channels())[0]["state"] == "starting")

            await until(probing)
            async with asyncio.timeout(8):
                assert await gateway.stop() == 0
    finally:
        os.close(master)
        os.close(slave)
