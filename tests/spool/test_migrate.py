"""Migrations make exactly the schema that the statements are written for, on both engines."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import inspect, select, text

from gatewayd.errors import SpoolError
from gatewayd.spool import migrate, schema
from gatewayd.spool.engine import Database, open_database
from tests.spool.helpers import CONTACT, START_MS, FakeClock, Sim, intake, message, open_spool, pdus

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


def make_spool(url: str, revision: str, parts: list[dict[str, Any]], *, statements: tuple[str, ...] = ()) -> None:
    """A spool as `revision` left it, with these received parts in it."""
    database = open_database(url)
    engine = database.migration_engine()
    try:
        with engine.connect() as connection:
            config = Config()
            config.set_main_option("script_location", str(VERSIONS.parent))
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            for values in parts:
                names = ", ".join(values)
                places = ", ".join(":" + name for name in values)
                connection.execute(text(f"INSERT INTO inbound_parts ({names}) VALUES ({places})"), values)
            for statement in statements:
                connection.execute(text(statement))
            connection.commit()
    finally:
        engine.dispose()


def _part(id_: int, said: str | None, **fields: Any) -> dict[str, Any]:
    """A row of inbound_parts as 0001 wrote it, the `id_`th."""
    data = None if said is None else said.encode("ascii")
    raw = fields.pop("raw", f"AA{id_:02X}")
    values = {
        "received_at": START_MS - 86_400_000 + id_, "channel": "m0", "sim_id": 1, "raw": raw,
        "digest": hashlib.sha256(raw.encode()).digest(), "listing": "old", "storage": "SM", "storage_index": id_,
        "originator": CONTACT, "sent_at": START_MS - 86_400_000, "dcs": 0, "text": said, "user_data": data,
    }  # fmt: skip
    return {**values, **fields}


def _of(ref: int, total: int, seq: int, bits: int = 8) -> dict[str, int]:
    return {"concat_ref": ref, "concat_bits": bits, "concat_total": total, "concat_seq": seq}


async def test_what_0001_received_and_handed_to_nobody_is_handed_over_once(database_url: str) -> None:
    """Single texts, a whole long one, one that lacks a part, a redelivery, what cannot be decoded, and a STOP."""
    parts = [
        _part(1, "hello"),
        _part(2, "world", **_of(7, 2, 2)),
        _part(3, "long ", **_of(7, 2, 1)),
        _part(4, "never ends", **_of(8, 3, 1)),
        _part(5, "hello", raw="AA01", duplicate_of=1, listing="older"),
        _part(6, None, error="no hex", originator="", sent_at=None),
        _part(7, "STOP", originator="+59898000001"),
        _part(8, "another sim", sim_id=2, **_of(7, 2, 1)),
        _part(9, "sixteen ", **_of(7, 2, 1, bits=16)),
        _part(10, "bits", **_of(7, 2, 2, bits=16)),
    ]
    make_spool(database_url, "0001", parts)
    clock = FakeClock()
    async with open_spool(database_url, clock=clock, intake=intake()) as spool:
        i = schema.inbound_messages.c
        (queued,) = await spool.accept(message("+59898000001"))
        advanced = await spool.store.advance()
        assert len(advanced.handed_over) == 7
        rows = await spool.rows(select(i.text, i.kind, i.parts, i.parts_total).order_by(i.text))
        assert sorted(rows, key=str) == sorted(
            [
                ("hello", "text", 1, 1), ("long world", "text", 2, 2), ("never ends[…]", "text", 1, 3),
                (None, "undecodable", 1, 1), ("STOP", "text", 1, 1), ("another sim[…]", "text", 1, 2),
                ("sixteen bits", "text", 2, 2),
            ],
            key=str,
        )  # fmt: skip
        m = schema.messages.c
        states = await spool.rows(select(m.id, m.state).order_by(m.id))
        assert states[0] == (queued, 3), "a STOP that waited for this version counts"
        await spool.store.advance()
        assert [state for _, state in await spool.rows(select(m.id, m.state).order_by(m.id))][1:] == [6], (
            "its confirmation comes a day late, so it is not sent"
        )
        assert (await spool.store.advance()).handed_over == ()
        # What lies on the SIM still is the same message seen again, and what was missing continues its message.
        again = [schema.inbound_parts.c.id, schema.inbound_parts.c.duplicate_of]
        await Sim(spool).read(*pdus("new"))
        assert len(await spool.rows(select(*again))) == 11
        assert len(await spool.rows(select(i.id))) == 8


async def test_messages_of_0001_are_sent_and_found_by_an_opt_out(database_url: str) -> None:
    """Rows that 0002 knows nothing of have its columns' defaults."""
    make_spool(database_url, "0001", [])
    async with open_spool(database_url, intake=intake(confirm=False)) as spool:
        await spool.accept(message())
    engine = open_database(database_url).migration_engine()
    try:
        with engine.connect() as connection:
            assert connection.execute(text("SELECT callback_format FROM messages")).scalar() == ""
            connection.execute(text("UPDATE messages SET optout_checked_at = NULL"))
            connection.commit()
    finally:
        engine.dispose()
    async with open_spool(database_url, intake=intake(confirm=False)) as spool:
        await Sim(spool).says("STOP")
        assert await spool.rows(select(schema.messages.c.state)) == [(3,)]
        outbox = schema.outbox.c
        assert [row[0] for row in await spool.rows(select(outbox.id).order_by(outbox.id))] == [1, 2, 3, 4]


def test_a_schema_from_the_future_is_refused(database_url: str) -> None:
    make_spool(database_url, "0002", [], statements=("UPDATE alembic_version SET version_num = '9999'",))
    with pytest.raises(SpoolError, match="newer than this gatewayd"):
        migrate.migrate(open_database(database_url))


async def test_two_long_texts_of_0001_with_one_reference_are_two(database_url: str) -> None:
    """References of 8 bits come round within weeks."""
    said = [("one ", 1), ("two ", 1), ("uno", 2), ("dos", 2), ("three ", 1)]
    make_spool(
        database_url, "0001", [_part(n, text_, **_of(7, 2, seq)) for n, (text_, seq) in enumerate(said, start=1)]
    )
    async with open_spool(database_url, intake=intake()) as spool:
        await spool.store.advance()
        i = schema.inbound_messages.c
        rows = await spool.rows(select(i.text, i.parts, i.parts_total).order_by(i.id))
        assert rows == [("one uno", 2, 2), ("two dos", 2, 2), ("three […]", 1, 2)]
        assert await spool.rows(select(schema.inbound_assemblies.c.continues).distinct()) == [(None,)]
