"""The minute, hour, day and month that hold at a moment, as people in a time zone reckon them.

Each period's spans cover all time without gap or overlap, also where clocks are put forward or back. A day runs from
local midnight to local midnight (23 to 25 hours, where the clock is changed), a month from the midnight that begins
`reset_day`. An hour is always 60 minutes, which begin where the local clock shows minute 0.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

PERIODS = ("minute", "hour", "day", "month")
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
LAST_RESET_DAY = 28  # every month has it

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_DAY = timedelta(days=1)


class Span(NamedTuple):
    """From `start` to before `end`, UTC epoch ms."""

    start: int
    end: int


def spans(now: int, timezone: str, reset_day: int) -> tuple[Span, Span, Span, Span]:
    """The minute, hour, day and month of UTC epoch ms `now`, in the order of PERIODS.

    `timezone` is the key of an IANA zone; `reset_day`, 1 to 28, is the day of the month a month begins on.
    """
    return _spans(now // MINUTE_MS, timezone, reset_day)  # since 1972 all zones change on whole minutes of UTC


def held(span: Span, start: int) -> bool:
    """Whether a period that began at `start` is still the one to count in, where `span` is what the clock says.

    It is, too, where the clock was set back over its beginning: that does not give an allowance again. One that was
    ahead by more than a period was wrong, and what began then is forgotten.
    """
    return span.start <= start <= span.end


@lru_cache(maxsize=256)
def _spans(minute: int, timezone: str, reset_day: int) -> tuple[Span, Span, Span, Span]:
    zone = ZoneInfo(timezone)
    now = minute * MINUTE_MS
    local = (_EPOCH + now * _MS).astimezone(zone)
    offset = local.utcoffset()
    assert offset is not None
    past = (now + offset // _MS) % HOUR_MS
    today = local.date()
    return (
        Span(now, now + MINUTE_MS),
        Span(now - past, now - past + HOUR_MS),
        _around(now, today, lambda day, step: day + step * _DAY, zone),
        _around(now, _month_of(today, reset_day), _months_on, zone),
    )


def _around(now: int, first: date, move: Callable[[date, int], date], zone: ZoneInfo) -> Span:
    """The span that holds at `now`, near the one that begins with the day `first`. `move` gives the day it begins on
    `step` spans later.

    Clocks that are changed at midnight make a date begin twice, or not at all: then the first guess may be one off.
    """
    while _midnight(move(first, 1), zone) <= now:
        first = move(first, 1)
    while now < _midnight(first, zone):
        first = move(first, -1)
    return Span(_midnight(first, zone), _midnight(move(first, 1), zone))


def _midnight(day: date, zone: ZoneInfo) -> int:
    """Of two, the first; one that is skipped counts by the clock before."""
    return (datetime.combine(day, time.min, zone) - _EPOCH) // _MS


def _month_of(day: date, reset_day: int) -> date:
    first = day.replace(day=reset_day)
    return first if first <= day else _months_on(first, -1)


def _months_on(day: date, months: int) -> date:
    years, month = divmod(day.month - 1 + months, 12)
    return day.replace(year=day.year + years, month=month + 1)
