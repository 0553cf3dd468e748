"""What log entries look like: text, JSON, lines with a priority, or the fields of the systemd journal.

Whatever a record holds, it becomes one entry, and nobody whose words are in it can forge another: characters that end a
line are escaped, and the lines of a traceback are marked.
Source: sd-daemon(3); systemd's document "Native Journal Protocol".
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any, Protocol

from gatewayd import msglog

MAX_MESSAGE = 8_000  # characters of one line, or of one field
MAX_DETAILS = 16_000  # characters of a traceback: with message and fields far less than a datagram may have

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_traceback = logging.Formatter()


class Style(Protocol):
    """Makes the octets of one entry out of a record."""

    def __call__(self, record: logging.LogRecord) -> bytes: ...


# -- what a record says --


def message_of(record: logging.LogRecord) -> str:
    """The message in one line, without numbers."""
    try:
        message = record.getMessage()
    except Exception:  # a log call of ours with the wrong values must not cost the line
        message = f"{record.msg} (its values do not fit)"
    if not hasattr(record, "event"):  # msglog has done it where it is needed
        message = msglog.scrubbed(message)
    return msglog.one_line(_cut(message, MAX_MESSAGE))


def details_of(record: logging.LogRecord) -> list[str]:
    """The lines of the traceback or stack, if there is one. Of a long one the middle is left out."""
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(_traceback.formatException(record.exc_info))
    if record.stack_info:
        parts.append(record.stack_info)
    if not parts:
        return []
    text = msglog.scrubbed("\n".join(parts))
    if len(text) > MAX_DETAILS:
        text = text[: MAX_DETAILS // 2] + "\n[…]\n" + text[-MAX_DETAILS // 2 :]
    return [msglog.one_line(line) for line in text.split("\n")]


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """The fields of an event of msglog; of what a channel says by itself ("m0: …"), its name."""
    fields: Mapping[str, Any] | None = getattr(record, "fields", None)
    if fields is not None:
        return fields
    if record.name == "gatewayd.channel" and isinstance(record.args, tuple) and record.args:
        return {"channel": record.args[0]}
    return {}


def priority_of(record: logging.LogRecord) -> int:
    """The level as syslog has it: 2 critical, 3 error, 4 warning, 6 info, 7 debug."""
    return next((priority for level, priority in _PRIORITIES if record.levelno >= level), 7)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} characters more)"


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


# -- styles --


class TextStyle:
    """`2026-07-12 10:00:00,123 INFO     gatewayd.message: sent idm=1 …`, in local time; a traceback follows, marked."""

    def __init__(self) -> None:
        self._second = -1
        self._shown = ""

    def __call__(self, record: logging.LogRecord) -> bytes:
        second = int(record.created)
        if second != self._second:  # of all of it the dearest is the calendar
            self._second = second
            self._shown = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        head = f"{self._shown},{int(record.msecs):03d} {record.levelname:<8} {record.name}: {message_of(record)}\n"
        return _octets(head + "".join([f"    | {line}\n" for line in details_of(record)]))


class PrefixStyle:
    """`<6>gatewayd.message: sent …`: standard error as systemd reads it, sd-daemon(3). The journal knows the time."""

    def __call__(self, record: logging.LogRecord) -> bytes:
        mark = f"<{priority_of(record)}>"
        lines = [f"{mark}{record.name}: {message_of(record)}\n"]
        return _octets("".join(lines + [f"{mark}    | {line}\n" for line in details_of(record)]))


class JsonStyle:
    """One JSON object a line, in ASCII: time (RFC 3339, UTC), level, logger, event, message, the fields, exception."""

    def __init__(self) -> None:
        self._second = -1
        self._shown = ""
        self._encode = json.JSONEncoder(default=str).encode

    def __call__(self, record: logging.LogRecord) -> bytes:
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._shown = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        entry: dict[str, Any] = {
            "time": f"{self._shown}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if event := getattr(record, "event", None):
            entry["event"] = event
        entry["message"] = message_of(record)
        entry |= fields_of(record)
        if details := details_of(record):
            entry["exception"] = "\n".join(details)
        return self._encode(entry).encode("ascii") + b"\n"


class JournalStyle:
    """A datagram as the journal has it: `MESSAGE`, `PRIORITY`, `LOGGER`, `GATEWAYD_EVENT`, `GATEWAYD_IDM` …"""

    def __init__(self) -> None:
        self._names: dict[str, bytes] = {}

    def __call__(self, record: logging.LogRecord) -> bytes:
        message = "\n".join([message_of(record), *details_of(record)])
        parts = [
            self._field(b"MESSAGE", message),
            b"PRIORITY=%d\nSYSLOG_IDENTIFIER=gatewayd\n" % priority_of(record),
            self._field(b"LOGGER", record.name),
        ]
        if event := getattr(record, "event", None):
            parts.append(self._field(b"GATEWAYD_EVENT", event))
        for name, value in fields_of(record).items():
            if value is not None:
                parts.append(self._field(self._name(name), _cut(str(value), MAX_MESSAGE)))
        return b"".join(parts)

    def _name(self, name: str) -> bytes:
        known = self._names.get(name)
        if known is None:
            known = self._names[name] = f"GATEWAYD_{name.upper()}".encode()
        return known

    @staticmethod
    def _field(name: bytes, value: str) -> bytes:
        octets = _octets(value)
        if b"\n" in octets:  # the binary form: a length instead of an end
            return b"%s\n%s%s\n" % (name, len(octets).to_bytes(8, "little"), octets)
        return b"%s=%s\n" % (name, octets)
