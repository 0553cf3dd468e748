"""Kannel's delivery reports: which of a message's events its dlr-mask wants, and the URL to call for one. Pure.

A `dlr-url` is a template. What the request itself fixes (numbers, account …) is filled in when the message is accepted
(`bind`), so that nothing else of it has to be kept; what only the event knows when it is told (`dlr`). Every value is
percent-encoded, so none can break out of the query.

Source: Kannel 1.4, gw/dlr.h, gw/bb_smscconn.c, gw/urltrans.c (urltrans_fill_escape_codes); user guide, table 7-10.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

DELIVERED, UNDELIVERED, BUFFERED, ACCEPTED, REJECTED = 1, 2, 4, 8, 16
MAX_MASK = 63
MAX_URL = 2000  # characters of a template
FORMAT = "kannel"

_VALUES = {
    "message.sent": ACCEPTED,
    "message.delivered": DELIVERED,
    "message.undelivered": UNDELIVERED,
    "message.failed": REJECTED,
    "message.blocked": REJECTED,
    "message.expired": REJECTED,
    "message.cancelled": REJECTED,
}
"""What Kannel would say. Nothing where nobody knows (message.unknown, message.in_doubt), as Kannel. Never BUFFERED, for
that an SMS centre still tries changes nothing here."""

_WANTED_BY = {REJECTED: REJECTED | UNDELIVERED}  # who asks for failures is told of both kinds

_ESCAPE = re.compile(r"%(?:#([^#]*)#([^#]*)#|(.))", re.DOTALL)
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class DlrRequest:
    """What a sendsms request fixes for its reports, as it was given. `user` is who asked."""

    to: str
    from_: str = ""
    user: str = ""
    account: str = ""
    binfo: str = ""
    meta_data: str = ""
    coding: int = 0
    charset: str = ""


@dataclass(frozen=True, slots=True)
class DlrEvent:
    """Something that became of a message. `type` as in the outbox ("message.sent"), `at_ms` UTC epoch milliseconds.

    `foreign_id` is the network's reference of it (TP-MR), `reply` what the network or the gateway said ("CMS 38: …").
    """

    type: str
    idm: int
    at_ms: int
    channel: str = ""
    foreign_id: str = ""
    reply: str = ""


def callback_format(mask: int) -> str:
    """How a message's callback_format says that Kannel's reports with this mask are wanted: "kannel:31"."""
    return f"{FORMAT}:{mask}"


def mask_of(format_: str) -> int | None:
    """The mask that `callback_format` wrote; None if the format is another one."""
    kind, _, mask = format_.partition(":")
    return int(mask) if kind == FORMAT and mask.isascii() and mask.isdigit() else None


def check_url(template: str) -> None:
    """Raises ValueError with what would be right if `template` is no dlr-url.

    Its host and port must be fixed: what may be called is decided when the message is accepted.
    """
    if len(template) > MAX_URL:
        raise ValueError(f"it has {len(template)} characters, at most {MAX_URL} are allowed")
    if any(char < " " or char == "\x7f" for char in template):
        raise ValueError("it has control characters in it")
    try:
        parts = urlsplit(template)
        _ = parts.port  # raises ValueError if it is none
    except ValueError:
        raise ValueError("http://… or https://… is expected") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("http://… or https://… is expected")
    if "%" in parts.netloc or _PRINTABLE.fullmatch(parts.netloc) is None:
        raise ValueError("no escapes are possible in its host")


def bind(template: str, request: DlrRequest) -> str:
    """`template` with what the request fixes filled in; it is still a template, for `dlr`."""
    values = _of_request(template, request)

    def fill(match: re.Match[str]) -> str:
        group, parameter, code = match.groups()
        if group is not None:
            value = _meta(request.meta_data, group, parameter)
        elif code in values:
            value = values[code]
        else:
            return match[0]
        return quote(value, safe="", errors="replace").replace("%", "%%")

    return _ESCAPE.sub(fill, template)


def dlr(template: str, mask: int, event: DlrEvent) -> str | None:
    """The URL to GET for an event, or None if the mask does not want it.

    `template` comes of `bind`; what it still has of a request's escapes is empty. Unknown escapes stay as they are, as
    in Kannel. The URL is printable ASCII without spaces, whatever the template is.
    """
    value = _VALUES.get(event.type)
    if value is None or not mask & _WANTED_BY.get(value, value):
        return None
    values, words = _of_event(value, event), _Words(_reply(value, event))
    url = _ESCAPE.sub(lambda match: _filled(match, values, words), template)
    return "".join(char if "!" <= char <= "~" else quote(char, errors="replace") for char in url)


def _of_request(template: str, request: DlrRequest) -> dict[str, str]:
    return {
        "p": request.to,  # who sent the report: the phone
        "P": request.from_,
        "q": _plus(request.to),
        "Q": _plus(request.from_),
        "n": request.user,
        "o": request.account,
        "B": request.binfo,
        "D": request.meta_data,
        "R": template,
        "c": str(request.coding),
        "C": request.charset or ("UTF-16BE" if request.coding == 2 else "UTF-8"),
        **dict.fromkeys("mM", "-1"),  # no message class, no message waiting
        "O": "08" if request.coding == 2 else "00",
        **dict.fromkeys("ufvV", ""),
    }


def _of_event(value: int, event: DlrEvent) -> dict[str, str]:
    moment = datetime.fromtimestamp(event.at_ms // 1000, UTC)
    reply = _encode(_reply(value, event))
    return {
        "d": str(value),
        "t": moment.strftime("%Y-%m-%d+%H:%M:%S"),
        "T": str(event.at_ms // 1000),
        "i": _encode(event.channel),
        "I": str(event.idm),
        "F": _encode(event.foreign_id),
        **dict.fromkeys("AbN", reply),
        "e": _reply(value, event).encode("utf-8", "replace").hex(),
        "%": "%",
        **dict.fromkeys("pPqQnoBDRcCmMOufvV", ""),
    }


def _filled(match: re.Match[str], values: dict[str, str], words: _Words) -> str:
    code = match[3]
    if code is None:
        return ""  # meta-data of a template that was not bound
    if code in values:
        return values[code]
    take = words.by_code.get(code)
    return match[0] if take is None else take()


class _Words:
    """The words of the SMS centre's reply, which are a report's text; %s takes the next one each time."""

    def __init__(self, text: str) -> None:
        self._words = text.split()
        self._next = 1  # the first one is the keyword
        self.by_code: dict[str, Callable[[], str]] = {
            "a": lambda: "+".join(map(_encode, self._words)),
            "k": lambda: _encode("".join(self._words[:1])),
            "r": lambda: "+".join(map(_encode, self._words[self._next :])),
            "s": self._take,
            "S": lambda: self._take().replace("*", "~"),
        }

    def _take(self) -> str:
        word = "".join(self._words[self._next : self._next + 1])
        self._next += 1
        return _encode(word)


def _reply(value: int, event: DlrEvent) -> str:
    """What %A says: Kannel puts ACK/ or NACK/ before an SMS centre's answer, and nothing before a report's."""
    return {ACCEPTED: "ACK/", REJECTED: "NACK/"}.get(value, "") + event.reply


def _plus(number: str) -> str:
    return f"+{number[2:]}" if number.startswith("00") else number


def _meta(meta_data: str, group: str, parameter: str) -> str:
    """One value of `?group?name=value&…?group?…`, "" if it is not there."""
    pieces = meta_data.split("?")
    for name, pairs in zip(pieces[1::2], pieces[2::2], strict=False):
        if name == group:
            return dict(parse_qsl(pairs, keep_blank_values=True)).get(parameter, "")
    return ""


def _encode(value: str) -> str:
    return quote(value, safe="", errors="replace")
