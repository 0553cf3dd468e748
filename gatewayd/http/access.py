"""Around every request: the access log, the hook of the metrics, and the headers every answer carries."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping

from aiohttp import HttpVersion11, web

from gatewayd import msglog
from gatewayd.http.auth import PRINCIPAL
from gatewayd.http.context import CONTEXT, HttpContext
from gatewayd.http.problems import Handler, HttpProblem

NO_ROUTE = "(no such path)"
MALFORMED = "(malformed)"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "OTHER"  # a method is any word: what a stranger makes up must not name a metric
GONE = 499  # no answer was begun: the client left, or we are stopping (nginx's number for it)

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Server": "gatewayd",  # else aiohttp tells its version and Python's
}
STRICT_TRANSPORT = ("Strict-Transport-Security", "max-age=31536000")

ANSWER = web.RequestKey("answer", web.StreamResponse)
_access_log = logging.getLogger("gatewayd.access")


@web.middleware
async def access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log and count a request when it is answered; one whose answer is a stream, when that ends."""
    context = request.app[CONTEXT]
    begun = context.clock.monotonic()
    status, size = GONE, 0
    try:
        response = await handler(request)
        status = response.status
        body = response.body if isinstance(response, web.Response) else None
        size = len(body) if isinstance(body, bytes | bytearray) and request.method != "HEAD" else 0
        return response
    except (asyncio.CancelledError, ConnectionError):
        started = request.get(ANSWER)
        status = GONE if started is None else started.status
        raise
    finally:
        size = max(size, request.writer.output_size)  # of a stream, what was written
        _record(context, request, status, context.clock.monotonic() - begun, size)


def _record(context: HttpContext, request: web.Request, status: int, took_s: float, size: int) -> None:
    resource = request.match_info.route.resource
    template = NO_ROUTE if resource is None else resource.canonical
    method = request.method if request.method in METHODS else OTHER_METHOD
    context.on_request(method, template, status, took_s)
    if not context.settings.access_log:
        return
    principal = request.get(PRINCIPAL)
    local = principal is not None and principal.local
    if local and status < 400 and not _access_log.isEnabledFor(logging.DEBUG):
        return  # our own command line
    remote = request.remote or ""
    if context.settings.trusted_proxies and "X-Forwarded-For" in request.headers:
        remote = str(context.authenticator.client(request) or remote)
    caller = "" if principal is None else principal.caller.name
    msglog.access(method, template, status, took_s * 1000, caller, remote, size)


async def expectation(request: web.Request) -> web.Response | None:
    """Answer an `Expect` header. aiohttp asks before any middleware, and would refuse in its own words."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        if request.version >= HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer itself is not begun
        return None
    _record(request.app[CONTEXT], request, 417, 0.0, 0)
    detail = "Expect: only 100-continue can be expected here"
    return HttpProblem(417, "invalid-header", detail, errors=[("Expect", detail)]).response()


def record_malformed(context: HttpContext, remote: str, status: int) -> None:
    """Log and count what could not be read as a request at all."""
    context.on_request(OTHER_METHOD, MALFORMED, status, 0.0)
    if context.settings.access_log:
        msglog.access(OTHER_METHOD, MALFORMED, status, 0.0, "", remote, 0)


def secure(headers: MutableMapping[str, str], tls: bool) -> None:
    """Add the headers every answer carries. No answer is meant to be shown, framed, guessed at or kept."""
    headers.update(SECURITY_HEADERS)
    headers.setdefault("Cache-Control", "no-store")
    if tls:
        headers[STRICT_TRANSPORT[0]] = STRICT_TRANSPORT[1]


async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """Called by aiohttp when an answer begins."""
    request[ANSWER] = response
    secure(response.headers, request.secure)
