"""Who must not be written to: the state of each number, the evidence for it, and what follows for what is queued.

Source: docs/optout.md; DESIGN §1 promise 5. Every change is a row of evidence, never changed and never deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from sqlalchemy import bindparam, func, select, update

from gatewayd.clock import iso
from gatewayd.model import MessageClass
from gatewayd.model import SegmentState as S
from gatewayd.spool import schema
from gatewayd.spool.engine import Statement, set_to, storable
from gatewayd.spool.events import OPTOUT, GatewayEvent
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.lifecycle import Command
from gatewayd.spool.moves import Owner, event, move, refold, segments_of, set_aside
from gatewayd.spool.writer import Tx

GLOBAL = "global"
CLOCKS_APART_MS = 86_400_000  # an SMS centre may have its clock or its time zone wrong


class OptState(StrEnum):
    """Whether a number takes messages. NONE: it never said."""

    NONE = "none"
    OUT = "out"
    IN = "in"


class Source(StrEnum):
    """Who said so."""

    KEYWORD = "keyword"
    OPERATOR = "operator"
    API = "api"
    IMPORT = "import"


class Binding(StrEnum):
    """How an opt-out binds a class of messages."""

    ALWAYS = "always"
    UNTIL_WRITES = "until the contact writes again"
    NEVER = "never"


BINDING: dict[MessageClass, Binding] = {
    MessageClass.CAMPAIGN: Binding.ALWAYS,
    MessageClass.APPLICATION: Binding.ALWAYS,
    MessageClass.ALERT: Binding.ALWAYS,
    MessageClass.AGENT: Binding.UNTIL_WRITES,
    MessageClass.SYSTEM: Binding.NEVER,
}
"""The one table of which class an opt-out binds. DESIGN §3."""


@dataclass(frozen=True, slots=True)
class OptOut:
    """One row of the list. `wrote_since`: the contact wrote something else since, which reopens one-to-one replies."""

    scope: str
    wrote_since: bool
    source: str
    since: int
    event_id: int

    def binds(self, class_: MessageClass) -> bool:
        """Whether a message of this class must not be sent."""
        binding = BINDING[class_]
        if binding is Binding.UNTIL_WRITES:
            return not self.wrote_since
        return binding is Binding.ALWAYS

    @property
    def sentence(self) -> str:
        """Why, for people."""
        how = "wrote STOP" if self.source == Source.KEYWORD else f"was put on the opt-out list ({self.source})"
        return f"the number {how} at {(iso(self.since) or '')[:19].replace('T', ' ')} UTC (opt-out {self.event_id})"


_o = schema.optouts.c
_e = schema.optout_events.c
_m = schema.messages.c

OUT_OF = Statement(
    select(_o.scope, _o.wrote_since, _o.source, _o.since, _o.event_id).where(
        _o.number == bindparam("number"), _o.state == schema.sqltext(OptState.OUT.value)
    )
)
AT_ONCE = 50  # numbers looked up by one statement
OUT_OF_MANY = Statement(
    select(_o.number, _o.scope, _o.wrote_since, _o.source, _o.since, _o.event_id).where(
        _o.number.in_([bindparam(f"number{n}") for n in range(AT_ONCE)]),
        _o.state == schema.sqltext(OptState.OUT.value),
    )
)
STATE_OF = Statement(select(_o.state).where(_o.number == bindparam("number"), _o.scope == bindparam("scope")))
NEW_STATE = Statement(
    schema.optouts.insert(), columns=["number", "scope", "state", "wrote_since", "source", "since", "event_id"]
)
SET_STATE = Statement(
    update(schema.optouts)
    .where(_o.number == bindparam("b_number"), _o.scope == bindparam("b_scope"))
    .values(set_to("state", "wrote_since", "source", "since", "event_id"))
)
WROTE = Statement(
    update(schema.optouts)
    .where(_o.number == bindparam("b_number"), _o.state == schema.sqltext(OptState.OUT.value))
    .values(wrote_since=schema.sqltext(1))
)
BINDS_AGAIN = Statement(
    update(schema.optouts)
    .where(_o.number == bindparam("b_number"), _o.scope == bindparam("b_scope"))
    .values(wrote_since=schema.sqltext(0))
)
LEFT_SINCE = Statement(
    select(_e.id)
    .where(
        _e.number == bindparam("number"),
        _e.intent == schema.sqltext("opt_out"),
        _e.sent_at > bindparam("sent_at"),
        _e.sent_at <= bindparam("until"),
    )
    .limit(schema.sqltext(1))
)
_EVENT_COLUMNS = [column.name for column in schema.optout_events.columns if column.name != "id"]
NEW_EVENT = Statement(schema.optout_events.insert().returning(_e.id), columns=_EVENT_COLUMNS)
HELPED = Statement(
    select(func.count())
    .select_from(schema.optout_events)
    .where(
        _e.number == bindparam("number"),
        _e.intent == bindparam("intent"),
        _e.at >= bindparam("since"),
        _e.confirmation_id.is_not(None),
    )
)
OPEN_TO = Statement(
    select(_m.id, getattr(_m, "class"), _m.owner)
    .where(_m.to_number == bindparam("number"), schema.OPEN)
    .order_by(_m.id)
)

_BLOCKABLE = frozenset({S.QUEUED, S.HELD})


@dataclass(frozen=True, slots=True)
class Said:
    """What a change rests on; all of it is kept as evidence. Times in epoch ms.

    `number` is E.164, a short code, or an address as it came; `number_received` as it came. `evidence` is an operator's
    reason, the rest is of the text that was received.
    """

    number: str
    number_received: str
    intent: str
    source: Source
    actor: str
    scope: str = GLOBAL
    text: str | None = None
    tier: str = ""
    rule: str = ""
    language: str = ""
    version: str = ""
    channel: str | None = None
    inbound_id: int | None = None
    sent_at: int | None = None
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of it. `event_id` is the evidence; `blocked`: open messages to the number, `in_hand` of them in a
    channel's hands.
    """

    event_id: int
    number: str
    prior: OptState
    state: OptState
    blocked: int = 0
    in_hand: int = 0

    @property
    def changed(self) -> bool:
        return self.prior is not self.state


