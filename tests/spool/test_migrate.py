"""Migrations make exactly the schema that the statements are written for, on both engines."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import inspect

from gatewayd.spool import migrate, schema
from gatewayd.spool.engine import Database, open_database

VERSIONS = Path(migrate.__file__).parent / "migrations" / "versions"


def _shape(database: Database) -> dict[str, object]:
    engine = database.migration_engine()
    try:
        inspector = inspect(engine)
        return {
            table: (
                sorted(
                    (column["name"], str(column["type"]), column["nullable"], str(column["default"]))
                    for column in inspector.get_columns(table)
                ),
                sorted(
                    (
                        str(index["name"]),
                        str(index["column_names"]),
                        bool(index["unique"]),
                        str({k: str(v) for k, v in index["dialect_options"].items()}),
                    )
                    for index in inspector.get_indexes(table)
                ),
                inspector.get_pk_constraint(table)["constrained_columns"],
            )
            for table in inspector.get_table_names()
            if table != "alembic_version"
        }
    finally:
        engine.dispose()


def test_the_migrations_make_the_schema_of_the_code(database_url: str, tmp_path: Path) -> None:
    migrated = open_database(database_url)
    migrate.migrate(migrated)
    shape = _shape(migrated)
    engine = migrated.migration_engine()
    schema.metadata.drop_all(engine)
    schema.metadata.create_all(engine)
    engine.dispose()
    assert shape == _shape(migrated)


def test_a_second_start_migrates_nothing(database_url: str) -> None:
    database = open_database(database_url)
    migrate.migrate(database)
    migrate.migrate(database)


def test_the_head_named_in_the_code_is_the_last_file() -> None:
    revisions = sorted(path.name.split("_")[0] for path in VERSIONS.glob("0*.py"))
    assert tuple(revisions) == migrate.REVISIONS
    assert revisions[-1] == migrate.HEAD
