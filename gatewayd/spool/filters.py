"""Which messages are meant: the one filter of lists and of operations on the queue, and how it finds them in steps.

A filter may mean ten rows of ten million. So it walks: by the index that fits it best, a bounded number of rows at a
time in order of their ids, and says how far it has come. The writer and the readers run the same statements.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, and_, bindparam, case, or_, select

from gatewayd.model import MessageClass, MessageState, SegmentState
from gatewayd.spool import schema
from gatewayd.spool.engine import Params, Row, Statement

MAX_ID = 2**63 - 1
AT_ONCE = 50  # ids looked up by one statement

_m = schema.messages.c
_s = schema.segments.c
_STATES = len(MessageState)
_ANY = "any"  # value of `held`: whoever holds it

_in_doubt = _s.state.in_([schema.sqltext(state.value) for state in (SegmentState.IN_DOUBT, SegmentState.ABANDONED)])


@dataclass(frozen=True, slots=True)
class Filter:
    """All that is given must hold; nothing given means every message.

    `to` is a number as it is dialled. `channel` has it, had it last, or is what it is pinned to. `caller`: the API key
    or actor that submitted it. `held`: who keeps it back ("any": anybody, the
    gateway that has set it aside too). `in_doubt`: a part of it is in doubt, or was
    given up in doubt. Times in epoch ms: accepted from `accepted_after` on, and before `accepted_before`.
    `only_resent`: of those that are not TO PROCESS only those that would be sent again (policy resend).
    """

    ids: tuple[int, ...] = ()
    states: tuple[MessageState, ...] = ()
    campaign: str | None = None
    class_: MessageClass | None = None
    caller: str | None = None
    channel: str | None = None
    to: str | None = None
    target: str | None = None
    route: str | None = None
    held: str | None = None
    client_ref: str | None = None
    accepted_after: int | None = None
    accepted_before: int | None = None
    in_doubt: bool = False
    only_resent: bool = False

    @property
    def given(self) -> dict[str, Any]:
        """What is asked for, by name, as plain values."""
        found: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if value not in ((), None, False):
                found[each.name] = [int(one) for one in value] if isinstance(value, tuple) else value
        return found

    def to_json(self) -> str:
        return json.dumps(self.given, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Filter:
        values = json.loads(text)
        values["ids"] = tuple(values.get("ids", ()))
        values["states"] = tuple(map(MessageState, values.get("states", ())))
        if "class_" in values:
            values["class_"] = MessageClass(values["class_"])
        return cls(**values)


class _Walk(Enum):
    """The index by which a filter is walked; all of them give ids in order."""

    IDS = "ids"
    DOUBT = "in doubt"
    REF = "client_ref"
    OPEN_TO = "number, of what is TO PROCESS"
    STATE = "state"
    ALL = "id"


@dataclass(frozen=True, slots=True)
class Query:
    """One statement of a step: gives rows (id, 1 where the filter holds, else 0), at most `params["n"]`."""

    statement: Statement
    params: Params

    @property
    def clause(self) -> Select[Any]:
        clause = self.statement.clause
        assert isinstance(clause, Select)
        return clause


@dataclass(frozen=True, slots=True)
class Step:
    """The queries of one step of a walk, and what to make of them."""

    queries: tuple[Query, ...]
    limit: int
    descending: bool
    ids_left: int | None = None  # the last id asked for, where more are to be asked for

    def outcome(self, pages: Sequence[Sequence[Row]]) -> Found:
        """The matching ids in order, and how far that reaches."""
        full = [page[-1][0] for page in pages if len(page) >= self.limit]
        if self.ids_left is not None:
            full = [self.ids_left]
        seen: dict[int, bool] = {}
        for page in pages:
            seen.update((row[0], bool(row[1])) for row in page)
        reached: int | None = None
        if full:
            reached = max(full) if self.descending else min(full)
        inside = (key for key in seen if reached is None or (key >= reached if self.descending else key <= reached))
        ordered = sorted(inside, reverse=self.descending)
        return Found(tuple(key for key in ordered if seen[key]), reached, len(ordered))


@dataclass(frozen=True, slots=True)
class Found:
    """`reached`: all up to this id was looked at; None: the walk is at its end. `looked_at`: rows."""

    ids: tuple[int, ...]
    reached: int | None
    looked_at: int


def step(wanted: Filter, after: int | None, limit: int, *, last: int = MAX_ID, descending: bool = False) -> Step:
    """The next step of a walk: at most `limit` rows of each state are looked at.

    `after` None: from the beginning. `last`: messages beyond this id are not meant. Raises nothing.
    """
    walk = _walk_of(wanted)
    params: Params = _params(wanted, walk)
    edge = (MAX_ID if descending else -1) if after is None else after
    if walk is _Walk.IDS:
        return _step_of_ids(wanted, params, edge, last, descending)
    params |= {"w_after": edge, "w_last": last, "n": limit}
    statement = _statement(walk, frozenset(_conditions(wanted, walk)), descending)
    if walk is not _Walk.STATE:
        return Step((Query(statement, params),), limit, descending)
    states = dict.fromkeys(wanted.states)
    queries = tuple(Query(statement, {**params, "w_state": int(state)}) for state in states)
    return Step(queries, limit, descending)


def _step_of_ids(wanted: Filter, params: Params, edge: int, last: int, descending: bool) -> Step:
    left = sorted({i for i in wanted.ids if (i < edge if descending else i > edge) and i <= last}, reverse=descending)
    now = left[:AT_ONCE]
    if not now:
        return Step((), AT_ONCE + 1, descending)
    padded = now + now[-1:] * (AT_ONCE - len(now))
    params |= {f"w_id{n}": each for n, each in enumerate(padded)} | {"n": AT_ONCE}
    statement = _statement(_Walk.IDS, frozenset(_conditions(wanted, _Walk.IDS)), descending)
    return Step((Query(statement, params),), AT_ONCE + 1, descending, now[-1] if len(left) > len(now) else None)


def is_exact(wanted: Filter) -> bool:
    """Whether the walk meets only messages that are meant."""
    return not _conditions(wanted, _walk_of(wanted))


def for_states(wanted: Filter, states: Sequence[MessageState], *, only_resent: bool = False) -> Filter:
    """The same filter, of these states, if it does not say which and names no ids."""
    if wanted.ids or wanted.states:
        return wanted
    return replace(wanted, states=tuple(states), only_resent=only_resent)


def _walk_of(wanted: Filter) -> _Walk:
    if wanted.ids:
        return _Walk.IDS
    if wanted.in_doubt:
        return _Walk.DOUBT
    if wanted.client_ref is not None:
        return _Walk.REF
    if wanted.to is not None and wanted.states == (MessageState.TO_PROCESS,):
        return _Walk.OPEN_TO
    return _Walk.STATE if wanted.states else _Walk.ALL


_BY_WALK = {
    _Walk.IDS: "ids",
    _Walk.DOUBT: "in_doubt",
    _Walk.REF: "client_ref",
    _Walk.OPEN_TO: "to",
    _Walk.STATE: "states",
    _Walk.ALL: "",
}


def _conditions(wanted: Filter, walk: _Walk) -> list[str]:
    """What is left to be checked row by row."""
    left = [name for name in wanted.given if name not in (_BY_WALK[walk], "ids")]
    if walk is _Walk.OPEN_TO:
        left.remove("states")
    return ["held_any" if name == "held" and wanted.held == _ANY else name for name in left]


def _params(wanted: Filter, walk: _Walk) -> Params:
    found: Params = {}
    for name in (*_conditions(wanted, walk), _BY_WALK[walk]):
        if name in _PLAIN or name in {"channel", "accepted_after", "accepted_before"}:
            value = getattr(wanted, name)
            found[f"f_{name}"] = value.value if isinstance(value, MessageClass) else value
        elif name == "states" and walk is not _Walk.STATE:
            padded = [int(state) for state in wanted.states][:_STATES]
            padded += padded[-1:] * (_STATES - len(padded))
            found |= {f"f_state{n}": state for n, state in enumerate(padded)}
    return found


_PLAIN: dict[str, ColumnElement[Any]] = {
    "campaign": _m.campaign,
    "class_": getattr(_m, "class"),
    "caller": _m.api_key,
    "to": _m.to_number,
    "target": _m.target,
    "route": _m.route,
    "held": _m.held,
    "client_ref": _m.client_ref,
}


def _condition(name: str) -> ColumnElement[bool]:
    if name in _PLAIN:
        return _PLAIN[name] == bindparam(f"f_{name}")
    match name:
        case "states":
            return _m.state.in_([bindparam(f"f_state{n}") for n in range(_STATES)])
        case "channel":
            return or_(_m.channel == bindparam("f_channel"), _m.pin_channel == bindparam("f_channel"))
        case "accepted_after":
            return _m.accepted_at >= bindparam("f_accepted_after")
        case "accepted_before":
            return _m.accepted_at < bindparam("f_accepted_before")
        case "held_any":
            set_aside = and_(
                _m.queue == schema.sqltext(schema.OUT),
                _m.busy == schema.sqltext(0),
                _m.state == schema.sqltext(MessageState.TO_PROCESS.value),
            )
            return or_(_m.held != schema.sqltext(""), _m.queue == schema.sqltext(schema.KEPT), set_aside)
        case "in_doubt":
            return select(_s.seq).where(_s.message_id == _m.id, _in_doubt).exists()
        case "only_resent":
            to_process = _m.state == schema.sqltext(MessageState.TO_PROCESS.value)
            return or_(to_process, _m.in_doubt == schema.sqltext("resend"))
    raise ValueError(name)


_made: dict[tuple[_Walk, frozenset[str], bool], Statement] = {}  # one for each set of conditions ever asked for


def _statement(walk: _Walk, conditions: frozenset[str], descending: bool) -> Statement:
    key = (walk, conditions, descending)
    found = _made.get(key)
    if found is None:
        checks = [_condition(name) for name in sorted(conditions)]
        holds: ColumnElement[Any] = schema.sqltext(1)
        if checks:
            holds = case((and_(*checks), schema.sqltext(1)), else_=schema.sqltext(0))
        found = _made[key] = Statement(_select(walk, holds, descending))
    return found


def _select(walk: _Walk, holds: ColumnElement[Any], descending: bool) -> Select[Any]:
    key = _s.message_id if walk is _Walk.DOUBT else _m.id
    found = select(key, holds)
    if walk is _Walk.DOUBT:
        found = found.join_from(schema.segments, schema.messages, _m.id == _s.message_id).where(_in_doubt)
    elif walk is _Walk.IDS:
        found = found.where(_m.id.in_([bindparam(f"w_id{n}") for n in range(AT_ONCE)]))
    elif walk is _Walk.REF:
        found = found.where(_m.client_ref == bindparam("f_client_ref"), _m.client_ref.is_not(None))
    elif walk is _Walk.OPEN_TO:
        found = found.where(_m.to_number == bindparam("f_to"), schema.OPEN)
    elif walk is _Walk.STATE:
        found = found.where(_m.state == bindparam("w_state"))
    if walk is not _Walk.IDS:
        found = found.where(key < bindparam("w_after") if descending else key > bindparam("w_after"))
        found = found.where(key <= bindparam("w_last"))
    return found.order_by(key.desc() if descending else key).limit(bindparam("n", type_=Integer))
