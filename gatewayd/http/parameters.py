"""What a request gives besides its path: the parameters of its query, its JSON body. Each fault is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aiohttp import web

from gatewayd.errors import RequestError
from gatewayd.http.bodies import parse_json, read_body
from gatewayd.http.context import HttpContext
from gatewayd.http.schemas import YEARS_TAKEN, epoch_ms
from gatewayd.spool.reader import MAX_PAGE

T = TypeVar("T")

PAGE = 100  # items of a list, where nothing is said
MAX_ID_DIGITS = 18  # what fits a 64-bit integer


async def json_body(request: web.Request, context: HttpContext) -> Any:
    """The JSON document a request carries. Raises HttpProblem (400, 408, 413, 415)."""
    body = await read_body(request, context.settings.max_body_octets, context.settings.body_timeout_s)
    return parse_json(request.headers.get("Content-Type", ""), body)


def query_of(request: web.Request, names: Sequence[str]) -> dict[str, str]:
    """The parameters of the query. Raises RequestError for one that is not in `names`, or is there twice."""
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in names:
            raise RequestError(name[:64], f"there is no such parameter; there are {', '.join(names)}")
        if name in values:
            raise RequestError(name, "is given more than once")
        values[name] = value
    return values


def parameter(query: dict[str, str], name: str, parse: Callable[[str], T]) -> T | None:
    """One parameter, None if it is not there. What `parse` raises a ValueError with is what is expected."""
    value = query.get(name)
    if value is None:
        return None
    try:
        return parse(value)
    except ValueError as error:
        raise RequestError(name, f"{error} is expected") from None


def is_id(value: str) -> bool:
    """Whether a text can be an id."""
    return value.isascii() and value.isdigit() and len(value) <= MAX_ID_DIGITS


def id_of(what: str) -> Callable[[str], int]:
    """How the id of something is parsed; `what` ("the idm of a message") is said if it is none."""

    def parse(value: str) -> int:
        if not is_id(value):
            raise ValueError(what)
        return int(value)

    return parse


def limit(value: str) -> int:
    """How many items of a list."""
    if not (value.isascii() and value.isdigit() and len(value) <= 4 and 1 <= int(value) <= MAX_PAGE):
        raise ValueError(f"a number from 1 to {MAX_PAGE}")
    return int(value)


def order(value: str) -> str:
    """Which way round a list goes."""
    if value not in {"asc", "desc"}:
        raise ValueError("asc or desc")
    return value


def moment(value: str) -> int:
    """A time, as UTC epoch milliseconds; a plus in its offset may have come as a space."""
    try:
        return epoch_ms(re.sub(r" (\d\d:\d\d)$", r"+\1", value))
    except ValueError:
        raise ValueError(f"a time with its offset, such as 2026-11-23T12:00:00Z, in the years {YEARS_TAKEN},") from None


def plain_text(value: str, max_length: int) -> bool:
    """Whether a text has 1 to `max_length` characters that both engines can look for."""
    return 0 < len(value) <= max_length and "\0" not in value and _encodable(value)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
