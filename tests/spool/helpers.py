"""A spool to play with: a store, a clock that stands still, and messages."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gatewayd.model import FailureClass, Message, Outcome, Segment, SimIdentity, StoredPdu
from gatewayd.modems.channel import Received
from gatewayd.modems.pdu import Address, Alphabet, Deliver, Timestamp, UserData, split
from gatewayd.router.inbound import Inbound
from gatewayd.router.intake import Intake, IntakeSettings
from gatewayd.router.optout import load_packs
from gatewayd.spool.accept import NewMessage
from gatewayd.spool.engine import Database, SqliteDatabase, Statement, open_database
from gatewayd.spool.events import Subscription
from gatewayd.spool.intake import Intake as IntakeProtocol
from gatewayd.spool.migrate import migrate
from gatewayd.spool.store import Store
from gatewayd.spool.work import Claim, Line, Result, Rules, Want
from gatewayd.spool.writer import Notices, Tx

START_MS = 1_790_000_000_000
PACKS = load_packs()
TIMEOUT_MS = 3_600_000
CONTACT = "+59898344484"


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

    def not_sent(self, claim: Claim, failure: FailureClass = FailureClass.NETWORK, **fields: Any) -> Result:
        fields = {"code": "CMS 38", "detail": "network out of order", **fields}
        return Result(claim, Outcome.NOT_SENT, self.clock.ms, self.clock.ms, failure=failure, **fields)

    def doubtful(self, claim: Claim) -> Result:
        return Result(claim, Outcome.IN_DOUBT, self.clock.ms, self.clock.ms, detail="the link was lost")

    async def rows(self, statement: Any, **params: Any) -> list[Any]:
        def read(tx: Tx) -> list[Any]:
            tx.flush()
            return tx.all(Statement(statement), params)

        return await self.store.writer.run(read)


def want(line: Line) -> Want:
    return Want(lambda lane: lane.open_to(line.channel, line.sim_id), plan)


def intake(**settings: Any) -> Intake:
    """The router's intake, of a gateway in Uruguay that says its name."""
    values = {"packs": PACKS, "home_country": "UY", "name": "ACME", "contact": "help@acme.example"}
    return Intake(IntakeSettings(**{"reassembly_timeout_ms": TIMEOUT_MS, **values, **settings}))


def pdus(
    text: str,
    sender: str | Address = CONTACT,
    *,
    at_ms: int = START_MS,
    ref: int = 7,
    bits: int = 8,
    alphabet: Alphabet | None = None,
) -> list[str]:
    """What the network delivers of a text: its PDUs in hex, taken by the SMS centre at `at_ms`."""
    parts = split(text, concat_ref=ref, ref_bits=bits, alphabet=alphabet)
    return [pdu(part, sender, at_ms=at_ms) for part in parts]


def pdu(content: UserData, sender: str | Address = CONTACT, *, at_ms: int | None = START_MS) -> str:
    """One delivered PDU in hex, without an SMS centre's address."""
    address = Address.to_send(sender) if isinstance(sender, str) else sender
    scts = None if at_ms is None else Timestamp(at_ms // 1000)
    return "00" + Deliver(address, content, scts).encode().hex().upper()


class Sim:
    """A SIM whose memory is read: each reading is a listing of its own, as the modem's inbox makes them."""

    def __init__(self, spool: Spool, channel: str = "m0", sim_id: int = 1, name: str = "s") -> None:
        self._spool = spool
        self._channel, self._sim_id, self._name = channel, sim_id, name
        self._listings = 0

    async def read(self, *found: str) -> None:
        """One listing that finds these PDUs, one after the other."""
        self._listings += 1
        await self.again(f"{self._name}-{self._listings}", *found)

    async def again(self, listing: str, *found: str) -> None:
        for index, raw in enumerate(found):
            received = Received(StoredPdu(raw, None, listing, "SM", index), _acknowledge)
            await Inbound(self._spool.store)(self._channel, self._sim_id, received)

    async def says(self, text: str, sender: str | Address = CONTACT, **fields: Any) -> None:
        """A text comes in, in one listing of its own."""
        await self.read(*pdus(text, sender, **{"at_ms": self._spool.clock.ms, **fields}))


async def _acknowledge() -> None:
    pass


@asynccontextmanager
async def open_spool(
    url: str,
    instance: str = "gw1",
    clock: FakeClock | None = None,
    *,
    intake: IntakeProtocol | None = None,
    subscriptions: Sequence[Subscription] = (),
    **rules: Any,
) -> AsyncIterator[Spool]:
    """A store on `url`, closed at the end."""
    database = open_database(url)
    spool = Spool(None, clock or FakeClock(), database)  # type: ignore[arg-type]
    spool.store = Store(
        database,
        instance,
        spool.clock,
        Rules(**rules),
        intake=intake,
        subscriptions=subscriptions,
        on_commit=spool.notices.append,
    )
    await spool.store.open()
    try:
        yield spool
    finally:
        await spool.store.close()


class _Copies:
    """Spools that were migrated once: what a property test opens a hundred times."""

    template: bytes = b""


def ready_sqlite(folder: Path) -> str:
    """The URL of an SQLite spool that is migrated already."""
    if not _Copies.template:
        made = open_database(f"sqlite:///{folder}/template.db")
        migrate(made)
        _Copies.template = (folder / "template.db").read_bytes()
    path = folder / f"{uuid.uuid4().hex}.db"
    path.write_bytes(_Copies.template)
    return f"sqlite:///{path}"


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
