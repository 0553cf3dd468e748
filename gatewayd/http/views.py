"""What the API shows, as plain JSON values. Pure; the shapes are in `schemas.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gatewayd.clock import iso
from gatewayd.model import MessageState
from gatewayd.router.control import ChannelView, Serving
from gatewayd.router.explain import explain, report_text
from gatewayd.spool import schema
from gatewayd.spool.accept import KeptMessage, NewMessage
from gatewayd.spool.reader import Counts, MessageDetail, MessageView

STATE_NAMES = {state: state.name.lower() for state in MessageState}


def accepted(kept: KeptMessage, message: NewMessage) -> dict[str, Any]:
    """What was kept, for the one who submitted it. There are `warnings` only where there is something to warn of."""
    return {
        "idm": kept.id,
        "state": kept.state.value,
        "state_name": STATE_NAMES[kept.state],
        "reason": kept.reason,
        "to": message.to,
        "segments": message.segments,
        "alphabet": message.alphabet,
        "client_ref": message.client_ref,
        **({"warnings": [kept.warning]} if kept.warning else {}),
    }


def message(view: MessageView) -> dict[str, Any]:
    """A message as it stands in a list."""
    return {
        "idm": view.id,
        "state": view.state.value,
        "state_name": STATE_NAMES[view.state],
        "delivery": view.delivery.value,
        "to": view.to,
        "to_given": view.to_given,
        "text": view.text,
        "alphabet": view.alphabet,
        "segment_count": view.segments,
        "class": view.class_.value,
        "priority": view.priority,
        "report": view.report,
        "in_doubt": view.in_doubt.value,
        "not_before": iso(view.not_before),
        "expires_at": iso(view.expires_at),
        "due_at": iso(view.due_at) if view.queue == schema.LATER else None,
        "pinned_to": view.pin_channel or None,
        "channel": view.channel,
        "target": view.target,
        "route": view.route,
        "held": view.held,
        "wish": view.wish,
        "campaign": view.campaign,
        "agent": view.agent,
        "client_ref": view.client_ref,
        "caller": view.caller,
        "reason": view.reason,
        "accepted_at": iso(view.accepted_at),
        "updated_at": iso(view.updated_at),
        "finished_at": iso(view.finished_at),
    }


def detail(
    found: MessageDetail,
    channels: Sequence[ChannelView] | None,
    paused: str,
    now_ms: int,
    serving: Sequence[Serving] | None = None,
) -> dict[str, Any]:
    """A message with its history, and why it is where it is. `channels` None: the daemon is not running. `serving`: who
    can serve its queue, and what keeps each from it.
    """
    sim = found.sim
    return {
        **message(found.message),
        "explain": explain(found, channels, paused, now_ms, serving),
        "segments": [
            {
                "seq": segment.seq,
                "state": segment.state.value,
                "tries": segment.tries,
                "channel": segment.channel,
                "tp_mr": segment.tp_mr,
                "submitted_at": iso(segment.submitted_at),
                "deadline_at": iso(segment.deadline_at),
                "tp_status": segment.tp_status,
                "status_text": None if segment.tp_status is None else report_text(segment.tp_status),
                "reported_at": iso(segment.reported_at),
                "code": segment.code,
            }
            for segment in found.segments
        ],
        "attempts": [
            {
                "seq": attempt.seq,
                "number": attempt.number,
                "channel": attempt.channel,
                "intent_at": iso(attempt.intent_at),
                "started_at": iso(attempt.started_at),
                "finished_at": iso(attempt.finished_at),
                "outcome": attempt.outcome,
                "failure": attempt.failure,
                "code": attempt.code,
                "detail": attempt.detail,
                "tp_mr": attempt.tp_mr,
            }
            for attempt in found.attempts
        ],
        "events": [
            {
                "seq": event.seq,
                "at": iso(event.at),
                "event": event.event,
                "from_state": event.from_state,
                "to_state": event.to_state,
                "channel": event.channel,
                "actor": event.actor,
                "detail": event.detail,
            }
            for event in found.events
        ],
        "reports": [
            {
                "seq": report.seq,
                "received_at": iso(report.received_at),
                "channel": report.channel,
                "tp_mr": report.tp_mr,
                "recipient": report.recipient,
                "tp_status": report.tp_status,
                "status_text": report_text(report.tp_status),
                "discharged_at": iso(report.discharged_at),
            }
            for report in found.reports
        ],
        "sim": None
        if sim is None
        else {"iccid": sim.iccid, "imsi": sim.imsi, "number": sim.number, "channel": sim.channel},
        "history_cut": found.history_cut,
    }


def channel(view: ChannelView) -> dict[str, Any]:
    """A channel and what it is doing."""
    status = view.status
    return {
        "name": status.name,
        "state": status.state.value,
        "since": iso(status.since_ms),
        "reason": status.reason,
        "iccid": status.sim.iccid,
        "imsi": status.sim.imsi,
        "number": status.number,
        "operator": status.operator,
        "rssi_dbm": status.rssi_dbm,
        "imei": status.imei,
        "model": status.model,
        "port": status.port,
        "interval_s": view.interval_s,
        "next_start_in_s": round(view.next_start_in_s, 3),
        "mode": view.mode,
        "mode_reason": view.mode_reason,
        "in_hand": view.in_hand,
        "submitted": view.submitted,
        "not_sent": view.not_sent,
        "doubtful": view.doubtful,
    }


def counts(found: Counts) -> dict[str, Any]:
    """How much there is, by state and by queue."""
    return {
        "counted_at": iso(found.at),
        "messages": {STATE_NAMES[state]: number for state, number in found.states.items()},
        "queues": [
            {
                "source": lane.source,
                "target": lane.target,
                "channel": lane.channel,
                "due": lane.due,
                "later": lane.later,
                "behind": lane.behind,
                "out": lane.out,
                "oldest_at": iso(lane.oldest_at),
            }
            for lane in found.lanes
        ],
    }
