"""/api/v1/quarantine: numbers that fail wherever they are tried."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gatewayd.apikeys import Scope
from gatewayd.clock import iso
from gatewayd.http import parameters
from gatewayd.http.context import CONTEXT
from gatewayd.http.inbound import number_of, plus_restored
from gatewayd.http.parameters import PAGE, parameter, query_of
from gatewayd.http.problems import HttpProblem, answer_json
from gatewayd.spool.quarantine_reader import FaultView, QuarantineReader

_MAX_CURSOR = 100


async def quarantined(request: web.Request) -> web.Response:
    """A page of the numbers in quarantine."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    query = query_of(request, ("after", "limit"))
    limit = parameter(query, "limit", parameters.limit) or PAGE
    after = parameter(query, "after", _cursor) or ""
    found = await QuarantineReader(context.reader).page(after=after, limit=limit + 1)
    page = found[:limit]
    following = page[-1].number if len(found) > limit else None
    return answer_json({"items": [shown(view) for view in page], "next": following})


async def release(request: web.Request) -> web.Response:
    """Let a number out: what waits for it is due at once."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.ADMIN)
    number = number_of(context, plus_restored(request.match_info["number"]))
    messages = await context.store.release_number(number, principal.caller.name)
    if messages is None:
        raise HttpProblem(404, "not-found", f"nothing counts against {number}: it is not in quarantine")
    return answer_json({"number": number, "released": True, "messages": messages})


def shown(view: FaultView) -> dict[str, Any]:
    """A number as it stands in the list."""
    return {
        "number": view.number,
        "failures": view.failures,
        "sims": len(view.sims),
        "code": view.code,
        "detail": view.detail,
        "first_at": iso(view.first_at),
        "last_at": iso(view.last_at),
        "until": iso(view.until),
        "probe_idm": view.probe,
    }


def _cursor(value: str) -> str:
    value = plus_restored(value)
    if not parameters.plain_text(value, _MAX_CURSOR):
        raise ValueError("the `next` of the page before")
    return value
