"""Answers, good and bad: JSON, and RFC 9457 problems that name what is wrong and say what would be right."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from gatewayd.errors import GatewayError, RequestError, SpoolError
from gatewayd.spool.accept import KeptMessage
from gatewayd.spool.usage import LimitExceeded

log = logging.getLogger("gatewayd.http")

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_S = 2  # after the spool could not take a write

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Errors = Sequence[tuple[str, str]]
"""(field, reason) of each fault."""

TITLES = {
    "invalid-field": "A field is not acceptable",
    "too-long": "The text takes too many segments",
    "idempotency-conflict": "The Idempotency-Key was used before",
    "duplicate": "The same text went to the same number before",
    "malformed-body": "The body cannot be read",
    "invalid-header": "A header is not acceptable",
    "unauthenticated": "Who are you?",
    "forbidden": "Not allowed",
    "not-found": "There is no such thing",
    "conflict": "Not possible now",
    "too-large": "The body is too large",
    "timeout": "The request came too slowly",
    "unsupported-media-type": "The content type is not understood",
    "rate-limited": "Too many messages at once",
    "segment-limit": "The API key has used up its segments",
    "too-many-failures": "Too many bad API keys",
    "spool-unavailable": "Nothing can be kept now",
    "internal-error": "The gateway failed",
}


class HttpProblem(GatewayError):
    """A request that is answered with a problem. `errors` names the faults; `more` are further members of it."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: Errors = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
        close: bool = False,
    ) -> None:
        self.status = status
        self.kind = kind
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}
        self.more = more or {}
        self.close = close
        super().__init__(detail)

    @classmethod
    def of_fields(cls, errors: Errors, *, status: int = 422) -> HttpProblem:
        """Fields at fault, one or several."""
        detail = "; ".join(f"{field}: {reason}" if field else reason for field, reason in errors)
        return cls(status, "invalid-field", detail, errors=errors)

    @classmethod
    def of(cls, error: RequestError) -> HttpProblem:
        errors = [(error.field, error.reason)] if error.field else []
        headers = {}
        if isinstance(error, LimitExceeded) and error.retry_after_s is not None:
            headers["Retry-After"] = str(error.retry_after_s)
        return cls(error.status, error.kind, str(error), errors=errors, headers=headers)

    def document(self) -> dict[str, Any]:
        """The members of the problem, as RFC 9457 §3.1 has them, and `errors`."""
        return {
            "type": f"urn:gatewayd:problem:{self.kind}",
            "title": TITLES.get(self.kind) or HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "errors": [{"field": field, "reason": reason} for field, reason in self.errors],
            **self.more,
        }

    def response(self) -> web.Response:
        answer = web.Response(
            status=self.status,
            body=dumps(self.document()).encode(),
            content_type=PROBLEM_TYPE,
            headers={"Cache-Control": "no-store", **self.headers},
        )
        if self.close:
            answer.force_close()
        return answer


def duplicate(kept: KeptMessage) -> HttpProblem:
    """Of a message that was refused as a duplicate of another."""
    return HttpProblem(409, "duplicate", kept.reason, more={"duplicate_of": kept.duplicate_of})


def dumps(value: object) -> str:
    """JSON, readable where it can be; halves of surrogate pairs (from a caller's own JSON) as escapes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def answer_json(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`value` as JSON; a string is JSON already."""
    text = value if isinstance(value, str) else dumps(value)
    return web.Response(status=status, body=text.encode(), content_type="application/json", headers=headers)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever goes wrong into a problem. What nobody foresaw is logged, and told without details."""
    try:
        return await handler(request)
    except HttpProblem as problem:
        return problem.response()
    except RequestError as error:
        return HttpProblem.of(error).response()
    except SpoolError as error:
        log.debug("answering 503: %s", error)
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        detail = "the spool cannot be used now (locked, full or gone); nothing was kept, try again"
        return HttpProblem(503, "spool-unavailable", detail, headers=headers).response()
    except web.HTTPException as error:
        return _of_aiohttp(request, error).response()
    except Exception:
        log.exception("%s %s failed", request.method, request.match_info.route.resource)
        return internal_error().response()


def internal_error() -> HttpProblem:
    return HttpProblem(500, "internal-error", "the gateway failed on this request; its log says why")


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> HttpProblem:
    """What aiohttp itself refuses: no such path, no such method, a body that is too large."""
    if isinstance(error, web.HTTPNotFound):
        return HttpProblem(404, "not-found", "there is nothing at this path")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"{error.method} is not possible here; {allowed} is"
        return HttpProblem(405, "method-not-allowed", detail, headers={"Allow": allowed})
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return HttpProblem(413, "too-large", "the body is larger than the gateway takes (http.max_body)", close=True)
    return HttpProblem(error.status, "http", error.reason)
