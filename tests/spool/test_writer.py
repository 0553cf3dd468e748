"""The writer against real trouble: a locked file, a full disk, a faulty operation, a stop with work at hand."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import select

from gatewayd.errors import SpoolError
from gatewayd.spool import engine, schema
from gatewayd.spool.engine import Statement, open_database
from gatewayd.spool.writer import Tx, Writer
from tests.spool.helpers import message, open_spool

IDS = select(schema.messages.c.id)


async def test_many_concurrent_writes_share_a_commit(database_url: str) -> None:
    """Promise 1."""
    async with open_spool(database_url) as spool:
        before = spool.store.writer.stats.commits
        await asyncio.gather(*[spool.accept(message(f"+598981{i:05}")) for i in range(500)])
        assert spool.store.writer.stats.commits - before < 50
        assert len(await spool.rows(IDS)) == 500


async def test_only_the_faulty_caller_gets_the_error(database_url: str) -> None:
    """Promise 4: one illegal operation inside a group commit."""
    async with open_spool(database_url) as spool:

        def bad_sql(tx: Tx) -> None:
            tx.add(schema.audit, {"at": 1, "actor": None, "action": "x", "detail": ""})

        results = await asyncio.gather(
            *[spool.accept(message(f"+598981{i:05}")) for i in range(20)],
            spool.store.writer.run(bad_sql),
            *[spool.accept(message(f"+598982{i:05}")) for i in range(20)],
            return_exceptions=True,
        )
        assert [i for i, result in enumerate(results) if isinstance(result, BaseException)] == [20]
        assert len(await spool.rows(IDS)) == 40


async def test_a_locked_spool_refuses_and_goes_on(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.05)
    async with open_spool(sqlite_url) as spool:
        other = sqlite3.connect(open_database(sqlite_url).url.database or "", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SpoolError, match="locked"):
            await spool.accept()
        assert not spool.store.writer.healthy
        other.execute("ROLLBACK")
        other.close()
        assert len(await spool.accept()) == 1
        assert spool.store.writer.healthy
        assert len(await spool.rows(IDS)) == 1


async def test_a_full_disk_refuses_keeps_nothing_and_goes_on(sqlite_url: str) -> None:
    """The kernel refuses every write beyond the limit, as it does on a full disk."""
    async with open_spool(sqlite_url) as spool:
        await spool.accept(*[message(f"+598981{i:05}") for i in range(50)])
        wal = Path(f"{open_database(sqlite_url).url.database}-wal")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size, hard))
        try:
            with pytest.raises(SpoolError):
                await spool.accept(*[message(f"+598982{i:05}") for i in range(500)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert len(await spool.rows(IDS)) == 50
        assert len(await spool.accept()) == 1
        line = await spool.sim()
        assert len(await spool.claims(line)) == 51


async def test_a_stop_commits_what_was_handed_in(sqlite_url: str) -> None:
    async with open_spool(sqlite_url) as spool:
        waiting = [asyncio.create_task(spool.accept(message(f"+598981{i:05}"))) for i in range(100)]
        while not spool.store.writer.stats.operations:
            await asyncio.sleep(0)
    assert len(await asyncio.gather(*waiting)) == 100
    with pytest.raises(SpoolError, match="closed"):
        await spool.accept()


async def test_a_spool_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    writer = Writer(open_database(f"sqlite:///{tmp_path}/missing/spool.db"))
    with pytest.raises(SpoolError, match=r"cannot open the spool .*missing"):
        await writer.start()
    (tmp_path / "garbage.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(SpoolError, match="garbage"):
        async with open_spool(f"sqlite:///{tmp_path}/garbage.db"):
            pass


async def test_a_long_batch_is_cut_and_nothing_of_it_lost(sqlite_url: str) -> None:
    async with open_spool(sqlite_url) as spool:
        results = await asyncio.gather(*[spool.accept(*[message()] * 500) for _ in range(12)])
        ids = [id_ for result in results for id_ in result]
        assert ids == sorted(ids)
        assert len(set(ids)) == 6000
        assert len(await spool.rows(IDS)) == 6000


async def test_each_engines_statements_are_compiled_once(database_url: str) -> None:
    database = open_database(database_url)
    statement = Statement(select(schema.messages.c.id).where(schema.messages.c.queue == 2))
    assert database.compiled(statement) is database.compiled(statement)
    sql, constants = database.compiled(statement)
    assert list(constants.values()) == [2]
    assert "queue" in sql
