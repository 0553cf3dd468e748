"""Every route, with what the OpenAPI document says of it: one list for both."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web
from pydantic import BaseModel

from gatewayd.apikeys import Scope
from gatewayd.http import api, monitoring, schemas, sendsms
from gatewayd.http.problems import Handler


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `answers` is what a success gives, by status; `problems` the statuses of problems.

    `body` is the model of a JSON body (`many`: or an array of them), or "form" for /SendSMS. `query`: name, JSON
    Schema, description of each parameter. `scope` None: open to all.
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


_SEND_PROBLEMS = (400, 401, 403, 408, 409, 413, 415, 422, 500, 503)
_READ_PROBLEMS = (401, 403, 500, 503)

_STATE = {"type": "string", "examples": ["to_process", "1"]}
_MESSAGES_QUERY: tuple[tuple[str, dict[str, object], str], ...] = (
    ("after", {"type": "integer", "minimum": 0}, "Only messages that follow this idm in the order asked for."),
    ("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": api.PAGE}, "At most so many."),
    ("state", dict(_STATE), "Only messages in this state, by its name or its number."),
    ("client_ref", {"type": "string", "minLength": 1, "maxLength": 255}, "Only messages with this client_ref."),
    ("order", {"type": "string", "enum": ["asc", "desc"], "default": "asc"}, "By idm."),
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

    return document()


ROUTES: tuple[Route, ...] = (
    _send_sms("/SendSMS"),
    _send_sms("/Integra/resources/SMS/SendSMS"),
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
        "/api/v1/channels/{name}/accept",
        api.accept_sim,
        "Pair a channel with the SIM that is in it now.",
        Scope.ADMIN,
        {200: schemas.SimAccepted},
        (*_READ_PROBLEMS, 404, 409),
    ),
    Route(
        "POST",
        "/api/v1/pause",
        api.pause,
        "Send nothing more until resumed, over restarts too.",
        Scope.ADMIN,
        {200: schemas.Sending},
        (400, 401, 403, 408, 413, 415, 422, 500, 503),
        body=schemas.Pause,
    ),
    Route("POST", "/api/v1/resume", api.resume, "Send again.", Scope.ADMIN, {200: schemas.Sending}, _READ_PROBLEMS),
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
)
