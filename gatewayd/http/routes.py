"""Every route, with what the OpenAPI document says of it: one list for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aiohttp import web
from pydantic import BaseModel

from gatewayd.apikeys import Scope
from gatewayd.http import (
    alertmanager,
    api,
    clock,
    events,
    inbound,
    kannel,
    metrics,
    monitoring,
    operations,
    optouts,
    quarantine,
    routing,
    schemas,
    schemas_inbound,
    schemas_operations,
    schemas_quarantine,
    schemas_routing,
    schemas_sims,
    schemas_webhooks,
    sendsms,
    sims,
    webhooks,
)
from gatewayd.http.context import CONTEXT
from gatewayd.http.parameters import PAGE
from gatewayd.http.problems import Handler


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `answers` is what a success gives, by status; `problems` the statuses of problems.

    `body` is the model of a JSON body (`many`: or an array of them), "form" for /SendSMS, or "text" for Kannel's.
    `query`: name, JSON Schema, description of each parameter. `scope` None: open to all. `produces`: the type of a
    success's content. `plain_problems`: problems may be plain text.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    scope: Scope | None
    answers: dict[int, type[BaseModel] | tuple[type[BaseModel], ...] | None]
    problems: tuple[int, ...] = ()
    body: type[BaseModel] | str | None = None
    many: bool = False
    idempotent: bool = False
    query: tuple[tuple[str, dict[str, object], str], ...] = field(default=())
    produces: str = "application/json"
    plain_problems: bool = False


_SEND_PROBLEMS = (400, 401, 403, 408, 409, 413, 415, 422, 429, 500, 503)
_READ_PROBLEMS = (401, 403, 429, 500, 503)
_CHANGE_PROBLEMS = (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503)

_STATE = {"type": "string", "examples": ["to_process", "1"]}
_MESSAGES_QUERY: tuple[tuple[str, dict[str, object], str], ...] = (
    ("after", {"type": "integer", "minimum": 0}, "Only messages that follow this idm in the order asked for."),
    ("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": PAGE}, "At most so many."),
    ("state", dict(_STATE), "Only messages in this state, by its name or its number; several with commas."),
    ("client_ref", {"type": "string", "minLength": 1, "maxLength": 255}, "Only messages with this client_ref."),
    ("campaign", {"type": "string", "maxLength": 255}, "Only of this campaign."),
    ("class", {"type": "string", "examples": ["application"]}, "Only of this class."),
    ("caller", {"type": "string", "minLength": 1, "maxLength": 255}, "Only what this API key submitted."),
    (
        "channel",
        {"type": "string", "minLength": 1, "maxLength": 255},
        "Only what this channel has, had last, or is pinned to it.",
    ),
    ("to", {"type": "string", "examples": ["+59898344484"]}, "Only messages to this number."),
    ("target", {"type": "string", "minLength": 1, "maxLength": 255}, "Only what is routed there."),
    ("route", {"type": "string", "maxLength": 255}, "Only what this rule routed."),
    ("held", {"type": "string", "enum": ["operator", "pin", "restore", "any"]}, "Only what is kept back, and by whom."),
    ("accepted_after", {"type": "string", "format": "date-time"}, "Only what was accepted then or later."),
    ("accepted_before", {"type": "string", "format": "date-time"}, "Only what was accepted before."),
    ("in_doubt", {"type": "boolean"}, "Only messages of which a part is in doubt, or was given up in doubt."),
    ("order", {"type": "string", "enum": ["asc", "desc"], "default": "asc"}, "By idm."),
)


KANNEL_PATH = "/cgi-bin/sendsms"
_KANNEL_QUERY: tuple[tuple[str, dict[str, object], str], ...] = (
    ("username", {"type": "string"}, "The name of the API key."),
    ("password", {"type": "string"}, "The API key."),
    ("to", {"type": "string"}, "A number, or several with a space between them."),
    ("text", {"type": "string"}, "The text, in `charset`."),
    ("from", {"type": "string"}, "Only given back in delivery reports (%P)."),
    ("charset", {"type": "string"}, "UTF-8, or UTF-16BE with coding 2, if it is not given."),
    ("coding", {"type": "string"}, "0 or 2; the alphabet sent is the smaller one that has all characters."),
    ("smsc", {"type": "string"}, "The channel to use, if there is one of this name."),
    ("validity", {"type": "string"}, "Minutes after which it is not sent any more."),
    ("deferred", {"type": "string"}, "Minutes before which it is not sent."),
    ("priority", {"type": "string"}, "0 to 3, larger goes first."),
    ("dlr-mask", {"type": "string"}, "Which reports are wanted: 1 delivered, 2 not delivered, 8 sent, 16 refused."),
    ("dlr-url", {"type": "string"}, "What is called for a report, with Kannel's escapes."),
    ("account", {"type": "string"}, "Kept as client_ref, and given back in delivery reports (%o)."),
    ("binfo", {"type": "string"}, "Only given back in delivery reports (%B)."),
    ("meta-data", {"type": "string"}, "Only given back in delivery reports (%D)."),
)


def _kannel(method: str) -> Route:
    return Route(
        method,
        KANNEL_PATH,
        kannel.send_sms,
        "Send one text as with Kannel's sendsms (if http.kannel.enabled).",
        Scope.SEND,
        {202: None},
        (400, 403, 408, 409, 413, 415, 429, 500, 503),
        body="text" if method == "POST" else None,
        idempotent=True,
        query=_KANNEL_QUERY,
        produces="text/plain",
        plain_problems=True,
    )


def in_force(routes: Sequence[Route], kannel_path: str) -> list[Route]:
    """`routes` with Kannel's where the configuration wants them; without them if it does not ("")."""
    found = []
    for route in routes:
        if route.handler is not kannel.send_sms:
            found.append(route)
        elif kannel_path:
            found.append(replace(route, path=kannel_path))
    return found


