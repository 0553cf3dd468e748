"""Alerts of Prometheus Alertmanager and Grafana as one text for each group of them. Pure.

Source: Alertmanager's webhook_config (version 4 of the message); Grafana's webhook contact point, which adds `title`,
`message` and others. What is unknown is passed over, what is missing is done without.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gatewayd.errors import EncodeError
from gatewayd.modems.pdu import count
from gatewayd.modems.pdu.grapheme import is_boundary

PRIORITIES = {"critical": 9000, "warning": 5000}
OTHER_PRIORITY = 1000
FIRING, RESOLVED = "firing", "resolved"

_MAX_COMPOSED = 2000  # characters: no text is sent that is longer
_MAX_NAMED = 5
_CUT = "..."  # of the GSM alphabet, unlike the one character
_NEAR_WORD = 20  # characters given away so that a text ends with a whole word
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+|[\ud800-\udfff]")
_TOLD = frozenset({"alertname", "severity", "instance", "grafana_folder"})


@dataclass(frozen=True, slots=True)
class AlertGroup:
    """Who is told, and how. `to` are E.164 numbers; `channel` "" is not pinned."""

    name: str
    to: tuple[str, ...]
    send_resolved: bool = True
    channel: str = ""
    max_segments: int = 2
    severity_label: str = "severity"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `starts_at` as given, only to be compared."""

    status: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    starts_at: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Notification:
    """What was posted: a group of alerts and its status ("firing", "resolved"). `title`, `message`: only Grafana."""

    status: str
    alerts: tuple[Alert, ...]
    group_key: str = ""
    group_labels: Mapping[str, str] = field(default_factory=dict)
    common_labels: Mapping[str, str] = field(default_factory=dict)
    common_annotations: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    message: str = ""


def digest(notification: Notification) -> bytes:
    """What tells a repetition: the group, its status, and each alert with its start and status. 32 octets."""
    alerts = sorted(
        (alert.fingerprint or json.dumps(alert.labels, sort_keys=True), alert.starts_at, alert.status)
        for alert in notification.alerts
    )
    group = notification.group_key or json.dumps(notification.group_labels, sort_keys=True)
    return hashlib.sha256(json.dumps([group, notification.status, alerts]).encode()).digest()


def priority(notification: Notification, label: str) -> int:
    """That of the most severe alert, of those that give the group its status."""
    severities = [alert.labels.get(label, "").strip().lower() for alert in _current(notification)]
    severities.append(notification.common_labels.get(label, "").strip().lower())
    return max(PRIORITIES.get(severity, OTHER_PRIORITY) for severity in severities)


def compose(notification: Notification, max_segments: int, severity_label: str = "severity") -> str:
    """The text: the most telling first, cut so that it takes at most `max_segments`."""
    current = _current(notification)
    others = len(notification.alerts) - len(current)
    names = _listed(alert.labels.get("alertname", "") for alert in current)
    severity = _listed(alert.labels.get(severity_label, "") for alert in current)
    where = _listed(alert.labels.get("instance", "") for alert in current)
    told = _TOLD | {severity_label}
    common = {**notification.group_labels, **notification.common_labels}
    labels = " ".join(f"{name}={value}" for name, value in common.items() if name not in told and _tells(name, value))
    head = f"{notification.status.upper()} {len(current)}" + (f" ({others} resolved)" if others else "")
    subject = " ".join(filter(None, (names or notification.title or "alert", f"({severity})" if severity else "")))
    text = ": ".join(filter(None, (head, subject, where, _summary(notification, current))))
    return fit("; ".join(filter(None, (text, labels))), max_segments)


def fit(text: str, max_segments: int) -> str:
    """`text` on one line and, where it takes more than `max_segments`, cut at a word and marked as cut."""
    text = _UNFIT.sub(lambda found: "?" if found[0] >= "\ud800" else " ", text[: 2 * _MAX_COMPOSED]).strip()
    shorter = text[:_MAX_COMPOSED]
    if shorter == text and _fits(text, max_segments):
        return text
    least, most = 0, len(shorter)  # more characters never take fewer segments
    while least < most:
        middle = (least + most + 1) // 2
        if _fits(shorter[:middle] + _CUT, max_segments):
            least = middle
        else:
            most = middle - 1
    return shorter[: _end(text, least)].rstrip() + _CUT


def _end(text: str, end: int) -> int:
    """A good place to cut at or before `end`: after a word, else between two characters as people see them."""
    space = text.rfind(" ", max(1, end - _NEAR_WORD), end + 1)
    if space > 0:
        return space
    return next((index for index in range(end, 0, -1) if index == len(text) or is_boundary(text, index)), end)


def _fits(text: str, max_segments: int) -> bool:
    try:
        return count(text)[1] <= max_segments
    except EncodeError:
        return False


def _current(notification: Notification) -> list[Alert]:
    """The alerts that give the group its status; all, if none has it."""
    found = [alert for alert in notification.alerts if alert.status == notification.status]
    return found or list(notification.alerts)


def _listed(values: Iterable[str]) -> str:
    distinct = list(dict.fromkeys(filter(None, values)))
    more = len(distinct) - _MAX_NAMED
    return ", ".join(distinct[:_MAX_NAMED]) + (f" +{more}" if more > 0 else "")


def _tells(name: str, value: str) -> bool:
    return bool(value) and not name.startswith("__")


def _summary(notification: Notification, current: list[Alert]) -> str:
    """What people wrote about it."""
    for name in ("summary", "description", "message"):
        common = notification.common_annotations.get(name)
        if common:
            return common
        own = list(dict.fromkeys(filter(None, (alert.annotations.get(name, "") for alert in current))))
        if own:
            return " / ".join(own[:_MAX_NAMED])
    return notification.message or notification.title
