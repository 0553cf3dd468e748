"""Reading what callers send, bounded in size and time: forms, multipart forms and JSON. Every fault is a 4xx."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from email.message import Message
from email.parser import HeaderParser
from typing import Any
from urllib.parse import unquote_to_bytes

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gatewayd.errors import RequestError
from gatewayd.http.problems import HttpProblem

URLENCODED, MULTIPART, JSON = "application/x-www-form-urlencoded", "multipart/form-data", "application/json"
MAX_FIELDS = 100
MAX_PART_HEADERS = 4096  # octets
MAX_INTEGER_DIGITS = 20
MAX_BOUNDARY = 70  # RFC 2046 §5.1.1

_CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
    "iso-8859-15": "iso8859-15",
    "windows-1252": "cp1252",
}


async def read_body(request: web.Request, max_octets: int, timeout_s: float) -> bytes:
    """The whole body. Raises HttpProblem: 413 beyond `max_octets`, 408 beyond `timeout_s`, 400 if it ends early."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise HttpProblem(415, "unsupported-media-type", "the body is compressed; send it as it is", close=True)
    if request.content_length is not None and request.content_length > max_octets:
        raise HttpProblem(
            413,
            "too-large",
            f"the body has {request.content_length} octets, at most {max_octets} are taken",
            close=True,
        )
    try:
        async with asyncio.timeout(timeout_s):
            return await request.read()
    except TimeoutError:
        detail = f"the body was not complete within {timeout_s:g} s"
        raise HttpProblem(408, "timeout", detail, close=True) from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
        raise HttpProblem(400, "malformed-body", "the body ended early or is badly framed", close=True) from error


def parse_form(content_type: str, body: bytes, names: Collection[str]) -> dict[str, str]:
    """The fields `names` of a form; others are ignored.

    `content_type` is the whole header. Raises HttpProblem (400, 415), RequestError that names a field that is given
    twice, is a file, or is not in its character set.
    """
    if content_type == URLENCODED:  # nearly always
        return _decoded(_split_urlencoded(body, names), "utf-8")
    header = _parsed_type(content_type)
    media_type = header.get_content_type()
    if media_type == URLENCODED:
        charset = _charset(header.get_param("charset"))
        return _decoded(_split_urlencoded(body, names), charset)
    if media_type == MULTIPART:
        return _parse_multipart(header, body, names)
    raise HttpProblem(
        415, "unsupported-media-type", f"a form is expected here: Content-Type {URLENCODED} or {MULTIPART}"
    )


def _parsed_type(content_type: str) -> Message:
    header = Message()
    header["Content-Type"] = content_type.replace("\r", " ").replace("\n", " ")
    return header


def _charset(name: object) -> str:
    if name is None or name == "":
        return "utf-8"
    known = _CHARSETS.get(str(name).lower())
    if known is None:
        accepted = "utf-8, iso-8859-1, iso-8859-15, windows-1252 or us-ascii"
        raise HttpProblem(415, "unsupported-media-type", f"the character set is not understood; {accepted} is")
    return known


def _split_urlencoded(body: bytes, names: Collection[str]) -> list[tuple[str, bytes]]:
    """The pairs of `names`, percent-decoded. Source: URL Standard §5.1."""
    pieces = body.split(b"&", MAX_FIELDS)
    if len(pieces) > MAX_FIELDS:
        raise HttpProblem(400, "malformed-body", f"the form has more than {MAX_FIELDS} fields")
    found = []
    for piece in pieces:
        raw_name, _, raw_value = piece.partition(b"=")
        name = unquote_to_bytes(raw_name.replace(b"+", b" ")).decode("ascii", "replace")
        if name in names:
            found.append((name, unquote_to_bytes(raw_value.replace(b"+", b" "))))
    return found


