"""`POST /alertmanager/{group}`: alerts of Prometheus Alertmanager and of Grafana, one text for each group of them.

2xx once the text is on disk. Whoever posts again what was posted (a retry after a lost answer, a repeat_interval, the
other of two Alertmanagers) gets the answer of the first time, and nothing more is sent. Source: Alertmanager's
webhook_config; Grafana's webhook contact point.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gatewayd.apikeys import Scope
from gatewayd.errors import GatewayError, RequestError
from gatewayd.http import idempotency
from gatewayd.http.auth import Principal
from gatewayd.http.bodies import parse_json, read_body
from gatewayd.http.context import CONTEXT, HttpContext
from gatewayd.http.problems import HttpProblem, answer_json, dumps
from gatewayd.model import MessageClass
from gatewayd.router import alerts
from gatewayd.router.alerts import AlertGroup
from gatewayd.router.submission import Caller, Submission
from gatewayd.spool.accept import KeptMessage, NewMessage

log = logging.getLogger("gatewayd.http")

MAX_ALERTS = 10_000


def _as_text(value: object) -> object:
    return value if value is None or isinstance(value, str) else dumps(value)


_Text = Annotated[str | None, BeforeValidator(_as_text)]
_Labels = dict[str, Any] | None


class _Taken(BaseModel):
    """What is taken from others' programs, of any version: unknown members are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Alert(_Taken):
    """One alert."""

    status: _Text = None
    labels: _Labels = None
    annotations: _Labels = None
    startsAt: _Text = None  # as they call it
    fingerprint: _Text = None


class AlertNotification(_Taken):
    """A group of alerts, as Alertmanager (version 4) and Grafana post it. Other members are passed over."""

    status: Literal["firing", "resolved"]
    alerts: list[Alert] = Field(min_length=1, max_length=MAX_ALERTS)
    groupKey: _Text = None
    groupLabels: _Labels = None
    commonLabels: _Labels = None
    commonAnnotations: _Labels = None
    title: _Text = Field(None, description="Only Grafana.")
    message: _Text = Field(None, description="Only Grafana.")


class AlertsKept(BaseModel):
    """What became of a group of alerts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    idm: list[int] = Field(description="Of the message to each number; empty if nothing is to be sent.")
    duplicate: bool = Field(description="It was posted before: these are the messages of then.")


async def alert(request: web.Request) -> web.Response:
    """Keep one text for each number of the group. 200 once they are on disk."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.SEND)
    group = _group(context, request.match_info["group"])
    body = await read_body(request, context.settings.max_body_octets, context.settings.body_timeout_s)
    notification = _notification(parse_json(request.headers.get("Content-Type", ""), body))
    if notification.status == alerts.RESOLVED and not group.send_resolved:
        return answer_json({"idm": [], "duplicate": False})
    digest = alerts.digest(notification)
    owner = replace(principal.caller, name=f"alertmanager:{group.name}")
    try:
        messages = _messages(context, group, notification, principal)
        return await _keep(context, messages, principal, owner, digest)
    except (RequestError, HttpProblem):  # what was kept once is no fault now
        first = await idempotency.replayed(context, owner, digest.hex(), digest, 200)
        if first is None:
            raise
        return _duplicate(first.text or "")


def _group(context: HttpContext, name: str) -> AlertGroup:
    for group in context.settings.alert_groups:
        if group.name == name:
            return group
    known = ", ".join(group.name for group in context.settings.alert_groups)
    there_are = f"there are {known}" if known else "the configuration has none (http.alertmanager.groups)"
    raise HttpProblem(404, "not-found", f"there is no alert group {name[:64]!r}; {there_are}")


def _notification(document: object) -> alerts.Notification:
    """Raises HttpProblem (422) if it is no such message."""
    try:
        given = AlertNotification.model_validate(document)
    except ValidationError as error:
        if not isinstance(document, dict):
            raise HttpProblem(422, "invalid-field", "a JSON object as Alertmanager posts it is expected") from None
        faults = error.errors(include_url=False, include_input=False)[:20]
        raise HttpProblem.of_fields([(_path(fault["loc"]), fault["msg"]) for fault in faults]) from None
    return alerts.Notification(
        given.status,
        tuple(
            alerts.Alert(
                each.status or given.status,
                _texts(each.labels),
                _texts(each.annotations),
                each.startsAt or "",
                each.fingerprint or "",
            )
            for each in given.alerts
        ),
        given.groupKey or "",
        _texts(given.groupLabels),
        _texts(given.commonLabels),
        _texts(given.commonAnnotations),
        given.title or "",
        given.message or "",
    )


def _texts(values: _Labels) -> dict[str, str]:
    """Labels and annotations are texts; whoever sends something else gets it shown as JSON."""
    return {name: value if isinstance(value, str) else dumps(value) for name, value in (values or {}).items()}


def _path(place: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")


def _messages(
    context: HttpContext, group: AlertGroup, notification: alerts.Notification, principal: Principal
) -> list[NewMessage]:
    """One message for each number. A number that is refused does not keep the others from being told; if all are,
    the first one's RequestError is raised.
    """
    most = min(group.max_segments, context.submitter.settings.max_segments)
    text = alerts.compose(notification, most, group.severity_label)
    priority = alerts.priority(notification, group.severity_label)
    found, refused = [], []
    for number in group.to:
        submission = Submission(
            number, text, class_=MessageClass.ALERT, priority=priority, channel=group.channel, client_ref=None
        )
        try:
            found.append(context.submitter.check(submission, principal.caller))
        except RequestError as error:
            refused.append(error)
            log.warning("an alert is not sent to one number of the group %s: %s", group.name, error.field)
    if not found:
        raise refused[0]
    return found


async def _keep(
    context: HttpContext, messages: Sequence[NewMessage], principal: Principal, owner: Caller, digest: bytes
) -> web.Response:
    """The rate is that of who asks; what was posted before belongs to the group, whoever posts it."""

    def answer(kept: Sequence[KeptMessage]) -> str:
        return dumps({"idm": [each.id for each in kept], "duplicate": False})

    name = principal.caller.name
    context.rates.take(name, len(messages))
    try:
        accepted = await context.submitter.keep(
            messages, owner, idempotency_key=digest.hex(), fingerprint=digest, answer=answer
        )
    except GatewayError:
        context.rates.give_back(name, len(messages))
        raise
    if accepted.replayed is not None:
        context.rates.give_back(name, len(messages))
        return _duplicate(accepted.replayed)
    return answer_json(answer(accepted.kept))


def _duplicate(first: str) -> web.Response:
    return answer_json({**json.loads(first), "duplicate": True}, headers=idempotency.REPLAYED)
