"""The one writer: what arrived since the last commit becomes one transaction, on a thread of its own.

An operation is a function of a transaction. The batch is applied in order; if one operation fails, everything is
rolled back and the batch replayed with each operation under a savepoint, so that only the faulty caller gets the error.
Futures resolve after COMMIT, and what changes in memory changes only then. Trouble of the database itself (locked, disk
full, gone) fails the whole batch with SpoolError; the writer goes on with the next.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import Table, insert

from gatewayd.errors import GatewayError, SpoolError
from gatewayd.spool.engine import Connection, Cursor, Database, Params, Row, Statement

if TYPE_CHECKING:
    from gatewayd.spool.lanes import Lane

log = logging.getLogger("gatewayd.spool")

T = TypeVar("T")

BATCH_ROWS = 2000  # a batch takes no further operation once it holds this many rows
BATCH_TIME_S = 0.05  # nor once it has taken this long


@dataclass(slots=True)
class Notices:
    """What a committed batch means for those who wait.

    `lanes`: how many messages became claimable, by lane. `due_at`: the earliest time newly set at which something
    has to be done (None: none was set).
    """

    lanes: dict[Lane, int] = field(default_factory=dict)
    due_at: int | None = None

    def claimable(self, lane: Lane) -> None:
        self.lanes[lane] = self.lanes.get(lane, 0) + 1

    def at(self, due_at: int) -> None:
        if self.due_at is None or due_at < self.due_at:
            self.due_at = due_at


class Tx:
    """One transaction of the writer. Inserts by `add` are collected and written together."""

    def __init__(self, database: Database, cursor: Cursor) -> None:
        self._database = database
        self._cursor = cursor
        self._added: dict[Table, list[Params]] = {}
        self.notices = Notices()

    def run(self, statement: Statement, params: Params) -> int:
        """Execute; returns the number of rows it changed."""
        self._execute(statement, params)
        return self._cursor.rowcount

    def one(self, statement: Statement, params: Params) -> Row | None:
        self._execute(statement, params)
        return self._cursor.fetchone()

    def all(self, statement: Statement, params: Params) -> list[Row]:
        self._execute(statement, params)
        return self._cursor.fetchall()

    def add(self, table: Table, row: Params) -> None:
        """Insert `row` (all columns but a generated id) at the latest before the commit."""
        self._added.setdefault(table, []).append(row)

    def flush(self) -> None:
        """Write what `add` has collected: needed before it is read in the same transaction."""
        for table, rows in self._added.items():
            if rows:
                sql, _ = self._database.compiled(_insert_of(table, rows[0]))
                self._cursor.executemany(sql, rows)
        self._added.clear()

    def control(self, sql: str) -> None:
        """Execute transaction control."""
        self._cursor.execute(sql)

    def _execute(self, statement: Statement, params: Params) -> None:
        sql, constants = self._database.compiled(statement)
        self._cursor.execute(sql, {**constants, **params} if constants else params)


_inserts: dict[tuple[str, tuple[str, ...]], Statement] = {}  # a cache of what is derived from the schema


def _insert_of(table: Table, row: Params) -> Statement:
    key = (table.name, tuple(row))
    found = _inserts.get(key)
    if found is None:
        found = _inserts[key] = Statement(insert(table), columns=list(row))
    return found


Operation = Callable[[Tx], T]


@dataclass(slots=True)
class _Job(Generic[T]):
    operation: Operation[T]
    future: asyncio.Future[T]
    rows: int
    urgent: bool
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class WriterStats:
    """What the writer has done since it started; read for metrics."""

    commits: int = 0
    operations: int = 0
    failures: int = 0
    busy_s: float = 0.0


class Writer:
    """Runs operations in group commits. Start with `start()`, end with `stop()`."""

    def __init__(
        self,
        database: Database,
        *,
        on_commit: Callable[[Notices], None] = lambda notices: None,
        on_rollback: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._on_commit = on_commit
        self._on_rollback = on_rollback
        self._queue: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._carry: deque[_Job[Any]] = deque()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None
        self._stopped = False
        self._troubled = False
        self.stats = WriterStats()

    @property
    def healthy(self) -> bool:
        """Whether the last batch could be committed."""
        return not self._troubled and not self._stopped

    async def start(self) -> None:
        """Open the connection (in the writer's thread) and take work. Raises SpoolError."""
        self._loop = asyncio.get_running_loop()
        started: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, args=(started,), name="spool-writer", daemon=True)
        self._thread.start()
        await started

    async def stop(self) -> None:
        """Commit what was handed in, then end the thread."""
        if self._thread is None or self._stopped:
            return
        self._stopped = True
        self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    async def run(self, operation: Operation[T], *, rows: int = 1, urgent: bool = False) -> T:
        """Apply `operation` in the next transaction; returns its result once that is on disk.

        `rows` is about how many rows it writes, `urgent` puts it before the others of its batch. Raises what the
        operation raised, or SpoolError. A caller that is cancelled does not undo it.
        """
        if self._stopped or self._loop is None:
            raise SpoolError("the spool is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Job(operation, future, rows, urgent))
        return await future

    # In the writer's thread from here on.

    def _main(self, started: asyncio.Future[None]) -> None:
        assert self._loop is not None
        try:
            self._connection = self._database.connect()
        except BaseException as error:  # handed to the caller of start()
            self._loop.call_soon_threadsafe(_resolve, started, None, error)
            return
        self._loop.call_soon_threadsafe(_resolve, started, None, None)
        while (batch := self._take()) is not None:
            notices = self._commit(batch)
            try:
                self._loop.call_soon_threadsafe(self._deliver, batch, notices)
            except RuntimeError:  # the loop is gone: nobody waits any more
                break
        self._connection.close()

    def _take(self) -> list[_Job[Any]] | None:
        """What arrived since the last commit, urgent first; None when stopped and empty."""
        batch: list[_Job[Any]] = []
        rows = 0
        while rows < BATCH_ROWS:
            if self._carry:
                job: _Job[Any] | None = self._carry.popleft()
            else:
                try:
                    job = self._queue.get(block=not batch)
                except Empty:
                    break
            if job is None:
                if not batch:
                    return None
                self._queue.put(None)  # seen again after this batch
                break
            batch.append(job)
            rows += job.rows
        batch.sort(key=lambda job: not job.urgent)
        return batch

    def _commit(self, batch: list[_Job[Any]]) -> Notices:
        begun = time.monotonic()
        try:
            return self._attempt(batch, begun)
        except BaseException as error:
            self._roll_back()
            if self._database.unavailable(error) or isinstance(error, SpoolError):
                return self._fail(batch, error)
        try:  # one operation is at fault: find it
            return self._replay(batch)
        except BaseException as error:
            self._roll_back()
            return self._fail(batch, error)
        finally:
            self.stats.busy_s += time.monotonic() - begun

    def _begin(self) -> Tx:
        if self._connection is None:
            self._connection = self._database.connect()
        tx = Tx(self._database, self._connection.cursor())
        tx.control(self._database.begin)
        return tx

    def _attempt(self, batch: list[_Job[Any]], begun: float) -> Notices:
        """Apply all, commit. What does not fit the time goes to the next batch."""
        tx = self._begin()
        for done, job in enumerate(batch):
            if done and time.monotonic() - begun > BATCH_TIME_S:
                self._carry.extendleft(reversed(batch[done:]))
                del batch[done:]
                break
            job.result = job.operation(tx)
        tx.flush()
        tx.control("COMMIT")
        self._recovered()
        self.stats.commits += 1
        self.stats.operations += len(batch)
        self.stats.busy_s += time.monotonic() - begun
        return tx.notices

    def _replay(self, batch: list[_Job[Any]]) -> Notices:
        """Each operation under a savepoint: one that fails takes nothing else with it."""
        tx = self._begin()
        for job in batch:
            kept = Notices(dict(tx.notices.lanes), tx.notices.due_at)
            tx.control("SAVEPOINT op")
            try:
                job.result = job.operation(tx)
                tx.flush()
                tx.control("RELEASE SAVEPOINT op")
            except Exception as error:
                if self._database.unavailable(error):
                    raise
                job.result, job.error = None, error
                tx._added.clear()
                tx.notices = kept
                tx.control("ROLLBACK TO SAVEPOINT op")
                self._on_rollback()
                if not isinstance(error, GatewayError):
                    log.error("an operation on the spool failed", exc_info=error)
        tx.control("COMMIT")
        self._recovered()
        self.stats.commits += 1
        self.stats.operations += len(batch)
        return tx.notices

    def _roll_back(self) -> None:
        self._on_rollback()
        if self._connection is None:
            return
        try:
            self._connection.cursor().execute("ROLLBACK")
        except Exception as error:
            log.debug("rollback: %s", error)  # there was none to roll back, or the connection is gone

    def _fail(self, batch: list[_Job[Any]], error: BaseException) -> Notices:
        self.stats.failures += 1
        log.log(
            logging.DEBUG if self._troubled else logging.WARNING,
            "the spool takes no writes: %s (%d operations refused)",
            error,
            len(batch),
        )
        self._troubled = True
        for job in batch:
            job.result, job.error = None, SpoolError(f"the spool takes no writes now: {error}")
        if self._database.lost(error) and self._connection is not None:
            try:
                self._connection.close()
            except Exception as closing:
                log.debug("closing a lost connection: %s", closing)
            self._connection = None
        return Notices()

    def _recovered(self) -> None:
        if self._troubled:
            self._troubled = False
            log.info("the spool takes writes again")

    # In the event loop.

    def _deliver(self, batch: Iterable[_Job[Any]], notices: Notices) -> None:
        self._on_commit(notices)
        for job in batch:
            _resolve(job.future, job.result, job.error)


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled meanwhile
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