def _decoded(fields: list[tuple[str, bytes]], charset: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, octets in fields:
        if name in values:
            raise RequestError(name, "is given more than once", status=400)
        values[name] = _text(name, octets, charset)
    return values


def _text(name: str, octets: bytes, charset: str) -> str:
    try:
        return octets.decode(charset)
    except UnicodeDecodeError as error:
        raise RequestError(name, f"is not {charset} (octet {error.start + 1})", status=400) from None


def _parse_multipart(header: Message, body: bytes, names: Collection[str]) -> dict[str, str]:
    """Source: RFC 7578, RFC 2046 §5.1.1. Parts are not nested: RFC 7578 §4.3 deprecates that."""
    boundary = str(header.get_param("boundary") or "")
    try:
        delimiter = b"\r\n--" + boundary.encode("ascii")
    except UnicodeEncodeError:
        boundary = ""
    if not 0 < len(boundary) <= MAX_BOUNDARY:
        raise HttpProblem(400, "malformed-body", f"the Content-Type has no boundary of 1 to {MAX_BOUNDARY} characters")
    _preamble, *parts = (b"\r\n" + body).split(delimiter, MAX_FIELDS + 1)
    if len(parts) > MAX_FIELDS:
        raise HttpProblem(400, "malformed-body", f"the form has more than {MAX_FIELDS} parts")
    values: dict[str, str] = {}
    closed = False
    for part in parts:
        if part.startswith(b"--"):
            closed = True
            break
        padding, line_end, content = part.partition(b"\r\n")
        head, blank, value = (b"\r\n" + content).partition(b"\r\n\r\n")
        if padding.strip(b" \t") or not line_end or not blank or len(head) > MAX_PART_HEADERS:
            raise HttpProblem(400, "malformed-body", "a part of the form has no proper headers")
        _take_part(HeaderParser().parsestr(head.decode("utf-8", "replace").strip("\r\n")), value, names, values)
    if not closed:
        raise HttpProblem(400, "malformed-body", "the form has no end: its last boundary is missing")
    return values


def _take_part(header: Message, value: bytes, names: Collection[str], values: dict[str, str]) -> None:
    name = header.get_param("name", header="content-disposition")
    if not isinstance(name, str) or name not in names:
        return
    if name in values:
        raise RequestError(name, "is given more than once", status=400)
    if header.get_filename() is not None:
        raise RequestError(name, "is a file; a text is expected")
    encoding = str(header.get("Content-Transfer-Encoding", "binary")).strip().lower()
    if encoding not in {"7bit", "8bit", "binary"}:
        raise RequestError(name, "has a Content-Transfer-Encoding; the text as it is is expected", status=415)
    values[name] = _text(name, value, _charset(header.get_param("charset")))


def parse_json(content_type: str, body: bytes) -> Any:
    """A JSON document. Raises HttpProblem: 415, or 400 with the place of the fault."""
    header = _parsed_type(content_type)
    media_type = header.get_content_type()
    if media_type != JSON and not media_type.endswith("+json"):
        raise HttpProblem(415, "unsupported-media-type", f"JSON is expected here: Content-Type {JSON}")
    if _charset(header.get_param("charset")) not in {"utf-8", "ascii"}:
        raise HttpProblem(415, "unsupported-media-type", "JSON is UTF-8 (RFC 8259 §8.1)")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HttpProblem(400, "malformed-body", f"the JSON is not UTF-8 (octet {error.start + 1})") from None
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
    except json.JSONDecodeError as error:
        detail = f"no JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise HttpProblem(400, "malformed-body", detail) from None
    except RecursionError:
        raise HttpProblem(400, "malformed-body", "the JSON is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise RequestError(twice[:64], "is given more than once in one JSON object", status=400)
    return made


def _integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise HttpProblem(400, "malformed-body", f"the JSON has a number of {len(digits)} digits")
    return int(digits)


def _constant(name: str) -> None:
    raise HttpProblem(400, "malformed-body", f"{name} is no JSON")
