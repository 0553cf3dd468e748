"""The configuration of what comes in: `inbound`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from gatewayd.config.addresses import Country
from gatewayd.config.section import Flag, Section
from gatewayd.config.units import Choice, Duration, Label


class Language(StrEnum):
    """The language packs that come with gatewayd."""

    EN = "en"
    ES = "es"
    PT = "pt"
    FR = "fr"
    DE = "de"


class OptOut(Section):
    """What happens when somebody writes STOP, START or HELP. The opt-out itself cannot be switched off."""

    later = frozenset({"resume", "probable", "scopes"})

    languages: tuple[Annotated[Language, Choice(Language, {})], ...] = Field(
        default=tuple(Language),
        min_length=1,
        max_length=len(Language),
        description="The language packs asked, in this order: the first that knows a word also gives the language of "
        "the answer. Put your customers' own first.",
    )
    confirm: Flag = Field(
        default=True, description="Confirm an opt-out, and a return, with one message. Never more than one per event."
    )
    no_confirm_countries: tuple[Annotated[str, Country()], ...] = Field(
        default=(), max_length=300, description="Countries to whose numbers nothing is confirmed (ISO 3166)."
    )
    name: Annotated[str, Label()] = Field(
        default="", description="Who you are: stands first in every answer. HELP is answered only if it is set."
    )
    contact: Annotated[str, Label()] = Field(
        default="", description="Where a person can be reached: a number, an address. Told on HELP."
    )


class Inbound(Section):
    """What becomes of what comes in."""

    later = frozenset({"rules", "keywords", "email", "forward"})

    reassembly_timeout_s: Annotated[float, Duration("1s", "7d")] = Field(
        default=3600.0,
        validation_alias="reassembly_timeout",
        description="How long the parts of a long message wait for the rest. Then what there is is handed over, as "
        "partial; parts that come later are handed over as its continuation.",
    )
    optout: OptOut = OptOut()
