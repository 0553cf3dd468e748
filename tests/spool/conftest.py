"""A spool on each engine: the same tests run on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ENGINES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("initdb", "postgresql"))]


def _postgres_program(name: str) -> str:
    candidates = [
        shutil.which(name),
        *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)),
    ]
    return next(str(path) for path in candidates if path)


def _unprivileged() -> tuple[dict[str, object], str]:
    """PostgreSQL refuses to run as root: who to be instead, as arguments of subprocess, and the name."""
    if os.geteuid() != 0:
        return {}, pwd.getpwuid(os.geteuid()).pw_name
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}, name
    raise RuntimeError("no user to run PostgreSQL as")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL of our own, on a Unix socket in a folder of its own; yields the URL without a database name."""
    who, name = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="gatewayd-pg-", dir="/tmp"))  # short: a socket's path is limited
    try:
        if who:
            shutil.chown(folder, name)
        data = folder / "data"
        options = {"check": True, "capture_output": True, "cwd": folder, **who}
        subprocess.run(
            [_postgres_program("initdb"), "-D", data, "-A", "trust", "-U", "gatewayd", "-E", "UTF8"], **options
        )  # type: ignore[call-overload]
        control = _postgres_program("pg_ctl")
        settings = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=50"
        subprocess.run([control, "-D", data, "-w", "-l", folder / "log", "-o", settings, "start"], **options)  # type: ignore[call-overload]
        try:
            yield f"postgresql://gatewayd@/%s?host={folder}"
        finally:
            subprocess.run([control, "-D", data, "-m", "immediate", "stop"], **options)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new_postgres_database(server: str) -> str:
    import psycopg

    name = "t" + uuid.uuid4().hex
    with psycopg.connect(server % "postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server % name


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once for each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/spool.db"
    return _new_postgres_database(request.getfixturevalue("postgres_server"))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/spool.db"
