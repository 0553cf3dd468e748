"""The life of messages in the log: one function, one line, for each event. Numbers are masked, texts never shown.

Each event has a name (`segment.sent`) and fields (`idm`, `channel` …), which go with the record as `event` and
`fields`; `gatewayd.logs` makes text, JSON or journal fields of them. docs/logging.md lists them all. Device texts and
reasons come from outside: they are scrubbed of numbers, and no character in them can end or begin a line.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Sequence
from urllib.parse import urlsplit

from gatewayd.model import MessageState

log = logging.getLogger("gatewayd.message")
_inbound = logging.getLogger("gatewayd.inbound")
_webhook = logging.getLogger("gatewayd.webhook")
_config = logging.getLogger("gatewayd.config")
_access = logging.getLogger("gatewayd.access")

MAX_KINDS = 256
"""Kinds of trouble one `Trouble` tells apart; the one that began longest ago is forgotten first."""
MAX_LISTED = 20
"""Changes or faults named in one line."""

_unmasked = False  # set by `configure`

_WORD = re.compile(r"[\w.:+*/@{}…-]+", re.ASCII)
_DIGITS = re.compile(
    r"(?P<known>\b(?:idm|message|part|inbound|ICCID|IMSI|pid|uid)[ =])?"  # these are no telephone numbers
    r"(?:(?P<hex>[0-9A-Fa-f]{21,})"
    r"|(?P<number>\+\d(?:[ ().-]{0,2}\d){6,}|(?<![\w./-])\d{7,17}(?!\w| (?:octets|bytes|ms|s)\b)))"
)
_SEPARATORS = re.compile(r"[ ().-]")
_ROWS = re.compile(
    r"^(?:DETAIL|CONTEXT):.*|\[parameters: .*", re.MULTILINE
)  # PostgreSQL, SQLAlchemy: values of columns
_HEAD = re.compile(r"[+^*%$#]?[A-Z]{1,12}[:=?]?", re.ASCII)


def configure(*, mask: bool) -> None:
    """Choose whether numbers are shown whole (`gateway.logging.mask: false`)."""
    global _unmasked
    _unmasked = not mask


# -- what may be shown --


def masked(number: str) -> str:
    """A number as the log shows it: its head and its last two digits. Up to six digits (a short code) are shown."""
    if _unmasked or len(number) <= 6:
        return number
    return f"{number[:-6]}****{number[-2:]}"


def masked_line(line: str) -> str:
    """A line of a device that may hold a number, a text or a PDU: its head (`+CMT:`), and how long it is."""
    if _unmasked:
        return one_line(line[:500])
    head = _HEAD.match(line)
    return f"{head[0] if head else ''}… ({len(line)} characters)"


def scrubbed(text: str) -> str:
    """A text of ours or of a device without whole telephone numbers, PDUs or values of database rows."""
    if _unmasked:
        return text
    return _ROWS.sub("(values are masked)", _DIGITS.sub(_scrub, text))


def _scrub(match: re.Match[str]) -> str:
    if match["hex"]:
        return f"{match['known'] or ''}({len(match['hex'])} hex digits)"
    return match[0] if match["known"] else masked(_SEPARATORS.sub("", match["number"]))


def one_line(text: str) -> str:
    r"""`text` with everything that could end a line or change how it is shown as an escape: `\n`, `\x1b`, `\u2028`."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


# -- first, again, over --


