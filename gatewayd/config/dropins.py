"""Interfaces of other systems that the daemon speaks: Kannel's sendsms, Alertmanager's and Grafana's webhooks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from gatewayd.config.addresses import PhoneNumber
from gatewayd.config.section import Flag, Section
from gatewayd.config.units import Format, Integer, Name
from gatewayd.config.yaml_lines import shown

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+", re.ASCII)
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)  # of Prometheus
_OWN_PATHS = frozenset({"/SendSMS", "/Integra/resources/SMS/SendSMS", "/healthz", "/readyz", "/metrics"})
_OWN_PREFIXES = ("/api/", "/alertmanager/")


@dataclass(frozen=True)
class UrlPath(Format):
    """A path that the daemon does not serve already."""

    wording = "a path such as /cgi-bin/sendsms"

    def parse(self, value: object) -> str:
        text = self.text(value)
        if _PATH.fullmatch(text) is None or len(text) > 128 or {".", ".."} & set(text.split("/")):
            raise ValueError(f"{self.wording} is expected, not {shown(text)}")
        if text in _OWN_PATHS or text.startswith(_OWN_PREFIXES):
            raise ValueError(f"{text} is taken by another interface of the gateway: {self.wording} is expected")
        return str(text)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": f"^{_PATH.pattern}$", "maxLength": 128}


@dataclass(frozen=True)
class LabelName(Format):
    """The name of a label of an alert."""

    wording = "a label's name such as severity"

    def parse(self, value: object) -> str:
        text = self.text(value)
        if _LABEL.fullmatch(text) is None or len(text) > 64:
            raise ValueError(f"{self.wording} is expected, not {shown(text)}")
        return str(text)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": f"^{_LABEL.pattern}$", "maxLength": 64}


class Kannel(Section):
    """Kannel's `sendsms`, for programs that speak it. Its answers and its delivery report callbacks are Kannel's."""

    enabled: Flag = Field(
        default=False, description="Serve it. Its GET carries an API key in the URL, where proxies and browsers log it."
    )
    path: Annotated[str, UrlPath()] = Field(default="/cgi-bin/sendsms", description="Where it is (`sendsms-url`).")


class AlertGroup(Section):
    """Who is told of alerts posted to `/alertmanager/NAME`: one text for each group of alerts, not for each alert."""

    name: Annotated[str, Name()] = Field(description="Unique. The last part of the URL.")
    to: tuple[Annotated[str, PhoneNumber()], ...] = Field(
        min_length=1, max_length=100, description="The numbers that get the text."
    )
    send_resolved: Flag = Field(default=True, description="Also tell when a group of alerts is resolved.")
    channel: Annotated[str, Name()] | None = Field(
        default=None, description="The channel to use; without it any that is free."
    )
    max_segments: Annotated[int, Integer(1, 10)] = Field(
        default=2, description="The most segments of one text; a longer one is cut, never refused."
    )
    severity_label: Annotated[str, LabelName()] = Field(
        default="severity",
        description="The label that decides the priority: `critical` 9000, `warning` 5000, anything else 1000.",
    )


class Alertmanager(Section):
    """Alerts of Prometheus Alertmanager and Grafana as texts."""

    groups: tuple[AlertGroup, ...] = Field(default=(), max_length=100, description="Whom to tell.")
