"""A spool to play with: a store, a clock that stands still, and messages."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from gatewayd.model import Message, Outcome, Retry, Segment, SimIdentity
from gatewayd.spool.accept import NewMessage
from gatewayd.spool.engine import Database, SqliteDatabase, Statement, open_database
from gatewayd.spool.store import Store
from gatewayd.spool.work import Claim, Line, Result, Rules, Want
from gatewayd.spool.writer import Notices, Tx

START_MS = 1_790_000_000_000


@dataclass
class FakeClock:
    """A clock that moves when told to."""

    ms: int = START_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


def text_of(length: int = 5) -> str:
    return "x" * length


def message(to: str = "+59898344484", segments: int = 1, **fields: Any) -> NewMessage:
    """A message for the spool; `segments` parts long (see `plan`)."""
    return NewMessage(to_given=to, to=to, text="x" * segments, alphabet="gsm7", segments=segments, **fields)


def plan(message: Message) -> list[Segment]:
    """A segment for each character, so that a test decides by the text."""
    total = len(message.text)
    return [Segment(message, seq, total, b"") for seq in range(1, total + 1)]


@dataclass
class Spool:
    """An open store, with shorthands for what a channel does with it."""

    store: Store
    clock: FakeClock
    database: Database
    notices: list[Notices] = field(default_factory=list)

    async def sim(self, channel: str = "m0", iccid: str = "") -> Line:
        pairing = await self.store.see_sim(channel, SimIdentity(iccid or f"8959{channel}", f"748{channel}"), "")
        return Line(channel, pairing.sim_id)

    async def accept(self, *messages: NewMessage) -> Sequence[int]:
        return (await self.store.accept(messages or [message()])).ids

    async def claim(self, line: Line, result: Result | None = None) -> Claim | None:
        return (await self.store.work(line, result, want(line))).claim

    async def claims(self, line: Line) -> list[int]:
        """Claim and send everything there is; the ids in order."""
        ids: list[int] = []
        claim = await self.claim(line)
        while claim is not None:
            ids.append(claim.message_id)
            claim = await self.claim(line, self.sent(claim, ref=len(ids) % 256))
        return ids

    def sent(self, claim: Claim, ref: int | None = 7) -> Result:
        return Result(claim, Outcome.SENT, self.clock.ms, self.clock.ms, ref=ref)

    def not_sent(self, claim: Claim, retry: Retry = Retry.LATER, **fields: Any) -> Result:
        fields = {"code": "CMS 42", "detail": "congestion", **fields}
        return Result(claim, Outcome.NOT_SENT, self.clock.ms, self.clock.ms, retry=retry, **fields)

    def doubtful(self, claim: Claim) -> Result:
        return Result(claim, Outcome.IN_DOUBT, self.clock.ms, self.clock.ms, detail="the link was lost")

    async def rows(self, statement: Any, **params: Any) -> list[Any]:
        def read(tx: Tx) -> list[Any]:
            tx.flush()
            return tx.all(Statement(statement), params)

        return await self.store.writer.run(read)


def want(line: Line) -> Want:
    return Want(lambda lane: lane.open_to(line.channel, line.sim_id), plan)


@asynccontextmanager
async def open_spool(
    url: str, instance: str = "gw1", clock: FakeClock | None = None, **rules: Any
) -> AsyncIterator[Spool]:
    """A store on `url`, closed at the end."""
    database = open_database(url)
    spool = Spool(None, clock or FakeClock(), database)  # type: ignore[arg-type]
    spool.store = Store(database, instance, spool.clock, Rules(**rules), on_commit=spool.notices.append)
    await spool.store.open()
    try:
        yield spool
    finally:
        await spool.store.close()


class LosesAnswers:
    """Makes the connection die after a COMMIT that takes place, before its answer; `times` of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
        self.times = 0
        control = Tx.control

        def losing(tx: Tx, sql: str) -> None:
            control(tx, sql)
            if sql == "COMMIT" and self.times:
                self.times -= 1
                raise _gone(database)

        monkeypatch.setattr(Tx, "control", losing)


def _gone(database: Database) -> Exception:
    if isinstance(database, SqliteDatabase):
        return sqlite3.OperationalError("disk I/O error")
    import psycopg

    return psycopg.OperationalError("server closed the connection unexpectedly")