class Trouble:
    """Something that goes wrong over and over: the first time is a WARNING, repeats are DEBUG, its end is INFO.

    `kind` tells apart what is worth a WARNING each: a reason, a code. Remembers MAX_KINDS of them.
    """

    def __init__(self, logger: logging.Logger = log) -> None:
        self._logger = logger
        self._kinds: dict[Hashable, int] = {}

    @property
    def active(self) -> bool:
        """Whether it went wrong and is not over."""
        return bool(self._kinds)

    @property
    def unsaid(self) -> int:
        """How many failures since it began were DEBUG only."""
        return sum(self._kinds.values()) - len(self._kinds)

    def level(self, kind: Hashable = None) -> int:
        """Count a failure; the level at which it is to be said."""
        known = self._kinds.get(kind)
        if known is None and len(self._kinds) >= MAX_KINDS:
            del self._kinds[next(iter(self._kinds))]
        self._kinds[kind] = (known or 0) + 1
        return logging.WARNING if known is None else logging.DEBUG

    def failed(self, kind: Hashable, message: str, *args: object) -> None:
        """Say that it failed."""
        self._logger.log(self.level(kind), message, *args)

    def over(self) -> int:
        """Forget it; how often it failed (0: it did not)."""
        count = sum(self._kinds.values())
        self._kinds.clear()
        return count

    def recovered(self, message: str, *args: object) -> None:
        """Say that it is over, after how many failures; nothing if it never failed."""
        if count := self.over():
            self._logger.info(message + " (after %d failure%s)", *args, count, "" if count == 1 else "s")


_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})

# Events come without an object that could remember trouble; one entry for each channel or endpoint there is.
_refusals: dict[str, Trouble] = {}
_endpoints: dict[str, Trouble] = {}


# -- messages and segments --

Fields = dict[str, object]


def _say(level: int, event: str, words: str, fields: Fields, detail: str = "", *, logger: logging.Logger = log) -> None:
    """Log one event. `detail` is what somebody else worded: a device, a peer, a person."""
    if not logger.isEnabledFor(level):
        return
    line = words + "".join([f" {name}={_value(value)}" for name, value in fields.items()])
    if detail:
        detail = one_line(scrubbed(detail))
        line = f"{line}: {detail}"
        fields["detail"] = detail
    logger.log(level, line, extra={"event": event, "fields": fields})


def _value(value: object) -> str:
    """A field in a line of text; what is not one plain word is quoted and escaped."""
    if isinstance(value, str):
        return str(value) if _WORD.fullmatch(value) else repr(str(value))
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def accepted(message_id: int, to: str, segments: int, caller: str) -> None:
    """A message is on disk."""
    fields: Fields = {"idm": message_id, "to": masked(to), "segments": segments, "by": caller}
    _say(logging.INFO, "message.accepted", "accepted", fields)


def duplicate(message_id: int | None, twin: int, to: str, caller: str) -> None:
    """The text went to this number as message `twin` a while ago; `message_id` None: it is refused for that."""
    fields: Fields = {"idm": message_id, "twin": twin, "to": masked(to), "by": caller}
    if message_id is None:
        _say(logging.WARNING, "message.duplicate_refused", "refused, a duplicate", fields)
    else:
        _say(logging.WARNING, "message.duplicate", "accepted, although it is a duplicate", fields)


def submitted(message_id: int, seq: int, total: int, channel: str, tp_mr: int | None, took_ms: int) -> None:
    """The network took a segment. Where refusals went before, at DEBUG only, their end is said too."""
    fields = _segment(message_id, f"{seq}/{total}", channel) | {"tp_mr": tp_mr, "took_ms": took_ms}
    _say(logging.INFO, "segment.sent", "sent", fields)
    refused = _refusals.pop(channel, None)
    if refused is not None and refused.unsaid:
        fields = {"channel": channel, "unsaid": refused.unsaid, "refused": refused.over()}
        _say(logging.INFO, "channel.sends_again", "the channel sends again", fields)


def not_sent(message_id: int, seq: int, total: int, channel: str, code: str, text: str) -> None:
    """A segment is known not to have gone out. WARNING for the first of a code on a channel until one is sent there."""
    level = _refusals.setdefault(channel, Trouble()).level(code)
    fields = _segment(message_id, f"{seq}/{total}", channel) | {"code": scrubbed(code)}
    _say(level, "segment.not_sent", "not sent", fields, text)


def withdrawn(message_id: int, seq: int, channel: str, text: str) -> None:
    """We called a segment back before it was written; it is queued again."""
    _say(logging.INFO, "segment.called_back", "called back", _segment(message_id, seq, channel), text)


def in_doubt(message_id: int, seq: int, channel: str, text: str) -> None:
    """Nobody knows whether a segment went out."""
    _say(logging.WARNING, "segment.in_doubt", "in doubt", _segment(message_id, seq, channel), text)


