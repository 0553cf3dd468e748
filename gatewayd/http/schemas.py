"""The shapes of the JSON API: what is taken, checked by pydantic, and what is given, for the OpenAPI document.

Tests hold what the handlers answer against the models of the answers, so the document is true.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gatewayd.model import InDoubtPolicy, MessageClass
from gatewayd.router.submission import MAX_CLIENT_REF, MAX_LABEL, MAX_PRIORITY, Submission

MAX_MESSAGES = 1000  # in one request
MAX_URL = 2048  # characters

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_YEARS = range(2000, 2200)
YEARS_TAKEN = f"{_YEARS[0]} to {_YEARS[-1]}"


def _timestamp(text: str) -> str:
    epoch_ms(text)
    return text


def epoch_ms(text: str) -> int:
    """An RFC 3339 time with its offset as UTC epoch milliseconds. Raises ValueError."""
    expected = "a time with its offset is expected, such as 2026-11-23T12:00:00Z"
    if _RFC3339.fullmatch(text) is None:
        raise ValueError(expected)
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError(f"there is no such time; {expected}") from None
    if moment.year not in _YEARS:
        raise ValueError(f"the year is not within {YEARS_TAKEN}")
    return (moment - _EPOCH) // timedelta(milliseconds=1)


Timestamp = Annotated[
    str, AfterValidator(_timestamp), Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-23T12:00:00Z"])
]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class _Taken(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewMessage(_Taken):
    """One text to one number."""

    to: str = Field(
        description="A number in international form, or in the national form of the gateway's home country, or a short "
        "code of 3 to 6 digits.",
        examples=["+59898344484", "098344484"],
    )
    text: str = Field(description="Any text; it is cut into segments. At least one character that is not a space.")
    class_: Literal["application", "alert", "agent", "campaign"] = Field(
        "application", alias="class", description="What it is for: decides which lists and windows bind it."
    )
    priority: int = Field(0, ge=0, le=MAX_PRIORITY, description="Larger goes first.")
    not_before: Timestamp | None = Field(None, description="Not sent before.")
    expires_at: Timestamp | None = Field(None, description="Not sent after; also asked of the network.")
    channel: str | None = Field(None, min_length=1, description="Only through this channel.")
    in_doubt: Literal["fail", "hold", "resend"] | None = Field(
        None,
        description="What happens if nobody knows whether it was sent. `resend` may deliver it twice and needs a key "
        "with `in_doubt_resend`.",
    )
    report: bool = Field(True, description="Ask the network for status reports.")
    campaign: str = Field("", max_length=MAX_LABEL, description="A label.")
    client_ref: str | None = Field(
        None, min_length=1, max_length=MAX_CLIENT_REF, description="The caller's own id; need not be unique."
    )
    callback_url: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_URL,
        description="Is told by POST what becomes of the message: each `message.*` event, signed.",
        examples=["https://app.example/sms/events"],
    )

    def submission(self) -> Submission:
        return Submission(
            to=self.to,
            text=self.text,
            class_=MessageClass(self.class_),
            priority=self.priority,
            not_before=None if self.not_before is None else epoch_ms(self.not_before),
            expires_at=None if self.expires_at is None else epoch_ms(self.expires_at),
            channel=self.channel or "",
            in_doubt=None if self.in_doubt is None else InDoubtPolicy(self.in_doubt),
            report=self.report,
            campaign=self.campaign,
            client_ref=self.client_ref,
            callback_url=self.callback_url,
        )


class Pause(_Taken):
    """Why nothing is to be sent."""

    reason: str = Field("", max_length=500)


def check(model: type[_Taken], document: object) -> tuple[Any, list[tuple[str, str]]]:
    """(an instance of `model`, []) or (None, every fault as field and reason)."""
    if not isinstance(document, dict):
        return None, [("", "a JSON object is expected")]
    known = {field.alias or name for name, field in model.model_fields.items()}
    there_are = f"there is no such field; there are {', '.join(sorted(known))}"
    errors = [(name[:64], there_are) for name in document if name not in known]
    try:
        made = model.model_validate({name: value for name, value in document.items() if name in known})
    except ValidationError as error:
        errors += [(str(fault["loc"][0]), _reason(fault)) for fault in error.errors(include_url=False)]
        return None, errors
    return (None, errors) if errors else (made, [])


def _reason(fault: Any) -> str:
    if fault["type"] == "missing":
        return "is required"
    if fault["type"] == "string_unicode":
        return "has half a surrogate pair in it; text is expected"
    message: str = fault["msg"]
    return message.removeprefix("Value error, ").replace("Input should be", "should be")


# What is given. Only for the OpenAPI document and the tests.


class FieldError(_Given):
    field: str
    reason: str


class Problem(BaseModel):
    """RFC 9457."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] = Field(description="Every fault that was found, by field.")


StateName = Literal["none", "to_process", "processed", "blocked", "other", "failed", "expired", "cancelled", "in_doubt"]


class Accepted(_Given):
    """A message that is on disk."""

    idm: int
    state: int = Field(description="1 TO PROCESS, or 3 BLOCKED: the number has opted out, nothing is sent.")
    state_name: StateName
    reason: str = Field(description="Why it is blocked; empty if it is not.")
    to: str = Field(description="The number as it is dialled.")
    segments: int
    alphabet: Literal["gsm7", "ucs2"]
    client_ref: str | None
    warnings: list[str] = Field(default=[], description="What is odd about it, such as a duplicate. Absent: nothing.")


class Refused(_Given):
    """A message of an array that was not kept."""

    error: Problem


