"""The configuration of which messages go out by which channels: `routes`, `dialers`, and the guards against accidents.

What more than one value decides (does a tag exist, is a dial string's port there) is in `routing_rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from gatewayd.config import dialstring
from gatewayd.config.addresses import Country
from gatewayd.config.section import Flag, Section
from gatewayd.config.units import Choice, Digits, Duration, Format, Integer, Name
from gatewayd.config.yaml_lines import shown
from gatewayd.model import MessageClass

MAX_PATTERN = 500  # characters
_MAX_LIST = 10_000

Prefix = Annotated[str, Digits(r"\+[1-9][0-9]{0,14}", "a prefix of international numbers such as +5989")]


@dataclass(frozen=True)
class Word(Format):
    """A campaign or the name of an API key, as messages carry it."""

    wording = "a name of 1 to 128 characters on one line"

    def parse(self, value: object) -> str:
        text = self.text(value)
        if not 1 <= len(text) <= 128 or not text.isprintable():
            raise ValueError(f"{self.wording} is expected, not {shown(text)}")
        return str(text)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "minLength": 1, "maxLength": 128}


@dataclass(frozen=True)
class Pattern(Format):
    """A regular expression of RE2, whose running time is linear in the text: it cannot hang. As text."""

    wording = "a regular expression (RE2) such as '^\\+59899'"

    def parse(self, value: object) -> str:
        text = self.text(value)
        if not 1 <= len(text) <= MAX_PATTERN:
            raise ValueError(f"{self.wording} of 1 to {MAX_PATTERN} characters is expected")
        fault = pattern_fault(text)
        if fault:
            raise ValueError(f"{shown(text)} is no regular expression that is understood (RE2): {fault}")
        return str(text)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "minLength": 1, "maxLength": MAX_PATTERN}


def pattern_fault(text: str) -> str:
    """What RE2 has against a regular expression; "" if nothing."""
    import re2  # type: ignore[import-untyped]  # what has no such pattern does not need it

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        re2.compile(text, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        if "(?" in reason or "escape sequence" in reason:
            reason += " (there is no look-ahead, look-behind or back reference)"
        return reason if reason.isprintable() else repr(reason)
    except (UnicodeError, TypeError) as error:
        return shown(error)
    return ""


@dataclass(frozen=True)
class DialString(Format):
    """Ports in the order of their turn, as a canonical dial string."""

    wording = "a dial string such as (0.3), 3, 0-3, 0,2,3 or (0.3),7"

    def parse(self, value: object) -> str:
        return dialstring.write(dialstring.parse(self.text(value)))

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": "^[0-9(][0-9().,-]*$"}


class ChooseBy(StrEnum):
    """How one of several places is chosen."""

    FAILOVER = "failover"
    WEIGHTED = "weighted"


class Order(StrEnum):
    """In which order a dialer sends. Behaviours, decision 3."""

    PRIORITY = "priority"
    ENTRY = "entry"


class DuplicateAction(StrEnum):
    """What becomes of a text that went to the same number a while ago."""

    OFF = "off"
    WARN = "warn"
    REFUSE = "refuse"


class Place(Section):
    """Where messages may be sent from: `channel` or `group`, one of the two."""

    channel: Annotated[str, Name()] | None = Field(default=None, description="The name of a channel.")
    group: Annotated[str, Name()] | None = Field(
        default=None, description="A tag: all channels that carry it, or whose SIM does."
    )
    weight: Annotated[int, Integer(1, 1000)] | None = Field(
        default=None, description="With `choose: weighted`, and only there: its share of the messages."
    )


_TO = Field(
    default=(),
    min_length=1,
    max_length=100,
    description="Where it may go out, the first choice first. Left out: every channel.",
)
_CHOOSE = Field(
    default=ChooseBy.FAILOVER,
    description="`failover`: the first place; the next one once that has been unable for `gateway.failover_after`. "
    "`weighted`: each message gets a place by the weights, and the others after it as failover.",
)
_DIAL_STRING = Field(
    default=None,
    description="Ports to use strictly in turn. They count the channels of the one group in `to` (of all channels if "
    "there is no `to`), from 0 in the order of this file, disabled ones too.",
)
_STICKY = Field(
    default=False,
    description="The SIM that wrote to a number before goes first, so that a person always sees one sender.",
)


class Match(Section):
    """Which messages a route is for. All conditions given must hold; of a list, one is enough."""

    campaign: tuple[Annotated[str, Word()], ...] = Field(
        default=(), min_length=1, max_length=_MAX_LIST, description="The campaign it belongs to."
    )
    prefix: tuple[Prefix, ...] = Field(
        default=(), min_length=1, max_length=_MAX_LIST, description="What the number begins with, in E.164."
    )
    country: tuple[Annotated[str, Country()], ...] = Field(
        default=(),
        min_length=1,
        max_length=300,
        description="The number's country (ISO 3166). Short codes are of `gateway.home_country`.",
    )
    number_matches: Annotated[str, Pattern()] | None = Field(
        default=None,
        description="A regular expression (RE2 syntax) found somewhere in the number (E.164, or a short code); `^` and "
        "`$` anchor it.",
    )
    key: tuple[Annotated[str, Word()], ...] = Field(
        default=(), min_length=1, max_length=_MAX_LIST, description="The name of the API key it was submitted with."
    )
    class_: tuple[
        Annotated[
            MessageClass,
            Choice(MessageClass, {"system": "what the gateway sends by itself goes by the SIM that was written to"}),
        ],
        ...,
    ] = Field(default=(), validation_alias="class", min_length=1, max_length=10, description="Its class.")
    schedule: Annotated[str, Name()] | None = Field(
        default=None, description="A schedule that is open when it may be sent first (now, or `not_before`)."
    )


class Route(Section):
    """A rule that says where messages go out. The first one that matches counts."""

    name: Annotated[str, Name()] = Field(description="Unique. It stands with the messages it routed.")
    match: Match = Match()
    to: tuple[Place, ...] = _TO
    choose: Annotated[ChooseBy, Choice(ChooseBy, {})] = _CHOOSE
    dial_string: Annotated[str, DialString()] | None = _DIAL_STRING
    sticky: Flag = _STICKY


class DialerPacing(Section):
    """How fast a dialer may send, over all its channels. Each channel's own pacing holds besides."""

    interval_s: Annotated[float, Duration("0s", "1d")] = Field(
        default=0.0,
        validation_alias="interval",
        description="The least time between the starts of two messages.",
    )
    jitter_s: Annotated[float, Duration("0s", "1h")] = Field(
        default=0.0, validation_alias="jitter", description="Up to so much is added to it, at random."
    )
    burst: Annotated[int, Integer(1, 1000)] = Field(
        default=1, description="So many may follow each other at once after a pause."
    )


