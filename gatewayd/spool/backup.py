"""Backups of a spool that is in use. Not through the daemon: on a connection of one's own, in a process of one's own.

SQLite: the backup API copies one snapshot, a few pages at a time, and writers go on meanwhile (what they write stays in
the WAL until the copy is done, so that grows). The copy is one file, checked before it gets its name. PostgreSQL:
pg_dump, which does the same.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from gatewayd import crashpoints
from gatewayd.errors import SpoolError
from gatewayd.spool.engine import BUSY_TIMEOUT_S, Database, PostgresDatabase, SqliteDatabase
from gatewayd.spool.migrate import HEAD, REVISIONS
from gatewayd.spool.settings import BACKUP, SPOOL_ID
from gatewayd.spool.witness import sync_folder

PAGES = 512  # copied at a time: 2 MiB
BETWEEN_S = 0.005  # the rest after each, in which others have the disk
SYNC_OCTETS = 32 << 20  # so much is left to the disk at once: a large sync at the end would hold up everybody's commits
MODE = 0o640


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made, or found. `at`: the moment it shows, in epoch ms. `spool_id`, `instance`: of whom."""

    path: Path
    at: int
    octets: int
    spool_id: str
    instance: str


def back_up(
    database: Database,
    target: Path,
    instance: str,
    now: int,
    *,
    force: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Backup:
    """Copy the spool to `target`. `on_progress` gets octets done and in all (SQLite only). Raises SpoolError."""
    if target.is_dir():
        raise SpoolError(f"{target} is a folder: name the file in it that the backup is to be")
    if isinstance(database, SqliteDatabase) and target.resolve() in _files_of(database):
        raise SpoolError(f"{target} is the spool itself, or belongs to it: name another file for the backup")
    if target.exists() and not force:
        raise SpoolError(f"{target} is there already: name another file, or overwrite it with --force")
    partial = target.with_name(target.name + ".partial")
    try:
        with _new_file(partial):
            if isinstance(database, SqliteDatabase):
                spool_id = _copy(database.path, partial, {"at": now, "instance": instance}, on_progress)
            else:
                assert isinstance(database, PostgresDatabase)
                spool_id = _dump(database.url, partial)
            sync_file(partial)
            octets = partial.stat().st_size
            crashpoints.reach("backup.checked")
            partial.replace(target)
            sync_folder(target.parent)
    except OSError as error:
        raise SpoolError(f"cannot write {error.filename or target}: {error.strerror}") from error
    return Backup(target, now, octets, spool_id, instance)


def _files_of(database: SqliteDatabase) -> set[Path]:
    """What a backup must never take the place of: under a daemon that runs, all it writes would go nowhere."""
    path = database.path.resolve()
    return {path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal", ".lock"))}


@contextmanager
def _new_file(path: Path) -> Iterator[None]:
    """An empty file that only its group may read too; whatever goes wrong, it does not stay."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE))
    try:
        yield
    finally:
        for each in (path, path.with_name(path.name + "-journal")):
            each.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Make a file's content durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that never writes. Raises SpoolError."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
    except sqlite3.Error as error:
        raise SpoolError(f"cannot open {path}: {error}") from error
    connection.isolation_level = None
    return connection


def copy_database(
    source: Path, target: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Copy one snapshot of a database into an empty file, as one file without a WAL. Raises SpoolError.

    The snapshot is held for the whole copy; else each write of another process would make it begin anew.
    """
    page_octets, synced = 4096, 0

    def step(status: int, remaining: int, total: int) -> None:
        nonlocal synced
        done = (total - remaining) * page_octets
        if done - synced >= SYNC_OCTETS:
            sync_file(target)
            synced = done
        on_progress(done, total * page_octets)
        time.sleep(BETWEEN_S)

    try:
        with closing(read_only(source)) as reading, closing(sqlite3.connect(target)) as writing:
            reading.execute("BEGIN")
            page_octets = reading.execute("PRAGMA page_size").fetchone()[0]
            reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
            writing.execute("PRAGMA synchronous = OFF")
            reading.backup(writing, pages=PAGES, progress=step)
            writing.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise SpoolError(f"cannot copy {source} to {target}: {error}") from error


def examine(path: Path) -> Backup:
    """Look at a backup, or a spool that nobody has open, and check every page of it. Raises SpoolError."""
    if not path.is_file():
        raise SpoolError(f"there is no file {path}")
    try:
        with closing(read_only(path)) as connection:
            troubles = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
            if troubles != ["ok"]:
                raise SpoolError(f"{path} is damaged: {'; '.join(troubles)}")
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"alembic_version", "messages", "settings"} <= tables:
                raise SpoolError(f"{path} is no spool of gatewayd")
            revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
            settings = dict(connection.execute("SELECT name, value FROM settings").fetchall())
    except sqlite3.Error as error:
        raise SpoolError(f"{path} is damaged, or no backup of gatewayd: {error}") from error
    if revision not in REVISIONS:
        raise SpoolError(
            f"{path} has schema {revision}, which is newer than this gatewayd ({HEAD}): "
            "install the version that made it"
        )
    made = json.loads(settings.get(BACKUP) or "{}")
    found = path.stat()
    at = made.get("at", int(found.st_mtime * 1000))
    return Backup(path, at, found.st_size, settings.get(SPOOL_ID, ""), made.get("instance", ""))


def _copy(source: Path, partial: Path, made: dict[str, object], on_progress: Callable[[int, int], None]) -> str:
    if not source.is_file():
        raise SpoolError(f"there is no spool {source}")
    copy_database(source, partial, on_progress)
    try:
        with closing(sqlite3.connect(partial)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            row = connection.execute("SELECT value FROM settings WHERE name = ?", (SPOOL_ID,)).fetchone()
            spool_id = "" if row is None else str(row[0])
            value = json.dumps({**made, "spool_id": spool_id})
            with connection:
                connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (BACKUP, value))
    except sqlite3.Error as error:
        raise SpoolError(f"{source} is no spool of gatewayd: {error}") from error
    examine(partial)
    return spool_id


def _dump(url: URL, partial: Path) -> str:
    """pg_dump in its custom format, which pg_restore reads. The password does not stand on the command line."""
    for program in ("pg_dump", "pg_restore"):
        if shutil.which(program) is None:
            raise SpoolError(f"{program} is not installed (Debian package postgresql-client), and a backup needs it")
    password = None if url.password is None else str(url.password)
    address = url._replace(password=None).set(drivername="postgresql").render_as_string()
    environment = os.environ | ({} if password is None else {"PGPASSWORD": password})
    _run(["pg_dump", "--format=custom", "--no-password", f"--file={partial}", f"--dbname={address}"], environment)
    _run(["pg_restore", "--list", str(partial)], environment)
    return ""


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise SpoolError(f"{command[0]} failed: {said or f'exit status {done.returncode}'}")


def stamp(now: int) -> str:
    """A moment as it can stand in a file's name: "20261128T104000Z"."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now / 1000))
