"""/api/v1/operations: what operators do to messages in the queue, one or many; and the end of a doubt."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from gatewayd.apikeys import Scope
from gatewayd.clock import iso
from gatewayd.errors import RequestError
from gatewayd.http import filters, parameters, schemas
from gatewayd.http.auth import Principal
from gatewayd.http.context import CONTEXT, HttpContext
from gatewayd.http.parameters import MAX_ID_DIGITS, PAGE, id_of, is_id, json_body, parameter, query_of
from gatewayd.http.problems import HttpProblem, answer_json
from gatewayd.http.schemas_operations import MessageFilter, ModeReason, NewOperation, Resolution
from gatewayd.router.operations import route_of
from gatewayd.spool import operations as spool
from gatewayd.spool.channel_modes import DRAINING, PAUSED, WORKS
from gatewayd.spool.filters import Filter
from gatewayd.spool.message_reader import MessageReader
from gatewayd.spool.operations import Begun, Operation
from gatewayd.spool.orders import Action, Order

_ACTIONS = {
    "cancel": Action.CANCEL,
    "hold": Action.HOLD,
    "release": Action.RELEASE,
    "requeue": Action.REQUEUE,
    "priority": Action.PRIORITY,
    "route": Action.ROUTE,
}
_RESOLUTIONS = {"sent": Action.SENT, "resend": Action.RESEND, "give_up": Action.GIVE_UP}
_NEEDS = {"priority": "priority", "route": "target", "resolve": "resolution"}
_BELONGS = {**{field: action for action, field in _NEEDS.items()}, "expires_at": "requeue", "may_double": "requeue"}


async def new_operation(request: web.Request) -> web.Response:
    """Begin an operation, or count what it would mean. 200 if it is done, 202 while it is worked off."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.ADMIN)
    made = _checked(await json_body(request, context))
    wanted = filters.of_body(context, made.filter, tuple(dict.fromkeys(made.ids)))
    if not wanted.given and not made.all:
        raise RequestError("filter", "say which messages: ids, a filter, or all: true for every one of them")
    order = _order(context, principal, made)
    if made.dry_run:
        counted = await MessageReader(context.reader).count(spool.meant_by(order, wanted))
        return answer_json({"operation": None, "results": [], "count": counted.count, "more": counted.more})
    begun = await context.operations.begin(order, wanted)
    status = 202 if begun.operation.state == spool.RUNNING else 200
    document = {"operation": shown(begun.operation), "results": _results(begun), "count": None, "more": False}
    return answer_json(document, status=status)


async def operations(request: web.Request) -> web.Response:
    """A page of operations, the newest first."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    query = query_of(request, ("after", "limit"))
    limit = parameter(query, "limit", parameters.limit) or PAGE
    before = parameter(query, "after", id_of("the id of an operation"))
    found = await MessageReader(context.reader).operations(limit=limit + 1, before=before)
    page = found[:limit]
    following = page[-1].id if len(found) > limit else None
    return answer_json({"items": [shown(operation) for operation in page], "next": following})


async def operation(request: web.Request) -> web.Response:
    """One operation, and how far it has come."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    return answer_json(shown(await _known(context, request.match_info["id"])))


async def stop(request: web.Request) -> web.Response:
    """End an operation where it is; what it has done stays done."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.ADMIN)
    found = await _known(context, request.match_info["id"])
    if not await context.operations.end(found.id, principal.caller.name):
        raise HttpProblem(409, "conflict", f"operation {found.id} is not under way")
    return answer_json({"id": found.id, "stopped": True})


async def resolve(request: web.Request) -> web.Response:
    """End the doubt about one message."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.ADMIN)
    made, errors = schemas.check(Resolution, await json_body(request, context))
    errors += _one_line(made)
    if errors:
        raise HttpProblem.of_fields(errors)
    given = request.match_info["idm"]
    if not is_id(given):
        raise HttpProblem(404, "not-found", f"there is no message {given[: MAX_ID_DIGITS + 1]}")
    order = Order(_RESOLUTIONS[made.resolution], principal.caller.name, made.reason)
    begun = await context.operations.begin(order, Filter(ids=(int(given),)))
    applied = begun.results[0][1]
    if applied is None:
        raise HttpProblem(404, "not-found", f"there is no message {given}")
    if not applied.changed:
        raise HttpProblem(409, "conflict", f"message {given}: {applied.said}")
    return answer_json({"idm": int(given), "said": applied.said, "operation": begun.operation.id})


