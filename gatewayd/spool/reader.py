"""Reading the spool: what the API, the console and the command line show.

Another way than the writer's: the async engine, read-only connections, short transactions. Works on a spool that no
daemon has open. Every method raises SpoolError if the spool cannot be read (not there yet, locked, gone).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Select, and_, func, select
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from gatewayd.clock import Clock, SystemClock
from gatewayd.errors import SpoolError
from gatewayd.model import Admission, Delivery, InDoubtPolicy, MessageClass, MessageState, SegmentState
from gatewayd.spool import backlog, schema
from gatewayd.spool.backlog import Backlog
from gatewayd.spool.engine import Database, SqliteDatabase
from gatewayd.spool.lanes import Lane

T = TypeVar("T")

MAX_PAGE = 1000
HISTORY = 1000  # attempts, events and reports of one message that are shown: the last ones
COUNT_STEP = 20_000  # rows counted in one transaction
AHEAD_LIMIT = 1000  # messages ahead in the queue are counted up to here
COUNT_SHARE = 20  # counting takes at most one part in so many of the time: the rest of it a kept result answers

_m = schema.messages.c
_s = schema.segments.c
_a = schema.attempts.c
_e = schema.events.c
_r = schema.status_reports.c


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message's row. `queue` is one of the values in `schema`; `held_by` is the instance that has it in flight,
    `held` who keeps it back, `wish` what is to be done as soon as it is in no hands.
    """

    id: int
    state: MessageState
    delivery: Delivery
    admission: Admission
    class_: MessageClass
    to_given: str
    to: str
    text: str
    alphabet: str
    segments: int
    priority: int
    queue: int
    due_at: int
    waits_for: int | None
    lane_id: int
    report: bool
    in_doubt: InDoubtPolicy
    not_before: int | None
    expires_at: int | None
    sim_id: int | None
    avoid_sim_id: int
    channel: str | None
    pin_channel: str
    held_by: str | None
    touched: bool
    source: str
    target: str
    campaign: str
    agent: str
    client_ref: str | None
    caller: str
    reason: str
    accepted_at: int
    updated_at: int
    finished_at: int | None
    route: str = ""
    zone: str = ""
    held: str = ""
    wish: str = ""
    text_dropped_at: int | None = None

    @property
    def lane(self) -> Lane:
        """The queue it stands in."""
        sim_id, avoid = (self.sim_id or 0, 0) if self.touched else (0, self.avoid_sim_id)
        return Lane(self.lane_id, self.source, self.target, self.pin_channel, sim_id, avoid, self.zone)


@dataclass(frozen=True, slots=True)
class SegmentView:
    """One segment. `deadline_at`: until when a report, or an end of the doubt, is waited for."""

    seq: int
    state: SegmentState
    tries: int
    attempt: int
    sim_id: int | None
    channel: str | None
    tp_mr: int | None
    submitted_at: int | None
    deadline_at: int | None
    tp_status: int | None
    reported_at: int | None
    code: str


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One try at one segment. `started_at` None: nothing was written; `outcome` None: still in flight."""

    seq: int
    number: int
    channel: str
    sim_id: int
    intent_at: int
    started_at: int | None
    finished_at: int | None
    outcome: str | None
    failure: str | None
    code: str
    detail: str
    tp_mr: int | None


@dataclass(frozen=True, slots=True)
class EventView:
    """One row of history. `to_state` None: it changed nothing."""

    id: int
    message_id: int
    seq: int | None
    at: int
    event: str
    from_state: str | None
    to_state: str | None
    channel: str | None
    actor: str
    detail: str


@dataclass(frozen=True, slots=True)
class ReportView:
    """A status report that was matched to the message."""

    seq: int | None
    received_at: int
    channel: str
    tp_mr: int
    recipient: str
    tp_status: int
    discharged_at: int | None
    raw: str


@dataclass(frozen=True, slots=True)
class SimView:
    """A SIM as the spool knows it; `channel` is the one it is paired with."""

    id: int
    iccid: str | None
    imsi: str | None
    number: str
    channel: str | None
    first_seen_at: int
    last_seen_at: int
    last_submit_at: int | None


@dataclass(frozen=True, slots=True)
class MessageDetail:
    """A message with its history, all of one moment.

    `ahead`: messages before it in its queue (AHEAD_LIMIT means at least so many), 0 where it is not claimable.
    `history_cut`: there is more history than is here.
    """

    message: MessageView
    segments: tuple[SegmentView, ...]
    attempts: tuple[AttemptView, ...]
    events: tuple[EventView, ...]
    reports: tuple[ReportView, ...]
    sim: SimView | None
    ahead: int
    history_cut: bool


@dataclass(frozen=True, slots=True)
class LaneDepth:
    """What one lane holds. `due` may be claimed, `later` waits for its time, `behind` for another message to the same
    number, `out` is in hand or in doubt. `oldest_at`: when the oldest of them was accepted; `due_since`: since when the
    one that has been due for longest is due (None: none is)."""

    lane_id: int
    source: str
    target: str
    channel: str
    sim_id: int
    due: int
    later: int
    behind: int
    out: int
    oldest_at: int
    due_since: int | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many messages there are by state, and what is queued where; counted at `at` (epoch ms)."""

    at: int
    states: Mapping[MessageState, int]
    lanes: tuple[LaneDepth, ...]


