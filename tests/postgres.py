"""A PostgreSQL of our own for tests: on a Unix socket, in a folder of its own, without a password."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PostgresServer:
    """A server in `folder`. It runs from `running_server` on; `stop` and `start` are for tests of what that does."""

    folder: Path

    def url(self, database: str) -> str:
        return f"postgresql://gatewayd@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        import psycopg

        name = "t" + uuid.uuid4().hex
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def start(self) -> None:
        settings = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=50"
        self._control("-l", str(self.folder / "log"), "-o", settings, "start")

    def stop(self) -> None:
        """As a crash does: connections end in the middle, and the next start recovers."""
        self._control("-m", "immediate", "stop")

    def _control(self, *arguments: str) -> None:
        _run(self.folder, "pg_ctl", "-D", str(self.folder / "data"), "-w", *arguments)


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """Make a server, start it, and remove it at exit."""
    user, name = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="gatewayd-pg-", dir="/tmp"))  # short: a socket's path is limited
    try:
        if user:
            shutil.chown(folder, name)
        _run(folder, "initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "gatewayd", "-E", "UTF8")
        server = PostgresServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, program: str, *arguments: str) -> None:
    user, _ = _unprivileged()
    # Not into pipes: the server would keep them open. What went wrong is in the folder's log.
    with (folder / f"{program}.out").open("ab") as output:
        done = subprocess.run([_program(program), *arguments], cwd=folder, stdout=output, stderr=output, **user)
    if done.returncode != 0:
        raise RuntimeError(f"{program} failed: {(folder / f'{program}.out').read_text(errors='replace')[-2000:]}")


def _program(name: str) -> str:
    candidates = [
        shutil.which(name),
        *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)),
    ]
    return next(str(path) for path in candidates if path)


def _unprivileged() -> tuple[dict[str, Any], str]:
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
