"""GET /api/v1/inbound: what came in."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gatewayd.apikeys import Scope
from gatewayd.clock import iso
from gatewayd.http import parameters
from gatewayd.http.context import CONTEXT, HttpContext
from gatewayd.http.parameters import MAX_ID_DIGITS, PAGE, id_of, is_id, parameter, query_of
from gatewayd.http.problems import HttpProblem, answer_json
from gatewayd.router import events
from gatewayd.router.numbers import normalise
from gatewayd.spool.inbound_reader import InboundDetail, InboundReader, InboundView, PartView


async def inbound(request: web.Request) -> web.Response:
    """A page of inbound messages, in the order they were handed over."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.READ)
    query = query_of(request, ("after", "limit", "number", "order"))
    limit = parameter(query, "limit", parameters.limit) or PAGE
    found = await InboundReader(context.reader).inbound(
        after=parameter(query, "after", id_of("the id of an inbound message")),
        limit=limit + 1,
        number=None if "number" not in query else number_of(context, query["number"]),
        descending=parameter(query, "order", parameters.order) == "desc",
    )
    page = found[:limit]
    following = page[-1].id if len(found) > limit else None
    return answer_json({"items": [shown(view) for view in page], "next": following})


async def one(request: web.Request) -> web.Response:
    """One inbound message with the PDUs it is made of."""
    context = request.app[CONTEXT]
    context.authenticator.require(request, Scope.READ)
    given = request.match_info["id"]
    found = await InboundReader(context.reader).one(int(given)) if is_id(given) else None
    if found is None:
        raise HttpProblem(404, "not-found", f"there is no inbound message {given[: MAX_ID_DIGITS + 1]}")
    return answer_json(detail(found))


def number_of(context: HttpContext, given: str) -> str:
    """The number somebody asks about, in any usual spelling. Raises RequestError (422) with what would be right.

    Whatever may have written counts, premium numbers too.
    """
    return normalise(
        plus_restored(given),
        context.submitter.settings.home_country,
        strict=False,
        allow_premium=True,
        field="number",
    )


def plus_restored(given: str) -> str:
    """A "+" that was put into a URL as it is has become a space there."""
    return "+" + given[1:] if given[:1] == " " else given


def shown(view: InboundView) -> dict[str, Any]:
    """An inbound message as it stands in a list: what events say of it, and what only operators ask for."""
    return {**events.inbound(view), "at": iso(view.at), "error": view.error, "rule": view.rule}


def detail(found: InboundDetail) -> dict[str, Any]:
    """An inbound message with its PDUs."""
    return {**shown(found.message), "pdus": [_part(part) for part in found.parts]}


def _part(part: PartView) -> dict[str, Any]:
    concat = None
    if part.concat_total is not None:
        concat = {
            "ref": part.concat_ref,
            "bits": part.concat_bits,
            "seq": part.concat_seq,
            "total": part.concat_total,
        }
    return {
        "id": part.id,
        "received_at": iso(part.received_at),
        "channel": part.channel,
        "raw": part.raw,
        "listing": part.listing,
        "storage": part.storage,
        "index": part.storage_index,
        "sent_at": iso(part.sent_at),
        "concat": concat,
        "text": part.text,
        "error": part.error,
        "duplicates": [
            {
                "id": again.id,
                "received_at": iso(again.received_at),
                "listing": again.listing,
                "storage": again.storage,
                "index": again.storage_index,
            }
            for again in part.duplicates
        ],
    }
