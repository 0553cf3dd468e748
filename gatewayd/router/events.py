"""What applications are told of an event: one JSON document, the same for webhooks, callbacks and streams. Pure.

The same record makes the same document each time, so a repetition has the octets of the first time. docs/api.md.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from gatewayd.clock import iso
from gatewayd.model import MessageState
from gatewayd.spool.inbound_reader import InboundView
from gatewayd.spool.outbox_reader import EventRecord, MessageFacts, OptOutFacts

GAP = "stream.gap"
"""Type of what a stream says where events are not kept any more; it is in no outbox."""


def event_id(spool_id: str, outbox_id: int) -> str:
    """The id of an event as everybody outside sees it: it never changes and no other event has it."""
    return f"ev-{spool_id}-{outbox_id}"


def document(record: EventRecord, spool_id: str) -> dict[str, Any]:
    """The event as JSON values: `id`, `type`, `at` and, by type, `data`."""
    return {
        "id": event_id(spool_id, record.id),
        "type": record.type,
        "at": iso(record.at),
        "data": _data(record),
    }


def body(record: EventRecord, spool_id: str) -> bytes:
    """The document as it is sent: one line of UTF-8."""
    return json.dumps(document(record, spool_id), ensure_ascii=False, separators=(",", ":")).encode()


def gap(first: int, last: int, spool_id: str, now_ms: int, detail: str) -> dict[str, Any]:
    """What a stream says instead of the events `first` to `last`, which cannot be told any more."""
    return {
        "id": f"gap-{spool_id}-{first}-{last}",
        "type": GAP,
        "at": iso(now_ms),
        "data": {"first": first, "last": last, "detail": detail},
    }


def _data(record: EventRecord) -> dict[str, Any]:
    kind = record.type.partition(".")[0]
    if kind == "message":
        return _message(record, record.message)
    if kind == "inbound":
        return dict(record.data) if record.inbound is None else inbound(record.inbound)
    if kind == "optout":
        return _optout(record, record.optout)
    return {"channel": record.channel, "state": record.data.get("state"), "reason": record.data.get("reason", "")}


def _message(record: EventRecord, facts: MessageFacts | None) -> dict[str, Any]:
    if facts is None:  # the message is gone; what the event itself knows is still told
        return dict(record.data)
    state = MessageState(record.data["state"])
    return {
        "idm": facts.id,
        "to": facts.to,
        "class": facts.class_.value,
        "state": state.value,
        "state_name": state.name.lower(),
        "delivery": record.data["delivery"],
        "reason": record.data["reason"],
        "channel": record.channel,
        "campaign": facts.campaign,
        "agent": facts.agent,
        "client_ref": facts.client_ref,
        "segments": record.data["segments"],
        "accepted_at": iso(facts.accepted_at),
    }


def inbound(view: InboundView) -> dict[str, Any]:
    """An inbound message. `from` is E.164 or a short code where the sender is one, else as received."""
    return {
        "id": view.id,
        "from": view.number or view.originator or None,
        "from_given": view.originator,
        "to": view.recipient or None,
        "channel": view.channel,
        "text": view.text,
        "data": None if view.data is None else base64.b64encode(view.data).decode(),
        "kind": view.kind,
        "parts": view.parts,
        "parts_total": view.parts_total,
        "partial": view.partial,
        "continues": view.continues,
        "sent_at": iso(view.sent_at),
        "received_at": iso(view.received_at),
        "intent": view.intent,
        "tier": view.tier,
    }


def _optout(record: EventRecord, facts: OptOutFacts | None) -> dict[str, Any]:
    if facts is None:
        return dict(record.data)
    return {
        "number": facts.number,
        "state": record.data["state"],
        "prior_state": record.data["prior_state"],
        "scope": facts.scope,
        "source": record.data["source"],
        "blocked": record.data["blocked"],
        "at": iso(facts.at),
        "event": facts.id,
        "inbound": facts.inbound_id,
    }
