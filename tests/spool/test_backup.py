"""A backup of a spool that is being written to is one moment of it; a restore deletes nothing and half does nothing."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from gatewayd.errors import SpoolError
from gatewayd.spool import backup as backups
from gatewayd.spool import restored, schema
from gatewayd.spool.backup import Backup, back_up, examine
from gatewayd.spool.engine import SqliteDatabase, open_database
from gatewayd.spool.migrate import REVISIONS
from gatewayd.spool.restore import restore
from tests.spool.helpers import START_MS, message, open_spool
from tests.spool.test_migrate import make_spool


def sqlite(url: str) -> SqliteDatabase:
    database = open_database(url)
    assert isinstance(database, SqliteDatabase)
    return database


async def made(url: str, target: Path, count: int = 3) -> Backup:
    async with open_spool(url) as spool:
        await spool.accept(*[message(f"+5989800{i:04}") for i in range(count)])
        return back_up(spool.database, target, "gw1", START_MS)


async def test_a_backup_says_what_it_is(sqlite_url: str, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    done = await made(sqlite_url, target)
    found = examine(target)
    assert (found.at, found.instance, found.spool_id) == (START_MS, "gw1", done.spool_id)
    assert done.spool_id
    assert target.stat().st_mode & 0o777 == 0o640
    assert found.octets == done.octets == target.stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("backup")) == ["backup"]
    async with open_spool(sqlite_url) as spool:
        assert await spool.store.setting("backup") is None, "the spool itself is none"


async def test_a_backup_under_constant_writes_ends_and_is_one_moment(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is met by a write of another connection, which would make the backup API begin anew."""
    monkeypatch.setattr(backups, "PAGES", 8)
    async with open_spool(sqlite_url) as spool:
        await spool.accept(*[message(f"+5989800{i:04}") for i in range(300)])
    writes = 0
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as writing:
        writing.execute("CREATE TABLE pairs (n INTEGER)")

        def write(done: int, total: int) -> None:
            nonlocal writes
            writes += 1
            assert writes < 1000, "it begins anew each time"
            writing.execute("BEGIN IMMEDIATE")
            writing.execute("INSERT INTO pairs VALUES (?)", (writes,))
            writing.execute("INSERT INTO pairs VALUES (?)", (writes,))
            writing.execute("COMMIT")

        back_up(sqlite(sqlite_url), tmp_path / "backup", "gw1", START_MS, on_progress=write)
    assert writes > 10
    with closing(sqlite3.connect(tmp_path / "backup")) as copy:
        assert copy.execute("SELECT count(*) FROM messages").fetchone() == (300,)
        assert copy.execute("SELECT count(*) FROM pairs").fetchone() == (0,), "the moment it began at"


async def test_claims_go_on_while_a_backup_is_made(sqlite_url: str, tmp_path: Path) -> None:
    async with open_spool(sqlite_url) as spool:
        await spool.accept(*[message(f"+5989800{i:04}") for i in range(200)])
        stop, failed = threading.Event(), []

        def back_up_again_and_again() -> None:
            try:
                while not stop.is_set():
                    back_up(spool.database, tmp_path / "backup", "gw1", START_MS, force=True)
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=back_up_again_and_again)
        thread.start()
        try:
            assert len(await spool.claims(await spool.sim())) == 200
        finally:
            stop.set()
            thread.join()
    assert not failed
    examine(tmp_path / "backup")