_LIMIT: tuple[str, dict[str, object], str] = (
    "limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": PAGE}, "At most so many."
)  # fmt: skip
_OPERATIONS_QUERY: tuple[tuple[str, dict[str, object], str], ...] = (
    ("after", {"type": "integer", "minimum": 0}, "The `next` of the page before: older ones follow."),
    _LIMIT,
)
_EVENTS_QUERY: tuple[tuple[str, dict[str, object], str], ...] = (
    ("types", {"type": "string", "examples": ["message.*,inbound.received"]}, "Only these types; default: all."),
    ("after", {"type": "integer", "minimum": 0}, "Begin after this event, where there is no Last-Event-ID."),
)
_INBOUND_QUERY: tuple[tuple[str, dict[str, object], str], ...] = (
    ("after", {"type": "integer", "minimum": 0}, "Only messages that follow this id in the order asked for."),
    _LIMIT,
    ("number", {"type": "string", "examples": ["+59898344484"]}, "Only messages from this number."),
    ("order", {"type": "string", "enum": ["asc", "desc"], "default": "asc"}, "By id."),
)
_OPTOUTS_QUERY: tuple[tuple[str, dict[str, object], str], ...] = (
    ("after", {"type": "string", "minLength": 1, "maxLength": 100}, "The `next` of the page before."),
    _LIMIT,
    ("state", {"type": "string", "enum": ["out", "in"], "default": "out"}, "Opted out, or asked for messages again."),
    ("order", {"type": "string", "enum": ["number", "newest"], "default": "number"}, "By number, or newest first."),
)

_QUARANTINE_QUERY: tuple[tuple[str, dict[str, object], str], ...] = (
    ("after", {"type": "string", "minLength": 1, "maxLength": 100}, "The `next` of the page before."),
    _LIMIT,
)

_DELIVERIES_QUERY: tuple[tuple[str, dict[str, object], str], ...] = (
    ("endpoint", {"type": "string", "minLength": 1}, "Only of this webhook (its name), or of `callback:ORIGIN`."),
    ("state", {"type": "string", "enum": ["pending", "done", "dead"]}, "Only those in this state."),
    ("after", {"type": "integer", "minimum": 0}, "Only those that follow this one in the order asked for."),
    ("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": PAGE}, "At most so many."),
    ("order", {"type": "string", "enum": ["asc", "desc"], "default": "asc"}, "By id."),
)


