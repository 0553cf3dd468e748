"""What an API key may use: segments per hour and per day, counted in the transaction that accepts them.

Windows are fixed and of UTC: an hour begins at minute 0, a day at 00:00. What is counted is what was accepted: an
answer given a second time, or a message that an opt-out blocks, costs nothing (the caller of `charge` leaves it out).
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, select, update

from gatewayd.clock import iso
from gatewayd.errors import RequestError
from gatewayd.spool import schema
from gatewayd.spool.counters import MESSAGE, next_ids
from gatewayd.spool.engine import Statement
from gatewayd.spool.writer import Tx

PERIODS_MS = {"hour": 3_600_000, "day": 86_400_000}
PROBLEM = "segment-limit"


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """The most segments in an hour and in a day; None: no limit."""

    per_hour: int | None = None
    per_day: int | None = None

    def by_period(self) -> dict[str, int]:
        """The limits there are, by period."""
        named = {"hour": self.per_hour, "day": self.per_day}
        return {period: limit for period, limit in named.items() if limit is not None}


class LimitExceeded(RequestError):
    """A submission over a limit of its key: HTTP 429, or 422 where waiting does not help (`retry_after_s` None)."""

    def __init__(self, reason: str, retry_after_s: int | None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("", reason, status=422 if retry_after_s is None else 429, kind=PROBLEM)


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Why nothing was charged: `used` of `limit` segments of this `period` are used, `segments` more were wanted.

    `resets_at`: when the period ends, UTC epoch ms.
    """

    period: str
    limit: int
    used: int
    segments: int
    resets_at: int

    def error(self, now: int) -> LimitExceeded:
        """What the caller is answered, at UTC epoch ms `now`."""
        allowed = f"this API key may use {self.limit} segments per {self.period} (UTC)"
        if self.segments > self.limit:
            return LimitExceeded(f"{self.segments} segments are asked for at once; {allowed}", None)
        reason = (
            f"{allowed}; {self.used} are used and {self.segments} more were asked for: next at {iso(self.resets_at)}"
        )
        return LimitExceeded(reason, max(1, -(-(self.resets_at - now) // 1000)))


USED = Statement(
    select(schema.key_usage.c.start, schema.key_usage.c.segments).where(
        schema.key_usage.c.api_key == bindparam("api_key"), schema.key_usage.c.period == bindparam("period")
    )
)
COUNT = Statement(
    update(schema.key_usage)
    .where(schema.key_usage.c.api_key == bindparam("b_api_key"), schema.key_usage.c.period == bindparam("b_period"))
    .values(start=bindparam("v_start"), segments=bindparam("v_segments"))
)
FIRST = Statement(schema.key_usage.insert(), columns=["api_key", "period", "start", "segments"])


def charge(tx: Tx, api_key: str, limits: SegmentLimits, segments: int, now: int) -> Exceeded | None:
    """Count `segments` (0 or more) for a key, in all its periods or, if one has no room for them, in none.

    Never raises for an exceeded limit, for that would undo the batch of all others; call `Exceeded.error` outside.
    """
    bounds = limits.by_period()
    if not bounds or segments <= 0:
        return None
    # The lock every submission takes, before any row of ours: two instances on one PostgreSQL then cannot read the same
    # count, nor wait for each other's keys.
    next_ids(tx, MESSAGE, 0)
    windows: dict[str, tuple[int, int]] = {}
    refused: Exceeded | None = None
    for period, limit in bounds.items():
        row = tx.one(USED, {"api_key": api_key, "period": period})
        start, used = window(period, None if row is None else (row[0], row[1]), now)
        windows[period] = (start, used)
        if used + segments > limit:  # the day comes last: of two it is the one to wait for
            refused = Exceeded(period, limit, used, segments, start + PERIODS_MS[period])
    if refused is not None:
        return refused
    for period, (start, used) in windows.items():
        row_of = {"b_api_key": api_key, "b_period": period, "v_start": start, "v_segments": used + segments}
        if tx.run(COUNT, row_of) == 0:
            tx.run(FIRST, {"api_key": api_key, "period": period, "start": start, "segments": used + segments})
    return None


def window(period: str, counted: tuple[int, int] | None, now: int) -> tuple[int, int]:
    """(start, segments used) of the window that holds at `now`, of what was `counted` last (start, segments).

    A clock that is set back over a boundary does not give the allowance again: the later window goes on. One that was
    ahead by more than a period was wrong, and what it counted then is forgotten.
    """
    length = PERIODS_MS[period]
    start = now - now % length
    if counted is not None and start <= counted[0] <= start + length:
        return counted
    return start, 0
