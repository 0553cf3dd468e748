"""`GET /api/v1/routes` and `/api/v1/routes/test`: the outbound routes, and what they make of a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from gatewayd.apikeys import Scope
from gatewayd.clock import iso
from gatewayd.errors import RequestError
from gatewayd.http import parameters
from gatewayd.http.context import CONTEXT
from gatewayd.http.parameters import parameter, plain_text, query_of
from gatewayd.http.problems import answer_json
from gatewayd.model import MessageClass
from gatewayd.router.control import Serving
from gatewayd.router.numbers import normalise
from gatewayd.router.routes import Asked, Destination, Explained, Router
from gatewayd.router.submission import MAX_LABEL, SubmissionSettings
from gatewayd.router.target import Target
from gatewayd.spool.lanes import Lane

CLASSES = tuple(class_.value for class_ in MessageClass if class_ is not MessageClass.SYSTEM)
PARAMETERS = ("number", "campaign", "key", "class", "at")


async def routes(request: web.Request) -> web.Response:
    """Dialers and routes, in the order they are asked."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    return answer_json({"items": table(context.submitter.settings.router), "next": None})


async def test(request: web.Request) -> web.Response:
    """Which route a message would take now or at another time; nothing is sent, and no turn is taken."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.ADMIN)
    query = query_of(request, PARAMETERS)
    if "number" not in query:
        raise RequestError("number", "is missing: a telephone number is expected")
    at = parameter(query, "at", parameters.moment)
    asked = asked_of(
        context.submitter.settings,
        query["number"],
        parameter(query, "class", _class) or MessageClass.APPLICATION,
        parameter(query, "campaign", _label) or "",
        parameter(query, "key", _label) or "",
        context.clock.now_ms() if at is None else at,
    )
    explained = context.submitter.settings.router.explain(asked)
    routed = explained.routed
    lane = Lane(0, routed.source or f"class:{asked.class_.value}", routed.target, "", 0, 0, routed.zone)
    return answer_json(verdict(asked, explained, context.control.serving(lane), context.control.paused()))


def asked_of(
    settings: SubmissionSettings, number: str, class_: MessageClass, campaign: str, key: str, at_ms: int
) -> Asked:
    """A question to the router, with the number checked as a submission's is. Raises RequestError."""
    to = normalise(
        number,
        settings.home_country,
        strict=settings.strict_numbers,
        allow_premium=settings.allow_premium,
        field="number",
    )
    refusal = settings.reachable.refusal(to)
    if refusal:
        raise RequestError("number", refusal)
    return Asked(to, class_, campaign, key, at_ms)


def table(router: Router) -> list[dict[str, Any]]:
    """The rules, in the order they are asked."""
    dialers = [
        {
            "kind": "dialer",
            "name": drain.name,
            "enabled": drain.enabled,
            "conditions": ["class campaign", f"campaign {', '.join(sorted(drain.campaigns))}"],
            **_destination(drain.destination),
        }
        for drain in router.settings.drains
    ]
    rules = [
        {
            "kind": "route",
            "name": rule.name,
            "enabled": True,
            "conditions": rule.conditions.words(),
            **_destination(rule.destination),
        }
        for rule in router.settings.rules
    ]
    return dialers + rules


def _destination(destination: Destination) -> dict[str, Any]:
    return {"target": destination.target().text, "weights": list(destination.weights)}


def verdict(asked: Asked, explained: Explained, serving: Sequence[Serving], paused: str = "") -> dict[str, Any]:
    """What the routes make of a message. `serving`: the channels that it may go by, and what is against each now;
    `paused`: why nothing is sent at all.
    """
    routed = explained.routed
    return {
        "number": asked.number,
        "class": asked.class_.value,
        "campaign": asked.campaign,
        "key": asked.key,
        "at": iso(asked.due_at),
        "explain": sentence(explained),
        "dialer": routed.source.partition(":")[2] or None,
        "route": routed.route or None,
        "target": explained.places.text,
        "zone": routed.zone,
        "paused": paused,
        "rules": [
            {"kind": each.kind, "name": each.name, "chosen": each.chosen, "against": each.against}
            for each in explained.verdicts
        ],
        "channels": [
            {"channel": each.channel, "obstacle": each.obstacle, "until": iso(each.until_ms)} for each in serving
        ],
    }


def sentence(explained: Explained) -> str:
    """Which rule decides, and for what."""
    chosen = next((each for each in explained.verdicts if each.chosen), None)
    where = places_in_words(explained.places)
    if chosen is None:
        return f"no route matches: {where}"
    return f"the {chosen.kind} {chosen.name} decides: {where}"


def places_in_words(target: Target) -> str:
    """What a target means."""
    named = [
        "any channel" if tier.text == "any" else tier.text.replace(":", " ", 1).replace("group", "the group", 1)
        for tier in target.tiers
    ]
    said = ", then ".join(named)
    if target.ports is not None:
        group = f"the group {target.group}" if target.group else "all channels"
        said = f"ports {', '.join(map(str, target.ports))} of {group} in turn"
    return f"{said}, first by the SIM that wrote to the number last" if target.sticky else said


def _class(value: str) -> MessageClass:
    if value not in CLASSES:
        raise ValueError(f"one of {', '.join(CLASSES)}")
    return MessageClass(value)


def _label(value: str) -> str:
    if not plain_text(value, MAX_LABEL):
        raise ValueError(f"a name of 1 to {MAX_LABEL} characters")
    return value
