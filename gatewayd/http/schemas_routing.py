"""The shapes of what the API says of outbound routes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gatewayd.http.schemas import Moment, _Given


class RouteRow(_Given):
    """A dialer or a route."""

    kind: Literal["dialer", "route"]
    name: str
    enabled: bool
    conditions: list[str] = Field(description="All must hold; none: it is for every message.")
    target: str = Field(description="Where its messages go, as docs/routing.md writes it.")
    weights: list[int] = Field(description="Of the places in `target`; empty: the first that can serves.")


class Routes(_Given):
    """Dialers and routes, in the order they are asked."""

    items: list[RouteRow]
    next: None


class RouteVerdict(_Given):
    """What one dialer or route says of a message."""

    kind: Literal["dialer", "route"]
    name: str
    chosen: bool = Field(description="It decides.")
    against: str = Field(description="The first condition that does not hold; empty: all do.")


class RouteChannel(_Given):
    """A channel that can serve a message."""

    channel: str
    obstacle: str = Field(description="What keeps it from that now; empty: nothing.")
    until: Moment | None = Field(description="When that ends, where it is known.")


class RouteTest(_Given):
    """Which route a message would take."""

    number: str
    class_: str = Field(alias="class")
    campaign: str
    key: str
    at: Moment
    explain: str = Field(description="One sentence: which rule decides, and for what.")
    dialer: str | None
    route: str | None = Field(description="Null: none matches, or a dialer takes it.")
    target: str
    zone: str = Field(description="The recipient's time zones, where a dialer's windows go by them.")
    paused: str = Field(description="Why nothing at all is sent now; empty: sending is on.")
    rules: list[RouteVerdict]
    channels: list[RouteChannel]
