"""Which segment a status report is about: a pure choice.

The key is SIM, TP-MR and recipient; TP-MR wraps at 256, numbers come back in other spellings, and a modem may not tell
which TP-MR it used. Source: 3GPP TS 23.040 §9.2.3.6; docs/architecture.md "Reports".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gatewayd.model import SegmentState as S

CLOCK_TOLERANCE_MS = 3_600_000  # beyond this, the SMS centre's clock is no evidence
MR_WINDOW = 16  # how far beyond the expected TP-MR a segment in doubt may have got: refused ones use one up too
MATCHING_DIGITS = 8  # networks report national and international spellings of one number


@dataclass(frozen=True, slots=True)
class Candidate:
    """A segment sent, or perhaps sent, from the SIM the report came to."""

    message_id: int
    seq: int
    state: S
    to: str
    tp_mr: int | None
    tp_mr_expected: int | None
    submitted_at: int


WAITING = frozenset({S.SUBMITTED, S.IN_DOUBT, S.NO_REPORT, S.ABANDONED})
"""States that a report still changes."""


def same_number(one: str, other: str) -> bool:
    """Whether two spellings are of one number: equal last 8 digits, or all of a shorter one's."""
    a = "".join(c for c in one if c.isdigit())
    b = "".join(c for c in other if c.isdigit())
    if not a or not b:
        return one == other
    length = min(len(a), len(b), MATCHING_DIGITS)
    if length < MATCHING_DIGITS:
        return a.lstrip("0") == b.lstrip("0")
    return a[-length:] == b[-length:]


def number_tail(number: str) -> str:
    """What every spelling that `same_number` takes for this number ends with."""
    digits = "".join(c for c in number if c.isdigit())
    return digits.lstrip("0")[-MATCHING_DIGITS:] or number


def choose(candidates: Sequence[Candidate], tp_mr: int, recipient: str, scts_ms: int | None) -> Candidate | None:
    """The segment that a report with this TP-MR about this recipient belongs to; None if there is none.

    One that waits for a report goes before one that has its final one; a known TP-MR before an expected one; then the
    one submitted nearest to the SMS centre's time stamp (TP-SCTS), or the newest where that is no evidence. One that
    has its report and was submitted at another time is not chosen: the reference came round again, and this report has
    overtaken the receipt of its own segment.
    """
    fitting = [c for c in candidates if _fits(c, tp_mr) and same_number(c.to, recipient)]

    def near(candidate: Candidate) -> bool:
        return scts_ms is not None and abs(scts_ms - candidate.submitted_at) <= CLOCK_TOLERANCE_MS

    fitting = [c for c in fitting if c.state in WAITING or scts_ms is None or near(c)]
    if not fitting:
        return None

    def rank(candidate: Candidate) -> tuple[int, int, int, int]:
        waiting = 0 if candidate.state in WAITING else 1
        known = 0 if candidate.tp_mr == tp_mr else 1 if candidate.tp_mr_expected == tp_mr else 2
        if scts_ms is not None and near(candidate):
            return (waiting, known, 0, abs(scts_ms - candidate.submitted_at))
        return (waiting, known, 1, -candidate.submitted_at)

    return min(fitting, key=rank)


def _fits(candidate: Candidate, tp_mr: int) -> bool:
    if candidate.tp_mr is not None:
        return candidate.tp_mr == tp_mr
    return may_have(candidate.tp_mr_expected, tp_mr)


def may_have(expected: int | None, tp_mr: int) -> bool:
    """Whether a segment of which nobody told the TP-MR may have had this one.

    `expected` is the SIM's next at the time, None if that was not known.
    """
    return expected is None or (tp_mr - expected) % 256 < MR_WINDOW
