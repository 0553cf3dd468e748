"""Bringing a spool to the schema of this code. A schema newer than the code is refused."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from gatewayd.errors import SpoolError
from gatewayd.spool.engine import MIGRATION_LOCK, Database

HEAD = "0003"
"""The newest revision in migrations/versions: a spool that has it needs nothing."""

REVISIONS = ("0001", "0002", "0003")


def migrate(database: Database) -> None:
    """Create or upgrade the schema. Raises SpoolError."""
    engine = database.migration_engine()
    try:
        with engine.connect() as connection:
            _lock(connection)
            current = _current(connection)
            if current == HEAD:
                return
            if current is not None and current not in REVISIONS:
                raise SpoolError(
                    f"the spool has schema {current}, which is newer than this gatewayd ({HEAD}): "
                    "install the version that wrote it, or restore a backup"
                )
            connection.commit()
            _upgrade(connection)
    except SQLAlchemyError as error:
        where = database.url.render_as_string(hide_password=True)
        reason = database.reason(getattr(error, "orig", None) or error)
        raise SpoolError(f"cannot prepare the spool {where}: {reason}") from error
    finally:
        engine.dispose()


def _lock(connection: Connection) -> None:
    """One migration at a time, where several hosts share the server; held until the connection closes."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_lock(:class, 0)"), {"class": MIGRATION_LOCK})


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    from alembic import command  # slow to import, and hardly ever needed
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
