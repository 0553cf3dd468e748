"""What applications are told: events, written into the outbox by the transaction that makes them true.

An operation adds events to its transaction's notices; `write` turns them into rows before the commit, with one delivery
for each endpoint that wants them. Ids come of a counter, so they are in the order of commits. Rows hold only what may
change later; the rest is read from the message when the event is told (router/events.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gatewayd.model import Delivery, MessageClass, MessageState
from gatewayd.spool import schema
from gatewayd.spool.counters import OUTBOX, next_ids
from gatewayd.spool.writer import Tx

ACCEPTED = "message.accepted"
QUEUED = "message.queued"  # again: an operator or a policy sends it once more
DELIVERED = "message.delivered"
UNDELIVERED = "message.undelivered"
UNKNOWN = "message.unknown"
INBOUND = "inbound.received"
OPTOUT = "optout.changed"
CHANNEL = "channel.state"

OF_STATE = {
    MessageState.TO_PROCESS: QUEUED,
    MessageState.PROCESSED: "message.sent",
    MessageState.BLOCKED: "message.blocked",
    MessageState.FAILED: "message.failed",
    MessageState.EXPIRED: "message.expired",
    MessageState.CANCELLED: "message.cancelled",
    MessageState.IN_DOUBT: "message.in_doubt",
}
OF_DELIVERY = {
    Delivery.DELIVERED: DELIVERED,
    Delivery.UNDELIVERED: UNDELIVERED,
    Delivery.UNKNOWN: UNKNOWN,
}
TYPES = (ACCEPTED, *OF_STATE.values(), *OF_DELIVERY.values(), INBOUND, OPTOUT, CHANNEL)

PENDING, DONE, DEAD = 0, 1, 2
"""Values of deliveries.state."""


@dataclass(frozen=True, slots=True)
class GatewayEvent:
    """Something applications may want to know. `data` is what will not be readable later as it is now.

    `class_`, `state` and `delivery` are of message events. `callback_url`: who else is to be told, in which
    `callback_format`.
    """

    type: str
    message_id: int | None = None
    inbound_id: int | None = None
    optout_event_id: int | None = None
    channel: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    class_: MessageClass | None = None
    state: MessageState | None = None
    delivery: Delivery | None = None
    callback_url: str | None = None
    callback_format: str = ""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A configured endpoint and the events it wants: exact types, or "message.*" for all of a kind, or "*"."""

    endpoint: str
    types: tuple[str, ...] = ("*",)

    def wants(self, type_: str) -> bool:
        kind = type_.partition(".")[0]
        return any(wanted in ("*", type_) or wanted == f"{kind}.*" for wanted in self.types)


def webhook_endpoint(name: str) -> str:
    """The endpoint of a configured webhook, as deliveries have it."""
    return f"webhook:{name}"


def callback_endpoint(url: str) -> str:
    """The endpoint of a message's own callback: its origin, which is up or down as a whole.

    Never raises: it is called between the operations of a batch and its commit.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "callback:not a URL"
    return f"callback:{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


def write(tx: Tx, subscriptions: Sequence[Subscription], now: int) -> None:
    """Turn the transaction's events into rows: before its commit, once."""
    events = tx.notices.events
    for outbox_id, event in zip(next_ids(tx, OUTBOX, len(events)), events, strict=True):
        tx.add(
            schema.outbox,
            {
                "id": outbox_id,
                "at": now,
                "type": event.type,
                "message_id": event.message_id,
                "inbound_id": event.inbound_id,
                "optout_event_id": event.optout_event_id,
                "channel": event.channel,
                "data": json.dumps(event.data, separators=(",", ":")) if event.data else "{}",
            },
        )
        for subscription in subscriptions:
            if subscription.wants(event.type):
                _deliver(tx, outbox_id, subscription.endpoint, "", "", now)
        if event.callback_url:
            endpoint = callback_endpoint(event.callback_url)
            _deliver(tx, outbox_id, endpoint, event.callback_url, event.callback_format, now)


def _deliver(tx: Tx, outbox_id: int, endpoint: str, url: str, format_: str, now: int) -> None:
    tx.notices.endpoints.add(endpoint)
    tx.add(
        schema.deliveries,
        {
            "outbox_id": outbox_id,
            "endpoint": endpoint,
            "url": url,
            "format": format_,
            "state": PENDING,
            "attempts": 0,
            "created_at": now,
            "next_at": now,
            "error": "",
        },
    )
