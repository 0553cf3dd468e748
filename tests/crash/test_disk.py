"""A disk that is full, read-only, or lies; a file that is damaged; a migration that is killed.

tests/test_faults_spool.py has the disk that takes nothing by a limit of the process; here the file system says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import event

from gatewayd.modems.simulator.process import simulator_process
from gatewayd.spool import migrate
from gatewayd.spool.engine import open_database
from tests.crash.trace import traced
from tests.daemon import configuration, daemon, until
from tests.faults import all_ready, all_settled, check, one_line, post, refuses, sent_times, start_that_fails
from tests.spool.helpers import open_spool

MODEMS = 2
root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system of its own: be root")


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 4 MiB large."""
    place = tmp_path / "volume"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "gatewayd-test", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def remount(volume: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", volume], check=True)


@root
@pytest.mark.needs("mount", "mount")
async def test_a_full_file_system_stops_the_sending_and_work_goes_on_when_there_is_room(
    tmp_path: Path, volume: Path
) -> None:
    config = configuration(
        tmp_path, [str(tmp_path / "sim" / f"modem{i}") for i in range(MODEMS)], url=f"sqlite:///{volume}/spool.db"
    )
    async with (
        simulator_process(modems=MODEMS, directory=tmp_path / "sim", latency_ms=50) as sim,
        daemon(tmp_path, config) as gateway,
    ):
        accepted = await post(gateway, 30)
        await sim.control.wait("submit", 4)
        ballast = volume / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

        async def refused() -> bool:
            return await refuses(gateway, "refused")

        await until(refused)  # the log has room within itself now and then
        status, answer = await gateway.get("/readyz")
        assert status == 503
        assert "full" in answer["reasons"][0]
        before = len(await sim.ledger("submit"))
        for _ in range(5):
            assert await refuses(gateway, "refused")
        assert len(await sim.ledger("submit")) - before <= MODEMS, "at most what the channels had in hand"
        ballast.unlink()
        found = await all_settled(gateway)
        kept = {m["idm"] for m in found.values() if m["text"] == "refused"}
        check(accepted, {idm: m for idm, m in found.items() if idm not in kept}, await sent_times(sim))
        assert {m["state"] for m in found.values()} == {2}


@root
@pytest.mark.needs("mount", "mount")
async def test_a_read_only_file_system_is_named_and_nothing_starts(tmp_path: Path, volume: Path) -> None:
    config = configuration(tmp_path, ["/dev/no-such-modem"], url=f"sqlite:///{volume}/spool.db")
    for fresh in (True, False):
        if not fresh:
            async with daemon(tmp_path, config) as gateway:
                assert await gateway.stop() == 0
        remount(volume, "ro")
        code, said = await start_that_fails(tmp_path, config)
        assert code == 1, said
        assert str(volume) in one_line(said)
        assert "read-only" in said
        remount(volume, "rw")


@pytest.mark.needs("strace", "strace")
@pytest.mark.parametrize(("calls", "error", "said"), [
    ("pwrite64,ftruncate", "EROFS", "disk I/O error|readonly"), ("fdatasync,fsync", "EIO", "disk I/O error"),
])  # fmt: skip
async def test_a_disk_that_fails_while_it_runs_stops_the_sending_until_it_is_back(
    tmp_path: Path, calls: str, error: str, said: str
) -> None:
    """What a file system remounted read-only, or a sync that fails, look like to the daemon."""
    config = configuration(tmp_path, [str(tmp_path / "sim" / f"modem{i}") for i in range(MODEMS)])
    async with (
        simulator_process(modems=MODEMS, directory=tmp_path / "sim", latency_ms=50) as sim,
        daemon(tmp_path, config) as gateway,
    ):
        accepted = await post(gateway, 30)
        await sim.control.wait("submit", 4)
        async with traced(gateway.pid, "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"):
            assert await refuses(gateway, "refused")
            status, answer = await gateway.get("/readyz")
            assert status == 503
            assert re.search(f"the spool takes no writes: .*({said})", answer["reasons"][0])
            before = len(await sim.ledger("submit"))
            for _ in range(5):
                assert await refuses(gateway, "refused")
            assert len(await sim.ledger("submit")) - before <= MODEMS, "at most what the channels had in hand"
            assert (await gateway.get("/healthz"))[0] == 200
        found = await all_settled(gateway)
        kept = {m["idm"] for m in found.values() if m["text"] == "refused"}
        check(accepted, {idm: m for idm, m in found.items() if idm not in kept}, await sent_times(sim))
        assert not kept, "what was answered with 503 is not there"
        assert {m["state"] for m in found.values()} == {2}

        async def ready() -> bool:  # what a probe found is kept for a second
            status, _ = await gateway.get("/readyz")
            return bool(status == 200)

        await until(ready)


# A damaged file


def spoil(path: Path, *, from_page: int = 2) -> None:
    """Overwrite every page from that one on: the header stays what it was."""
    chance = random.Random(8)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek((from_page - 1) * 4096)
        file.write(chance.randbytes(size - (from_page - 1) * 4096))


@pytest.mark.parametrize("damage", ["no database", "pages", "cut off"])
async def test_a_damaged_spool_is_refused_with_the_way_to_restore_it(tmp_path: Path, damage: str) -> None:
    config = configuration(tmp_path, ["/dev/no-such-modem"])
    async with daemon(tmp_path, config) as gateway:
        await post(gateway, 5)
        assert await gateway.stop() == 0
    path = tmp_path / "spool.db"
    if damage == "no database":
        path.write_bytes(random.Random(7).randbytes(path.stat().st_size))
    elif damage == "pages":
        spoil(path)
    else:
        os.truncate(path, 3 * 4096)
    before = path.read_bytes()
    code, said = await start_that_fails(tmp_path, config)
    assert code == 1, said
    line = one_line(said)
    assert str(path) in line
    assert "gatewayd restore" in line
    assert "docs/backup.md" in line
    assert path.read_bytes() == before, "left as it is, for whoever wants to look at it"


async def test_damage_found_while_it_runs_is_said_and_stops_what_it_touches(tmp_path: Path) -> None:
    config = configuration(tmp_path, [str(tmp_path / "sim" / "modem0")])
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim:
        async with daemon(tmp_path, config) as gateway:
            await gateway.until((list(await post(gateway, 5)))[-1], lambda m: m["state"] == 2)
            assert await gateway.stop() == 0
        sent = len(await sim.ledger("submit"))
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            with contextlib.closing(sqlite3.connect(tmp_path / "spool.db")) as other:
                other.execute("UPDATE instances SET version = version")  # or the daemon would go by what it remembers
                other.commit()
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            spoil(tmp_path / "spool.db")

            async def refused() -> bool:
                return await refuses(gateway, "refused")

            await until(refused)
            status, answer = await gateway.get("/readyz")
            assert status == 503
            assert "gatewayd restore" in answer["reasons"][0]
            assert "docs/backup.md" in answer["reasons"][0]
            assert [line for line in gateway.log if "takes no writes" in line and "gatewayd restore" in line]
            assert (await gateway.get("/healthz"))[0] == 200
            assert not [line for line in gateway.log if "Traceback" in line]
            assert len(await sim.ledger("submit")) == sent, "nothing is sent that cannot be marked"


# A migration


@pytest.mark.parametrize("revision", [None, *migrate.REVISIONS[:-1]])
async def test_a_migration_that_is_killed_leaves_the_spool_as_it_was(tmp_path: Path, revision: str | None) -> None:
    """Before each statement the files are copied: they are what a kill there leaves."""
    made = tmp_path / "made"
    made.mkdir()
    database = open_database(f"sqlite:///{made}/spool.db")
    with contextlib.closing(database.connect()):  # as in a start: the writer's connection is there first
        engine = database.migration_engine()
        if revision is not None:
            with engine.connect() as connection:
                config = Config()
                config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
        copies: list[Path] = []

        def copy(*_: object) -> None:
            copies.append(tmp_path / f"copy{len(copies)}")
            copies[-1].mkdir()
            for file in made.glob("spool.db*"):
                shutil.copyfile(file, copies[-1] / file.name)

        event.listen(engine, "before_cursor_execute", copy)
        database.migration_engine = lambda: engine  # type: ignore[method-assign]
        migrate.migrate(database)
    assert len(copies) > 10
    for folder in {*copies[:: len(copies) // 8], copies[-1]}:
        async with open_spool(f"sqlite:///{folder}/spool.db") as spool:
            (idm,) = await spool.accept()
            assert idm == 1
        await asyncio.sleep(0)
