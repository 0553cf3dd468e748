"""The one writer: what arrived since the last commit becomes one transaction, on a thread of its own.

An operation is a function of a transaction. The batch is applied in order; if one operation fails, everything is
rolled back and the batch replayed with each operation under a savepoint, so that only the faulty caller gets the error.
Futures resolve after COMMIT, and what changes in memory changes only then. Trouble of the database itself (locked, disk
full, gone) fails the whole batch with SpoolError; the writer goes on with the next.

A connection that dies between COMMIT and its answer leaves a question, which the server is asked on the next one. Where
nobody can tell, the callers get SpoolError although it may have taken place: their operations bear a repetition, and
the first commit afterwards tells everybody to look again (`Notices.everything`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import Table, insert

from gatewayd import crashpoints, metrics
from gatewayd.errors import GatewayError, SpoolError
from gatewayd.msglog import Trouble
from gatewayd.spool.engine import Connection, Cursor, Database, Params, Row, Statement
from gatewayd.spool.rhythm import Rhythm

if TYPE_CHECKING:
    from gatewayd.spool.events import GatewayEvent
    from gatewayd.spool.lanes import Lane

log = logging.getLogger("gatewayd.spool")

T = TypeVar("T")

BATCH_ROWS = 2000  # a batch takes no further operation once it holds this many rows
BATCH_TIME_S = 0.05  # nor once it has taken this long
STEP = 500  # rows that upkeep moves in one transaction, so that no claim waits long
LOOP_TURN_S = 5.0  # a loop that takes longer to turn lets nothing through meanwhile


@dataclass(slots=True)
class Notices:
    """What a committed batch means for those who wait.

    `lanes`: how many messages became claimable, by lane. `due_at`: the earliest time newly set at which something
    has to be done (None: none was set). `everything`: after trouble, what was committed before it may be unknown.
    `events`: what applications are told of it; `endpoints`: who of them is to be called. `recalled`: a submission may
    have been withdrawn, so the event loop must have turned once before the commit.
    """

    lanes: dict[Lane, int] = field(default_factory=dict)
    due_at: int | None = None
    everything: bool = False
    events: list[GatewayEvent] = field(default_factory=list)
    endpoints: set[str] = field(default_factory=set)
    recalled: bool = False

    def claimable(self, lane: Lane) -> None:
        self.lanes[lane] = self.lanes.get(lane, 0) + 1

    def at(self, due_at: int) -> None:
        if self.due_at is None or due_at < self.due_at:
            self.due_at = due_at

    def copy(self) -> Notices:
        return Notices(
            dict(self.lanes), self.due_at, self.everything, list(self.events), set(self.endpoints), self.recalled
        )


class Tx:
    """One transaction of the writer. Inserts by `add` are collected and written together.

    `on_rollback`: a replay, in which every operation and every guarded step of one is under a savepoint, and this is
    called where one is undone. None: the first try of a batch, in which whatever fails undoes it all.
    """

    def __init__(self, database: Database, cursor: Cursor, on_rollback: Callable[[], None] | None = None) -> None:
        self._database = database
        self._cursor = cursor
        self._on_rollback = on_rollback
        self._added: dict[Table, list[Params]] = {}
        self.notices = Notices()
        self.id = database.begin(cursor)

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

    def guard(self, step: Callable[[], T], otherwise: Callable[[Exception], T]) -> T:
        """Apply `step`; if it fails, undo it alone and apply `otherwise` to its error: one bad row stops no others.

        It costs nothing as long as nothing fails: only the replay that follows a failure makes savepoints.
        """
        if self._on_rollback is None:
            return step()
        try:
            return self.undoable(step)
        except Exception as error:
            if self._database.unavailable(error):
                raise
            log.error("a step of an operation on the spool failed", exc_info=error)
            return otherwise(error)

    def undoable(self, step: Callable[[], T]) -> T:
        """Apply `step` under a savepoint: if it raises, nothing of it is left. For the replay."""
        assert self._on_rollback is not None
        self.flush()
        kept = self.notices.copy()
        self.control("SAVEPOINT step")
        try:
            result = step()
            self.flush()
        except Exception as error:
            if not self._database.unavailable(error):
                self._added.clear()
                self.notices = kept
                self.control("ROLLBACK TO SAVEPOINT step")
                self.control("RELEASE SAVEPOINT step")
                self._on_rollback()
            raise
        self.control("RELEASE SAVEPOINT step")
        return result

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
    put_back: bool = False  # by a batch that had no time for it
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class WriterStats:
    """What the writer has done since it started; read for metrics."""

    commits: int = 0
    operations: int = 0
    replays: int = 0
    failures: int = 0


class Writer:
    """Runs operations in group commits. Start with `start()`, end with `stop()`."""

    def __init__(
        self,
        database: Database,
        *,
        on_commit: Callable[[Notices], None] = lambda notices: None,
        on_rollback: Callable[[], None] = lambda: None,
        before_commit: Callable[[Tx], None] = lambda tx: None,
    ) -> None:
        self._database = database
        self._on_commit = on_commit
        self._on_rollback = on_rollback
        self._before_commit = before_commit
        self._urgent: deque[_Job[Any]] = deque()
        self._waiting: deque[_Job[Any]] = deque()
        self._arrived = threading.Condition()  # guards the two queues and `_stopped`
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None
        self._stopped = False
        self._trouble = Trouble(log)
        self.stats = WriterStats()
        self._rhythm = Rhythm()
        self.reason = ""  # why the last batch that failed did

    @property
    def healthy(self) -> bool:
        """Whether the last batch could be committed."""
        return not self._trouble.active and not self._stopped

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
        with self._arrived:
            self._stopped = True
            self._arrived.notify()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    async def run(self, operation: Operation[T], *, rows: int = 1, urgent: bool = False) -> T:
        """Apply `operation` in the next transaction; returns its result once that is on disk.

        `rows` is about how many rows it writes, `urgent` puts it before all that are not. Raises what the operation
        raised, or SpoolError. A caller that is cancelled does not undo it.
        """
        if self._stopped or self._loop is None:
            raise SpoolError("the spool is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        job = _Job(operation, future, rows, urgent)
        with self._arrived:
            (self._urgent if urgent else self._waiting).append(job)
            self._arrived.notify()
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
        if self._connection is not None:
            self._connection.close()

    def _take(self) -> list[_Job[Any]] | None:
        """What goes into the next transaction, urgent first; None when stopped and empty."""
        batch: list[_Job[Any]] = []
        rows = 0
        with self._arrived:
            while not (self._urgent or self._waiting):
                if self._stopped:
                    return None
                self._arrived.wait()
            if self._waiting and self._waiting[0].put_back:  # what is urgent must not keep the rest out for ever
                batch.append(self._waiting.popleft())
            most_urgent = self._rhythm.most_urgent(len(self._urgent))
            for queue, room in ((self._urgent, most_urgent), (self._waiting, BATCH_ROWS)):
                while queue and rows < BATCH_ROWS and room:
                    batch.append(queue.popleft())
                    rows += batch[-1].rows
                    room -= 1
        return batch

    def _put_back(self, jobs: list[_Job[Any]]) -> None:
        """To the front of their queues."""
        with self._arrived:
            for job in reversed(jobs):
                job.put_back = True
                (self._urgent if job.urgent else self._waiting).appendleft(job)

    def _commit(self, batch: list[_Job[Any]]) -> Notices:
        begun = time.monotonic()
        try:
            return self._attempt(batch, begun)
        except BaseException as error:
            self._roll_back()
            if self._database.unavailable(error) or isinstance(error, SpoolError):
                return self._fail(batch, error)
        try:  # one operation is at fault: find it
            return self._replay(batch, begun)
        except BaseException as error:
            self._roll_back()
            return self._fail(batch, error)

    def _begin(self, on_rollback: Callable[[], None] | None = None) -> Tx:
        """A transaction; on another connection where the one at hand died since the last."""
        if self._connection is not None:
            try:
                return Tx(self._database, self._connection.cursor(), on_rollback)
            except Exception as error:
                if not self._database.lost(error):
                    raise
                log.info("the connection to the spool was lost, another one is made: %s", error)
                self._drop_connection()
        self._connection = self._database.connect()
        return Tx(self._database, self._connection.cursor(), on_rollback)

    def _attempt(self, batch: list[_Job[Any]], begun: float) -> Notices:
        """Apply all, commit. What does not fit the time goes to the next batch."""
        crashpoints.reach("writer.before_begin")
        tx = self._begin()
        for done, job in enumerate(batch):
            if done and time.monotonic() - begun > BATCH_TIME_S:
                self._put_back(batch[done:])
                del batch[done:]
                break
            applying = time.monotonic()
            job.result = job.operation(tx)
            if job.urgent:
                self._rhythm.worked(time.monotonic() - applying)
        return self._finish(tx, batch, begun)

    def _replay(self, batch: list[_Job[Any]], begun: float) -> Notices:
        """Each operation under a savepoint: one that fails takes nothing else with it."""
        self.stats.replays += 1
        tx = self._begin(self._on_rollback)
        for job in batch:
            try:
                job.result = tx.undoable(partial(job.operation, tx))
            except Exception as error:
                if self._database.unavailable(error):
                    raise
                job.result, job.error = None, error
                if not isinstance(error, GatewayError):
                    log.error("an operation on the spool failed", exc_info=error)
        return self._finish(tx, batch, begun)

    def _finish(self, tx: Tx, batch: list[_Job[Any]], begun: float) -> Notices:
        if tx.notices.events:
            self._before_commit(tx)
        tx.flush()
        if tx.notices.recalled:
            self._let_the_loop_turn()
        crashpoints.reach("writer.before_commit")
        committing = time.monotonic()
        try:
            tx.control("COMMIT")
        except Exception as error:
            if not self._took_place(tx, error):
                raise
        self._rhythm.committed(time.monotonic() - committing)
        crashpoints.reach("writer.committed")
        if self._trouble.active:
            self._trouble.recovered("the spool takes writes again")
            tx.notices.everything = True
        self.stats.commits += 1
        self.stats.operations += len(batch)
        metrics.commit(len(batch), time.monotonic() - begun)
        return tx.notices

    def _let_the_loop_turn(self) -> None:
        """Whoever was let through before a recall has begun to write by the time this returns; nobody is after it."""
        assert self._loop is not None
        turned = threading.Event()
        try:
            self._loop.call_soon_threadsafe(turned.set)
        except RuntimeError:  # the loop is gone, and with it all who write
            return
        turned.wait(LOOP_TURN_S)

    def _took_place(self, tx: Tx, error: Exception) -> bool:
        """Whether a commit whose answer is lost is on disk all the same: asked on another connection."""
        if tx.id is None or not self._database.lost(error):
            return False
        self._drop_connection()
        try:
            self._connection = self._database.connect()
            return self._database.committed(self._connection, tx.id)
        except Exception as again:
            log.debug("nobody can say whether a commit took place: %s", again)
            return False

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
        self.reason = self._database.reason(error)
        self._trouble.failed(None, "the spool takes no writes: %s (%d operations refused)", self.reason, len(batch))
        for job in batch:
            job.result, job.error = None, SpoolError(f"the spool takes no writes now: {self.reason}")
        if self._database.lost(error):
            self._drop_connection()
        return Notices()

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception as closing:
                log.debug("closing a lost connection: %s", closing)

    # In the event loop.

    def _deliver(self, batch: Iterable[_Job[Any]], notices: Notices) -> None:
        try:
            self._on_commit(notices)
        finally:
            for job in batch:
                _resolve(job.future, job.result, job.error)
            crashpoints.reach("writer.resolved")


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled meanwhile
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
