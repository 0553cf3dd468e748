"""Minutes, hours, days and months as people reckon them, in every zone there is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.spool.periods import HOUR_MS, MINUTE_MS, Span, held, spans

ZONES = sorted(available_timezones() - {"localtime"})
SOME = ["UTC", "America/Montevideo", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia",
        "America/St_Johns", "Africa/Cairo", "Asia/Kathmandu", "America/Asuncion", "Pacific/Kiritimati"]  # fmt: skip
LATEST = 4_102_444_800_000  # 2100
moments = st.integers(94_694_400_000, LATEST)  # from 1973: the last odd seconds are gone
zones = st.one_of(st.sampled_from(SOME), st.sampled_from(ZONES))
DAY, MONTH = 2, 3


def ms(text: str, zone: str = "UTC") -> int:
    """A local time as UTC epoch ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@given(now=moments, zone=zones, reset_day=st.integers(1, 28))
def test_spans_hold_now_and_follow_one_another(now: int, zone: str, reset_day: int) -> None:
    found = spans(now, zone, reset_day)
    for index, span in enumerate(found):
        assert span.start <= now < span.end
        assert spans(span.start, zone, reset_day)[index] == span
    for index in (DAY, MONTH):  # no gap and no overlap, whatever happens to clocks there
        start, end = found[index]
        assert spans(end - 1, zone, reset_day)[index] == found[index]
        assert spans(end, zone, reset_day)[index].start == end
        assert spans(start - 1, zone, reset_day)[index].end == start
    assert found[0].end - found[0].start == MINUTE_MS
    assert found[1].end - found[1].start == HOUR_MS


@given(now=moments, zone=zones, reset_day=st.integers(1, 28))
def test_they_begin_where_the_local_clock_says_so(now: int, zone: str, reset_day: int) -> None:
    minute, hour, _, month = spans(now, zone, reset_day)
    local = datetime.fromtimestamp(now / 1000, ZoneInfo(zone))
    offset = local.utcoffset()
    assert offset is not None
    assert (hour.start + offset // timedelta(milliseconds=1)) % HOUR_MS == 0
    assert minute.start % MINUTE_MS == 0
    begun = datetime.fromtimestamp(month.start / 1000, ZoneInfo(zone))
    assert begun.day == reset_day or begun.day == reset_day + 1  # where that day was left out (Apia, 30 December 2011)
    assert 26 <= (month.end - month.start) / 86_400_000 <= 33


@pytest.mark.parametrize(
    ("zone", "moment", "begin", "end", "hours"),
    [
        ("UTC", "2026-11-23T12:00", "2026-11-23T00:00", "2026-11-24T00:00", 24),
        ("America/Montevideo", "2026-11-23T23:59", "2026-11-23T00:00", "2026-11-24T00:00", 24),
        ("Europe/Berlin", "2026-03-29T12:00", "2026-03-29T00:00", "2026-03-30T00:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00", "2026-10-25T00:00", "2026-10-26T00:00", 25),
        # The clock goes from 24:00 to 01:00: that day has no midnight, and begins at 01:00.
        ("Africa/Cairo", "2026-04-24T12:00", "2026-04-24T01:00", "2026-04-25T00:00", 23),
        # From 01:00 back to 00:00: of two midnights it begins with the first.
        ("America/Havana", "2026-11-01T00:30", "2026-11-01T00:00", "2026-11-02T00:00", 25),
        ("Australia/Lord_Howe", "2026-04-05T12:00", "2026-04-05T00:00", "2026-04-06T00:00", 24.5),
    ],
)
def test_days_over_clock_changes(zone: str, moment: str, begin: str, end: str, hours: float) -> None:
    day = spans(ms(moment, zone), zone, 1)[DAY]
    assert day == Span(ms(begin, zone), ms(end, zone))
    assert (day.end - day.start) / HOUR_MS == hours


def test_the_second_of_two_midnights_begins_no_day() -> None:
    """Havana, 1 November 2026: 00:30 comes twice."""
    once = ms("2026-11-01T00:30", "America/Havana")
    assert spans(once, "America/Havana", 1)[DAY] == spans(once + HOUR_MS, "America/Havana", 1)[DAY]


@pytest.mark.parametrize(
    ("reset_day", "moment", "begin", "end"),
    [
        (1, "2026-02-28T23:59", "2026-02-01", "2026-03-01"),
        (1, "2028-02-29T12:00", "2028-02-01", "2028-03-01"),
        (28, "2026-02-28T00:00", "2026-02-28", "2026-03-28"),
        (28, "2026-02-27T23:59", "2026-01-28", "2026-02-28"),
        (15, "2026-01-14T12:00", "2025-12-15", "2026-01-15"),
        (15, "2026-12-31T12:00", "2026-12-15", "2027-01-15"),
        (31 - 3, "2026-03-31T12:00", "2026-03-28", "2026-04-28"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "America/Montevideo", "Europe/Berlin"])
def test_months_begin_on_the_reset_day(zone: str, reset_day: int, moment: str, begin: str, end: str) -> None:
    month = spans(ms(moment, zone), zone, reset_day)[MONTH]
    assert month == Span(ms(begin + "T00:00", zone), ms(end + "T00:00", zone))


def test_a_clock_set_back_over_a_boundary_begins_nothing_anew() -> None:
    day = spans(ms("2026-11-23T12:00"), "UTC", 1)[DAY]
    assert held(day, day.start)
    assert held(day, day.end)  # tomorrow had begun
    assert not held(day, day.end + 1)  # the clock was wrong by more than a day
    assert not held(day, day.start - 1)  # yesterday


def test_long_ago_and_far_ahead() -> None:
    """A machine without a battery starts in 1970, and another one in 2106."""
    for moment in (0, 2**32 * 1000):
        for span in spans(moment, "America/Montevideo", 28):
            assert span.start <= moment < span.end
    assert datetime.fromtimestamp(spans(0, "UTC", 1)[MONTH].start / 1000, UTC).year == 1970
