"""Retention by age: texts are forgotten before the records, records are archived, then deleted.

`Pruner` walks the tables by id, a page at a time: what is read and archived is read on a connection of its own, in a
thread; then one small transaction deletes, which every claim goes before. Between two pages it rests for longer than
the page took. A message that is queued, held, in hand, in doubt, or still waiting for its report, is never touched;
nor what somebody is still to be told of, for events are made of the records when they are told.

What is deleted is what was archived: a page is a range of ids, and what changes in it after it was read has a new
`updated_at`, which is not old. Ids and times grow together, so a walk ends with the first page that is all young.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Select, Table, and_, bindparam, delete, func, null, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import ColumnElement

from gatewayd import crashpoints
from gatewayd.clock import Clock
from gatewayd.errors import SpoolError
from gatewayd.model import MessageState
from gatewayd.model import SegmentState as S
from gatewayd.msglog import Trouble
from gatewayd.spool import schema
from gatewayd.spool.archive import Archive
from gatewayd.spool.engine import Database, Params, Statement
from gatewayd.spool.events import PENDING
from gatewayd.spool.writer import Tx, Writer

log = logging.getLogger("gatewayd.spool")

T = TypeVar("T")

PAGE = 100  # rows of a table that one transaction deals with; each has some ten in other tables
EVERY_MS = 600_000  # between two walks
WHOLE_EVERY_MS = 86_400_000  # between two walks over what was seen already, for what came to its end late
TICK_S = 60.0
SETTLE_MS = 300_000  # after a start, or a jump of the clock: by then it is set right
JUMP_MS = 60_000
REST_SHARE = 9  # a page is followed by a rest of so many times as long as it took
MIN_REST_S = 0.02
NEVER = 2**63 - 1  # epoch ms
TOLD_WITHIN_MS = 30 * 86_400_000  # the largest give_up_after: what waits longer waits for a webhook that is no more
COMMIT_MS = 3_600_000  # by which, at the most, an event is younger than the change it tells of

_m = schema.messages.c
_s = schema.segments.c
_i = schema.inbound_messages.c
_p = schema.inbound_parts.c
_r = schema.status_reports.c
_d = schema.deliveries.c
_o = schema.outbox.c


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How old something gets, in ms (0: for ever): `content_ms` texts in and out, `messages_ms` and `inbound_ms` the
    records. `archive_dir`: where records go before they are deleted.
    """

    content_ms: int = 0
    messages_ms: int = 0
    inbound_ms: int = 0
    archive_dir: Path | None = None


