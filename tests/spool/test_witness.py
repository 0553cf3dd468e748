"""A spool that is not the newest of its kind sends nothing by itself; a crash never makes it look like one."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gatewayd.errors import SpoolError
from gatewayd.model import InDoubtPolicy
from gatewayd.spool import restored, schema, witness
from gatewayd.spool.engine import open_database
from gatewayd.spool.restore import mark_restored
from gatewayd.spool.settings import PAUSED
from gatewayd.spool.store import Store
from gatewayd.spool.work import Rules
from gatewayd.spool.writer import STEP, Tx
from tests.spool.helpers import START_MS, FakeClock, Spool, message

MESSAGES = (
    select(
        schema.messages.c.id, schema.messages.c.queue, schema.messages.c.held, schema.messages.c.reason,
        schema.messages.c.in_doubt, schema.messages.c.busy,
    ).order_by(schema.messages.c.id)
)  # fmt: skip
SEGMENTS = select(schema.segments.c.message_id, schema.segments.c.state, schema.segments.c.deadline_at).order_by(
    schema.segments.c.message_id, schema.segments.c.seq
)
EVENTS = select(schema.events.c.message_id, schema.events.c.event, schema.events.c.detail)


@asynccontextmanager
async def opened(url: str, file: Path | None, *, instance: str = "gw1", crash: bool = False) -> AsyncIterator[Spool]:
    """A store with its witness; `crash`: it ends without noting that it does."""
    database = open_database(url)
    spool = Spool(None, FakeClock(), database)  # type: ignore[arg-type]
    spool.store = Store(database, instance, spool.clock, Rules(), witness_file=file)
    await spool.store.open()
    try:
        yield spool
    finally:
        if crash:
            await spool.store.writer.stop()
            database.release()
        else:
            await spool.store.close()


async def fill(spool: Spool) -> None:
    """One sent, one in hand that may be sent again by its policy, one queued, one for later, one pinned and held."""
    line = await spool.sim()
    await spool.accept(message("+59898000001"))
    claim = await spool.claim(line)
    assert claim is not None
    await spool.accept(message("+59898000002", in_doubt=InDoubtPolicy.RESEND))
    assert await spool.claim(line, spool.sent(claim)) is not None
    await spool.accept(
        message("+59898000003"),
        message("+59898000004", not_before=START_MS + 1000),
        message("+59898000005", channel="gone"),
    )
    await spool.store.settle_pins(["m0"])

    def order(tx: Tx) -> None:
        row = {"at": 0, "actor": "op", "action": "release", "filter": "{}", "last_id": 5, "state": "running"}
        tx.add(schema.operations, row)

    await spool.store.writer.run(order)


async def check_held(spool: Spool, reason: str) -> None:
    rows = await spool.rows(MESSAGES)
    held = [row for row in rows if row[2] == restored.RESTORE]
    assert [row[0] for row in held] == [3, 4, 5]
    assert {row[1] for row in held} == {schema.KEPT}
    assert all(reason in row[3] for row in held), held
    assert rows[1][4:] == ("hold", 0), "policy resend is taken from it"
    states = [(row[1], row[2]) for row in await spool.rows(SEGMENTS)]
    assert [state for state, _ in states] == ["SUBMITTED", "IN_DOUBT", "HELD", "HELD", "HELD"]
    assert states[1][1] is None, "no deadline lets it go out again"
    told = {row[0]: row[2] for row in await spool.rows(EVENTS) if row[1] == "held"}
    assert {3, 4, 5} <= set(told)
    assert all(reason in told[idm] for idm in (3, 4, 5))
    assert await spool.rows(select(schema.operations.c.state)) == [("stopped",)]
    paused = json.loads(await spool.store.setting(PAUSED) or "{}")
    assert paused["actor"] == "gatewayd"
    assert reason in paused["reason"]
    assert await spool.store.setting(restored.MARK) == ""
    spool.clock.ms += 10 * 86_400_000
    await spool.store.settle_pins(["m0", "gone"])
    while (await spool.store.advance()).again_at == spool.clock.ms:
        pass
    assert await spool.claims(await spool.sim()) == [], "nothing goes out by itself"


async def test_what_is_marked_as_restored_is_held(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "witness"
    async with opened(database_url, file) as spool:
        await fill(spool)
        epoch = json.loads(file.read_text())["epoch"]
    done = mark_restored(open_database(database_url), "gw1", "root", START_MS, START_MS - 1)
    assert done.reason == f"restored from backup of {restored.moment(START_MS - 1)}"
    async with opened(database_url, file) as spool:
        await check_held(spool, done.reason)
        said = json.loads(file.read_text())
        assert said["epoch"] == epoch + 1
        (idm,) = await spool.accept(message("+59898000009"))
        assert idm == 6 + restored.ID_GAP, "ids that were given since are not given again"
        assert await spool.claims(await spool.sim()) == [idm], "what is accepted from now on is as always"


async def test_who_had_paused_it_before_is_not_forgotten(database_url: str) -> None:
    """Whoever resumes after the restore would else end another's pause without knowing of it."""
    async with opened(database_url, None) as spool:
        said = json.dumps({"actor": "ana", "at": START_MS, "reason": "the operator's bill"})
        await spool.store.set_setting(PAUSED, said, "ana")
    mark_restored(open_database(database_url), "gw1", "root", START_MS, None)
    for _ in range(2):
        async with opened(database_url, None) as spool:
            paused = json.loads(await spool.store.setting(PAUSED) or "{}")
            assert paused["actor"] == "gatewayd"
            assert paused["reason"].startswith("restored from a backup. ")
            ana = f"In the backup it was paused by ana at {restored.moment(START_MS)}: the operator's bill"
            assert paused["reason"].count(ana) == 1
            again = json.dumps({"reason": "restored from a backup"})  # as after a crash before all was held
            await spool.store.set_setting(restored.MARK, again, "gatewayd")


