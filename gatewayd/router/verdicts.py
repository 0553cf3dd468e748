"""What an endpoint's answer means for the event it was told, and how long to wait before the next try. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BACKOFF_S = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
"""The pause after the 1st, 2nd, … failure in a row; the last one repeats."""
MAX_WAIT_S = BACKOFF_S[-1]  # also of what a Retry-After asks for
REFUSALS = 3  # of one event, before it is given up

_LATER = frozenset({401, 402, 403, 404, 407, 408, 423, 425, 429})
"""4xx that say something of the endpoint or of the moment, not of the event: wrong secret, not deployed, busy."""
_DOWN = frozenset({408, 425, 429})


class Verdict(StrEnum):
    """DELIVERED · DOWN: the endpoint as a whole cannot take events now · LATER: this call failed, others to the same
    host may not · REFUSED: the endpoint works and does not take this event · FORBIDDEN: it must not be called.
    """

    DELIVERED = "delivered"
    DOWN = "down"
    LATER = "later"
    REFUSED = "refused"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one call. `status` None: there was no HTTP answer, and `error` says why.

    `retry_after_s` is what the answer asks for (None: nothing), `took_s` how long the call was.
    """

    verdict: Verdict
    status: int | None = None
    error: str = ""
    retry_after_s: float | None = None
    took_s: float = 0.0


def judge(status: int) -> Verdict:
    """What an HTTP status means.

    Redirects are not followed, for they could lead to where nothing may be called: they are errors of configuration.
    """
    if 200 <= status < 300:
        return Verdict.DELIVERED
    if status >= 500 or status in _DOWN:
        return Verdict.DOWN
    if status in _LATER or status < 400:
        return Verdict.LATER
    return Verdict.REFUSED


def backoff_s(failures: int, jitter: float, retry_after_s: float | None = None) -> float:
    """Seconds until the next try after so many failures in a row (from 1).

    `jitter` is a random number from 0 to 1: a quarter less to a quarter more, so that not everybody comes at once. What
    the endpoint asks for counts where it is longer, up to MAX_WAIT_S.
    """
    step = BACKOFF_S[min(max(failures, 1), len(BACKOFF_S)) - 1]
    wait = min(step * (0.75 + 0.5 * jitter), MAX_WAIT_S)
    return wait if retry_after_s is None else min(max(wait, retry_after_s), MAX_WAIT_S)
