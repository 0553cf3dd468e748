"""The shapes of operations on the queue: what is taken, and what is given."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gatewayd.http.schemas import MAX_URL, Moment, StateName, Timestamp, _Given, _Taken
from gatewayd.router.submission import MAX_CLIENT_REF, MAX_LABEL, MAX_PRIORITY
from gatewayd.spool.filters import MAX_ID

MAX_IDS = 1000  # in one request
MAX_REASON = 500  # characters

ActionName = Literal["cancel", "hold", "release", "requeue", "priority", "route", "resolve"]
ResolutionName = Literal["sent", "resend", "give_up"]
ClassName = Literal["application", "alert", "agent", "campaign", "system"]
Holder = Literal["operator", "pin", "restore", "any"]
Idm = Annotated[int, Field(ge=1, le=MAX_ID)]


class MessageFilter(_Taken):
    """Which messages are meant: all that is given must hold."""

    states: list[StateName] = Field(
        [], max_length=9, description="In one of these. None given: those that the action can change."
    )
    campaign: str | None = Field(None, max_length=MAX_LABEL)
    class_: ClassName | None = Field(None, alias="class")
    caller: str | None = Field(None, min_length=1, max_length=128, description="The API key that submitted it.")
    channel: str | None = Field(
        None, min_length=1, max_length=128, description="Which has it, had it last, or is what it is pinned to."
    )
    to: str | None = Field(None, min_length=1, max_length=64, description="A number, as a message's `to`.")
    target: str | None = Field(None, min_length=1, max_length=MAX_URL, description="Where it is routed.")
    route: str | None = Field(None, max_length=128, description="The rule that routed it.")
    held: Holder | None = Field(
        None, description="Who keeps it back: an operator, the channel it is pinned to, a restore; anybody."
    )
    client_ref: str | None = Field(None, min_length=1, max_length=MAX_CLIENT_REF)
    accepted_after: Timestamp | None = Field(None, description="Accepted at this time or later.")
    accepted_before: Timestamp | None = Field(None, description="Accepted before this time.")
    in_doubt: bool = Field(False, description="A part of it is in doubt, or was given up in doubt.")


class NewOperation(_Taken):
    """What is to be done, to which messages. Only those that are there now are meant."""

    action: ActionName
    ids: list[Idm] = Field([], max_length=MAX_IDS, description="These messages, if the filter holds for them.")
    filter: MessageFilter | None = None
    all: bool = Field(False, description="Needed where neither ids nor a filter say which.")
    priority: int | None = Field(None, ge=0, le=MAX_PRIORITY, description="For priority: larger goes first.")
    target: str | None = Field(
        None, min_length=1, max_length=MAX_URL, description="For route: any, channel:NAME, group:TAG …"
    )
    expires_at: Timestamp | None = Field(
        None, description="For requeue: another expiry. Without it one that has passed is lifted."
    )
    may_double: bool = Field(False, description="For requeue: also what was given up in doubt; it may arrive twice.")
    resolution: ResolutionName | None = Field(None, description="For resolve: it was sent; send again; nobody knows.")
    reason: str = Field("", max_length=MAX_REASON, description="Why: kept in the history of each message.")
    dry_run: bool = Field(False, description="Do nothing, only count the messages that are meant.")


class Resolution(_Taken):
    """What is known of a message in doubt."""

    resolution: ResolutionName
    reason: str = Field("", max_length=MAX_REASON)


class Resolved(_Given):
    """A message whose doubt is ended."""

    idm: int
    said: str
    operation: int


class Operation(_Given):
    """An operation on the queue."""

    id: int
    at: Moment
    actor: str
    action: str
    filter: dict[str, Any] = Field(description="Which messages are meant.")
    value: dict[str, Any] = Field(description="What the action needs: the priority, the target …")
    reason: str
    state: Literal["running", "done", "stopped"]
    matched: int = Field(description="Messages that were meant, so far.")
    changed: int = Field(description="Of these, those that were in a state to be changed.")
    progress: float = Field(ge=0, le=1, description="How much of the spool it has gone through.")
    finished_at: Moment | None


class OperationResult(_Given):
    """What became of one message."""

    idm: int
    found: bool = Field(description="Whether there is such a message, and the filter holds for it.")
    changed: bool
    said: str


class OperationBegun(_Given):
    """An operation, or what a dry run has counted."""

    operation: Operation | None
    results: list[OperationResult] = Field(description="One for each id, where they are few and dealt with at once.")
    count: int | None = Field(description="Of a dry run: how many messages are meant.")
    more: bool = Field(description="There may be more than were counted.")


class Operations(_Given):
    """A page of operations, the newest first."""

    items: list[Operation]
    next: int | None = Field(description="`after` of the next page; null on the last one.")


class OperationStopped(_Given):
    id: int
    stopped: bool


class ModeReason(_Taken):
    """Why a channel is to take nothing more."""

    reason: str = Field("", max_length=MAX_REASON)


class ChannelModeSet(_Given):
    channel: str
    mode: Literal["", "paused", "draining"]
    mode_reason: str = Field(description="Who, when and why; empty of a channel that works.")