def _page(column: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(column > bindparam("after"), column <= bindparam("last"))


_x = schema.segments.alias("x")
_unsettled = (
    select(_x.c.seq)
    .where(
        _x.c.message_id == _m.id,
        or_(
            _x.c.state.in_([schema.sqltext(s.value) for s in (S.HELD, S.QUEUED, S.SUBMITTING, S.IN_DOUBT)]),
            and_(_x.c.state == schema.sqltext(S.SUBMITTED.value), _x.c.deadline_at.is_not(None)),
        ),
    )
    .exists()
)
_ended = and_(
    _page(_m.id),
    _m.state != schema.sqltext(MessageState.TO_PROCESS.value),
    _m.queue == schema.sqltext(schema.OUT),
    _m.busy == schema.sqltext(0),
    _m.finished_at < bindparam("before"),
    _m.updated_at < bindparam("before"),
    ~_unsettled,
)
_of_ended = select(_m.id).where(_ended)
_old_inbound = and_(_page(_i.id), _i.at < bindparam("before"))
_of_inbound = select(_i.id).where(_old_inbound)
_old_part = and_(_page(_p.id), _p.received_at < bindparam("before"))
_with_text = and_(_ended, _m.text_dropped_at.is_(None))
_inbound_with_text = and_(_old_inbound, _i.text_dropped_at.is_(None))
_part_with_text = and_(
    _old_part, _p.raw != schema.sqltext(""), or_(_p.assembly_id.is_(None), _p.message_id.is_not(None))
)
_lone_part = and_(_old_part, _p.message_id.is_(None))
_lone_report = and_(_page(_r.id), _r.received_at < bindparam("before"), _r.message_id.is_(None))

# Deliveries are numbered in the order of events: the first that waits is of the oldest one.
_first = (
    select(func.min(_d.id))
    .where(_d.state == schema.sqltext(PENDING), _d.created_at >= bindparam("since"))
    .scalar_subquery()
)
OLDEST_UNTOLD = Statement(
    select(_o.at).join_from(schema.deliveries, schema.outbox, _o.id == _d.outbox_id).where(_d.id == _first)
)

# What there is to do in a page; asked when it is read, and again where it is done.
ENDED = Statement(_of_ended)
WITH_TEXT = Statement(select(_m.id).where(_with_text))
OLD_INBOUND = Statement(_of_inbound)
INBOUND_WITH_TEXT = Statement(select(_i.id).where(_inbound_with_text))
PARTS_WITH_TEXT = Statement(select(_p.id).where(_part_with_text))
LONE_PARTS = Statement(select(_p.id).where(_lone_part))
LONE_REPORTS = Statement(select(_r.id).where(_lone_report))

DROP_SEGMENTS = Statement(delete(schema.segments).where(_s.message_id.in_(_of_ended)))
DROP_ATTEMPTS = Statement(delete(schema.attempts).where(schema.attempts.c.message_id.in_(_of_ended)))
DROP_EVENTS = Statement(delete(schema.events).where(schema.events.c.message_id.in_(_of_ended)))
DROP_REPORTS = Statement(delete(schema.status_reports).where(_r.message_id.in_(_of_ended)))
DROP_MESSAGES = Statement(delete(schema.messages).where(_ended))
DROP_TEXTS = Statement(
    update(schema.messages).where(_with_text).values(text=schema.sqltext(""), text_dropped_at=bindparam("now"))
)
DROP_PARTS = Statement(delete(schema.inbound_parts).where(_p.message_id.in_(_of_inbound)))
DROP_INBOUND = Statement(delete(schema.inbound_messages).where(_old_inbound))
DROP_INBOUND_TEXTS = Statement(
    update(schema.inbound_messages)
    .where(_inbound_with_text)
    .values(text=null(), data=null(), text_dropped_at=bindparam("now"))
)
DROP_PART_TEXTS = Statement(
    update(schema.inbound_parts).where(_part_with_text).values(raw=schema.sqltext(""), text=null(), user_data=null())
)
DROP_LONE_PARTS = Statement(delete(schema.inbound_parts).where(_lone_part))
DROP_LONE_REPORTS = Statement(delete(schema.status_reports).where(_lone_report))


@dataclass(frozen=True, slots=True)
class _Way:
    """One walk over the ids of `rows`; the column `at` grows with them. `found`: the ids there is something to do for.
    `steps`: what is done to a page, in one transaction; the last one counts. `age`: from the policy.

    `kind`: of the archive's files, "" where nothing is archived; `parts`: tables whose rows go with a record, each with
    the column that names it. `leaves_rows`: what was seen stays, so a walk begins where the last one ended.
    """

    what: str
    rows: Table
    at: str
    found: Statement
    steps: tuple[Statement, ...]
    age: Callable[[RetentionPolicy], int]
    kind: str = ""
    parts: tuple[Table, ...] = ()
    leaves_rows: bool = False


_WAYS = (
    _Way(
        "messages deleted", schema.messages, "accepted_at", ENDED,
        (DROP_SEGMENTS, DROP_ATTEMPTS, DROP_EVENTS, DROP_REPORTS, DROP_MESSAGES),
        lambda policy: policy.messages_ms, "messages",
        (schema.segments, schema.attempts, schema.events, schema.status_reports),
    ),
    _Way(
        "inbound messages deleted", schema.inbound_messages, "at", OLD_INBOUND, (DROP_PARTS, DROP_INBOUND),
        lambda policy: policy.inbound_ms, "inbound", (schema.inbound_parts,),
    ),
    _Way(
        "texts forgotten", schema.messages, "accepted_at", WITH_TEXT, (DROP_TEXTS,),
        lambda policy: policy.content_ms, leaves_rows=True,
    ),
    _Way(
        "inbound texts forgotten", schema.inbound_messages, "at", INBOUND_WITH_TEXT, (DROP_INBOUND_TEXTS,),
        lambda policy: policy.content_ms, leaves_rows=True,
    ),
    _Way(
        "PDUs forgotten", schema.inbound_parts, "received_at", PARTS_WITH_TEXT, (DROP_PART_TEXTS,),
        lambda policy: policy.content_ms, leaves_rows=True,
    ),
    _Way(
        "repeated PDUs deleted", schema.inbound_parts, "received_at", LONE_PARTS, (DROP_LONE_PARTS,),
        lambda policy: policy.inbound_ms, leaves_rows=True,
    ),
    _Way(
        "unmatched reports deleted", schema.status_reports, "received_at", LONE_REPORTS, (DROP_LONE_REPORTS,),
        lambda policy: policy.messages_ms, leaves_rows=True,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Page:
    """A page as read: its last id, the ids there is something to do for, and whether the walk ends with it."""

    last: int
    found: frozenset[int]
    ends: bool


@dataclass(slots=True)
class _Seen:
    """How far the walks of one way have come, and when the last one began at the beginning (epoch ms)."""

    after: int = 0
    whole_at: int = 0


class Pruner:
    """Applies a retention policy for as long as `run` runs. `spool_id` stands in each archived record.

    `clock_trusted`: while it is false nothing is judged by its age.
    """

    def __init__(
        self,
        database: Database,
        writer: Writer,
        clock: Clock,
        policy: RetentionPolicy,
        spool_id: str = "",
        *,
        clock_trusted: Callable[[], bool] = lambda: True,
        rest_share: float = REST_SHARE,
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._clock_trusted = clock_trusted
        self._rest_share = rest_share
        self.spool_id = spool_id
        self._engine: Engine | None = None
        self._reading: asyncio.Future[Any] | None = None
        self._seen: dict[str, _Seen] = {}
        self._trouble = Trouble(log)
        self.configure(policy)

    def configure(self, policy: RetentionPolicy) -> None:
        """Work by another policy from the next walk on."""
        self._policy = policy
        self._archive = None if policy.archive_dir is None else Archive(policy.archive_dir)

    async def run(self) -> None:
        """Walk every EVERY_MS, but not soon after a start or a jump of the clock: one that is wrong by years, as after
        a dead battery, must not cost the records of years.
        """
        try:
            due = self._clock.monotonic() + SETTLE_MS / 1000
            ahead = self._clock.now_ms() - self._clock.monotonic() * 1000
            while True:
                await asyncio.sleep(TICK_S)
                now = self._clock.monotonic()
                jumped, ahead = ahead, self._clock.now_ms() - now * 1000
                if abs(ahead - jumped) > JUMP_MS or not self._clock_trusted():
                    due = max(due, now + SETTLE_MS / 1000)
                if now >= due:
                    await self.walk()
                    due = self._clock.monotonic() + EVERY_MS / 1000
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection for reading, once the thread has done with it."""
        if self._reading is not None:
            await asyncio.wait([self._reading])
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    async def walk(self) -> Mapping[str, int]:
        """Do all there is to do now; how many rows of what. Trouble is said, and ends what it troubles."""
        done: dict[str, int] = {}
        policy, archive, now = self._policy, self._archive, self._clock.now_ms()
        failed = False
        untold: int | None = None
        for way in _WAYS:
            age = way.age(policy)
            if age <= 0:
                continue
            try:
                if untold is None:
                    untold = await self._in_thread(partial(self._untold, now))
                async for count in self._walk(way, archive, min(now - age, untold), now):
                    done[way.what] = done.get(way.what, 0) + count
            except OSError as error:
                failed = True
                self._trouble.failed("archive", "retention: no %s, for the archive fails: %s", way.what, error)
            except (SpoolError, SQLAlchemyError) as error:
                failed = True
                self._trouble.failed(
                    "spool", "retention: no %s now: %s", way.what, getattr(error, "orig", None) or error
                )
        if not failed:
            self._trouble.recovered("retention works again")
        if done:
            log.info("retention: %s", ", ".join(f"{count} {what}" for what, count in done.items()))
        return done

    async def _walk(self, way: _Way, archive: Archive | None, before: int, now: int) -> AsyncIterator[int]:
        """Page by page; yields how many rows each cost."""
        seen = self._seen.setdefault(way.what, _Seen())
        if not way.leaves_rows or not seen.whole_at <= now < seen.whole_at + WHOLE_EVERY_MS:
            seen.after, seen.whole_at = 0, now
        after = seen.after
        while True:
            begun = self._clock.monotonic()
            page = await self._in_thread(partial(self._read, way, archive, after, before))
            if page is None:
                break
            if page.found:
                params = {"after": after, "last": page.last, "before": before, "now": now}
                archived = page.found if archive is not None and way.kind else None
                if archived:
                    crashpoints.reach("prune.archived")
                count = await self._writer.run(partial(apply, way.found, way.steps, params, archived), rows=PAGE)
                if count:
                    yield count
            after = seen.after = page.last
            if page.ends:
                break
            await asyncio.sleep(
                self._rest_share and max(MIN_REST_S, self._rest_share * (self._clock.monotonic() - begun))
            )

    async def _in_thread(self, read: Callable[[], T]) -> T:
        reading = self._reading = asyncio.get_running_loop().run_in_executor(None, read)
        return await asyncio.shield(reading)  # a thread cannot be cancelled

    # In a thread of its own from here on.

    def _untold(self, now: int) -> int:
        """What changed before this (epoch ms), everybody was told of who is still to be told of anything."""
        self._engine = self._engine or self._database.thread_engine()
        with self._engine.connect() as connection:
            at = connection.execute(_select(OLDEST_UNTOLD), {"since": now - TOLD_WITHIN_MS}).scalar()
        return NEVER if at is None else int(at) - COMMIT_MS

    def _read(self, way: _Way, archive: Archive | None, after: int, before: int) -> _Page | None:
        """The next page after an id, archived; None if nothing there is old. Raises OSError, SQLAlchemyError."""
        self._engine = self._engine or self._database.thread_engine()
        ids = way.rows.c.id
        with self._engine.connect() as connection:
            of_page = select(ids, way.rows.c[way.at]).where(ids > after).order_by(ids).limit(PAGE)
            rows = connection.execute(of_page).all()
            old = [row[0] for row in rows if row[1] < before]
            if not old:
                return None
            params = {"after": after, "last": old[-1], "before": before}
            found = frozenset(row[0] for row in connection.execute(_select(way.found), params))
            if found and archive is not None and way.kind:
                archive.append(way.kind, self._records(connection, way, found, params))
        return _Page(old[-1], found, len(rows) < PAGE)

    def _records(
        self, connection: Connection, way: _Way, found: Collection[int], params: Params
    ) -> list[tuple[int, Mapping[str, Any]]]:
        """The rows as they stand, each with those of other tables that belong to it."""
        records: dict[int, tuple[int, dict[str, Any]]] = {}
        at = "finished_at" if "finished_at" in way.rows.c else way.at
        ours = way.rows.c.id.in_(_select(way.found))
        for row in connection.execute(select(way.rows).where(ours).order_by(way.rows.c.id), params).mappings():
            if row["id"] in found:
                lists: dict[str, list[Any]] = {part.name: [] for part in way.parts}
                records[row["id"]] = (row[at], {"spool": self.spool_id, **row, **lists})
        for part in way.parts:
            of = part.c.message_id
            rows = select(part).where(of.in_(_select(way.found))).order_by(*part.primary_key.columns)
            for row in connection.execute(rows, params).mappings():
                if row["message_id"] in records:
                    records[row["message_id"]][1][part.name].append(
                        {name: value for name, value in row.items() if name != "message_id"}
                    )
        return list(records.values())


def apply(found: Statement, steps: Sequence[Statement], params: Params, archived: frozenset[int] | None, tx: Tx) -> int:
    """Do a page's steps in a transaction; how many rows the last one cost. What is not in `archived` is never deleted:
    then nothing is done, and the next walk tries again.
    """
    tx.flush()
    if archived is not None and not archived.issuperset(row[0] for row in tx.all(found, params)):
        return 0
    counts = [tx.run(step, params) for step in steps]
    return counts[-1]


def _select(statement: Statement) -> Select[Any]:
    assert isinstance(statement.clause, Select)
    return statement.clause