class Dialer(Section):
    """What drains the messages of some campaigns (those submitted with class `campaign`)."""

    name: Annotated[str, Name()] = Field(description="Unique.")
    enabled: Flag = Field(default=True, description="`false`: its messages wait.")
    campaigns: tuple[Annotated[str, Word()], ...] = Field(
        min_length=1, max_length=_MAX_LIST, description="Which campaigns. A campaign has at most one dialer."
    )
    schedule: Annotated[str, Name()] | None = Field(
        default=None, description="It sends only while this schedule is open."
    )
    recipient_schedule: Annotated[str, Name()] | None = Field(
        default=None, description="… and while this one is open by the recipient's clock, in all zones he may live in."
    )
    pacing: DialerPacing = DialerPacing()
    order: Annotated[Order, Choice(Order, {})] = Field(
        default=Order.PRIORITY,
        description="`priority`: larger priorities first, then in order of entry. `entry`: in order of entry only, "
        "messages are taken with priority 0 whatever they ask for.",
    )
    turn_patience_s: Annotated[float, Duration("0s", "1h")] | None = Field(
        default=None,
        validation_alias="turn_patience",
        description="Instead of `gateway.turn_patience`.",
    )
    to: tuple[Place, ...] = _TO
    choose: Annotated[ChooseBy, Choice(ChooseBy, {})] = _CHOOSE
    dial_string: Annotated[str, DialString()] | None = _DIAL_STRING
    sticky: Flag = _STICKY


class Urgent(Section):
    """What messages of class `alert` may do. They go first, and keep a pace of their own on each channel."""

    ignore_windows: Flag = Field(default=False, description="Send them also while a schedule is closed.")
    interval_s: Annotated[float, Duration("0s", "1h")] = Field(
        default=1.0,
        validation_alias="interval",
        description="The least time between the starts of two segments on a channel, instead of its pacing.",
    )
    per_hour: Annotated[int, Integer(0, 100_000)] = Field(
        default=60, description="So many in an hour over all channels; those beyond it go as other messages do."
    )


class Duplicates(Section):
    """The guard against sending the same text to the same number twice by accident (classes application, campaign)."""

    within_s: Annotated[float, Duration("1s", "7d")] = Field(
        default=600.0, validation_alias="within", description="How long a text is remembered after its acceptance."
    )
    action: Annotated[DuplicateAction, Choice(DuplicateAction, {})] = Field(
        default=DuplicateAction.OFF,
        description="`warn`: it is sent, and the answer and the log say so. `refuse`: it is not taken (409).",
    )


class Countries(Section):
    """Where messages may go to."""

    allow: tuple[Annotated[str, Country()], ...] = Field(
        default=(), max_length=300, description="Only these countries (ISO 3166). Empty: all."
    )
    deny: tuple[Annotated[str, Country()], ...] = Field(
        default=(), max_length=300, description="None of these countries."
    )
