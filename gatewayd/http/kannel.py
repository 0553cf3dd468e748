"""Kannel's `GET|POST /cgi-bin/sendsms`: its parameters, its answers as text, and its delivery report callbacks.

What this version cannot do is refused, never passed over. Source: Kannel 1.4, gw/smsbox.c (smsbox_req_handle,
smsbox_sendsms_post, delayed_http_reply); user guide, tables 7-16 and 7-17. docs/dropins.md has every parameter.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from email.message import Message
from encodings import normalize_encoding
from encodings.aliases import aliases
from typing import Any
from urllib.parse import unquote_to_bytes

from aiohttp import web

from gatewayd.apikeys import Scope
from gatewayd.errors import RequestError, SpoolError
from gatewayd.http import idempotency
from gatewayd.http.auth import PRINCIPAL, Principal
from gatewayd.http.bodies import MAX_FIELDS, URLENCODED, read_body
from gatewayd.http.context import CONTEXT, HttpContext
from gatewayd.http.problems import RETRY_AFTER_S, HttpProblem, dumps
from gatewayd.model import ChannelState, MessageState
from gatewayd.router import kannel_dlr
from gatewayd.router.submission import FieldNames, Submission
from gatewayd.spool.accept import KeptMessage, NewMessage

MAX_RECIPIENTS = 1000
MAX_LISTED = 1000  # characters of ids or numbers in one header
MAX_MINUTES = 5 * 366 * 24 * 60
PRIORITIES = (0, 2500, 5000, 7500)  # the most urgent of Kannel's stays below a critical alert

AUTHORIZATION_FAILED = "Authorization failed for sendsms"
ACCEPTED = "0: Accepted for delivery"
QUEUED = "3: Queued for later delivery"
DENIED = "Number(s) has/have been denied by white- and/or black-lists."
TEMPORAL_FAILURE = "Temporal failure, try again later."
IDM, DENIED_NUMBERS = "X-Gatewayd-Idm", "X-Gatewayd-Denied"

_SAME = {"user": "username", "pass": "password", "dlrmask": "dlr-mask", "dlrurl": "dlr-url"}
_LABELS = {
    "udh": "UDH", "mclass": "MClass", "mwi": "MWI", "compress": "Compress", "coding": "Coding", "pid": "PID",
    "alt-dcs": "Alt-DCS", "rpi": "RPI", "validity": "Validity", "deferred": "Deferred", "dlr-mask": "DLR-Mask",
    "dlr-url": "DLR-URL", "priority": "Priority", "flash": "Flash",
}  # fmt: skip
_NAMES = frozenset({*_LABELS, "username", "password", "to", "from", "text", "charset", "smsc", "account", "binfo",
                    "meta-data"})  # fmt: skip
_IN_HEADERS = _NAMES - {"text", "charset"}
_NOT_YET = {"mclass": (3, ()), "mwi": (7, ()), "compress": (1, (0,)), "pid": (255, (0,)), "alt-dcs": (1, (0,)),
            "rpi": (2, (0,)), "flash": (1, (0,))}  # fmt: skip
"""Largest value, and those that ask for nothing, besides -1 (unset)."""
_FIELDS = FieldNames(to="to", text="text", callback_url="dlr-url")
_THEIRS = {"not_before": "deferred", "expires_at": "validity", "channel": "smsc", "client_ref": "account"}

_CODECS = re.compile(
    r"utf_8|utf_16(_[bl]e)?|ascii|latin_1|iso8859_\d+|cp125\d|koi8_[ru]|gbk|gb2312|gb18030|big5|shift_jis|euc_(jp|kr)"
)
_UCS2 = dict.fromkeys(("ucs-2", "ucs-2be", "ucs2", "iso-10646-ucs-2"), "utf-16-be")  # iconv's names
# Python's own look-up remembers every name that it does not know: it is only asked for one of these.
_CHARSETS = {
    name: codec
    for alias, codec in (*aliases.items(), ("koi8_u", "koi8_u"))
    for name in (alias, codec)
    if _CODECS.fullmatch(codec)
}
_WEB_PAGE = ("Origin", "Referer", "Cookie", "Sec-Fetch-Site", "Sec-Fetch-Mode")

Given = Mapping[str, bytes]


async def send_sms(request: web.Request) -> web.Response:
    """Keep one text to one number or several, all or none. 202 once it is on disk."""
    if request.method == "HEAD":  # which aiohttp serves with GET's handler: a look must not send
        raise web.HTTPMethodNotAllowed("HEAD", ["GET", "POST"])
    try:
        return await _send(request, request.app[CONTEXT])
    except HttpProblem as problem:
        if problem.status in {401, 403}:
            return _text(403, AUTHORIZATION_FAILED)
        answer = _text(problem.status, problem.detail, problem.headers)
        if problem.close:
            answer.force_close()
        return answer
    except RequestError as error:
        field = _THEIRS.get(error.field, error.field)
        status = 400 if error.status == 422 else error.status
        said = f"{field}: {error.reason}, rejected" if field else error.reason
        return _text(status, said, HttpProblem.of(error).headers)
    except SpoolError:
        return _text(503, TEMPORAL_FAILURE, {"Retry-After": str(RETRY_AFTER_S)})


async def _send(request: web.Request, context: HttpContext) -> web.Response:
    given, principal = await _read(request, context)
    key = idempotency.key_of(request)
    messages = _messages(given, context, principal)
    digest = b""
    if key is not None:
        asked = {name: value.hex() for name, value in given.items() if name not in {"username", "password"}}
        digest = idempotency.fingerprint("sendsms", asked)

    def answer(kept: Sequence[KeptMessage]) -> str:
        denied = [
            message.to
            for each, message in zip(kept, messages, strict=True)
            if each.refused or each.state is MessageState.BLOCKED
        ]
        waits = any(message.not_before is not None for message in messages) or not _sends(context)
        ids = [each.id for each in kept if not each.refused]
        none = len(denied) == len(kept)
        return dumps({"idm": ids, "denied": denied, "none": none, "text": QUEUED if waits else ACCEPTED})

    made = await idempotency.keep(context, messages, principal.caller, key, digest, answer, 202)
    return _answer(json.loads(made.text or ""), made.headers)


def _answer(kept: dict[str, Any], headers: Mapping[str, str]) -> web.Response:
    """Kannel's text, and in headers which messages it became: what programs compare stays as they know it."""
    added = {IDM: _listed(map(str, kept["idm"]))}
    if kept["denied"]:
        added[DENIED_NUMBERS] = _listed(kept["denied"])
    if "Idempotency-Replayed" in headers:
        added |= idempotency.REPLAYED
    if kept.get("none", len(kept["denied"]) == len(kept["idm"])):  # what was stored earlier does not say
        return _text(400, DENIED, added)
    return _text(202, kept["text"], added)


