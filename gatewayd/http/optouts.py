"""/api/v1/optouts: who must not be written to. Every change is kept with its evidence."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gatewayd import msglog
from gatewayd.apikeys import Scope
from gatewayd.clock import iso
from gatewayd.errors import RequestError
from gatewayd.http import parameters, schemas
from gatewayd.http.auth import Principal
from gatewayd.http.context import CONTEXT, HttpContext
from gatewayd.http.inbound import number_of, plus_restored
from gatewayd.http.parameters import PAGE, json_body, parameter, query_of
from gatewayd.http.problems import HttpProblem, answer_json
from gatewayd.http.schemas_inbound import NewOptOut, OptOutRemoval
from gatewayd.router.numbers import MAX_GIVEN
from gatewayd.spool.optout_reader import EvidenceView, OptOutDetail, OptOutReader, OptOutView
from gatewayd.spool.optouts import GLOBAL, Changed, OptState, Said, Source

_STATES = {state.value: state for state in (OptState.OUT, OptState.IN)}
_MAX_CURSOR = 100


async def optouts(request: web.Request) -> web.Response:
    """A page of the list."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    query = query_of(request, ("after", "limit", "state", "order"))
    limit = parameter(query, "limit", parameters.limit) or PAGE
    state = parameter(query, "state", _state) or OptState.OUT
    reader = OptOutReader(context.reader)
    if parameter(query, "order", _order) == "newest":
        before = parameter(query, "after", _moment)
        found = await reader.newest(state, before=before, limit=limit + 1)
    else:
        found = await reader.by_number(state, after=parameter(query, "after", _number) or "", limit=limit + 1)
    page = found[:limit]
    following = None
    if len(found) > limit:
        last = page[-1]
        following = f"{last.since}:{last.number}" if query.get("order") == "newest" else last.number
    return answer_json({"items": [shown(view) for view in page], "next": following})


async def one(request: web.Request) -> web.Response:
    """A number's state, and the evidence."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    found, _ = await _known(context, request.match_info["number"])
    return answer_json(detail(found))


async def add(request: web.Request) -> web.Response:
    """Put a number on the list. What is queued to it is blocked in the same commit."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.ADMIN)
    made, errors = schemas.check(NewOptOut, await json_body(request, context))
    if errors:
        raise HttpProblem.of_fields(errors)
    number = number_of(context, made.number)
    return await _change(context, principal, number, made.number, OptState.OUT, made.evidence)


async def remove(request: web.Request) -> web.Response:
    """Take a number off the list, with the evidence that its owner wants messages again."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.ADMIN)
    made, errors = schemas.check(OptOutRemoval, await json_body(request, context))
    if errors:
        raise HttpProblem.of_fields(errors)
    found, given = await _known(context, request.match_info["number"])
    if found.state is not OptState.OUT:
        return answer_json(_answer(Changed(0, found.number, found.state, found.state)))
    return await _change(context, principal, found.number, given, OptState.IN, made.evidence)


async def _change(
    context: HttpContext, principal: Principal, number: str, given: str, state: OptState, evidence: str
) -> web.Response:
    said = Said(
        number=number,
        number_received=given,
        intent="opt_out" if state is OptState.OUT else "opt_in",
        source=Source.OPERATOR if principal.local else Source.API,
        actor=principal.caller.name,
        evidence=evidence,
    )
    changed = await context.store.opt(said, state)
    if changed.changed:
        msglog.opted(number, state.value, said.source.value, changed.blocked, None)
    return answer_json(_answer(changed))


async def _known(context: HttpContext, given: str) -> tuple[OptOutDetail, str]:
    """What is known of a number, and how it was given.

    What is no number may be on the list all the same, as it was received: senders can be words. Raises RequestError
    (422) if it is neither.
    """
    reader = OptOutReader(context.reader)
    given = plus_restored(given)
    try:
        number = number_of(context, given)
    except RequestError:
        if not parameters.plain_text(given, MAX_GIVEN):
            raise
        found = await reader.one(given)
        if not found.events:
            raise
        return found, given
    return await reader.one(number), given


def _answer(changed: Changed) -> dict[str, Any]:
    return {
        "number": changed.number,
        "scope": GLOBAL,
        "state": changed.state.value,
        "prior_state": changed.prior.value,
        "changed": changed.changed,
        "blocked": changed.blocked,
        "in_hand": changed.in_hand,
        "event": changed.event_id or None,
    }


def shown(view: OptOutView) -> dict[str, Any]:
    """A number as it stands in the list."""
    return {
        "number": view.number,
        "scope": view.scope,
        "state": view.state.value,
        "blocks": [class_.value for class_ in view.blocks],
        "wrote_since": view.wrote_since,
        "source": view.source,
        "since": iso(view.since),
        "event": view.event_id,
    }


def detail(found: OptOutDetail) -> dict[str, Any]:
    """A number with all that was said about it."""
    return {
        "number": found.number,
        "state": found.state.value,
        "scopes": [shown(view) for view in found.scopes],
        "events": [_evidence(event) for event in found.events],
        "history_cut": found.history_cut,
    }


def _evidence(event: EvidenceView) -> dict[str, Any]:
    return {
        "id": event.id,
        "at": iso(event.at),
        "number_received": event.number_received,
        "scope": event.scope,
        "intent": event.intent,
        "source": event.source,
        "actor": event.actor,
        "prior_state": event.prior_state.value,
        "state": event.state.value,
        "text": event.text,
        "tier": event.tier,
        "rule": event.rule,
        "language": event.language,
        "version": event.version,
        "channel": event.channel,
        "inbound": event.inbound_id,
        "sent_at": iso(event.sent_at),
        "confirmation_idm": event.confirmation_id,
        "blocked": event.blocked,
        "in_hand": event.in_hand,
        "evidence": event.evidence,
    }


def _state(value: str) -> OptState:
    state = _STATES.get(value.lower())
    if state is None:
        raise ValueError("out (on the list) or in (asked for messages again)")
    return state


def _order(value: str) -> str:
    if value not in {"number", "newest"}:
        raise ValueError("number or newest")
    return value


def _number(value: str) -> str:
    value = plus_restored(value)
    if not parameters.plain_text(value, _MAX_CURSOR):
        raise ValueError("the `next` of the page before")
    return value


def _moment(value: str) -> tuple[int, str]:
    """The cursor of the newest first: since when, and the number."""
    since, colon, number = value.partition(":")
    if not colon or not parameters.is_id(since) or not parameters.plain_text(number, _MAX_CURSOR):
        raise ValueError("the `next` of the page before")
    return int(since), plus_restored(number)