def blocking(tx: Tx, number: str, class_: MessageClass) -> OptOut | None:
    """The opt-out that forbids a message of this class to this number, if there is one."""
    if BINDING[class_] is Binding.NEVER:
        return None
    return next((found for row in tx.all(OUT_OF, {"number": number}) if (found := OptOut(*row)).binds(class_)), None)


def blocking_each(tx: Tx, wanted: Sequence[tuple[str, MessageClass]]) -> list[OptOut | None]:
    """`blocking` for many at once: a thousand messages are no thousand questions."""
    if len(wanted) <= 2:
        return [blocking(tx, number, class_) for number, class_ in wanted]
    numbers = list(dict.fromkeys(number for number, class_ in wanted if BINDING[class_] is not Binding.NEVER))
    found: dict[str, list[OptOut]] = {}
    for start in range(0, len(numbers), AT_ONCE):
        some = numbers[start : start + AT_ONCE]
        some += some[-1:] * (AT_ONCE - len(some))
        for number, *row in tx.all(OUT_OF_MANY, {f"number{n}": number for n, number in enumerate(some)}):
            found.setdefault(number, []).append(OptOut(*row))
    return [next((hit for hit in found.get(number, ()) if hit.binds(class_)), None) for number, class_ in wanted]


def change(tx: Tx, book: LaneBook, said: Said, state: OptState, owner: Owner, now: int) -> Changed:
    """Set a number's state, with its evidence; an opt-out blocks what is queued to it, in this transaction.

    What a channel has in its hands is called back, if its PDU was not written yet. Saying the same again is one more
    row of evidence and changes nothing, but that agents may not answer any more what was written before it.
    """
    tx.flush()
    row = tx.one(STATE_OF, {"number": said.number, "scope": said.scope})
    prior = OptState.NONE if row is None else OptState(row[0])
    blocked, in_hand = (0, 0)
    event_id = _evidence(tx, said, prior, state, now)
    if state is not prior:
        values = {"state": state.value, "wrote_since": 0, "source": said.source.value, "since": now}
        values["event_id"] = event_id
        if row is None:
            tx.run(NEW_STATE, {"number": said.number, "scope": said.scope, **values})
        else:
            set_values = {"v_" + name: value for name, value in values.items()}
            tx.run(SET_STATE, {"b_number": said.number, "b_scope": said.scope, **set_values})
    elif state is OptState.OUT:
        tx.run(BINDS_AGAIN, {"b_number": said.number, "b_scope": said.scope})
    if state is OptState.OUT:
        blocked, in_hand = _block_queued(tx, book, said, owner, now)
        if blocked or in_hand:
            tx.run(COUNTED, {"b_id": event_id, "v_blocked": blocked, "v_in_hand": in_hand})
    if state is not prior:
        data = {"state": state.value, "prior_state": prior.value, "blocked": blocked, "source": said.source.value}
        tx.notices.events.append(GatewayEvent(OPTOUT, optout_event_id=event_id, channel=said.channel, data=data))
    return Changed(event_id, said.number, prior, state, blocked, in_hand)


