"""The JSON API under /api/v1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aiohttp import web

from gatewayd import __version__
from gatewayd.apikeys import Scope
from gatewayd.clock import iso
from gatewayd.errors import RequestError
from gatewayd.http import idempotency, schemas, views
from gatewayd.http.auth import Principal
from gatewayd.http.bodies import parse_json, read_body
from gatewayd.http.context import CONTEXT, HttpContext
from gatewayd.http.problems import HttpProblem, answer_json, dumps
from gatewayd.model import ChannelState, MessageState
from gatewayd.spool.accept import NewMessage
from gatewayd.spool.reader import MAX_PAGE

T = TypeVar("T")

PAGE = 100
_MAX_ID_DIGITS = 18  # what fits a 64-bit integer
_MAX_QUERY_VALUE = 255
_STATES = {**{str(state.value): state for state in MessageState}, **{name: s for s, name in views.STATE_NAMES.items()}}


async def new_messages(request: web.Request) -> web.Response:
    """Keep one message (an object) or up to 1000 (an array). 202 once what was accepted is on disk."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.SEND)
    key = idempotency.key_of(request)
    document = await _json(request, context)
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

    def answer(ids: Sequence[int]) -> str:
        if not many:
            return dumps(views.accepted(ids[0], messages[0]))
        next_id = iter(ids)
        items = [
            views.accepted(next(next_id), result) if isinstance(result, NewMessage) else {"error": result.document()}
            for result in results
        ]
        return dumps({"items": items, "accepted": len(ids), "refused": len(results) - len(ids)})

    return await idempotency.keep(context, messages, principal.caller, key, digest, answer, 202)


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
    return HttpProblem(422, "invalid-field", "none of the messages is acceptable", errors=errors, more={"items": items})


async def message(request: web.Request) -> web.Response:
    """One message with its history."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.READ)
    given = request.match_info["idm"]
    found = None
    if given.isascii() and given.isdigit() and len(given) <= _MAX_ID_DIGITS:
        found = await context.reader.message(int(given))
    if found is None:
        raise HttpProblem(404, "not-found", f"there is no message {given[: _MAX_ID_DIGITS + 1]}")
    control = context.control
    return answer_json(views.detail(found, control.channels(), control.paused(), context.clock.now_ms()))


async def messages(request: web.Request) -> web.Response:
    """A page of messages, in order of their ids."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.READ)
    query = _query(request, ("after", "limit", "state", "client_ref", "order"))
    after = _parameter(query, "after", _id)
    limit = _parameter(query, "limit", _limit) or PAGE
    order = _parameter(query, "order", _order)
    found = await context.reader.messages(
        after=after,
        limit=limit + 1,
        state=_parameter(query, "state", _state),
        client_ref=_parameter(query, "client_ref", _client_ref),
        descending=order == "desc",
    )
    page = found[:limit]
    following = page[-1].id if len(found) > limit else None
    return answer_json({"items": [views.message(view) for view in page], "next": following})


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
        made, errors = schemas.check(schemas.Pause, await _json(request, context))
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
            **views.counts(await context.reader.counts()),
            "channels": {"total": len(views_of_channels), "ready": ready},
        }
    )


async def _json(request: web.Request, context: HttpContext) -> Any:
    body = await read_body(request, context.settings.max_body_octets, context.settings.body_timeout_s)
    return parse_json(request.headers.get("Content-Type", ""), body)


def _query(request: web.Request, names: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in names:
            raise RequestError(name[:64], f"there is no such parameter; there are {', '.join(names)}")
        if name in values:
            raise RequestError(name, "is given more than once")
        values[name] = value
    return values


def _parameter(query: dict[str, str], name: str, parse: Callable[[str], T]) -> T | None:
    value = query.get(name)
    if value is None:
        return None
    try:
        return parse(value)
    except ValueError as error:
        raise RequestError(name, f"{error} is expected") from None


def _id(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= _MAX_ID_DIGITS):
        raise ValueError("the idm of a message")
    return int(value)


def _limit(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 4 and 1 <= int(value) <= MAX_PAGE):
        raise ValueError(f"a number from 1 to {MAX_PAGE}")
    return int(value)


def _order(value: str) -> str:
    if value not in {"asc", "desc"}:
        raise ValueError("asc or desc")
    return value


def _state(value: str) -> MessageState:
    state = _STATES.get(value.lower().replace(" ", "_").replace("-", "_"))
    if state is None:
        raise ValueError(
            f"a state ({', '.join(views.STATE_NAMES.values())}) or its number (0 to {len(MessageState) - 1})"
        )
    return state


def _client_ref(value: str) -> str:
    if not 0 < len(value) <= _MAX_QUERY_VALUE or "\0" in value or not _encodable(value):
        raise ValueError(f"a client_ref of 1 to {_MAX_QUERY_VALUE} characters")
    return value


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
