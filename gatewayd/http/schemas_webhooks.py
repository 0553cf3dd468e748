"""The shapes of what is said of webhooks and deliveries. Answers: for the OpenAPI document and the tests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gatewayd.http.schemas import Moment, Timestamp, _Given, _Taken
from gatewayd.spool.deliveries import STEP

State = Literal["pending", "done", "dead"]


class Replay(_Taken):
    """Which deliveries are to be told once more. What is given must all be true of them."""

    endpoint: str | None = Field(
        None, min_length=1, max_length=2100, description="As the log shows it: `webhook:NAME`, `callback:ORIGIN`."
    )
    name: str | None = Field(None, min_length=1, max_length=32, description="A webhook, instead of `endpoint`.")
    ids: list[Annotated[int, Field(ge=1, lt=2**63)]] | None = Field(
        None, min_length=1, max_length=STEP, description="Deliveries, by the ids of the log."
    )
    since: Timestamp | None = Field(None, description="Only of events from this time on.")
    until: Timestamp | None = Field(None, description="Only of events before this time.")
    state: Literal["dead", "done"] = Field(
        "dead", description="Dead letters, or what was delivered: then `ids` or `since` says which."
    )
    after: int = Field(0, ge=0, lt=2**63, description="`next` of the last step.")


class Replayed(_Given):
    """One step of a replay."""

    replayed: int = Field(description="Deliveries that are pending again.")
    next: int | None = Field(description="`after` of the next step; null if that was all.")


class LastCall(_Given):
    at: Moment
    status: int | None
    error: str


class WebhookItem(_Given):
    """A webhook, and what it has still to be told."""

    name: str
    endpoint: str
    configured: bool = Field(description="False: it is not in the configuration any more; what is pending waits.")
    enabled: bool
    url: str | None
    events: list[str]
    signed: bool
    pending: int
    oldest_at: Moment | None = Field(description="Since when the oldest of what is pending waits.")
    dead: int = Field(description="Dead letters: given up, kept for 30 days, can be replayed.")
    failures: int = Field(description="In a row, up to now.")
    retry_in_s: float | None
    last: LastCall | None = Field(description="Its last call since the daemon's start.")


class CallbackSummary(_Given):
    """All callback URLs of messages together."""

    hosts: int = Field(description="With something pending, or dead letters.")
    failing: int = Field(description="That failed last and will be tried again.")
    pending: int
    oldest_at: Moment | None
    dead: int


class Webhooks(_Given):
    items: list[WebhookItem]
    next: None
    callbacks: CallbackSummary


class DeliveryItem(_Given):
    """One event for one endpoint."""

    id: int
    event_id: str
    type: str = Field(description="Empty if the event is not kept any more.")
    at: Moment | None
    idm: int | None
    endpoint: str
    url: str | None = Field(description="Of a callback.")
    state: State
    attempts: int
    created_at: Moment
    next_at: Moment | None = Field(description="When it is tried next, at the earliest.")
    finished_at: Moment | None
    status: int | None = Field(description="Of the last answer; null if there was none.")
    error: str


class Deliveries(_Given):
    """A page of the log."""

    items: list[DeliveryItem]
    next: int | None = Field(description="`after` of the next page; null on the last one.")


class WebhookTested(_Given):
    """What came of the event `webhook.test`."""

    name: str
    url: str
    ok: bool
    status: int | None
    took_ms: int
    error: str