COUNTED = Statement(update(schema.optout_events).where(_e.id == bindparam("b_id")).values(set_to("blocked", "in_hand")))
CONFIRMED = Statement(update(schema.optout_events).where(_e.id == bindparam("b_id")).values(set_to("confirmation_id")))


def note(tx: Tx, said: Said, now: int) -> int:
    """Keep evidence of what changes nothing (HELP). Returns its id."""
    tx.flush()
    row = tx.one(STATE_OF, {"number": said.number, "scope": said.scope})
    state = OptState.NONE if row is None else OptState(row[0])
    return _evidence(tx, said, state, state, now)


def confirmed(tx: Tx, event_id: int, message_id: int) -> None:
    """Note the message that answers an event."""
    tx.run(CONFIRMED, {"b_id": event_id, "v_confirmation_id": message_id})


def answered_since(tx: Tx, number: str, intent: str, since: int) -> int:
    """How many such events of a number were answered since then."""
    tx.flush()
    row = tx.one(HELPED, {"number": number, "intent": intent, "since": since})
    return 0 if row is None else int(row[0])


def wrote(tx: Tx, number: str) -> None:
    """The contact wrote something that is neither STOP nor HELP: agents may answer. Decision 6."""
    tx.run(WROTE, {"b_number": number})


def left_since(tx: Tx, number: str, sent_at: int | None, now: int) -> bool:
    """Whether the contact opted out after it wrote what the SMS centre took at `sent_at` (epoch ms), and which came
    later to us. A time of the SMS centre's that is yet to come is none.
    """
    if sent_at is None:
        return False
    tx.flush()
    until = now + CLOCKS_APART_MS
    return tx.one(LEFT_SINCE, {"number": number, "sent_at": sent_at, "until": until}) is not None


def _evidence(tx: Tx, said: Said, prior: OptState, state: OptState, now: int) -> int:
    row = tx.one(
        NEW_EVENT,
        {
            "at": now,
            "number": said.number,
            "number_received": said.number_received,
            "scope": said.scope,
            "intent": said.intent,
            "source": said.source.value,
            "actor": said.actor,
            "prior_state": prior.value,
            "state": state.value,
            "text": None if said.text is None else storable(said.text),
            "tier": said.tier,
            "rule": storable(said.rule),
            "language": said.language,
            "version": said.version,
            "channel": said.channel,
            "inbound_id": said.inbound_id,
            "sent_at": said.sent_at,
            "confirmation_id": None,
            "blocked": 0,
            "in_hand": 0,
            "evidence": said.evidence,
        },
    )
    assert row is not None
    return int(row[0])


def _block_queued(tx: Tx, book: LaneBook, said: Said, owner: Owner, now: int) -> tuple[int, int]:
    """Block all that is queued or held to the number, call back what is in hand; returns how many of each."""
    blocked = in_hand = 0
    for message_id, class_, in_hand_of in tx.all(OPEN_TO, {"number": said.number}):
        hit = blocking(tx, said.number, MessageClass(class_))
        if hit is None:
            continue
        tx.guard(partial(block, tx, book, message_id, hit, owner, now), partial(set_aside, tx, book, message_id, now))
        blocked += 1
        in_hand += int(in_hand_of is not None)
        if in_hand_of == owner.instance:
            book.recall(message_id, "its number has opted out")
            tx.notices.recalled = True
    return blocked, in_hand


def block(tx: Tx, book: LaneBook, message_id: int, hit: OptOut, owner: Owner, now: int) -> None:
    """Block what is left of a message."""
    block_segments(tx, message_id, hit.sentence, now)
    refold(tx, book, message_id, now, owner, reason=hit.sentence)


def block_segments(tx: Tx, message_id: int, detail: str, now: int) -> None:
    """Block the segments of a message that are queued or held."""
    for segment in segments_of(tx, message_id):
        if segment.state in _BLOCKABLE:
            move(tx, segment, Command.BLOCK, now, detail=detail)


def shown_as_written(tx: Tx, message_id: int, seq: int, hit: OptOut, now: int) -> None:
    """A segment whose PDU was written before the opt-out is not recalled, and its history says so."""
    detail = f"{hit.sentence}; this PDU was written before that and is not recalled"
    event(tx, message_id, now, "opted out", seq=seq, detail=detail)