def late_result(message_id: int | None, channel: str, tp_mr: int | None) -> None:
    """A +CMGS came after its command had been given up; `message_id` None: it settles nothing."""
    fields: Fields = {"idm": message_id, "channel": channel, "tp_mr": tp_mr}
    _say(logging.INFO, "segment.late_result", "late result", fields)


def channel_stopped(channel: str, why: str) -> None:
    """A channel takes nothing for a while: the same fails over and over."""
    _say(logging.WARNING, "channel.stopped", f"channel {channel} takes nothing for a while", {"channel": channel}, why)


def quota_spent(channel: str, period: str, limit: int, until: str) -> None:
    """The SIM in a channel has sent what it may."""
    what = f"{limit} {'recipients per month' if period == 'recipients' else f'segments per {period}'}"
    words = f"channel {channel}: its SIM's quota of {what} is spent until {until}"
    _say(logging.INFO if period in ("minute", "hour") else logging.WARNING, "quota.spent", words, {"channel": channel})


def reported(message_id: int | None, seq: int | None, channel: str, verdict: str, tp_status: int) -> None:
    """A status report came; `message_id` None: of nothing we know."""
    fields = _segment(message_id, seq, channel) | {"verdict": str(verdict), "tp_status": f"0x{tp_status:02X}"}
    _say(logging.INFO, "report.received", "report", fields)


def _segment(message_id: int | None, segment: int | str | None, channel: str) -> Fields:
    return {"idm": message_id, "segment": segment, "channel": channel}


def state_changed(
    type_: str, message_id: int, class_: str, state: MessageState | int | str, delivery: str, reason: str
) -> None:
    """A message as a whole came to a state. `type_` is the event's name to the outside, such as "message.failed".

    WARNING is what a person should look at; see `_state_level`.
    """
    shown = state.name.lower() if isinstance(state, MessageState) else str(state)
    what = type_.removeprefix("message.")
    fields: Fields = {"idm": message_id, "class": str(class_), "state": shown, "delivery": str(delivery)}
    _say(_state_level(what, class_), type_, what.replace("_", " "), fields, reason)


def _state_level(what: str, class_: str) -> int:
    """Of a campaign some numbers are always bad, and of everything else some phones are always off; an alert that did
    not arrive, for whatever reason, is one that somebody does not know of."""
    if class_ == "alert":
        lost = {"failed", "expired", "in_doubt", "abandoned", "undelivered", "blocked", "cancelled", "held"}
    elif class_ == "campaign":
        lost = {"in_doubt"}
    else:
        lost = {"failed", "expired", "in_doubt", "abandoned"}
    return logging.WARNING if what in lost else logging.INFO


# -- what comes in --


def received(part_id: int, channel: str, originator: str, duplicate_of: int | None, error: str | None) -> None:
    """A TPDU came in and is on disk."""
    fields: Fields = {"part": part_id, "channel": channel}
    if error is not None:
        words = "received what cannot be decoded"
        _say(logging.WARNING, "part.undecodable", words, fields, error, logger=_inbound)
    elif duplicate_of is not None:
        fields |= {"duplicate_of": duplicate_of}
        _say(logging.INFO, "part.repeated", "received again", fields, logger=_inbound)
    else:
        fields |= {"from": masked(originator)}
        _say(logging.INFO, "part.received", "received", fields, logger=_inbound)


def inbound(
    inbound_id: int, channel: str, originator: str, parts: int, partial: bool, kind: str, intent: str | None
) -> None:
    """A whole message came in; `partial`: as much of it as came in time. `intent`: what it asks (stop, start, help)."""
    fields: Fields = {"inbound": inbound_id, "channel": channel, "from": masked(originator), "parts": parts}
    fields |= {"partial": partial, "kind": str(kind), "intent": str(intent) if intent else None}
    _say(logging.INFO, "inbound.received", "inbound", fields, logger=_inbound)