_MESSAGE = (
    _m.id, _m.state, _m.delivery, _m.admission, getattr(_m, "class").label("class_"), _m.to_given,
    _m.to_number.label("to"), _m.text, _m.alphabet, _m.segments, _m.priority, _m.queue, _m.due_at, _m.waits_for,
    _m.lane_id, _m.report, _m.in_doubt, _m.not_before, _m.expires_at, _m.sim_id, _m.avoid_sim_id, _m.channel,
    _m.pin_channel, _m.owner.label("held_by"), _m.touched, _m.source, _m.target, _m.campaign, _m.agent, _m.client_ref,
    _m.api_key.label("caller"), _m.reason, _m.accepted_at, _m.updated_at, _m.finished_at, _m.position, _m.route,
    _m.zone, _m.held, _m.wish, _m.text_dropped_at,
)  # fmt: skip
_SEGMENT = (
    _s.seq, _s.state, _s.tries, _s.attempt, _s.sim_id, _s.channel, _s.tp_mr, _s.submitted_at, _s.deadline_at,
    _s.tp_status, _s.reported_at, _s.code,
)  # fmt: skip
_ATTEMPT = (
    _a.seq, _a.number, _a.channel, _a.sim_id, _a.intent_at, _a.started_at, _a.finished_at, _a.outcome, _a.failure,
    _a.code, _a.detail, _a.tp_mr,
)  # fmt: skip
_EVENT = (
    _e.id, _e.message_id, _e.seq, _e.at, _e.event, _e.from_state, _e.to_state, _e.channel, _e.actor, _e.detail,
)  # fmt: skip
_REPORT = (
    _r.seq, _r.received_at, _r.channel, _r.tp_mr, _r.recipient, _r.tp_status, _r.discharged_at, _r.raw,
)  # fmt: skip
_SIM = select(
    schema.sims.c.id, schema.sims.c.iccid, schema.sims.c.imsi, schema.sims.c.number,
    schema.channels.c.name.label("channel"), schema.sims.c.first_seen_at, schema.sims.c.last_seen_at,
    schema.sims.c.last_submit_at,
).join_from(schema.sims, schema.channels, schema.channels.c.sim_id == schema.sims.c.id, isouter=True)  # fmt: skip