def _listed(words: Iterable[str]) -> str:
    """For a header. A client or proxy that refuses a large one would take the answer for a failure, and ask again."""
    found = " ".join(words)
    if len(found) <= MAX_LISTED:
        return found
    return f"{found[: found.rindex(' ', 0, MAX_LISTED)]} ..."


def _sends(context: HttpContext) -> bool:
    """Whether a message would go out at once."""
    ready = any(view.status.state is ChannelState.READY for view in context.control.channels())
    return ready and not context.control.paused()


def _text(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=text.encode("utf-8", "backslashreplace"), headers=headers, content_type="text/plain",
        charset="utf-8",
    )  # fmt: skip


# Reading: parameters of the URL, of a form, or as X-Kannel-… headers with the text as body.


async def _read(request: web.Request, context: HttpContext) -> tuple[Given, Principal]:
    """What was given, by Kannel's own names, and who asks. Raises HttpProblem, RequestError."""
    settings = context.settings
    given = _pairs(request.rel_url.raw_query_string.encode("utf-8", "surrogateescape"))
    for name in _IN_HEADERS:
        for value in request.headers.getall(f"X-Kannel-{name}", []):
            _add(given, name, value.strip().encode("utf-8", "surrogateescape"))
    header = Message()
    header["Content-Type"] = request.headers.get("Content-Type", "").replace("\r", " ").replace("\n", " ")
    kind = header.get_content_type() if request.can_read_body else ""
    if kind == URLENCODED:  # its body may say who asks
        body = await read_body(request.clone(), settings.max_body_octets, settings.body_timeout_s)
        for name, octets in _pairs(body).items():
            _add(given, name, octets)
        return given, _authenticate(request, context, given)
    principal = _authenticate(request, context, given)
    if kind and (kind not in {"text/plain", "application/octet-stream"} or not request.headers.get("Content-Type")):
        detail = "Unsupported content-type, rejected: the text as text/plain is expected, or a form"
        raise HttpProblem(415, "unsupported-media-type", detail)
    body = await read_body(request, settings.max_body_octets, settings.body_timeout_s)
    if body:
        _add(given, "text", body)
        charset = header.get_param("charset")
        if charset:
            _add(given, "charset", str(charset).encode())
        if kind == "application/octet-stream":
            given.setdefault("coding", b"1")
    return given, principal


