"""The two database engines behind one set of statements.

Statements are SQLAlchemy Core constructs, compiled once per engine; the writer runs the compiled text on the bare DBAPI
connection, because the layer in between costs more than the statement (docs/performance.md). This module and
`writer.py` are the only ones that know a DBAPI.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import BindParameter, Engine, Insert, bindparam, create_engine, event, make_url
from sqlalchemy import Connection as SqlConnection
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.sql import ClauseElement

from gatewayd.errors import ConfigError, Fault, SpoolError

BUSY_TIMEOUT_S = 5.0  # how long a write waits for another process that has the file
SERVER_SILENT_S = 20  # a PostgreSQL that takes nothing for so long is gone: less than the watchdog's patience
LOCK_WAIT_S = 1.0  # how long a start on PostgreSQL waits for the instance's lock
INSTANCE_LOCK = 0x6777  # class of the advisory locks that instances hold
MIGRATION_LOCK = 0x6778  # and of the one around a migration

Row = tuple[Any, ...]
Params = dict[str, Any]


class Cursor(Protocol):
    """As much of PEP 249 as the writer uses."""

    @property
    def rowcount(self) -> int: ...
    def execute(self, sql: str, params: Params = ..., /) -> Any: ...
    def executemany(self, sql: str, params: Sequence[Params], /) -> Any: ...
    def fetchone(self) -> Row | None: ...
    def fetchall(self) -> list[Row]: ...


class Connection(Protocol):
    """As much of PEP 249 as the writer uses; the transaction is steered by statements (autocommit)."""

    def cursor(self) -> Any: ...
    def close(self) -> None: ...


class Statement:
    """A Core construct that is run often; `columns` names the values of an insert."""

    __slots__ = ("clause", "columns")

    def __init__(self, clause: ClauseElement, columns: Sequence[str] | None = None) -> None:
        self.clause = clause
        self.columns = columns


def set_to(*columns: str) -> dict[str, BindParameter[Any]]:
    """For an update: each column is set to the parameter `v_` + its name."""
    return {column: bindparam("v_" + column) for column in columns}


def storable(text: str) -> str:
    """Text as both engines can keep it: NUL, and halves of surrogate pairs, become U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


class Database:
    """What the two engines do differently. Use `open_database`."""

    def __init__(self, url: URL, dialect: Dialect) -> None:
        self.url = url
        self._dialect = dialect
        self._compiled: dict[Statement, tuple[str, Params]] = {}

    def compiled(self, statement: Statement) -> tuple[str, Params]:
        """The text of `statement` for this engine, and the values of its constants."""
        found = self._compiled.get(statement)
        if found is None:
            columns = statement.columns if isinstance(statement.clause, Insert) else None
            made = statement.clause.compile(dialect=self._dialect, column_keys=columns)
            names = set(statement.columns or ())
            constants = {name: value for name, value in made.params.items() if value is not None and name not in names}
            found = self._compiled[statement] = (str(made), constants)
        return found

    def connect(self) -> Connection:
        """A connection for the writer, which holds the instance's lock where the engine has locks on connections."""
        raise NotImplementedError

    def begin(self, cursor: Cursor) -> int | None:
        """Begin a transaction. Returns an id to ask `committed` about, where the engine has such a thing."""
        raise NotImplementedError

    def committed(self, connection: Any, transaction: int) -> bool:
        """Whether a transaction of a connection that is gone took place."""
        return False

    def migration_engine(self) -> Engine:
        """A synchronous engine for Alembic."""
        raise NotImplementedError

    def read_engine(self) -> AsyncEngine:
        """The engine of all reads; it never takes a write lock."""
        raise NotImplementedError

    def thread_engine(self) -> Engine:
        """An engine for reads in a thread of one's own; it never takes a write lock."""
        raise NotImplementedError

    def unavailable(self, error: BaseException) -> bool:
        """Whether `error` is the database's trouble (locked, full, gone) and not one operation's."""
        raise NotImplementedError

    def lost(self, error: BaseException) -> bool:
        """Whether the connection itself is gone and another one has to be made."""
        return False

    def reason(self, error: BaseException) -> str:
        """`error` for people, with what to do where waiting does not help."""
        return str(error)

    def check(self) -> None:
        """Make sure that there is nothing to be done by hand first. Raises SpoolError."""

    def acquire(self, instance: str) -> None:
        """Make sure that this instance runs once. Raises SpoolError."""

    def release(self) -> None:
        """Give back what `acquire` took."""