class Reader:
    """Reads a spool. `close()` when done; all calls from one event loop."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._database = database
        self._engine = database.read_engine()
        self.file = database.path if isinstance(database, SqliteDatabase) else None  # None: it lies elsewhere
        self._sqlite = isinstance(database, SqliteDatabase)
        self._counting = asyncio.Lock()
        self._counted: Counts | None = None
        self._count_again = 0.0  # monotonic

    async def close(self) -> None:
        await self._engine.dispose()

    async def message(self, message_id: int) -> MessageDetail | None:
        """A message with everything that is known of it; None if there is none with this id."""
        async with self.snapshot() as connection:
            found = (await connection.execute(select(*_MESSAGE).where(_m.id == message_id))).mappings().first()
            if found is None:
                return None
            message = _message(found)
            segments = await _all(
                connection, select(*_SEGMENT).where(_s.message_id == message_id).order_by(_s.seq), _segment
            )
            # The last HISTORY of each, then in order of time.
            attempts = await _last(
                connection,
                select(*_ATTEMPT).where(_a.message_id == message_id).order_by(_a.intent_at.desc(), _a.seq.desc()),
                lambda row: AttemptView(**row),
            )
            events = await _last(
                connection,
                select(*_EVENT).where(_e.message_id == message_id).order_by(_e.id.desc()),
                lambda row: EventView(**row),
            )
            reports = await _last(
                connection,
                select(*_REPORT).where(_r.message_id == message_id).order_by(_r.id.desc()),
                lambda row: ReportView(**row),
            )
            sim_ids = [message.sim_id, *(segment.sim_id for segment in reversed(segments))]
            sim = await _sim(connection, next(filter(None, sim_ids), None))
            ahead = await _ahead(connection, message, found["position"]) if message.queue == schema.DUE else 0
        cut = max(len(attempts), len(events), len(reports)) > HISTORY
        return MessageDetail(
            message, segments, attempts[-HISTORY:], events[-HISTORY:], reports[-HISTORY:], sim, ahead, cut
        )

    async def counts(self, *, fresh: bool = False) -> Counts:
        """Messages by state, and the depth of each queue.

        A spool with millions of messages takes seconds to count, so a result is kept for COUNT_SHARE times as long as
        it took; `fresh` counts again.
        """
        async with self._counting:
            if self._counted is None or fresh or self._clock.monotonic() >= self._count_again:
                begun = self._clock.monotonic()
                self._counted = await self._count()
                ended = self._clock.monotonic()
                self._count_again = ended + COUNT_SHARE * (ended - begun)
            return self._counted

    async def backlog(self) -> Backlog:
        """What waits besides the lanes: doubts, and what endpoints are not told yet."""
        async with self.snapshot() as connection:
            return await backlog.read(connection)

    async def sims(self) -> list[SimView]:
        """All SIMs ever seen."""
        async with self.snapshot() as connection:
            return list(await _all(connection, _SIM.order_by(schema.sims.c.id), lambda row: SimView(**row)))

    async def setting(self, name: str) -> str | None:
        """A durable switch; None if it was never set."""
        async with self.snapshot() as connection:
            statement = select(schema.settings.c.value).where(schema.settings.c.name == name)
            return (await connection.execute(statement)).scalar()

    async def last_events(self, limit: int = 100) -> list[EventView]:
        """The newest events of all messages, in order of time."""
        async with self.snapshot() as connection:
            statement = select(*_EVENT).order_by(_e.id.desc()).limit(min(limit, MAX_PAGE))
            return list(await _all(connection, statement, lambda row: EventView(**row)))[::-1]

    async def answered(self, caller: str, idempotency_key: str) -> tuple[bytes, str] | None:
        """Fingerprint and answer of the first submission with this Idempotency-Key; None if it was not used."""
        keys = schema.idempotency.c
        statement = select(keys.fingerprint, keys.answer).where(keys.api_key == caller, keys.key == idempotency_key)
        async with self.snapshot() as connection:
            row = (await connection.execute(statement)).first()
        return None if row is None else (bytes(row[0]), str(row[1]))

    async def _count(self) -> Counts:
        """Step by step, each a transaction of its own: together they are not of one moment."""
        states: dict[MessageState, int] = {}
        for state in MessageState:
            if state is not MessageState.TO_PROCESS:
                states[state] = await self._count_state(state)
        tallies = await self._tally_open()
        states[MessageState.TO_PROCESS] = sum(sum(tally.by_queue.values()) for tally in tallies.values())
        at = self._clock.now_ms()
        oldest = {tally.first_id: lane_id for lane_id, tally in tallies.items()}
        lanes = schema.lanes.c
        async with self.snapshot() as connection:
            rows = await connection.execute(select(_m.id, _m.accepted_at).where(_m.id.in_(list(oldest))))
            oldest_at = {oldest[row[0]]: row[1] for row in rows}
            known = await connection.execute(
                select(lanes.id, lanes.source, lanes.target, lanes.channel, lanes.sim_id).order_by(lanes.id)
            )
            depths = tuple(
                LaneDepth(
                    *row,
                    due=tallies[row[0]].by_queue.get(schema.DUE, 0),
                    later=tallies[row[0]].by_queue.get(schema.LATER, 0),
                    behind=tallies[row[0]].by_queue.get(schema.BEHIND, 0),
                    out=tallies[row[0]].by_queue.get(schema.OUT, 0),
                    oldest_at=oldest_at.get(row[0], at),
                    due_since=tallies[row[0]].due_since,
                )
                for row in known
                if row[0] in tallies
            )
        return Counts(at, {state: states[state] for state in MessageState}, depths)

    async def _count_state(self, state: MessageState) -> int:
        """By the index on (state, id), and nothing else."""
        total = 0
        after = -1
        while True:
            page = (
                select(_m.id)
                .where(_m.state == schema.sqltext(state.value), _m.id > after)
                .order_by(_m.id)
                .limit(COUNT_STEP)
                .subquery()
            )
            async with self.snapshot() as connection:
                row = (await connection.execute(select(func.count(), func.max(page.c.id)))).one()
            total += int(row[0])
            if row[0] < COUNT_STEP:
                return total
            after = int(row[1])

    async def _tally_open(self) -> dict[int, _Tally]:
        """What is TO PROCESS, by lane and place in the queue."""
        tallies: dict[int, _Tally] = {}
        after = -1
        while True:
            page = (
                select(_m.id, _m.lane_id, _m.queue, _m.due_at)
                .where(_m.state == schema.sqltext(MessageState.TO_PROCESS.value), _m.id > after)
                .order_by(_m.id)
                .limit(COUNT_STEP)
                .subquery()
            )
            columns = (
                page.c.lane_id, page.c.queue, func.count(), func.min(page.c.id), func.max(page.c.id),
                func.min(page.c.due_at),
            )  # fmt: skip
            counted = 0
            async with self.snapshot() as connection:
                rows = await connection.execute(select(*columns).group_by(page.c.lane_id, page.c.queue))
                for lane_id, queue, count, first, last, due_at in rows:
                    tally = tallies.setdefault(lane_id, _Tally({}, first))
                    tally.by_queue[queue] = tally.by_queue.get(queue, 0) + count
                    tally.first_id = min(tally.first_id, first)
                    if queue == schema.DUE and (tally.due_since is None or due_at < tally.due_since):
                        tally.due_since = due_at
                    counted += count
                    after = max(after, last)
            if counted < COUNT_STEP:
                return tallies

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which all statements see one moment."""
        # Asked first: aiosqlite's thread would outlive a connection that cannot be opened, and complain when we end.
        if self.file is not None and not os.access(self.file, os.R_OK):
            raise SpoolError(f"the spool {self.file} cannot be read: {_why_not(self.file)}")
        try:
            async with self._engine.connect() as connection:
                if self._sqlite:
                    await connection.exec_driver_sql("BEGIN")
                else:
                    await connection.execution_options(isolation_level="REPEATABLE READ")
                yield connection
        except (SQLAlchemyError, OSError) as error:
            reason = self._database.reason(getattr(error, "orig", None) or error)
            raise SpoolError(f"the spool cannot be read: {reason}") from error


