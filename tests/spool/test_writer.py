"""The writer against real trouble: a locked file, a full disk, a faulty operation, a stop with work at hand."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from gatewayd.app import _WriterHeart
from gatewayd.errors import SpoolError
from gatewayd.spool import engine, schema
from gatewayd.spool import writer as writer_module
from gatewayd.spool.engine import Statement, open_database
from gatewayd.spool.store import Store
from gatewayd.spool.work import Rules
from gatewayd.spool.writer import BATCH_ROWS, Tx, Writer
from tests.spool.helpers import LosesAnswers, message, open_spool

IDS = select(schema.messages.c.id)


async def test_many_concurrent_writes_share_a_commit(database_url: str) -> None:
    """Promise 1."""
    async with open_spool(database_url) as spool:
        writer, begun, go = spool.store.writer, asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def under_way(tx: Tx) -> None:
            loop.call_soon_threadsafe(begun.set)
            go.wait(10)

        first = asyncio.create_task(writer.run(under_way))
        await begun.wait()
        before = writer.stats.commits
        posts = [asyncio.create_task(spool.accept(message(f"+598981{i:05}"))) for i in range(500)]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, *posts)
        assert writer.stats.commits - before < 20
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


async def test_what_is_urgent_does_not_queue_behind_bulk(sqlite_url: str) -> None:
    """Promise 6: a channel's next message waits for the batch under way, not for all that was posted before."""
    async with open_spool(sqlite_url) as spool:
        writer, order, go = spool.store.writer, list[str](), threading.Event()
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def under_way(tx: Tx) -> None:
            loop.call_soon_threadsafe(begun.set)
            go.wait(10)

        first = asyncio.create_task(writer.run(under_way))
        await begun.wait()
        bulk = [asyncio.create_task(writer.run(lambda tx: order.append("bulk"), rows=BATCH_ROWS)) for _ in range(20)]
        await asyncio.sleep(0)
        urgent = asyncio.create_task(writer.run(lambda tx: order.append("urgent"), urgent=True))
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, *bulk, urgent)
        assert order.index("urgent") == 0


async def test_what_is_urgent_does_not_keep_the_rest_out_for_ever(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "BATCH_TIME_S", 0.0)  # a batch holds one operation
    async with open_spool(sqlite_url) as spool:
        done = False

        async def channel() -> None:
            while not done:
                await spool.store.writer.run(lambda tx: time.sleep(0.002), urgent=True)  # as a claim takes

        channels = [asyncio.create_task(channel()) for _ in range(20)]
        try:
            await asyncio.wait_for(spool.accept(), 10)
        finally:
            done = True
            await asyncio.gather(*channels)


async def test_a_commit_whose_answer_is_lost_is_asked_about_or_told_to_everybody(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 1: PostgreSQL can say whether it took place; SQLite cannot, and then all have to look again."""
    async with open_spool(database_url) as spool:
        lost = LosesAnswers(monkeypatch, spool.database)
        lost.times = 1
        if isinstance(spool.database, engine.SqliteDatabase):
            with pytest.raises(SpoolError):
                await spool.accept()
        else:
            assert len(await spool.accept()) == 1
        assert len(await spool.rows(IDS)) == 1, "it did take place"
        assert any(notices.everything or notices.lanes for notices in spool.notices), "and somebody is told"


async def test_callers_are_answered_whatever_the_listener_does(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

    def bad(notices: object) -> None:
        raise ValueError("a bug")

    writer = Writer(database, on_commit=bad)
    await writer.start()
    try:
        assert await asyncio.wait_for(writer.run(lambda tx: 7), 10) == 7
    finally:
        await writer.stop()


async def test_a_lost_server_is_found_again_and_its_lock_taken(postgres_url: str) -> None:
    async with open_spool(postgres_url) as spool:
        for _ in range(3):
            _kill_writers(postgres_url)
            assert len(await spool.accept()) == 1, "it died idle: nobody need notice"
        second = Store(open_database(postgres_url), "gw1", spool.clock, Rules())
        with pytest.raises(SpoolError, match="one at a time"):
            await second.open()
        _kill_writers(postgres_url)


async def test_a_guarded_step_that_fails_is_undone_alone(database_url: str) -> None:
    """Promise 4: one malformed row."""
    async with open_spool(database_url) as spool:

        def operation(tx: Tx) -> list[str]:
            def step(name: str) -> str:
                tx.add(schema.audit, {"at": 1, "actor": name, "action": "x", "detail": ""})
                if name == "b":
                    tx.notices.at(5)
                    raise ValueError(name)
                return name

            return [tx.guard(partial(step, name), lambda error: f"not {error}") for name in "abc"]

        spool.notices.clear()
        assert await spool.store.writer.run(operation) == ["a", "not b", "c"]
        assert await spool.rows(select(schema.audit.c.actor).order_by(schema.audit.c.id)) == [("a",), ("c",)]
        assert all(notices.due_at is None for notices in spool.notices)


def _kill_writers(url: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE %s",
            ("gatewayd % writer",),
        )


async def test_the_writers_heart_beats_however_much_waits_to_be_written(sqlite_url: str) -> None:
    """The watchdog asks whether the thread works, not whether it has caught up."""
    async with open_spool(sqlite_url) as spool:
        writer = spool.store.writer
        go_on, beaten = threading.Event(), threading.Event()
        first = asyncio.create_task(writer.run(lambda tx: go_on.wait(20)))
        bulk = [asyncio.create_task(writer.run(lambda tx: None, rows=BATCH_ROWS)) for _ in range(3)]
        last = asyncio.create_task(writer.run(lambda tx: beaten.wait(10), rows=BATCH_ROWS))
        await asyncio.sleep(0)
        beat = asyncio.create_task(_WriterHeart(spool.store).beat())
        beat.add_done_callback(lambda task: beaten.set())
        await asyncio.sleep(0)
        go_on.set()
        assert await last, "it went to disk before the last of the bulk"
        await asyncio.gather(first, beat, *bulk)
