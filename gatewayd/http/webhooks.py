"""/api/v1/webhooks: who is told of events, what came of it, and what is to be told once more."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gatewayd.apikeys import Scope
from gatewayd.clock import iso
from gatewayd.http import parameters, schemas
from gatewayd.http.context import CONTEXT, HttpContext
from gatewayd.http.parameters import PAGE, id_of, json_body, parameter, query_of
from gatewayd.http.problems import HttpProblem, answer_json
from gatewayd.http.schemas_webhooks import Replay
from gatewayd.router.events import event_id
from gatewayd.router.outbox import Outbox, WebhookView
from gatewayd.spool.backlog import EndpointBacklog
from gatewayd.spool.deliveries import STATES, DeliveryView
from gatewayd.spool.events import webhook_endpoint

MAX_ENDPOINT = 2100


async def webhooks(request: web.Request) -> web.Response:
    """Webhooks that are configured, and those that are not any more but have something pending."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    outbox = _outbox(context)
    backlog = {each.endpoint: each for each in (await context.reader.backlog()).endpoints}
    items = [_configured(view, backlog.pop(view.settings.endpoint, None)) for view in outbox.views()]
    items += [_gone(each) for each in backlog.values() if each.endpoint.startswith("webhook:")]
    callbacks = [each for each in backlog.values() if each.endpoint.startswith("callback:")]
    summary = {
        "hosts": len(callbacks),
        "failing": outbox.failing_callbacks(),
        "pending": sum(each.pending for each in callbacks),
        "oldest_at": iso(min((each.oldest_at for each in callbacks if each.oldest_at is not None), default=None)),
        "dead": sum(each.dead for each in callbacks),
    }
    return answer_json({"items": items, "next": None, "callbacks": summary})


async def deliveries(request: web.Request) -> web.Response:
    """A page of the log."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    query = query_of(request, ("endpoint", "state", "after", "limit", "order"))
    limit = parameter(query, "limit", parameters.limit) or PAGE
    found = await _outbox(context).deliveries.log(
        endpoint=parameter(query, "endpoint", _endpoint),
        state=parameter(query, "state", _state),
        after=parameter(query, "after", id_of("the id of a delivery")),
        limit=limit + 1,
        descending=parameter(query, "order", parameters.order) == "desc",
    )
    page = found[:limit]
    following = page[-1].id if len(found) > limit else None
    return answer_json({"items": [delivery(each, context.store.spool_id) for each in page], "next": following})


async def test(request: web.Request) -> web.Response:
    """Send a webhook the event `webhook.test` now."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    outbox = _outbox(context)
    name = request.match_info["name"]
    url = next((view.settings.url for view in outbox.views() if view.settings.name == name), None)
    answer = None if url is None else await outbox.test(name)
    if answer is None:
        raise HttpProblem(404, "not-found", f"there is no webhook {name[:32]!r} in the configuration")
    return answer_json(
        {
            "name": name,
            "url": url,
            "ok": not answer.error,
            "status": answer.status,
            "took_ms": int(answer.took_s * 1000),
            "error": answer.error,
        }
    )


async def replay(request: web.Request) -> web.Response:
    """Tell deliveries once more, one step of them."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.ADMIN)
    made, errors = schemas.check(Replay, await json_body(request, context))
    if not errors:
        errors = _contradictions(made)
    if errors:
        raise HttpProblem.of_fields(errors)
    count, following = await _outbox(context).replay(
        principal.caller.name,
        STATES[made.state],
        endpoint=made.endpoint if made.name is None else webhook_endpoint(made.name),
        ids=made.ids,
        since=None if made.since is None else schemas.epoch_ms(made.since),
        until=None if made.until is None else schemas.epoch_ms(made.until),
        after=made.after,
    )
    return answer_json({"replayed": count, "next": following})


def _contradictions(made: Replay) -> list[tuple[str, str]]:
    for field, value in (("endpoint", made.endpoint), ("name", made.name)):
        if value is not None and not parameters.plain_text(value, MAX_ENDPOINT):
            return [(field, "has characters in it that no endpoint has")]
    if made.name is not None and made.endpoint is not None:
        return [("endpoint", "cannot be given beside name: one says it")]
    if made.state == "done" and made.ids is None and made.since is None:
        return [("state", "with done, ids or since must say which: all that was ever delivered is seldom meant")]
    return []


def _outbox(context: HttpContext) -> Outbox:
    if context.outbox is None:
        raise RuntimeError("this server was put together without an outbox")
    return context.outbox


def _configured(view: WebhookView, backlog: EndpointBacklog | None) -> dict[str, Any]:
    settings, last = view.settings, view.last
    return {
        "name": settings.name,
        "endpoint": settings.endpoint,
        "configured": True,
        "enabled": settings.enabled,
        "url": settings.url,
        "events": list(settings.events),
        "signed": settings.manner.key is not None,
        **_waiting(backlog),
        "failures": view.failures,
        "retry_in_s": None if view.retry_in_s is None else round(view.retry_in_s, 1),
        "last": None if last is None else {"at": iso(last.at), "status": last.status, "error": last.error},
    }


def _gone(backlog: EndpointBacklog) -> dict[str, Any]:
    """A webhook that is in no configuration any more."""
    nothing: dict[str, Any] = {"enabled": False, "url": None, "events": [], "signed": False}
    now = {"failures": 0, "retry_in_s": None, "last": None}
    name = backlog.endpoint.partition(":")[2]
    return {"name": name, "endpoint": backlog.endpoint, "configured": False, **nothing, **_waiting(backlog), **now}


def _waiting(backlog: EndpointBacklog | None) -> dict[str, Any]:
    if backlog is None:
        return {"pending": 0, "oldest_at": None, "dead": 0}
    return {"pending": backlog.pending, "oldest_at": iso(backlog.oldest_at), "dead": backlog.dead}


def delivery(view: DeliveryView, spool_id: str) -> dict[str, Any]:
    """A delivery as the log shows it."""
    return {
        "id": view.id,
        "event_id": event_id(spool_id, view.outbox_id),
        "type": view.type,
        "at": iso(view.at),
        "idm": view.message_id,
        "endpoint": view.endpoint,
        "url": view.url or None,
        "state": view.state,
        "attempts": view.attempts,
        "created_at": iso(view.created_at),
        "next_at": iso(view.next_at) if view.state == "pending" else None,
        "finished_at": iso(view.finished_at),
        "status": view.status,
        "error": view.error,
    }


def _state(value: str) -> str:
    if value not in STATES:
        raise ValueError(", ".join(STATES))
    return value


def _endpoint(value: str) -> str:
    """An endpoint; a webhook's name alone stands for it."""
    if not parameters.plain_text(value, MAX_ENDPOINT):
        raise ValueError("webhook:NAME or callback:ORIGIN")
    return value if ":" in value else webhook_endpoint(value)