@dataclass(slots=True)
class _Tally:
    by_queue: dict[int, int]
    first_id: int
    due_since: int | None = None


async def _all(connection: AsyncConnection, statement: Select[Any], make: Callable[[RowMapping], T]) -> tuple[T, ...]:
    return tuple(make(row) for row in (await connection.execute(statement)).mappings())


async def read_messages(connection: AsyncConnection, ids: Sequence[int]) -> tuple[MessageView, ...]:
    """The messages with these ids, in this order."""
    if not ids:
        return ()
    found = {view.id: view for view in await _all(connection, select(*_MESSAGE).where(_m.id.in_(ids)), _message)}
    return tuple(found[each] for each in ids if each in found)


async def _last(
    connection: AsyncConnection, newest_first: Select[Any], make: Callable[[RowMapping], T]
) -> tuple[T, ...]:
    """The last HISTORY rows, and one more if there are more, oldest first."""
    return (await _all(connection, newest_first.limit(HISTORY + 1), make))[::-1]


async def _sim(connection: AsyncConnection, sim_id: int | None) -> SimView | None:
    if sim_id is None:
        return None
    found = await _all(connection, _SIM.where(schema.sims.c.id == sim_id), lambda row: SimView(**row))
    return found[0] if found else None


async def _ahead(connection: AsyncConnection, message: MessageView, position: int) -> int:
    """How many claimable messages of the same lane come first.

    In two ranges of the index for claims: asked for both at once, it is read to its end for a message near its front.
    """
    ahead = 0
    for first in (_m.priority > message.priority, and_(_m.priority == message.priority, _m.position < position)):
        page = (
            select(_m.id)
            .where(_m.lane_id == message.lane_id, _m.queue == schema.sqltext(schema.DUE), first)
            .limit(AHEAD_LIMIT - ahead)
            .subquery()
        )
        ahead += (await connection.execute(select(func.count()).select_from(page))).scalar_one()
    return ahead


def _message(row: RowMapping) -> MessageView:
    values = {name: value for name, value in row.items() if name != "position"}
    values.update(
        state=MessageState(row["state"]),
        delivery=Delivery(row["delivery"]),
        admission=Admission(row["admission"]),
        class_=MessageClass(row["class_"]),
        in_doubt=InDoubtPolicy(row["in_doubt"]),
        report=bool(row["report"]),
        touched=bool(row["touched"]),
    )
    return MessageView(**values)


def _segment(row: RowMapping) -> SegmentView:
    return SegmentView(**{**row, "state": SegmentState(row["state"])})


def _why_not(file: Path) -> str:
    """Why a file cannot be read. It is not opened: to close it again would take SQLite's locks on it."""
    try:
        file.stat()
    except OSError as error:
        return error.strerror or str(error)
    return "permission denied"