class SqliteDatabase(Database):
    """One file, WAL, synchronous=FULL: a commit is on disk when it returns."""

    def __init__(self, url: URL) -> None:
        from sqlalchemy.dialects import sqlite

        super().__init__(url, sqlite.dialect(paramstyle="named"))
        self.path = Path(url.database or "")
        self.lock_path = self.path.with_name(self.path.name + ".lock")
        self._lock_fd: int | None = None

    def connect(self) -> Connection:
        try:
            connection = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=512
            )
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                f"busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}",
                "cache_size = -16000",
                "temp_store = MEMORY",
            ):
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            raise SpoolError(f"cannot open the spool {self.path}: {self.reason(error)}") from error
        return connection

    def begin(self, cursor: Cursor) -> None:
        cursor.execute("BEGIN IMMEDIATE")

    def migration_engine(self) -> Engine:
        engine = create_engine(URL.create("sqlite+pysqlite", database=str(self.path)))

        # By itself the driver begins no transaction for DDL: a migration that is killed would stay half done for ever.
        @event.listens_for(engine, "connect")
        def steer(connection: sqlite3.Connection, _: object) -> None:
            connection.isolation_level = None

        @event.listens_for(engine, "begin")
        def begin(connection: SqlConnection) -> None:
            connection.exec_driver_sql("BEGIN")

        return engine

    def read_engine(self) -> AsyncEngine:
        database = f"file:{_uri_path(self.path)}?mode=ro&uri=true"
        return create_async_engine(
            URL.create("sqlite+aiosqlite", database=database.split("?")[0], query={"mode": "ro", "uri": "true"}),
            connect_args={"timeout": BUSY_TIMEOUT_S},
        )

    def thread_engine(self) -> Engine:
        return create_engine(
            URL.create(
                "sqlite+pysqlite",
                database=f"file:{_uri_path(self.path)}",
                query={"mode": "ro", "uri": "true", "timeout": str(BUSY_TIMEOUT_S)},
            )
        )

    def unavailable(self, error: BaseException) -> bool:
        return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError

    def reason(self, error: BaseException) -> str:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None or code & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return str(error)
        return f"{error}; the file is damaged: stop gatewayd and run `gatewayd restore` (docs/backup.md)"

    def check(self) -> None:
        if unfinished_restore(self.path).exists():
            raise SpoolError(
                f"a restore of the spool {self.path} was cut off: run `gatewayd restore` again (the files it has moved "
                f"lie beside it as {self.path.name}.before-restore-…)"
            )

    def acquire(self, instance: str) -> None:
        lock = self.lock_path
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise SpoolError(f"cannot open the lock file {lock}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(fd, 200, 0).decode(errors="replace").strip()
            os.close(fd)
            raise SpoolError(
                f"the spool {self.path} is in use by {holder or 'another process'}; one daemon at a time"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"instance {instance}, process {os.getpid()}\n".encode(), 0)
        self._lock_fd = fd

    def release(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


class PostgresDatabase(Database):
    """A server that several hosts may share; `synchronous_commit=on` is asked for on each connection."""

    def __init__(self, url: URL) -> None:
        from sqlalchemy.dialects.postgresql import psycopg

        super().__init__(url.set(drivername="postgresql+psycopg"), psycopg.dialect())  # type: ignore[no-untyped-call]
        self._instance = ""

    def connect(self) -> Connection:
        import psycopg

        try:
            connection = psycopg.connect(
                self.url.set(drivername="postgresql").render_as_string(hide_password=False),
                autocommit=True,
                connect_timeout=10,
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                tcp_user_timeout=SERVER_SILENT_S * 1000,
                application_name=f"gatewayd {self._instance} writer",
            )
        except psycopg.Error as error:
            raise SpoolError(f"cannot open the spool {self.url.render_as_string()}: {error}") from error
        try:
            connection.execute("SET synchronous_commit = on")
            if self._instance:
                self._lock(connection)
        except psycopg.Error as error:
            connection.close()
            raise SpoolError(f"cannot open the spool {self.url.render_as_string()}: {error}") from error
        except SpoolError:
            connection.close()
            raise
        return connection

    def _lock(self, connection: Any) -> None:
        """Take the instance's lock. A connection of ours that has just died may hold it for another moment."""
        import psycopg

        # The key is ours alone: a class of its own, then the instance's name.
        key = zlib.crc32(self._instance.encode()) - 2**31
        connection.execute(f"SET lock_timeout = {int(LOCK_WAIT_S * 1000)}")
        try:
            connection.execute("SELECT pg_advisory_lock(%s, %s)", (INSTANCE_LOCK, key))
        except psycopg.errors.LockNotAvailable:
            raise SpoolError(f"instance {self._instance!r} already runs on this database; one at a time") from None
        connection.execute("SET lock_timeout = 0")

    def begin(self, cursor: Any) -> int:
        cursor.execute("BEGIN; SELECT txid_current()")
        cursor.nextset()
        return int(cursor.fetchone()[0])

    def committed(self, connection: Any, transaction: int) -> bool:
        row = connection.execute("SELECT txid_status(%s)", (transaction,)).fetchone()
        return row is not None and row[0] == "committed"

    def migration_engine(self) -> Engine:
        return create_engine(self.url)

    def read_engine(self) -> AsyncEngine:
        return create_async_engine(
            self.url, pool_pre_ping=True, connect_args={"options": "-c default_transaction_read_only=on"}
        )

    def thread_engine(self) -> Engine:
        return create_engine(
            self.url, pool_pre_ping=True, connect_args={"options": "-c default_transaction_read_only=on"}
        )

    def unavailable(self, error: BaseException) -> bool:
        import psycopg

        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | psycopg.InternalError)

    def lost(self, error: BaseException) -> bool:
        import psycopg

        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)

    def acquire(self, instance: str) -> None:
        self._instance = instance


def unfinished_restore(path: Path) -> Path:
    """The file that lies beside an SQLite spool while a restore is at work on its files."""
    return path.with_name(path.name + ".restoring")


def open_database(url: str, password: str | None = None) -> Database:
    """The database behind a `spool.url`. Raises ConfigError for a URL that is none of the two engines'."""
    try:
        parsed = make_url(url)
        if password is not None:
            parsed = parsed.set(password=password)
        backend = parsed.get_backend_name()
    except Exception as error:  # SQLAlchemy raises several kinds
        raise ConfigError([Fault("spool.url", f"no database URL: {error}")]) from error
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigError([Fault("spool.url", "needs a file: sqlite:////absolute/path/spool.db")])
        return SqliteDatabase(parsed)
    if backend == "postgresql":
        return PostgresDatabase(parsed)
    raise ConfigError([Fault("spool.url", f"{backend} is no engine of the spool: sqlite or postgresql")])


def _uri_path(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