def opted(number: str, state: str, source: str, blocked: int, confirmation_id: int | None) -> None:
    """A number opted out or in. `blocked`: queued messages that stopped; `confirmation_id`: the idm of our answer."""
    fields: Fields = {"number": masked(number), "state": str(state), "source": str(source), "blocked": blocked}
    fields |= {"confirmation_idm": confirmation_id}
    _say(logging.INFO, "optout.changed", "opt-out", fields, logger=_inbound)


# -- webhooks --


def masked_endpoint(endpoint: str) -> str:
    """A webhook's name as it is; of a URL only where it leads, for its path and query may hold secrets and numbers."""
    if _unmasked or "://" not in endpoint:
        return scrubbed(endpoint)
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        return "(a URL)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{'…' if parts.path.strip('/') or parts.query else ''}"


def webhook_failed(
    endpoint: str, event_id: str, status_or_error: int | str, attempts: int, retry_in_s: float | None
) -> None:
    """An endpoint did not take an event. WARNING for its first failure, until it takes one."""
    if endpoint not in _endpoints and len(_endpoints) >= MAX_KINDS:
        del _endpoints[next(iter(_endpoints))]
    level = _endpoints.setdefault(endpoint, Trouble(_webhook)).level()
    fields = _delivery(endpoint, event_id, attempts)
    if retry_in_s is not None:
        fields["retry_in_s"] = round(retry_in_s, 1)
    _say(level, "webhook.failed", "webhook failed", fields, str(status_or_error), logger=_webhook)


def webhook_delivered(endpoint: str, event_id: str, attempts: int) -> None:
    """An endpoint took an event; where it had failed before, that is over."""
    fields = _delivery(endpoint, event_id, attempts)
    _say(logging.DEBUG, "webhook.delivered", "webhook delivered", fields, logger=_webhook)
    webhook_recovered(endpoint)


def webhook_recovered(endpoint: str) -> None:
    """An endpoint works again. Says nothing if it had not failed, or that was said."""
    trouble = _endpoints.pop(endpoint, None)
    if trouble is not None:
        fields: Fields = {"endpoint": masked_endpoint(endpoint), "failures": trouble.over()}
        _say(logging.INFO, "webhook.recovered", "webhook works again", fields, logger=_webhook)


def webhook_dead(endpoint: str, event_id: str, attempts: int, reason: str = "") -> None:
    """An event is given up: it stays in the dead letters until somebody replays it."""
    fields = _delivery(endpoint, event_id, attempts)
    _say(logging.ERROR, "webhook.dead", "webhook gave up", fields, reason, logger=_webhook)


def _delivery(endpoint: str, event_id: str, attempts: int) -> Fields:
    return {"endpoint": masked_endpoint(endpoint), "event_id": str(event_id), "attempts": attempts}


# -- the daemon --


def config_reloaded(changes: Sequence[str]) -> None:
    """A changed configuration is in force; `changes` are sentences or key paths."""
    fields: Fields = {"changes": len(changes)}
    _say(logging.INFO, "config.reloaded", "configuration reloaded", fields, _listed(changes), logger=_config)


def config_refused(faults: Sequence[str]) -> None:
    """A changed configuration is faulty and not taken; the old one stays in force."""
    words = "configuration refused, the old one stays"
    _say(logging.ERROR, "config.refused", words, {"faults": len(faults)}, _listed(faults), logger=_config)


def _listed(items: Sequence[str]) -> str:
    more = f"; and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return "; ".join(str(item) for item in items[:MAX_LISTED]) + more


def access(method: str, path: str, status: int, took_ms: float, caller: str, remote: str, size: int) -> None:
    """An HTTP request was answered.

    `path` is the route's template (`/api/v1/messages/{idm}`), never the query, which may hold secrets and numbers;
    `caller` the name of the key, `size` the octets of the answer's body. What probes ask all day is DEBUG; a 503 is no
    news: whoever is the cause of it has said so.
    """
    bad = status >= 500 and status != 503
    level = logging.DEBUG if path in _PROBES and status < 400 else logging.WARNING if bad else logging.INFO
    fields: Fields = {"method": method, "path": path, "status": status, "took_ms": round(took_ms, 1)}
    fields |= {"by": caller or None, "remote": remote or None, "size": size}
    _say(level, "http.request", "request", fields, logger=_access)
