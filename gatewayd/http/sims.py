"""GET /api/v1/sims: the SIMs, what they have sent, and what they still may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from gatewayd.apikeys import Scope
from gatewayd.clock import iso
from gatewayd.http.context import CONTEXT
from gatewayd.http.problems import answer_json
from gatewayd.model import SimIdentity
from gatewayd.spool.quota import SimQuota, left_of
from gatewayd.spool.quota_reader import QuotaReader, SimUsage

QuotaOf = Callable[[SimIdentity, str], SimQuota]
"""The quota of a SIM in a channel ("": in none)."""


async def sims(request: web.Request) -> web.Response:
    """All SIMs that were ever seen."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    found = await QuotaReader(context.reader).sims()
    return answer_json({"items": views(found, context.quota_of, context.clock.now_ms()), "next": None})


def views(found: Sequence[SimUsage], quota_of: QuotaOf, now_ms: int) -> list[dict[str, Any]]:
    """SIMs as the API shows them."""
    return [_view(each, quota_of, now_ms) for each in found]


def _view(found: SimUsage, quota_of: QuotaOf, now_ms: int) -> dict[str, Any]:
    sim = found.sim
    quota = quota_of(SimIdentity(sim.iccid or "", sim.imsi or ""), sim.channel or "")
    return {
        "id": sim.id,
        "iccid": sim.iccid or "",
        "imsi": sim.imsi or "",
        "number": sim.number,
        "channel": sim.channel,
        "first_seen_at": iso(sim.first_seen_at),
        "last_seen_at": iso(sim.last_seen_at),
        "last_submit_at": iso(sim.last_submit_at),
        "timezone": quota.timezone,
        "reset_day": quota.reset_day,
        "usage": [
            {"period": each.period, "used": each.used, "limit": each.limit, "until": iso(each.until_ms)}
            for each in left_of(found.usage, quota, now_ms)
        ],
    }
