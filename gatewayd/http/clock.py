"""The machine's clock in the API: what it reads, whether it is believed, and an operator's word that it is right."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gatewayd.apikeys import Scope
from gatewayd.clock import iso
from gatewayd.http.context import CONTEXT, HttpContext
from gatewayd.http.problems import answer_json
from gatewayd.router.clocktrust import ClockTrust, ClockView


async def clock(request: web.Request) -> web.Response:
    """What the clock reads, and why it is not believed if it is not."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    return answer_json(_shown(_trust(context).view()))


async def accept(request: web.Request) -> web.Response:
    """Believe the clock as it is: what the spool has of later times counts no more."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.ADMIN)
    trust = _trust(context)
    await trust.accept(principal.caller.name)
    return answer_json(_shown(trust.view()))


def _trust(context: HttpContext) -> ClockTrust:
    if context.trust is None:
        raise RuntimeError("this server was put together without trust in a clock")
    return context.trust


def _shown(view: ClockView) -> dict[str, Any]:
    return {
        "at": iso(view.now_ms),
        "newest": iso(view.newest_ms or None),
        "synchronised": view.synchronised,
        "uptime_s": None if view.uptime_s is None else round(view.uptime_s),
        "require_sync": view.require_sync,
        "wait_s": view.wait_s,
        "accepted_at": iso(view.accepted_ms),
        "accepted_by": view.accepted_by,
        "trusted": not view.doubt,
        "doubt": view.doubt,
    }