async def pause_channel(request: web.Request) -> web.Response:
    """Let a channel take nothing more."""
    return await _set_mode(request, PAUSED)


async def drain_channel(request: web.Request) -> web.Response:
    """Let a channel finish what was begun on its SIM, and take nothing else."""
    return await _set_mode(request, DRAINING)


async def resume_channel(request: web.Request) -> web.Response:
    """Let a channel work again."""
    return await _set_mode(request, WORKS)


async def _set_mode(request: web.Request, mode: str) -> web.Response:
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.ADMIN)
    reason = ""
    if request.can_read_body:
        made, errors = schemas.check(ModeReason, await json_body(request, context))
        errors += _one_line(made)
        if errors:
            raise HttpProblem.of_fields(errors)
        reason = made.reason
    name = request.match_info["name"]
    try:
        await context.control.set_channel_mode(name, mode, principal.caller.name, reason)
    except KeyError:
        raise HttpProblem(404, "not-found", f"there is no channel {name[:64]!r}") from None
    view = next((each for each in context.control.channels() if each.status.name == name), None)
    said = "" if view is None else view.mode_reason
    return answer_json({"channel": name, "mode": mode, "mode_reason": said})


def _checked(document: Any) -> NewOperation:
    """The body. Every fault in it is named by its field, `filter.campaign` as well."""
    errors: list[tuple[str, str]] = []
    if isinstance(document, dict) and document.get("filter") is not None:
        _, inner = schemas.check(MessageFilter, document["filter"])
        errors += [(f"filter.{field}" if field else "filter", reason) for field, reason in inner]
    made, outer = schemas.check(NewOperation, document)
    errors += [fault for fault in outer if not (errors and fault[0] == "filter")]
    if not errors:
        errors += _one_line(made)
        needed = _NEEDS.get(made.action)
        if needed is not None and getattr(made, needed) is None:
            errors.append((needed, f"is required for {made.action}"))
        for field, action in _BELONGS.items():
            if getattr(made, field) not in (None, False) and made.action != action:
                errors.append((field, f"is for {action} only, not for {made.action}"))
    if errors:
        raise HttpProblem.of_fields(errors)
    assert isinstance(made, NewOperation)
    return made


def _one_line(made: Any) -> list[tuple[str, str]]:
    if made is None or made.reason.isprintable():
        return []
    return [("reason", "has control characters in it; one line of text is expected")]


def _order(context: HttpContext, principal: Principal, made: NewOperation) -> Order:
    actor = principal.caller.name
    if made.action == "resolve":
        assert made.resolution is not None
        return Order(_RESOLUTIONS[made.resolution], actor, made.reason)
    order = Order(
        _ACTIONS[made.action],
        actor,
        made.reason,
        priority=made.priority or 0,
        expires_at=None if made.expires_at is None else schemas.epoch_ms(made.expires_at),
        may_double=made.may_double,
    )
    if order.expires_at is not None and order.expires_at <= context.clock.now_ms():
        raise RequestError("expires_at", f"{made.expires_at} has passed; a time in the future is expected")
    if made.target is None:
        return order
    target, channel = route_of(made.target, context.control)
    return Order(order.action, actor, made.reason, target=target, channel=channel)


async def _known(context: HttpContext, given: str) -> Operation:
    found = await MessageReader(context.reader).operation(int(given)) if is_id(given) else None
    if found is None:
        raise HttpProblem(404, "not-found", f"there is no operation {given[: MAX_ID_DIGITS + 1]}")
    return found


def _results(begun: Begun) -> list[dict[str, Any]]:
    return [
        {
            "idm": message_id,
            "found": applied is not None,
            "changed": applied is not None and applied.changed,
            "said": f"there is no message {message_id} that is meant" if applied is None else applied.said,
        }
        for message_id, applied in begun.results
    ]


def shown(operation: Operation) -> dict[str, Any]:
    """An operation as JSON."""
    order = operation.order
    value = json.loads(order.value) if order.value else {}
    if "expires_at" in value:
        value["expires_at"] = iso(value["expires_at"])
    progress = 1.0 if operation.state == spool.DONE else operation.cursor / max(operation.last_id, 1)
    return {
        "id": operation.id,
        "at": iso(operation.at),
        "actor": order.actor,
        "action": order.action.value,
        "filter": filters.shown(operation.wanted),
        "value": value,
        "reason": order.reason,
        "state": operation.state,
        "matched": operation.matched,
        "changed": operation.changed,
        "progress": round(min(progress, 1.0), 4),
        "finished_at": iso(operation.finished_at),
    }