async def test_what_a_backup_refuses(sqlite_url: str, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    with pytest.raises(SpoolError, match="no spool"):
        back_up(sqlite(sqlite_url), target, "gw1", START_MS)
    await made(sqlite_url, target)
    before = target.read_bytes()
    with pytest.raises(SpoolError, match="--force"):
        back_up(sqlite(sqlite_url), target, "gw1", START_MS)
    with pytest.raises(SpoolError, match="is a folder"):
        back_up(sqlite(sqlite_url), tmp_path, "gw1", START_MS)
    with pytest.raises(SpoolError, match="No such file"):
        back_up(sqlite(sqlite_url), tmp_path / "none" / "backup", "gw1", START_MS)
    (tmp_path / "text").write_text("no database " * 1000)
    with pytest.raises(SpoolError):
        back_up(sqlite(f"sqlite:///{tmp_path}/text"), target, "gw1", START_MS, force=True)
    assert target.read_bytes() == before, "what cannot be made overwrites nothing"
    assert not list(tmp_path.glob("*.partial*"))
    back_up(sqlite(sqlite_url), target, "gw1", START_MS + 1, force=True)
    assert examine(target).at == START_MS + 1


async def test_a_backup_never_takes_the_place_of_the_spool(sqlite_url: str, tmp_path: Path) -> None:
    """A daemon that runs would go on writing to a file that has no name any more."""
    (tmp_path / "link").symlink_to(tmp_path / "spool.db")
    async with open_spool(sqlite_url) as spool:
        await spool.accept(message())
        for name in ("spool.db", "link", "spool.db-wal", "spool.db.lock"):
            with pytest.raises(SpoolError, match="is the spool itself, or belongs to it: name another file"):
                back_up(spool.database, tmp_path / name, "gw1", START_MS, force=True)
        await spool.accept(message())
    with closing(sqlite3.connect(tmp_path / "spool.db")) as there:
        assert there.execute("SELECT count(*) FROM messages").fetchone() == (2,)


QUEUED_BY = {  # what a spool of an older schema has of a message that waits
    "messages": {
        "id": 1, "position": 1, "priority": 0, "lane_id": 1, "queue": 2, "due_at": START_MS, "state": 1,
        "admission": "admitted", "delivery": "none", "class": "application", "to_given": "+59898344484",
        "to_number": "+59898344484", "text": "x", "alphabet": "gsm7", "plan": "tpdu", "segments": 1, "concat_ref": 1,
        "report": 1, "in_doubt": "fail", "avoid_sim_id": 0, "touched": 0, "busy": 0, "source": "class:application",
        "target": "any", "pin_channel": "", "campaign": "", "agent": "", "api_key": "crm", "reason": "",
        "accepted_at": START_MS, "updated_at": START_MS,
    },
    "segments": {
        "message_id": 1, "seq": 1, "state": "QUEUED", "parts": 1, "parts_ok": 0, "tries": 0, "attempt": 0, "code": "",
    },
}  # fmt: skip


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_backup_of_an_older_version_is_restored(sqlite_url: str, tmp_path: Path, revision: str) -> None:
    make_spool(sqlite_url, revision, [])
    with closing(sqlite3.connect(tmp_path / "spool.db")) as old, old:
        for table, row in QUEUED_BY.items():
            places = ", ".join("?" * len(row))
            old.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", tuple(row.values()))
        old.execute("UPDATE counters SET value = 1 WHERE name = 'message'")
    back_up(sqlite(sqlite_url), tmp_path / "backup", "gw1", START_MS)
    restore(sqlite(sqlite_url), tmp_path / "backup", "gw1", "root", START_MS, None)
    async with open_spool(sqlite_url) as spool:
        assert await spool.claims(await spool.sim()) == []
        held = select(schema.messages.c.id, schema.messages.c.held, schema.messages.c.queue)
        assert await spool.rows(held) == [(1, restored.RESTORE, schema.KEPT)]
        assert await spool.accept(message()) == (2 + restored.ID_GAP,)


async def test_a_restore_moves_aside_and_puts_in_place(sqlite_url: str, tmp_path: Path) -> None:
    target, path = tmp_path / "backup", tmp_path / "spool.db"
    await made(sqlite_url, target)
    async with open_spool(sqlite_url) as spool:
        await spool.accept(message("+59898999999"))
        (tmp_path / "crashed-wal").write_bytes((tmp_path / "spool.db-wal").read_bytes())
    (tmp_path / "crashed-wal").rename(tmp_path / "spool.db-wal")  # as after a crash
    before = {suffix: (tmp_path / f"spool.db{suffix}").read_bytes() for suffix in ("", "-wal")}
    done = restore(sqlite(sqlite_url), target, "gw1", "root", START_MS, None)
    assert done.reason == f"restored from backup of {restored.moment(START_MS)}"
    assert done.aside is not None
    assert done.aside.name.startswith("spool.db.before-restore-2026")
    assert before == {suffix: done.aside.with_name(done.aside.name + suffix).read_bytes() for suffix in before}
    assert not (tmp_path / "spool.db-wal").exists()
    assert not list(tmp_path.glob("*.restor*ing"))
    with closing(sqlite3.connect(done.aside)) as there:
        assert there.execute("SELECT count(*) FROM messages").fetchone() == (4,), "it still is the spool that it was"
    async with open_spool(sqlite_url) as spool:
        assert await spool.store.setting("backup") is None
        assert await spool.claims(await spool.sim()) == []
        paused = json.loads(await spool.store.setting("paused") or "{}")
        assert done.reason in paused["reason"]
    again = restore(sqlite(sqlite_url), target, "gw1", "root", START_MS, START_MS - 86_400_000)
    assert again.aside is not None
    assert again.aside != done.aside
    assert path.exists()
    assert "2026-09-20" in again.reason


async def test_what_a_restore_refuses_leaves_all_as_it_was(sqlite_url: str, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    await made(sqlite_url, target)
    database, path = sqlite(sqlite_url), tmp_path / "spool.db"
    async with open_spool(sqlite_url):
        with pytest.raises(SpoolError, match=r"instance gw1, process [0-9]+; one daemon at a time: stop the daemon"):
            restore(sqlite(sqlite_url), target, "gw1", "root", START_MS, None)
    before = path.read_bytes()
    bad = tmp_path / "bad"
    for content, said in (
        (b"", "no spool"), (b"no database" * 999, "damaged"), (target.read_bytes()[:40960], "damaged"),
    ):  # fmt: skip
        bad.write_bytes(content)
        with pytest.raises(SpoolError, match=said):
            restore(database, bad, "gw1", "root", START_MS, None)
    with closing(sqlite3.connect(target)) as newer, newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SpoolError, match="newer than this gatewayd"):
        restore(database, target, "gw1", "root", START_MS, None)
    with pytest.raises(SpoolError, match="the spool itself"):
        restore(database, path, "gw1", "root", START_MS, None)
    with pytest.raises(SpoolError, match="there is no file"):
        restore(database, tmp_path / "none", "gw1", "root", START_MS, None)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*restor*"))


async def test_a_restore_that_was_cut_off_lets_no_daemon_start(sqlite_url: str, tmp_path: Path) -> None:
    """Else it would begin an empty spool where the old one was moved away and the new one is not there yet."""
    target, path = tmp_path / "backup", tmp_path / "spool.db"
    await made(sqlite_url, target)
    path.rename(tmp_path / "moved")
    (tmp_path / "spool.db.restoring").hardlink_to(target)
    with pytest.raises(SpoolError, match="was cut off: run `gatewayd restore` again"):
        async with open_spool(sqlite_url):
            pass
    assert not path.exists()
    done = restore(sqlite(sqlite_url), target, "gw1", "root", START_MS, None)
    assert done.aside is None
    async with open_spool(sqlite_url) as spool:
        assert await spool.claims(await spool.sim()) == []


@pytest.mark.needs("pg_dump", "postgresql-client")
async def test_a_backup_of_postgresql_is_what_pg_restore_reads(postgres_url: str, tmp_path: Path) -> None:
    done = await made(postgres_url, tmp_path / "backup")
    assert done.octets > 0
    reading = await asyncio.create_subprocess_exec(
        "pg_restore", "--list", str(tmp_path / "backup"), stdout=asyncio.subprocess.PIPE
    )
    listed, _ = await reading.communicate()
    assert b"TABLE DATA public messages" in listed
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o640


async def test_without_pg_dump_it_is_said(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpoolError, match=r"pg_dump is not installed \(Debian package postgresql-client\)"):
        await made(postgres_url, tmp_path / "backup")
