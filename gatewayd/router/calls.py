"""One HTTP call after another to one endpoint. Never raises for what the other side does: the answer says it."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from gatewayd import __version__
from gatewayd.config.destinations import Reach
from gatewayd.router.targets import ForbiddenTarget, Resolver, check_target
from gatewayd.router.verdicts import Answer, Verdict, judge

MAX_BODY_OCTETS = 64 << 10  # of an answer, that are read
SHOWN = 120  # characters of the body of a failure that are told

_HEADERS = {"User-Agent": f"gatewayd/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}


class Caller:
    """Calls under one set of rules; its connections are kept as long as it is."""

    def __init__(self, session: aiohttp.ClientSession, reach: Reach) -> None:
        self._session = session
        self._reach = reach

    async def call(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, timeout_s: float
    ) -> Answer:
        """Call once. No redirect is followed, no proxy used; `timeout_s` bounds all of it."""
        begun = time.monotonic()
        try:
            check_target(url, self._reach)
            return await self._exchange(method, url, headers, body, begun, timeout_s)
        except ForbiddenTarget as error:
            return Answer(Verdict.FORBIDDEN, error=str(error), took_s=time.monotonic() - begun)
        except TimeoutError:
            reason = f"no answer within {timeout_s:g} s"
        except aiohttp.InvalidURL as error:
            return Answer(Verdict.FORBIDDEN, error=f"this URL cannot be called: {error}")
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: an answer beyond understanding
            reason = _reason(error)
        return Answer(Verdict.DOWN, error=reason, took_s=time.monotonic() - begun)

    async def _exchange(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, begun: float, timeout_s: float
    ) -> Answer:
        async with asyncio.timeout(timeout_s) as limit:
            response = await self._session.request(
                method, URL(url, encoded=True), data=body, headers=headers, allow_redirects=False
            )
        status = response.status
        verdict = judge(status)
        content = b""
        try:
            async with asyncio.timeout_at(limit.when()):
                content = await _content(response)
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass  # the status is the answer
        finally:
            response.close()
        error = "" if verdict is Verdict.DELIVERED else _told(response, content)
        retry_after_s = None if verdict is Verdict.DELIVERED else retry_after(response.headers.get("Retry-After"))
        return Answer(verdict, status, error, retry_after_s, time.monotonic() - begun)


async def _content(response: aiohttp.ClientResponse) -> bytes:
    """The body, or as much as is read of one: then the connection is not used again."""
    content = b""
    while len(content) < MAX_BODY_OCTETS:
        chunk = await response.content.read(MAX_BODY_OCTETS - len(content))
        if not chunk:
            break
        content += chunk
    return content


@asynccontextmanager
async def calling(reach: Reach, threads: ThreadPoolExecutor, connections: int) -> AsyncIterator[Caller]:
    """A caller with connections of its own, `connections` at once; they are closed at the end.

    Nothing is shared between endpoints: neither what a name stands for, nor a connection one may use and another not.
    """
    connector = aiohttp.TCPConnector(
        limit=connections, resolver=Resolver(reach, threads), use_dns_cache=False, keepalive_timeout=10
    )
    async with aiohttp.ClientSession(
        connector=connector,
        headers=_HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(),  # `Caller.call` bounds it all
    ) as session:
        yield Caller(session, reach)


def retry_after(value: str | None) -> float | None:
    """What a Retry-After header asks for, in seconds: a number of them, or a date. None if it says nothing."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _told(response: aiohttp.ClientResponse, content: bytes) -> str:
    """A failure in words: status, and what may help a person."""
    if 300 <= response.status < 400:
        place = response.headers.get("Location", "")[:SHOWN]
        return f"HTTP {response.status}: redirects are not followed" + (
            f", give the final URL: {place}" if place else ""
        )
    words = " ".join(content[: 4 * SHOWN].decode("utf-8", "replace").split())
    words = "".join(char if char.isprintable() else "\ufffd" for char in words)[:SHOWN]
    return f"HTTP {response.status} {response.reason or ''}".rstrip() + (f": {words}" if words else "")


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return f"its certificate is not good: {getattr(error, 'certificate_error', error)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"its name cannot be looked up: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno  # asyncio's own words repeat the address
        return f"no connection: {os.strerror(number) if number else error.os_error}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed without an answer"
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
