"""The JSON API under /api/v1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from gatewayd import __version__
from gatewayd.apikeys import Scope
from gatewayd.clock import iso
from gatewayd.errors import RequestError
from gatewayd.http import filters, idempotency, parameters, schemas, views
from gatewayd.http.auth import Principal
from gatewayd.http.context import CONTEXT, HttpContext
from gatewayd.http.parameters import MAX_ID_DIGITS, PAGE, id_of, is_id, json_body, parameter, query_of
from gatewayd.http.problems import HttpProblem, answer_json, dumps, duplicate
from gatewayd.model import ChannelState, MessageState
from gatewayd.spool.accept import KeptMessage, NewMessage
from gatewayd.spool.message_reader import MessageReader


async def new_messages(request: web.Request) -> web.Response:
    """Keep one message (an object) or up to 1000 (an array). 202 once what was accepted is on disk."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.SEND)
    key = idempotency.key_of(request)
    document = await json_body(request, context)
    digest = idempotency.fingerprint("messages", document) if key is not None else b""
    if isinstance(document, list) and not 1 <= len(document) <= schemas.MAX_MESSAGES:
        detail = f"the array has {len(document)} messages; 1 to {schemas.MAX_MESSAGES} are taken"
        raise HttpProblem(422, "invalid-field", detail)
    many = isinstance(document, list)
    results = [_checked(item, context, principal) for item in (document if many else [document])]
    messages = [result for result in results if isinstance(result, NewMessage)]
    if not messages:
        first = await idempotency.replayed(context, principal.caller, key, digest, 202)
        if first is not None:
            return first
        raise _none_accepted([result for result in results if isinstance(result, HttpProblem)], many)

    def answer(kept: Sequence[KeptMessage]) -> str:
        if not many:
            return dumps(views.accepted(kept[0], messages[0]))
        following = iter(kept)
        items = [_item(next(following) if isinstance(result, NewMessage) else None, result) for result in results]
        blocked = sum(message.state is MessageState.BLOCKED for message in kept)
        taken = sum(not message.refused for message in kept)
        counts = {"accepted": taken - blocked, "blocked": blocked, "refused": len(results) - taken}
        return dumps({"items": items, **counts})

    def refusal(kept: Sequence[KeptMessage]) -> HttpProblem:
        following = map(duplicate, kept)
        return _none_accepted(
            [result if isinstance(result, HttpProblem) else next(following) for result in results], many
        )

    return await idempotency.keep(context, messages, principal.caller, key, digest, answer, 202, refusal)


def _item(kept: KeptMessage | None, result: NewMessage | HttpProblem) -> dict[str, Any]:
    """What became of one of many."""
    if isinstance(result, HttpProblem):
        return {"error": result.document()}
    assert kept is not None
    return {"error": duplicate(kept).document()} if kept.refused else views.accepted(kept, result)


def _checked(item: object, context: HttpContext, principal: Principal) -> NewMessage | HttpProblem:
    made, errors = schemas.check(schemas.NewMessage, item)
    if errors:
        return HttpProblem.of_fields(errors)
    try:
        return context.submitter.check(made.submission(), principal.caller)
    except RequestError as error:
        return HttpProblem.of(error)


def _none_accepted(refused: Sequence[HttpProblem], many: bool) -> HttpProblem:
    if not many:
        return refused[0]
    errors = [
        (f"[{index}].{field}" if field else f"[{index}]", reason)
        for index, problem in enumerate(refused)
        for field, reason in problem.errors
    ]
    items = [{"error": problem.document()} for problem in refused]
    if all(problem.kind == "duplicate" for problem in refused):
        return HttpProblem(409, "duplicate", "all of the messages are duplicates of others", more={"items": items})
    return HttpProblem(422, "invalid-field", "none of the messages is acceptable", errors=errors, more={"items": items})


async def message(request: web.Request) -> web.Response:
    """One message with its history."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.READ)
    given = request.match_info["idm"]
    found = None
    if is_id(given):
        found = await context.reader.message(int(given))
    if found is None:
        said = f"there is no message {given[: MAX_ID_DIGITS + 1]} (older than retention?)"
        raise HttpProblem(404, "not-found", said)
    control = context.control
    serving = control.serving(found.message.lane)
    return answer_json(views.detail(found, control.channels(), control.paused(), context.clock.now_ms(), serving))


async def messages(request: web.Request) -> web.Response:
    """A page of messages, in order of their ids."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.READ)
    query = query_of(request, ("after", "limit", *filters.QUERY, "order"))
    page = await MessageReader(context.reader).page(
        filters.of_query(context.submitter.settings.home_country, query),
        after=parameter(query, "after", id_of("the idm of a message")),
        limit=parameter(query, "limit", parameters.limit) or PAGE,
        descending=parameter(query, "order", parameters.order) == "desc",
    )
    return answer_json({"items": [views.message(view) for view in page.items], "next": page.next})


async def channels(request: web.Request) -> web.Response:
    """All channels and what they are doing."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    return answer_json({"items": [views.channel(view) for view in context.control.channels()], "next": None})


async def accept_sim(request: web.Request) -> web.Response:
    """Pair a channel with the SIM that is in it now."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.ADMIN)
    name = request.match_info["name"]
    known = {view.status.name for view in context.control.channels()}
    if name not in known:
        raise HttpProblem(404, "not-found", f"there is no channel {name[:64]!r}")
    if not await context.control.accept_sim(name, principal.caller.name):
        raise HttpProblem(409, "conflict", f"channel {name} has no other SIM than the one it is paired with")
    return answer_json({"channel": name, "accepted": True})


async def pause(request: web.Request) -> web.Response:
    """Send nothing more, until `resume`."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.ADMIN)
    reason = ""
    if request.can_read_body:
        made, errors = schemas.check(schemas.Pause, await json_body(request, context))
        if not errors and not made.reason.isprintable():
            errors = [("reason", "has control characters in it; one line of text is expected")]
        if errors:
            raise HttpProblem.of_fields(errors)
        reason = made.reason
    await context.control.pause(principal.caller.name, reason)
    return answer_json({"paused": context.control.paused()})


async def resume(request: web.Request) -> web.Response:
    """Send again."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.ADMIN)
    await context.control.resume(principal.caller.name)
    return answer_json({"paused": context.control.paused()})


async def status(request: web.Request) -> web.Response:
    """The gateway as a whole."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    views_of_channels = context.control.channels()
    ready = sum(view.status.state is ChannelState.READY for view in views_of_channels)
    return answer_json(
        {
            "instance": context.instance,
            "version": __version__,
            "started_at": iso(context.started_ms),
            "at": iso(context.clock.now_ms()),
            "paused": context.control.paused(),
            "draining": context.draining(),
            "spool_writable": context.store.writer.healthy,
            "clock_doubt": context.clock_doubt(),
            **views.counts(await context.reader.counts()),
            "channels": {"total": len(views_of_channels), "ready": ready},
        }
    )
