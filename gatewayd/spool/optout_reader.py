"""Reading the opt-out list: who must not be written to, and the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select, tuple_

from gatewayd.model import MessageClass
from gatewayd.spool import schema
from gatewayd.spool.optouts import GLOBAL, OptOut, OptState
from gatewayd.spool.reader import HISTORY, MAX_PAGE, Reader

_o = schema.optouts.c
_e = schema.optout_events.c


@dataclass(frozen=True, slots=True)
class OptOutView:
    """A number's state within a scope, `since` when (epoch ms) and on whose word. `event_id` is the evidence."""

    number: str
    scope: str
    state: OptState
    wrote_since: bool
    source: str
    since: int
    event_id: int

    @property
    def blocks(self) -> tuple[MessageClass, ...]:
        """The classes of messages that are not sent to the number."""
        if self.state is not OptState.OUT:
            return ()
        out = OptOut(self.scope, self.wrote_since, self.source, self.since, self.event_id)
        return tuple(class_ for class_ in MessageClass if out.binds(class_))


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """One row of evidence; see `schema.optout_events`. Times in epoch ms."""

    id: int
    at: int
    number: str
    number_received: str
    scope: str
    intent: str
    source: str
    actor: str
    prior_state: OptState
    state: OptState
    text: str | None
    tier: str
    rule: str
    language: str
    version: str
    channel: str | None
    inbound_id: int | None
    sent_at: int | None
    confirmation_id: int | None
    blocked: int
    in_hand: int
    evidence: str


@dataclass(frozen=True, slots=True)
class OptOutDetail:
    """All that is known of a number: its state by scope, and the evidence, oldest first. `history_cut`: only the end of
    it is here.
    """

    number: str
    scopes: tuple[OptOutView, ...]
    events: tuple[EvidenceView, ...]
    history_cut: bool

    @property
    def state(self) -> OptState:
        """In the global scope."""
        return next((view.state for view in self.scopes if view.scope == GLOBAL), OptState.NONE)


_OPTOUT = tuple(getattr(_o, name) for name in OptOutView.__dataclass_fields__)
_EVIDENCE = tuple(getattr(_e, name) for name in EvidenceView.__dataclass_fields__)


class OptOutReader:
    """Reads the list. Every method raises SpoolError if the spool cannot be read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def by_number(self, state: OptState, *, after: str = "", limit: int = 100) -> list[OptOutView]:
        """Up to `limit` numbers in this state that follow `after`, in the order of their characters."""
        # The index on the state would have to be sorted for each page; so that it is not taken, an expression.
        wanted = (func.coalesce(_o.state, "") == state.value, _o.scope == schema.sqltext(GLOBAL))
        statement = select(*_OPTOUT).where(*wanted, _o.number > after).order_by(_o.number)
        return await self._list(statement.limit(min(limit, MAX_PAGE + 1)))

    async def newest(
        self, state: OptState, *, before: tuple[int, str] | None = None, limit: int = 100
    ) -> list[OptOutView]:
        """Up to `limit` numbers in this state, those that came to it last first; after `before` (since, number)."""
        wanted = (_o.state == schema.sqltext(state.value), _o.scope == schema.sqltext(GLOBAL))
        statement = select(*_OPTOUT).where(*wanted).order_by(_o.since.desc(), _o.number.desc())
        if before is not None:
            statement = statement.where(tuple_(_o.since, _o.number) < before)
        return await self._list(statement.limit(min(limit, MAX_PAGE + 1)))

    async def one(self, number: str) -> OptOutDetail:
        """What is known of a number, which may be nothing."""
        scopes = select(*_OPTOUT).where(_o.number == number).order_by(_o.scope)
        evidence = select(*_EVIDENCE).where(_e.number == number).order_by(_e.id.desc()).limit(HISTORY + 1)
        async with self._reader.snapshot() as connection:
            views = tuple(_view(row) for row in (await connection.execute(scopes)).mappings())
            events = [_evidence(row) for row in (await connection.execute(evidence)).mappings()]
        return OptOutDetail(number, views, tuple(events[:HISTORY][::-1]), len(events) > HISTORY)

    async def _list(self, statement: Select[Any]) -> list[OptOutView]:
        async with self._reader.snapshot() as connection:
            return [_view(row) for row in (await connection.execute(statement)).mappings()]


def _view(row: Mapping[Any, Any]) -> OptOutView:
    return OptOutView(**{**row, "state": OptState(row["state"]), "wrote_since": bool(row["wrote_since"])})


def _evidence(row: Mapping[Any, Any]) -> EvidenceView:
    return EvidenceView(**{**row, "prior_state": OptState(row["prior_state"]), "state": OptState(row["state"])})
