"""`POST /SendSMS` and `POST /Integra/resources/SMS/SendSMS`: a form in, JSON out. S4-47, S4-48, decision 10."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from gatewayd.apikeys import Scope
from gatewayd.errors import RequestError
from gatewayd.http import idempotency
from gatewayd.http.bodies import parse_form, read_body
from gatewayd.http.context import CONTEXT
from gatewayd.http.problems import HttpProblem, dumps
from gatewayd.http.views import accepted
from gatewayd.router.submission import FieldNames, Submission
from gatewayd.spool.accept import KeptMessage

FIELDS = frozenset({"destination", "message", "campaign", "agent"})
_NAMES = FieldNames(to="destination", text="message")


async def send_sms(request: web.Request) -> web.Response:
    """Keep one message. 200 once it is on disk."""
    context = request.app[CONTEXT]
    principal = context.authenticator.require(request, Scope.SEND)
    key = idempotency.key_of(request)
    settings = context.settings
    body = await read_body(request, settings.max_body_octets, settings.body_timeout_s)
    fields = parse_form(request.headers.get("Content-Type", ""), body, FIELDS)
    missing = [(name, "is missing from the form") for name in ("destination", "message") if name not in fields]
    if missing:
        raise HttpProblem.of_fields(missing)
    submission = Submission(
        fields["destination"], fields["message"], campaign=fields.get("campaign", ""), agent=fields.get("agent", "")
    )
    digest = idempotency.fingerprint("SendSMS", fields) if key is not None else b""
    try:
        message = context.submitter.check(submission, principal.caller, _NAMES)
    except RequestError:
        first = await idempotency.replayed(context, principal.caller, key, digest, 200)
        if first is None:
            raise
        return first

    def answer(kept: Sequence[KeptMessage]) -> str:
        shown = accepted(kept[0], message)
        names = ("idm", "state", "state_name", "reason", "segments")
        return dumps(
            {
                **{name: shown[name] for name in names},
                "campaign": message.campaign,
                "agent": message.agent,
                "destination": message.to,
                **({"warnings": shown["warnings"]} if "warnings" in shown else {}),
            }
        )

    return await idempotency.keep(context, [message], principal.caller, key, digest, answer, 200)
