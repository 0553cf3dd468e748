"""The emulated subscribers: the last digits of a number decide what happens to a message to it.

docs/simulator.md has the table for people; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

STATUS_DELIVERED = 0x00
STATUS_TRYING = 0x20  # congestion, the SMS centre still tries
STATUS_INCOMPATIBLE = 0x41  # permanent
STATUS_EXPIRED = 0x46


class Verdict(StrEnum):
    """What becomes of a message."""

    DELIVERED = "delivered"
    ANSWERS = "answers"  # delivered, and answered with "Re: " and the text
    STOPS = "stops"  # delivered, and answered once for each sender with STOP
    NEVER = "never"  # first "still trying", then "validity period expired"
    REFUSED = "refused"  # by the SMS centre, at submission
    FAILS = "fails"  # accepted, and reported as failed
    SILENT = "silent"  # delivered, but never reported
    STATUS = "status"  # reported with a TP-ST of one's choice


@dataclass(frozen=True, slots=True)
class Fate:
    """A verdict and its code: CMS code for REFUSED, TP-ST for FAILS and STATUS."""

    verdict: Verdict
    code: int = 0


RULES: Mapping[str, Fate] = {
    "01": Fate(Verdict.ANSWERS),
    "02": Fate(Verdict.STOPS),
    "03": Fate(Verdict.NEVER),
    "04": Fate(Verdict.REFUSED, 28),
    "05": Fate(Verdict.FAILS, STATUS_INCOMPATIBLE),
    "06": Fate(Verdict.SILENT),
}
"""By the last two digits; everything else is delivered."""

_ORDERED = re.compile(r"99([89])(\d{3})$")


@lru_cache(maxsize=100_000)
def fate(digits: str) -> Fate:
    """What happens to a message to this number.

    …999ccc: refused at submission with CMS code ccc (001 to 999); …998sss: accepted, and reported with TP-ST sss
    (000 to 255, decimal). Else by RULES. A number of two digits or fewer has no rule.
    """
    ordered = _ORDERED.search(digits)
    if ordered:
        code = int(ordered.group(2))
        if ordered.group(1) == "9" and code:
            return Fate(Verdict.REFUSED, code)
        if ordered.group(1) == "8" and code <= 255:
            return Fate(Verdict.STATUS, code)
    return RULES.get(digits[-2:], _DELIVERED) if len(digits) > 2 else _DELIVERED


_DELIVERED = Fate(Verdict.DELIVERED)
