"""A spool on each engine: the same tests run on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import PostgresServer, running_server

ENGINES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("initdb", "postgresql"))]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of our own."""
    with running_server() as server:
        yield server


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once for each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/spool.db"
    return _new_database(request)


@pytest.fixture(params=[pytest.param("postgresql", marks=pytest.mark.needs("initdb", "postgresql"))])
def postgres_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database on PostgreSQL."""
    return _new_database(request)


def _new_database(request: pytest.FixtureRequest) -> str:
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/spool.db"
