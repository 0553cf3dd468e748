"""The shapes of what is said of inbound messages, opt-outs and events. Answers: for the document and the tests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from gatewayd.http.schemas import Moment, StateName, _Given, _Taken
from gatewayd.router.numbers import MAX_GIVEN

MAX_EVIDENCE = 500

State = Literal["out", "in"]
PriorState = Literal["none", "out", "in"]
Kind = Literal["text", "data", "undecodable"]
_Source = Literal["keyword", "operator", "api", "import"]
_Class = Literal["campaign", "application", "alert", "agent"]


def _line(text: str) -> str:
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text):
        raise ValueError("has control characters in it; one line of text is expected")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in text):
        raise ValueError("has half a surrogate pair in it; text is expected")
    return text


def _something(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; say on what the removal rests, for it is kept as evidence")
    return text


_Line = Annotated[str, AfterValidator(_line), Field(max_length=MAX_EVIDENCE)]


class NewOptOut(_Taken):
    """A number that must not be written to."""

    number: str = Field(
        min_length=1, max_length=MAX_GIVEN, description="In any usual spelling.", examples=["+59898344484", "098344484"]
    )
    evidence: _Line = Field("", description="Why: who asked for it, where that is written down.")
    scope: Literal["global"] = Field("global", description="All that this gateway sends; there is no other scope yet.")


class OptOutRemoval(_Taken):
    """Why a number may be written to again."""

    evidence: Annotated[_Line, AfterValidator(_something)] = Field(
        min_length=1, description="What it rests on: an opt-out is never cleared without evidence."
    )


class Inbound(_Given):
    """A message that came in. `id` counts in the order they were handed over."""

    id: int
    at: Moment = Field(description="When it was handed over.")
    from_: str | None = Field(
        alias="from", description="The sender as E.164 or short code where it is one, else as received."
    )
    from_given: str = Field(description="The sender as received.")
    to: str | None = Field(description="The SIM's own number, where that is known.")
    channel: str
    text: str | None
    data: str | None = Field(description="Base64 of what is no text.")
    kind: Kind
    parts: int = Field(description="How many of its `parts_total` are in it.")
    parts_total: int
    partial: bool = Field(description="Parts of it are missing, or it is what came late of message `continues`.")
    continues: int | None
    sent_at: Moment | None = Field(description="By the SMS centre's clock.")
    received_at: Moment
    intent: Literal["", "opt_out", "opt_in", "help", "none"] = Field(description="What it asks for; empty: not judged.")
    tier: Literal["", "A", "B", "C"]
    rule: str
    error: str | None = Field(description="Why it cannot be decoded.")


class InboundPage(_Given):
    """A page of inbound messages."""

    items: list[Inbound]
    next: int | None = Field(description="`after` of the next page; null on the last one.")


class Concat(_Given):
    ref: int | None
    bits: int | None
    seq: int | None
    total: int


class InboundDuplicate(_Given):
    """The same PDU seen again; it was handed to nobody."""

    id: int
    received_at: Moment
    listing: str
    storage: str
    index: int | None


class InboundPart(_Given):
    """A PDU as it was received, SMSC address included."""

    id: int
    received_at: Moment
    channel: str
    raw: str
    listing: str
    storage: str
    index: int | None
    sent_at: Moment | None
    concat: Concat | None
    text: str | None
    error: str | None
    duplicates: list[InboundDuplicate]


class InboundDetail(Inbound):
    """An inbound message with the PDUs it is made of."""

    pdus: list[InboundPart]


class OptOut(_Given):
    """A number's state. `blocks`: the classes of messages that are not sent to it."""

    number: str
    scope: str
    state: State
    blocks: list[_Class]
    wrote_since: bool = Field(description="The contact wrote again since, which lets agents answer.")
    source: _Source
    since: Moment
    event: int = Field(description="The evidence.")


class OptOutPage(_Given):
    """A page of the opt-out list."""

    items: list[OptOut]
    next: str | None = Field(description="`after` of the next page; null on the last one.")


class Evidence(_Given):
    """What a state rests on. It is never changed and never deleted."""

    id: int
    at: Moment
    number_received: str
    scope: str
    intent: str
    source: _Source
    actor: str
    prior_state: PriorState
    state: PriorState
    text: str | None
    tier: str
    rule: str
    language: str
    version: str
    channel: str | None
    inbound: int | None
    sent_at: Moment | None
    confirmation_idm: int | None = Field(description="The message that answered it.")
    blocked: int
    in_hand: int
    evidence: str


class OptOutDetail(_Given):
    """A number with all that was said about it, oldest first."""

    number: str
    state: PriorState
    scopes: list[OptOut]
    events: list[Evidence]
    history_cut: bool = Field(description="Only the end of the history is here.")


class OptOutChanged(_Given):
    """What became of it. `changed` false: it was so before."""

    number: str
    scope: str
    state: PriorState
    prior_state: PriorState
    changed: bool
    blocked: int = Field(description="Messages to it that are not sent any more.")
    in_hand: int = Field(description="How many of those a channel had; they are called back where that is possible.")
    event: int | None = Field(description="The evidence; null where nothing was to be done.")


# Events: what streams, webhooks and callbacks tell.


class MessageEvent(_Given):
    """`data` of message.*: what was true when it happened."""

    idm: int
    to: str
    class_: str = Field(alias="class")
    state: int
    state_name: StateName
    delivery: Literal["none", "pending", "delivered", "undelivered", "unknown"]
    reason: str
    channel: str | None
    campaign: str
    agent: str
    client_ref: str | None
    segments: int
    accepted_at: Moment


class InboundEvent(_Given):
    """`data` of inbound.received."""

    id: int
    from_: str | None = Field(alias="from")
    from_given: str
    to: str | None
    channel: str
    text: str | None
    data: str | None
    kind: Kind
    parts: int
    parts_total: int
    partial: bool
    continues: int | None
    sent_at: Moment | None
    received_at: Moment
    intent: str
    tier: str


class OptOutEvent(_Given):
    """`data` of optout.changed."""

    number: str
    state: State
    prior_state: PriorState
    scope: str
    source: _Source
    blocked: int
    at: Moment
    event: int
    inbound: int | None


class ChannelEvent(_Given):
    """`data` of channel.state."""

    channel: str
    state: str
    reason: str


class GapEvent(_Given):
    """`data` of stream.gap: events `first` to `last` cannot be told."""

    first: int
    last: int
    detail: str


class EventDocument(_Given):
    """An event. The same one has the same `id` wherever and however often it is told."""

    id: str
    type: str
    at: Moment
    data: MessageEvent | InboundEvent | OptOutEvent | ChannelEvent | GapEvent


EVENT_DATA: dict[str, type[BaseModel]] = {
    "message": MessageEvent,
    "inbound": InboundEvent,
    "optout": OptOutEvent,
    "channel": ChannelEvent,
    "stream": GapEvent,
}
"""The model of `data`, by the kind of the event's type."""


def check_event(document: dict[str, Any]) -> None:
    """Raises ValidationError if a document is not as described here."""
    EventDocument.model_validate(document)
    EVENT_DATA[str(document["type"]).partition(".")[0]].model_validate(document["data"])
