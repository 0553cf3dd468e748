"""Once per Idempotency-Key: the same key and request give the first answer again, and send nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from gatewayd.errors import GatewayError, RequestError
from gatewayd.http.context import HttpContext
from gatewayd.http.problems import HttpProblem, answer_json, duplicate
from gatewayd.router.submission import Caller
from gatewayd.spool.accept import KeptMessage, NewMessage

HEADER = "Idempotency-Key"
REPLAYED = {"Idempotency-Replayed": "true"}
MAX_LENGTH = 255


def key_of(request: web.Request) -> str | None:
    """The key, if there is one. Raises HttpProblem if it is none."""
    values = request.headers.getall(HEADER, [])
    if not values:
        return None
    key = values[0]
    if len(values) > 1 or not 0 < len(key) <= MAX_LENGTH or not all("!" <= char <= "~" for char in key):
        reason = f"one key of 1 to {MAX_LENGTH} visible ASCII characters is expected"
        raise HttpProblem(400, "invalid-header", f"{HEADER}: {reason}", errors=[(HEADER, reason)])
    return key


def fingerprint(kind: str, request: Any) -> bytes:
    """What tells a repetition from another request: a digest of what was asked, not of how it was written."""
    return hashlib.sha256(json.dumps([kind, request], sort_keys=True, separators=(",", ":")).encode()).digest()


async def keep(
    context: HttpContext,
    messages: Sequence[NewMessage],
    caller: Caller,
    key: str | None,
    digest: bytes,
    answer: Callable[[Sequence[KeptMessage]], str],
    status: int,
    refusal: Callable[[Sequence[KeptMessage]], HttpProblem] = lambda kept: duplicate(kept[0]),
) -> web.Response:
    """Keep the messages, or give the answer of the first time; once the response is there they are on disk.

    Raises what `refusal` makes of them where all are refused as duplicates: nothing was kept then.

    They count against the rate of the caller's key (429); an answer of the first time, and what is refused, does not.
    """
    try:
        context.rates.take(caller.name, len(messages))
    except HttpProblem:
        first = await replayed(context, caller, key, digest, status)
        if first is None:
            raise
        return first
    try:
        accepted = await context.submitter.keep(
            messages, caller, idempotency_key=key, fingerprint=digest, answer=answer
        )
    except GatewayError:
        context.rates.give_back(caller.name, len(messages))
        raise
    if accepted.replayed is not None:
        context.rates.give_back(caller.name, len(messages))
        return answer_json(accepted.replayed, status=status, headers=REPLAYED)
    refused = sum(each.refused for each in accepted.kept)
    if refused:
        context.rates.give_back(caller.name, refused)
        if refused == len(accepted.kept):
            raise refusal(accepted.kept)
    return answer_json(answer(accepted.kept), status=status)


async def replayed(
    context: HttpContext, caller: Caller, key: str | None, digest: bytes, status: int
) -> web.Response | None:
    """The first answer to a request that would be refused by now (its time has passed, its channel is gone).

    None if there is none. Raises RequestError (409) if the key was used for something else.
    """
    if key is None:
        return None
    known = await context.reader.answered(caller.name, key)
    if known is None:
        return None
    if known[0] != digest:
        raise RequestError(
            HEADER,
            "was used before with another body; a new submission needs a new key",
            status=409,
            kind="idempotency-conflict",
        )
    return answer_json(known[1], status=status, headers=REPLAYED)