class AcceptedMany(_Given):
    """One result for each message of the array, in its order."""

    items: list[Accepted | Refused]
    accepted: int
    blocked: int = Field(description="Kept as BLOCKED: their numbers have opted out.")
    refused: int


class SendSmsAccepted(_Given):
    """A message that is on disk."""

    idm: int
    state: int = Field(description="1 TO PROCESS, or 3 BLOCKED: the number has opted out, nothing is sent.")
    state_name: StateName
    reason: str = Field(description="Why it is blocked; empty if it is not.")
    segments: int
    campaign: str
    agent: str
    destination: str = Field(description="The number as it is dialled.")
    warnings: list[str] = Field(default=[], description="What is odd about it, such as a duplicate. Absent: nothing.")


class Message(_Given):
    """A message. `state` is the number of the Integra document, `state_name` its word."""

    idm: int
    state: int
    state_name: StateName
    delivery: Literal["none", "pending", "delivered", "undelivered", "unknown"]
    to: str
    to_given: str
    text: str
    alphabet: str
    segment_count: int
    class_: str = Field(alias="class")
    priority: int
    report: bool
    in_doubt: Literal["fail", "hold", "resend"]
    not_before: Moment | None
    expires_at: Moment | None
    due_at: Moment | None = Field(description="When it may be sent, where it waits for that.")
    pinned_to: str | None = Field(description="The channel it was submitted for.")
    channel: str | None = Field(description="The channel that had it last.")
    target: str = Field(description="Which channels may send it.")
    route: str = Field(description="The rule that chose `target`; empty: none did.")
    held: str = Field(description="Who keeps it back: operator, pin, restore …; empty: nobody.")
    wish: str = Field(description="cancel or hold: to be done as soon as no channel has it in hand; empty: nothing.")
    campaign: str
    agent: str
    client_ref: str | None
    caller: str
    reason: str
    accepted_at: Moment
    updated_at: Moment
    finished_at: Moment | None


class Segment(_Given):
    seq: int
    state: str
    tries: int
    channel: str | None
    tp_mr: int | None
    submitted_at: Moment | None
    deadline_at: Moment | None
    tp_status: int | None
    status_text: str | None
    reported_at: Moment | None
    code: str


class Attempt(_Given):
    seq: int
    number: int
    channel: str
    intent_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    outcome: Literal["sent", "not_sent", "in_doubt"] | None
    failure: str | None
    code: str
    detail: str
    tp_mr: int | None


class Event(_Given):
    seq: int | None
    at: Moment
    event: str
    from_state: str | None
    to_state: str | None
    channel: str | None
    actor: str
    detail: str


class StatusReport(_Given):
    seq: int | None
    received_at: Moment
    channel: str
    tp_mr: int
    recipient: str
    tp_status: int
    status_text: str
    discharged_at: Moment | None


class Sim(_Given):
    iccid: str | None
    imsi: str | None
    number: str
    channel: str | None


class MessageDetail(Message):
    """A message with its history."""

    explain: str = Field(description="Why it is where it is, in one sentence.")
    segments: list[Segment]
    attempts: list[Attempt]
    events: list[Event]
    reports: list[StatusReport]
    sim: Sim | None
    history_cut: bool = Field(description="Only the end of the history is here.")


class Messages(_Given):
    """A page of messages."""

    items: list[Message]
    next: int | None = Field(description="`after` of the next page; null on the last one.")


class Channel(_Given):
    name: str
    state: Literal["down", "starting", "unregistered", "ready", "parked", "stopped"]
    since: Moment
    reason: str
    iccid: str
    imsi: str
    number: str
    operator: str
    rssi_dbm: int | None
    imei: str
    model: str
    port: str
    interval_s: float
    next_start_in_s: float
    mode: Literal["", "paused", "draining"] = Field(description="What an operator said; empty: it works.")
    mode_reason: str = Field(description="Who said so, when and why.")
    in_hand: int | None
    submitted: int
    not_sent: int
    doubtful: int


class Channels(_Given):
    items: list[Channel]
    next: None


class SimAccepted(_Given):
    channel: str
    accepted: bool


class Sending(_Given):
    """Whether anything is sent."""

    paused: str = Field(description="Why nothing is sent; empty while sending is on.")


class Queue(_Given):
    source: str
    target: str
    channel: str
    due: int
    later: int
    behind: int
    out: int
    oldest_at: Moment


class ChannelCounts(_Given):
    total: int
    ready: int


class Status(_Given):
    instance: str
    version: str
    started_at: Moment
    at: Moment
    paused: str
    draining: bool
    spool_writable: bool
    clock_doubt: str = Field(
        description="Why the clock is not trusted; what has a window, or a quota by day or month, waits then. Or empty."
    )
    counted_at: Moment
    messages: dict[StateName, int]
    queues: list[Queue]
    channels: ChannelCounts


class ClockState(_Given):
    """The machine's clock, and whether it is believed."""

    at: Moment
    newest: Moment | None = Field(description="The newest time in the spool, or that the clock has read.")
    synchronised: bool | None = Field(description="Whether a time service keeps it; null where that is not known.")
    uptime_s: int | None = Field(description="How long the machine has been running.")
    require_sync: bool
    wait_s: float
    accepted_at: Moment | None = Field(description="What it read when it was last said to be right.")
    accepted_by: str
    trusted: bool
    doubt: str = Field(description="Why it is not trusted; empty if it is.")


class Health(_Given):
    status: Literal["ok"]


class Readiness(_Given):
    ready: bool
    reasons: list[str]
    channels_ready: int
    channels: int
