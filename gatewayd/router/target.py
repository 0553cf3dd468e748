"""What stands in `messages.target`: which channels may send a message, in words that mean the same later. Pure.

A target describes itself, so that what is queued survives a changed configuration. Its text::

    target  = ["sticky:"] places | "dialer"
    places  = tier *(">" tier) | "turn:" [TAG] ":" DIAL-STRING
    tier    = "any" | "channel:" NAME | "group:" TAG | "sim:" ID

The tiers are tried from left to right: one serves while those before it have been unable for a while
(`gateway.failover_after`). `turn:` takes the ports of a dial string strictly in turn; ports are the channels of the
group TAG, or all channels, numbered from 0 in the order of the configuration. `sticky:` prefers the SIM that wrote to
the number last. `dialer` is whatever the lane's dialer says at the time. Before any of them the spool may have put
`prefer:ID:`, the SIM that a message should go out by if it can (`eligibility.split`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from gatewayd.config.dialstring import DialStringError
from gatewayd.config.dialstring import parse as parse_dial_string
from gatewayd.config.dialstring import write as write_dial_string

MAX_LENGTH = 4000  # characters
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}", re.ASCII)
_ID = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_EXPECTED = "any, channel:NAME, group:TAG, sim:ID, several of them joined by >, or turn:TAG:(0.3) is expected"


class Kind(StrEnum):
    """What a tier names."""

    ANY = "any"
    CHANNEL = "channel"
    GROUP = "group"
    SIM = "sim"


@dataclass(frozen=True, slots=True)
class Tier:
    """Channels of equal right. `name` is a channel's, a tag, or a SIM's id in digits; "" for any channel."""

    kind: Kind
    name: str = ""

    @property
    def text(self) -> str:
        return f"{self.kind.value}:{self.name}" if self.name else self.kind.value

    @property
    def sim_id(self) -> int:
        """The id of the SIM it names; 0 if it names none."""
        return int(self.name) if self.kind is Kind.SIM else 0


@dataclass(frozen=True, slots=True)
class Target:
    """Which channels may send. Empty `tiers`: whatever the dialer says (`dialer`).

    `ports` (None: no dial string) are used strictly in turn; they count the channels of the only tier, which then is
    `any` or a group. `sticky`: a SIM that wrote to the number before goes first.
    """

    tiers: tuple[Tier, ...] = (Tier(Kind.ANY),)
    ports: tuple[int, ...] | None = None
    sticky: bool = False

    @property
    def dialer(self) -> bool:
        """Whether the lane's dialer has to be asked."""
        return not self.tiers

    @property
    def group(self) -> str:
        """The tag whose channels `ports` count; "" for all channels, and where there is no dial string."""
        return self.tiers[0].name if self.ports is not None else ""

    @property
    def text(self) -> str:
        """The canonical text: `parse(target.text) == target`."""
        if self.dialer:
            return DIALER
        if self.ports is not None:
            places = f"turn:{self.group}:{write_dial_string(self.ports)}"
        else:
            places = ">".join(tier.text for tier in self.tiers)
        return f"sticky:{places}" if self.sticky else places


ANY = "any"
DIALER = "dialer"
_ANYWHERE = Tier(Kind.ANY)


@lru_cache(maxsize=4096)
def parse(text: str) -> Target:
    """The target that `text` describes. Raises ValueError that says what would be right."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"it has {len(text)} characters, at most {MAX_LENGTH} are allowed")
    if text == DIALER:
        return Target(())
    rest = text.removeprefix("sticky:")
    sticky = rest != text
    if rest.startswith("turn:"):
        tag, colon, ports = rest.removeprefix("turn:").partition(":")
        if not colon:
            raise ValueError(f"{_shown(rest)} lacks its dial string: turn:TAG:(0.3) is expected")
        tier = _tier(f"group:{tag}") if tag else _ANYWHERE
        try:
            return Target((tier,), parse_dial_string(ports), sticky)
        except DialStringError as error:
            raise ValueError(f"the dial string {_shown(ports)} is none: {error}") from None
    tiers = tuple(_tier(part) for part in rest.split(">"))
    if len(set(tiers)) != len(tiers):
        raise ValueError(f"{_shown(rest)} has a place in it twice")
    return Target(tiers, None, sticky)


def _tier(text: str) -> Tier:
    if text == ANY:
        return _ANYWHERE
    kind, colon, name = text.partition(":")
    if not colon or kind not in {Kind.CHANNEL, Kind.GROUP, Kind.SIM}:
        raise ValueError(f"{_shown(text)} is no place to send from: {_EXPECTED}")
    form = _ID if kind == Kind.SIM else _NAME
    if form.fullmatch(name) is None:
        wanted = "a number from 1" if kind == Kind.SIM else "a name of 1 to 32 letters, digits, _ . or -"
        raise ValueError(f"{_shown(text)} is no place to send from: after {kind}: comes {wanted}")
    return Tier(Kind(kind), name)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