_ROUTES_QUERY: tuple[tuple[str, dict[str, object], str], ...] = (
    ("number", {"type": "string", "examples": ["+59898344484"]}, "Whom to, as a message's `to`."),
    ("campaign", {"type": "string", "minLength": 1, "maxLength": 128}, "Its campaign."),
    ("key", {"type": "string", "minLength": 1, "maxLength": 128}, "The name of the API key it is submitted with."),
    ("class", {"type": "string", "enum": list(routing.CLASSES), "default": "application"}, "Its class."),
    ("at", {"type": "string", "format": "date-time"}, "When it may go first; default: now."),
)


def _send_sms(path: str) -> Route:
    return Route(
        "POST",
        path,
        sendsms.send_sms,
        "Send one message (form).",
        Scope.SEND,
        {200: schemas.SendSmsAccepted},
        _SEND_PROBLEMS,
        body="form",
        idempotent=True,
    )


async def openapi(request: web.Request) -> web.Response:
    """This interface as an OpenAPI 3.1 document."""
    from gatewayd.http.openapi import document  # it reads the list below

    return document(request.app[CONTEXT].settings.kannel_path)


ROUTES: tuple[Route, ...] = (
    _send_sms("/SendSMS"),
    _send_sms("/Integra/resources/SMS/SendSMS"),
    _kannel("GET"),
    _kannel("POST"),
    Route(
        "POST",
        "/alertmanager/{group}",
        alertmanager.alert,
        "Tell a group of people of alerts (Alertmanager's and Grafana's webhook): one text for each group of alerts.",
        Scope.SEND,
        {200: alertmanager.AlertsKept},
        (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503),
        body=alertmanager.AlertNotification,
    ),
    Route(
        "POST",
        "/api/v1/messages",
        api.new_messages,
        "Send one message, or up to 1000.",
        Scope.SEND,
        {202: (schemas.Accepted, schemas.AcceptedMany)},
        _SEND_PROBLEMS,
        body=schemas.NewMessage,
        many=True,
        idempotent=True,
    ),
    Route(
        "GET",
        "/api/v1/messages",
        api.messages,
        "A page of messages.",
        Scope.READ,
        {200: schemas.Messages},
        (*_READ_PROBLEMS, 422),
        query=_MESSAGES_QUERY,
    ),
    Route(
        "GET",
        "/api/v1/messages/{idm}",
        api.message,
        "One message with its history, and why it is where it is.",
        Scope.READ,
        {200: schemas.MessageDetail},
        (*_READ_PROBLEMS, 404),
    ),
    Route(
        "POST",
        "/api/v1/messages/{idm}/resolve",
        operations.resolve,
        "Say what is known of a message in doubt: it was sent, send it again, or nobody will ever know.",
        Scope.ADMIN,
        {200: schemas_operations.Resolved},
        (*_CHANGE_PROBLEMS, 409),
        body=schemas_operations.Resolution,
    ),
    Route(
        "POST",
        "/api/v1/operations",
        operations.new_operation,
        "Cancel, hold, release, requeue, prioritise, route or resolve messages: a few at once, many in steps.",
        Scope.ADMIN,
        {200: schemas_operations.OperationBegun, 202: schemas_operations.OperationBegun},
        (400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
        body=schemas_operations.NewOperation,
    ),
    Route(
        "GET",
        "/api/v1/operations",
        operations.operations,
        "A page of operations, the newest first.",
        Scope.ADMIN,
        {200: schemas_operations.Operations},
        (*_READ_PROBLEMS, 422),
        query=_OPERATIONS_QUERY,
    ),
    Route(
        "GET",
        "/api/v1/operations/{id}",
        operations.operation,
        "One operation, and how far it has come.",
        Scope.ADMIN,
        {200: schemas_operations.Operation},
        (*_READ_PROBLEMS, 404),
    ),
    Route(
        "POST",
        "/api/v1/operations/{id}/stop",
        operations.stop,
        "End an operation where it is; what it has done stays done.",
        Scope.ADMIN,
        {200: schemas_operations.OperationStopped},
        (*_READ_PROBLEMS, 404, 409),
    ),
    Route(
        "GET",
        "/api/v1/events",
        events.events,
        "What happens, as server-sent events whose data is an event document.",
        Scope.READ,
        {200: None},
        (400, *_READ_PROBLEMS, 422),
        query=_EVENTS_QUERY,
        produces=events.EVENT_STREAM,
    ),
    Route(
        "GET",
        "/api/v1/inbound",
        inbound.inbound,
        "A page of inbound messages.",
        Scope.READ,
        {200: schemas_inbound.InboundPage},
        (*_READ_PROBLEMS, 422),
        query=_INBOUND_QUERY,
    ),
    Route(
        "GET",
        "/api/v1/inbound/{id}",
        inbound.one,
        "One inbound message with the PDUs it is made of.",
        Scope.READ,
        {200: schemas_inbound.InboundDetail},
        (*_READ_PROBLEMS, 404),
    ),
    Route(
        "GET",
        "/api/v1/optouts",
        optouts.optouts,
        "A page of the opt-out list.",
        Scope.ADMIN,
        {200: schemas_inbound.OptOutPage},
        (*_READ_PROBLEMS, 422),
        query=_OPTOUTS_QUERY,
    ),
    Route(
        "POST",
        "/api/v1/optouts",
        optouts.add,
        "Put a number on the opt-out list; what is queued to it is blocked.",
        Scope.ADMIN,
        {200: schemas_inbound.OptOutChanged},
        (400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
        body=schemas_inbound.NewOptOut,
    ),
    Route(
        "GET",
        "/api/v1/optouts/{number}",
        optouts.one,
        "A number's state, and the evidence for it.",
        Scope.ADMIN,
        {200: schemas_inbound.OptOutDetail},
        (*_READ_PROBLEMS, 422),
    ),
    Route(
        "POST",
        "/api/v1/optouts/{number}/remove",
        optouts.remove,
        "Take a number off the opt-out list, with evidence.",
        Scope.ADMIN,
        {200: schemas_inbound.OptOutChanged},
        (400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
        body=schemas_inbound.OptOutRemoval,
    ),
    Route(
        "GET",
        "/api/v1/quarantine",
        quarantine.quarantined,
        "A page of the numbers that fail wherever they are tried.",
        Scope.ADMIN,
        {200: schemas_quarantine.QuarantinePage},
        (*_READ_PROBLEMS, 422),
        query=_QUARANTINE_QUERY,
    ),
    Route(
        "DELETE",
        "/api/v1/quarantine/{number}",
        quarantine.release,
        "Let a number out of quarantine; what waits for it is due at once.",
        Scope.ADMIN,
        {200: schemas_quarantine.NumberReleased},
        (*_READ_PROBLEMS, 404, 422),
    ),
    Route(
        "GET",
        "/api/v1/webhooks",
        webhooks.webhooks,
        "Who is told of events, and what they have still to be told.",
        Scope.ADMIN,
        {200: schemas_webhooks.Webhooks},
        _READ_PROBLEMS,
    ),
    Route(
        "GET",
        "/api/v1/webhooks/deliveries",
        webhooks.deliveries,
        "A page of what endpoints were told, or will be.",
        Scope.ADMIN,
        {200: schemas_webhooks.Deliveries},
        (*_READ_PROBLEMS, 422),
        query=_DELIVERIES_QUERY,
    ),
    Route(
        "POST",
        "/api/v1/webhooks/{name}/test",
        webhooks.test,
        "Send the event webhook.test to a webhook now.",
        Scope.ADMIN,
        {200: schemas_webhooks.WebhookTested},
        (*_READ_PROBLEMS, 404),
    ),
    Route(
        "POST",
        "/api/v1/webhooks/replay",
        webhooks.replay,
        "Tell dead letters, or what was delivered, once more; a step at a time.",
        Scope.ADMIN,
        {200: schemas_webhooks.Replayed},
        (400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
        body=schemas_webhooks.Replay,
    ),
    Route(
        "GET",
        "/api/v1/channels",
        api.channels,
        "All channels.",
        Scope.ADMIN,
        {200: schemas.Channels},
        _READ_PROBLEMS,
    ),
    Route(
        "POST",
        "/api/v1/channels/{name}/pause",
        operations.pause_channel,
        "Let a channel take nothing more, over restarts too; what it has in hand is finished.",
        Scope.ADMIN,
        {200: schemas_operations.ChannelModeSet},
        _CHANGE_PROBLEMS,
        body=schemas_operations.ModeReason,
    ),
    Route(
        "POST",
        "/api/v1/channels/{name}/drain",
        operations.drain_channel,
        "Let a channel finish the messages begun on its SIM, and take no others.",
        Scope.ADMIN,
        {200: schemas_operations.ChannelModeSet},
        _CHANGE_PROBLEMS,
        body=schemas_operations.ModeReason,
    ),
    Route(
        "POST",
        "/api/v1/channels/{name}/resume",
        operations.resume_channel,
        "Let a channel work again.",
        Scope.ADMIN,
        {200: schemas_operations.ChannelModeSet},
        _CHANGE_PROBLEMS,
        body=schemas_operations.ModeReason,
    ),
    Route(
        "POST",
        "/api/v1/channels/{name}/accept",
        api.accept_sim,
        "Pair a channel with the SIM that is in it now.",
        Scope.ADMIN,
        {200: schemas.SimAccepted},
        (*_READ_PROBLEMS, 404, 409),
    ),
    Route(
        "GET",
        "/api/v1/sims",
        sims.sims,
        "All SIMs that were ever seen: what they have sent, and may still send.",
        Scope.ADMIN,
        {200: schemas_sims.Sims},
        _READ_PROBLEMS,
    ),
    Route(
        "GET",
        "/api/v1/routes",
        routing.routes,
        "Dialers and outbound routes, in the order they are asked.",
        Scope.ADMIN,
        {200: schemas_routing.Routes},
        _READ_PROBLEMS,
    ),
    Route(
        "GET",
        "/api/v1/routes/test",
        routing.test,
        "Which route a message would take, and by which channels it could go; nothing is sent.",
        Scope.ADMIN,
        {200: schemas_routing.RouteTest},
        (*_READ_PROBLEMS, 422),
        query=_ROUTES_QUERY,
    ),
    Route(
        "POST",
        "/api/v1/pause",
        api.pause,
        "Send nothing more until resumed, over restarts too.",
        Scope.ADMIN,
        {200: schemas.Sending},
        (400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
        body=schemas.Pause,
    ),
    Route("POST", "/api/v1/resume", api.resume, "Send again.", Scope.ADMIN, {200: schemas.Sending}, _READ_PROBLEMS),
    Route(
        "GET",
        "/api/v1/clock",
        clock.clock,
        "The machine's clock, and whether it is believed.",
        Scope.ADMIN,
        {200: schemas.ClockState},
        _READ_PROBLEMS,
    ),
    Route(
        "POST",
        "/api/v1/clock/accept",
        clock.accept,
        "Believe the clock as it is now.",
        Scope.ADMIN,
        {200: schemas.ClockState},
        _READ_PROBLEMS,
    ),
    Route(
        "GET",
        "/api/v1/status",
        api.status,
        "The gateway as a whole.",
        Scope.ADMIN,
        {200: schemas.Status},
        _READ_PROBLEMS,
    ),
    Route("GET", "/api/v1/openapi.json", openapi, "This document.", None, {200: None}),
    Route("GET", "/healthz", monitoring.healthz, "The process lives.", None, {200: schemas.Health}),
    Route(
        "GET",
        "/readyz",
        monitoring.readyz,
        "Messages can be taken.",
        None,
        {200: schemas.Readiness, 503: schemas.Readiness},
    ),
    Route(
        "GET",
        "/metrics",
        metrics.exposition,
        "What Prometheus scrapes; no key is needed from http.metrics_networks.",
        Scope.READ,
        {200: None},
        (401, 403, 429, 500),
        produces="text/plain",
    ),
)
