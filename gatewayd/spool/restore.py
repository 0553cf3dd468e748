"""Putting a backup in a spool's place. The daemon must not run; its next start holds what is unsent (restored.py).

Nothing is deleted: what was there is moved aside. The copy is complete, checked and marked before anything is moved.
From then until it has the spool's name a file `….restoring` lies there, and a daemon refuses to start
(`SqliteDatabase.check`): it would else begin an empty spool in between.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gatewayd import crashpoints
from gatewayd.errors import SpoolError
from gatewayd.spool import restored
from gatewayd.spool.backup import MODE, Backup, copy_database, examine, stamp, sync_file
from gatewayd.spool.engine import Database, SqliteDatabase, unfinished_restore
from gatewayd.spool.migrate import migrate
from gatewayd.spool.settings import BACKUP
from gatewayd.spool.witness import sync_folder
from gatewayd.spool.writer import Tx

SUFFIXES = ("", "-wal", "-shm", "-journal")  # of the files that an SQLite database consists of


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done. `reason`: as messages will say it; `aside`: what was there before, None if nothing was."""

    reason: str
    aside: Path | None
    backup: Backup | None


@contextmanager
def _alone(database: Database, instance: str) -> Iterator[None]:
    """Hold the instance's lock, so that its daemon does not run meanwhile. Raises SpoolError."""
    try:
        database.acquire(instance)
    except SpoolError as error:
        raise SpoolError(f"{error}: stop the daemon first") from error
    try:
        if isinstance(database, SqliteDatabase):
            _like_the_folder(database.lock_path)
        yield
    finally:
        database.release()


def restore(database: SqliteDatabase, backup: Path, instance: str, actor: str, now: int, at: int | None) -> Restored:
    """Put a backup in the spool's place. `at`: of which moment it is, where the backup does not say so itself.

    Raises SpoolError: nothing has changed, unless it says so.
    """
    path = database.path
    if path.exists() and backup.exists() and backup.samefile(path):
        raise SpoolError(f"{backup} is the spool itself: name a backup")
    with _alone(database, instance):
        found = examine(backup)
        waiting = unfinished_restore(path)
        partial = path.with_name(path.name + ".restore-partial")
        try:
            partial.unlink(missing_ok=True)
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE))
            _like_the_folder(partial)
            copy_database(backup, partial)
            reason = _mark(partial, found.at if at is None else at, actor, now)
            examine(partial)
            sync_file(partial)
            crashpoints.reach("restore.marked")
            partial.replace(waiting)
            sync_folder(path.parent)
            crashpoints.reach("restore.waiting")
            aside = _move_aside(path, now)
            crashpoints.reach("restore.aside")
            waiting.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise SpoolError(f"cannot write {error.filename or path}: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)
    return Restored(reason, aside, found)


def mark_restored(database: Database, instance: str, actor: str, now: int, at: int | None) -> Restored:
    """Mark a spool that was restored by other means, such as pg_restore. Raises SpoolError."""
    with _alone(database, instance):
        connection = database.connect()  # on PostgreSQL it holds the lock
        try:
            migrate(database)
            cursor = connection.cursor()
            tx = Tx(database, cursor)
            reason = restored.mark(tx, at, actor, now)
            tx.flush()
            tx.control("COMMIT")
        except Exception as error:
            if database.unavailable(error):
                raise SpoolError(f"the spool cannot be marked: {error}") from error
            raise
        finally:
            connection.close()
    return Restored(reason, None, None)


def _mark(path: Path, at: int, actor: str, now: int) -> str:
    reason = f"restored from backup of {restored.moment(at)}"
    value = json.dumps({"reason": reason})
    try:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (restored.MARK, value))
            connection.execute("DELETE FROM settings WHERE name = ?", (BACKUP,))  # it is one no more
            row = (now, actor, f"set {restored.MARK}", value)
            connection.execute("INSERT INTO audit (at, actor, action, detail) VALUES (?, ?, ?, ?)", row)
    except sqlite3.Error as error:
        raise SpoolError(f"cannot mark the copy {path}: {error}") from error
    return reason


def _move_aside(path: Path, now: int) -> Path | None:
    """Rename the present files so that they still belong together; None if there were none."""
    base = f"{path.name}.before-restore-{stamp(now)}"
    aside, tries = path.with_name(base), 1
    while any(aside.with_name(aside.name + suffix).exists() for suffix in SUFFIXES):
        tries += 1
        aside = path.with_name(f"{base}-{tries}")
    moved = False
    for suffix in reversed(SUFFIXES):  # the WAL never stays beside a database that is not its own
        present = path.with_name(path.name + suffix)
        if present.exists():
            present.replace(path.with_name(aside.name + suffix))
            moved = True
    sync_folder(path.parent)
    return aside if moved else None


def _like_the_folder(path: Path) -> None:
    """What root restores still belongs to whom the spool's folder belongs to."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