async def test_another_instance_name_leaves_nothing_in_hand(database_url: str, tmp_path: Path) -> None:
    """The backup of one machine, restored on another."""
    async with opened(database_url, None) as spool:
        await fill(spool)
    mark_restored(open_database(database_url), "other", "root", START_MS, None)
    async with opened(database_url, None, instance="other") as spool:
        await check_held(spool, "restored from a backup")


async def test_an_older_copy_is_noticed(sqlite_url: str, tmp_path: Path) -> None:
    path, file = tmp_path / "spool.db", tmp_path / "elsewhere"
    async with opened(sqlite_url, file) as spool:
        await fill(spool)
    shutil.copy(path, tmp_path / "copy")
    async with opened(sqlite_url, file) as spool:
        await spool.accept(message("+59898000006"))
        await spool.claims(await spool.sim())
    epoch = json.loads(file.read_text())["epoch"]
    shutil.copy(tmp_path / "copy", path)
    async with opened(sqlite_url, file) as spool:
        await check_held(spool, "older than its witness file, by which it had reached message 6 at")
        assert json.loads(file.read_text())["epoch"] == epoch + 1
    async with opened(sqlite_url, file) as spool:
        assert await spool.store.setting(restored.MARK) == ""


async def test_a_crash_while_it_is_held_is_made_good(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(sqlite_url, tmp_path / "witness") as spool:
        await fill(spool)
        await spool.accept(*[message(f"+598981{i:05}") for i in range(STEP)])
    mark_restored(open_database(sqlite_url), "gw1", "root", START_MS, START_MS)
    step, steps = restored.hold_step, 0

    def dying(*arguments: Any) -> restored.Held:
        nonlocal steps
        steps += 1
        if steps == 2:
            raise SpoolError("as a crash would")
        return step(*arguments)

    monkeypatch.setattr(restored, "hold_step", dying)
    with pytest.raises(SpoolError, match="as a crash"):
        async with opened(sqlite_url, tmp_path / "witness"):
            pass
    async with opened(sqlite_url, tmp_path / "witness") as spool:
        assert steps == 5, "two steps, three walks' ends"
        rows = await spool.rows(MESSAGES)
        assert len([row for row in rows if row[2] == restored.RESTORE]) == 3 + STEP
        assert await spool.claims(await spool.sim()) == []


async def test_twenty_crashes_are_no_older_copy(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "witness"
    for round_ in range(20):
        async with opened(database_url, file, crash=True) as spool:
            assert not await spool.store.setting(PAUSED)
            line = await spool.sim()
            await spool.accept(message(f"+598980001{round_:02}"))
            claim = await spool.claim(line)
            assert claim is not None
            if round_ % 3:
                assert spool.store._witness is not None
                await spool.store._witness.note()
                await spool.claim(line, spool.sent(claim))


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"spool_id": 1}', '{"spool_id": "x"}', "\0" * 100])
async def test_a_witness_that_is_missing_or_damaged_counts_for_nothing(
    sqlite_url: str, tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "witness"
    async with opened(sqlite_url, file) as spool:
        await spool.accept(message())
    file.unlink()
    if content is not None:
        file.write_text(content)
    with caplog.at_level(logging.INFO):
        async with opened(sqlite_url, file) as spool:
            assert not await spool.store.setting(PAUSED)
    assert ("no witness file" if content is None else "damaged") in caplog.text
    assert witness.read(file) is not None


async def test_another_spool_is_said(sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(sqlite_url, tmp_path / "witness") as spool:
        await spool.accept(message(), message("+59898000001"))
    async with opened(f"sqlite:///{tmp_path}/new.db", tmp_path / "witness") as spool:
        assert not await spool.store.setting(PAUSED)
    assert "is not the one its witness file knew" in caplog.text
    assert "message 2" in caplog.text


async def test_a_witness_that_cannot_be_written_stops_nothing(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(sqlite_url, tmp_path / "none" / "witness") as spool:
        await spool.accept(message())
    said = [record.levelname for record in caplog.records if "cannot be written" in record.message]
    assert said[:1] == ["WARNING"]
    assert "WARNING" not in said[1:]