def _pairs(encoded: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    pieces = encoded.split(b"&", MAX_FIELDS)
    if len(pieces) > MAX_FIELDS:
        raise RequestError("", f"more than {MAX_FIELDS} parameters, rejected", status=400)
    for piece in pieces:
        name, _, value = piece.partition(b"=")
        written = unquote_to_bytes(name.replace(b"+", b" ")).decode("ascii", "replace")
        _add(found, written, unquote_to_bytes(value.replace(b"+", b" ")))
    return found


def _add(given: dict[str, bytes], written: str, value: bytes) -> None:
    name = _SAME.get(written, written)
    if name not in _NAMES:
        return  # as Kannel does with what it does not know
    if name in given:
        raise RequestError(name, "is given more than once", status=400)
    given[name] = value


def _authenticate(request: web.Request, context: HttpContext, given: Given) -> Principal:
    """The password is an API key; without one, whatever else the gateway takes. Raises HttpProblem."""
    secret, user = given.get("password", b""), _plain(given, "username")
    if not secret:
        if request.method == "GET" and _from_web_page(request):
            raise HttpProblem(403, "forbidden", AUTHORIZATION_FAILED)
        return context.authenticator.require(request, Scope.SEND)
    headers = request.headers.copy()
    for name in [name for name, value in headers.items() if not value.isascii()]:
        headers.popall(name, None)
    headers.popall("X-API-Key", None)
    headers["Authorization"] = f"Bearer {secret.decode('latin-1').encode('unicode_escape').decode()}"
    asking = request.clone(headers=headers)
    principal = context.authenticator.require(asking, Scope.SEND)
    request[PRINCIPAL] = asking[PRINCIPAL]
    if user and user != principal.caller.name and not principal.local:
        raise HttpProblem(403, "forbidden", AUTHORIZATION_FAILED)
    return principal


def _from_web_page(request: web.Request) -> bool:
    """Whether a browser may be asking for a page that it shows: such a GET tells no Origin, and must not send."""
    browser = request.headers.get("User-Agent", "").startswith("Mozilla/")
    return browser or any(name in request.headers for name in _WEB_PAGE)


# Understanding.


def _messages(given: Given, context: HttpContext, principal: Principal) -> list[NewMessage]:
    """The messages asked for, one for each number. Raises RequestError; nothing is kept then."""
    if "to" not in given:
        raise RequestError("", "Missing receiver number, rejected", status=400)
    numbers = _plain(given, "to").split()
    if not numbers:
        raise RequestError("", "Empty receiver number not allowed, rejected", status=400)
    if len(numbers) > MAX_RECIPIENTS:
        raise RequestError("to", f"has {len(numbers)} numbers, at most {MAX_RECIPIENTS} are taken")
    _refuse_what_is_not_yet(given)
    coding = _number(given, "coding", 2, -1)
    if coding == 1:
        raise RequestError("", "Coding 1 (8-bit data) is not in this version, rejected", status=400)
    now = context.clock.now_ms()
    deferred, validity = _number(given, "deferred", MAX_MINUTES, -1), _number(given, "validity", MAX_MINUTES, -1)
    mask, url = _number(given, "dlr-mask", kannel_dlr.MAX_MASK, -1), _plain(given, "dlr-url")
    if url:
        try:
            kannel_dlr.check_url(url)
        except ValueError as error:
            raise RequestError("", f"{_misformed('dlr-url')}: {error}", status=400) from None
    wants_reports = bool(url) and mask > 0
    smsc = _plain(given, "smsc")
    text = _message_text(given, coding)
    found: dict[str, NewMessage] = {}
    for number in numbers:
        submission = Submission(
            number,
            text,
            priority=PRIORITIES[max(0, _number(given, "priority", len(PRIORITIES) - 1, -1))],
            not_before=now + deferred * 60_000 if deferred > 0 else None,
            expires_at=now + validity * 60_000 if validity >= 0 else None,
            channel=smsc if smsc in context.submitter.settings.channels else "",  # a hint: "smsc=default" is common
            client_ref=_plain(given, "account") or None,
            callback_url=_bound(url, number, given, coding, principal) if wants_reports else None,
            callback_format=kannel_dlr.callback_format(mask) if wants_reports else "",
        )
        message = context.submitter.check(submission, principal.caller, _FIELDS)
        found.setdefault(message.to, message)
    return list(found.values())


def _bound(url: str, number: str, given: Given, coding: int, principal: Principal) -> str:
    asked = kannel_dlr.DlrRequest(
        to=number,
        from_=_plain(given, "from"),
        user=principal.caller.name,
        account=_plain(given, "account"),
        binfo=_plain(given, "binfo"),
        meta_data=_plain(given, "meta-data"),
        coding=max(0, coding),
        charset=_plain(given, "charset"),
    )
    return kannel_dlr.bind(url, asked)


def _refuse_what_is_not_yet(given: Given) -> None:
    if given.get("udh"):
        raise RequestError("", "UDH is not in this version, rejected", status=400)
    for name, (most, nothing) in _NOT_YET.items():
        value = _number(given, name, most, -1)
        if value != -1 and value not in nothing:
            raise RequestError("", f"{_LABELS[name]} {value} is not in this version, rejected", status=400)


def _number(given: Given, name: str, most: int, unset: int) -> int:
    written = given.get(name, b"").strip()
    if not written:
        return unset
    if re.fullmatch(rb"-1|[0-9]{1,9}", written) is None or int(written) > most:
        raise RequestError("", f"{_misformed(name)}: a whole number from 0 to {most} is expected", status=400)
    return int(written)


def _misformed(name: str) -> str:
    return f"{_LABELS[name]} field misformed, rejected"


def _plain(given: Given, name: str) -> str:
    try:
        return given.get(name, b"").decode()
    except UnicodeDecodeError:
        raise RequestError(name, "is not UTF-8", status=400) from None


def _message_text(given: Given, coding: int) -> str:
    """The text in its character set: UTF-8, or UTF-16BE with coding 2, unless `charset` says otherwise."""
    if "text" not in given:
        raise RequestError("text", "is missing", status=400)
    named = _plain(given, "charset").strip()
    wanted = named or ("utf-16-be" if coding == 2 else "utf-8")
    charset = _CHARSETS.get(normalize_encoding(_UCS2.get(wanted.lower(), wanted).lower()))
    if charset is None:
        raise RequestError("", f"Charset or body misformed, rejected: {named[:40]!r} is not understood", status=400)
    try:
        return given["text"].decode(charset)
    except UnicodeDecodeError as error:
        reason = f"octet {error.start + 1} of the text is not {codecs.lookup(charset).name}"
        raise RequestError("", f"Charset or body misformed, rejected: {reason}", status=400) from None
