"""The shapes of what is said of SIMs: for the document and the tests."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gatewayd.http.schemas import Moment, _Given


class PeriodUsage(_Given):
    """What a SIM has used of one period."""

    period: Literal["minute", "hour", "day", "month", "recipients"] = Field(
        description="Segments in this period; recipients: distinct numbers of the month, only there if limited."
    )
    used: int
    limit: int | None = Field(description="null: no limit.")
    until: Moment = Field(description="When the period ends, and its count begins anew.")


class Sim(_Given):
    """A SIM that was seen in a channel at some time."""

    id: int
    iccid: str
    imsi: str
    number: str
    channel: str | None = Field(description="The channel it is paired with; null: none any more.")
    first_seen_at: Moment
    last_seen_at: Moment
    last_submit_at: Moment | None
    timezone: str = Field(description="By which its days and months are reckoned.")
    reset_day: int = Field(description="The day of the month on which its month begins.")
    usage: list[PeriodUsage]


class Sims(_Given):
    items: list[Sim]
    next: None
