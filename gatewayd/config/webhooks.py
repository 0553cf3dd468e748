"""The configuration of who is told of events: webhooks, and what holds for messages' own callback URLs."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from gatewayd.config.addresses import AbsolutePath, IpNetwork, Network
from gatewayd.config.destinations import CallUrl
from gatewayd.config.section import Flag, Section
from gatewayd.config.units import Duration, Format, Name, near
from gatewayd.config.yaml_lines import shown

EVENT_TYPES = (
    "message.accepted", "message.queued", "message.sent", "message.blocked", "message.failed", "message.expired",
    "message.cancelled", "message.in_doubt", "message.delivered", "message.undelivered", "message.unknown",
    "inbound.received", "optout.changed", "channel.state",
)  # fmt: skip
"""As spool/events.py makes them; a test holds the two together."""
PATTERNS = ("*", *dict.fromkeys(f"{type_.partition('.')[0]}.*" for type_ in EVENT_TYPES), *EVENT_TYPES)

SECRET_PREFIX = "whsec_"
_SECRET = (
    "Others must not be able to read it. `whsec_` and base64, as standardwebhooks.com has it, or any other text on one "
    "line. Without it nothing is signed."
)


@dataclass(frozen=True)
class EventPattern(Format):
    """A type of event, all of a kind ("message.*"), or all ("*")."""

    wording = "a type of event such as message.delivered, all of a kind such as message.*, or *"

    def parse(self, value: object) -> str:
        text = self.text(value)
        if text not in PATTERNS:
            raise ValueError(f"there is no event {shown(text)}{near(text, list(PATTERNS))}; there are {_KNOWN}")
        return str(text)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "enum": list(PATTERNS)}


_KNOWN = ", ".join(PATTERNS)


def signing_key(secret: str) -> bytes:
    """The HMAC key that a secret stands for: `whsec_` and base64, or else the octets of the text.

    Raises ValueError if what follows `whsec_` is no base64, or nothing.
    """
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise ValueError(f"base64 is expected after {SECRET_PREFIX}, or another text without that")
    return key


class Webhook(Section):
    """An endpoint that is told of events, each once at least and in their order."""

    name: Annotated[str, Name()] = Field(
        description="Unique. What it has still to be told is kept under it: another name begins anew."
    )
    url: Annotated[str, CallUrl()] = Field(description="Where events are posted to, as JSON.")
    events: tuple[Annotated[str, EventPattern()], ...] = Field(
        default=("*",), min_length=1, max_length=100, description="Which events it is told of."
    )
    secret_file: Annotated[Path, AbsolutePath()] | None = Field(
        default=None, description=f"The file with the secret that its requests are signed with. {_SECRET}"
    )
    allow_private: Flag = Field(
        default=False, description="Call it also where its address is this machine's or a private network's."
    )
    timeout_s: Annotated[float, Duration("10ms", "2m")] = Field(
        default=10.0, validation_alias="timeout", description="How long one call may take."
    )
    give_up_after_s: Annotated[float, Duration("1s", "30d")] = Field(
        default=259200.0,
        validation_alias="give_up_after",
        description="How long an event is tried; then it is a dead letter, and the next one's turn.",
    )
    enabled: Flag = Field(
        default=True, description="`false`: it is told of nothing new, and what it has still to be told waits."
    )


class Callbacks(Section):
    """What holds for the callback URLs that messages are submitted with."""

    allow_private: Flag = Field(
        default=False,
        description="Call any address, also this machine's and private networks': whoever may submit messages can then "
        "make the gateway call them.",
    )
    allowed_networks: tuple[Annotated[IpNetwork, Network()], ...] = Field(
        default=(), max_length=1000, description="Networks that may be called although they are not public."
    )
    secret_file: Annotated[Path, AbsolutePath()] | None = Field(
        default=None, description=f"The file with the secret that callbacks are signed with. {_SECRET}"
    )
    timeout_s: Annotated[float, Duration("10ms", "2m")] = Field(
        default=10.0, validation_alias="timeout", description="How long one call may take."
    )
    give_up_after_s: Annotated[float, Duration("1s", "30d")] = Field(
        default=86400.0,
        validation_alias="give_up_after",
        description="How long an event is tried; then it is a dead letter.",
    )
