"""Schedules by the wall clock: against a slow reference that reads it minute after minute. S4-07, S4-25."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatewayd.router.windows import DAY_MS, EVERY_YEAR, MINUTE_MS, Day, Schedule, Spans, Window, distinct

HALF_DAY_MS = DAY_MS // 2
ALL = frozenset(range(7))
WORKDAYS = frozenset(range(5))
MONTEVIDEO = "America/Montevideo"  # without daylight saving since 2015
NEW_YORK = "America/New_York"
LONDON = "Europe/London"
ODD_ZONES = (
    MONTEVIDEO,
    "America/Sao_Paulo",
    LONDON,
    NEW_YORK,
    "Australia/Lord_Howe",  # daylight saving is half an hour
    "Pacific/Apia",  # had no 30 December 2011
    "Africa/Casablanca",  # daylight saving but for Ramadan
    "America/St_Johns",  # jumped a minute after midnight until 2011
    "Asia/Kathmandu",
    "UTC",
)


def hm(text: str) -> int:
    """Minutes of "HH:MM"."""
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def ms(text: str, zone: str = "UTC", *, second: bool = False) -> int:
    """The epoch ms of a wall clock's reading; `second`: of the second pass where it comes twice."""
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=int(second))
    return int(moment.astimezone(UTC).timestamp() * 1000)


def window(begin: str, end: str, days: frozenset[int] = ALL) -> Window:
    return Window(days, hm(begin), hm(end))


def schedule(*windows: Window, zone: str = "UTC", special: dict[Day, Spans] | None = None, **more: int) -> Schedule:
    return Schedule("test", zone, windows, special or {}, **more)  # type: ignore[arg-type]


# The reference.


def reads_open(asked: Schedule, at_ms: int, zone: str) -> bool:
    """By the definition: what does the wall clock read, and does a window of that day or of the day before hold it?"""
    wall = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone))
    today, minute = wall.date(), wall.hour * 60 + wall.minute

    def own(day: date) -> Spans | None:
        return asked.special.get((day.year, day.month, day.day), asked.special.get((EVERY_YEAR, day.month, day.day)))

    def begun(day: date) -> Spans:
        found = own(day)
        plain = tuple((w.begin, w.end) for w in asked.windows if day.weekday() in w.days)
        return plain if found is None else found

    for begin, end in begun(today):
        if begin <= minute < (end if end > begin else 1440):
            return True
    yesterday = begun(today - timedelta(days=1)) if own(today) is None else ()
    return any(end <= begin and minute < end for begin, end in yesterday)


def is_open(asked: Schedule, at_ms: int, zone: str) -> bool:
    return all(reads_open(asked, at_ms, name) for name in zone.split(","))


def next_change(asked: Schedule, now_ms: int, zone: str, days: int = 9) -> int | None:
    """The first minute that is other than now, made exact: jumps and boundaries are on whole minutes here."""
    now = is_open(asked, now_ms, zone)
    at = now_ms // MINUTE_MS * MINUTE_MS
    for _ in range(days * 1440):
        at += MINUTE_MS
        if is_open(asked, at, zone) != now:
            return at
    return None


MINUTES = st.one_of(st.sampled_from([0, 60, 90, 120, 150, 180, 1380, 1439]), st.integers(0, 1439))
ENDS = st.one_of(st.just(1440), MINUTES.filter(bool))
SPANS = st.tuples(MINUTES, ENDS).filter(lambda span: span[0] != span[1])
WINDOWS = st.builds(
    lambda days, span: Window(days, *span), st.frozensets(st.integers(0, 6), min_size=1), SPANS
)  # fmt: skip
JUMPS = {  # days on which something happens
    MONTEVIDEO: ["2004-09-19", "2005-03-27", "2014-10-05", "2015-03-08"],
    "America/Sao_Paulo": ["2017-10-15", "2018-02-18", "2018-11-04", "2019-02-17"],  # at midnight
    LONDON: ["2026-03-29", "2026-10-25"],
    NEW_YORK: ["2026-03-08", "2026-11-01"],
    "Australia/Lord_Howe": ["2026-04-05", "2026-10-04"],
    "Pacific/Apia": ["2011-12-29", "2011-12-31", "2012-04-01"],
    "Africa/Casablanca": ["2026-02-15", "2026-03-22", "2025-04-06"],
    "America/St_Johns": ["2010-03-14", "2010-11-07", "2026-11-01"],
    "Asia/Kathmandu": ["2026-05-05", "1985-12-31"],
    "UTC": ["2026-02-28", "2024-02-29"],
}


@st.composite
def questions(draw: st.DrawFn) -> tuple[Schedule, int, str]:
    zone = draw(st.sampled_from(ODD_ZONES))
    day = date.fromisoformat(draw(st.sampled_from(JUMPS[zone]))) + timedelta(days=draw(st.integers(-2, 1)))
    near = datetime(day.year, day.month, day.day, tzinfo=UTC)
    now = int(near.timestamp() * 1000) + draw(st.integers(-DAY_MS // 2, DAY_MS))
    specials: dict[Day, Spans] = {}
    for days_off in draw(st.lists(st.integers(-1, 2), max_size=3)):
        there = day + timedelta(days=days_off)
        year = draw(st.sampled_from([EVERY_YEAR, there.year]))
        specials[year, there.month, there.day] = tuple(draw(st.lists(SPANS, max_size=2)))
    windows = draw(st.lists(WINDOWS, min_size=1, max_size=3))
    return schedule(*windows, zone=zone, special=specials), now, zone


@given(questions())
@settings(max_examples=300, deadline=None)
def test_it_is_open_when_the_wall_clock_says_so_and_changes_when_that_changes(asked: tuple[Schedule, int, str]) -> None:
    hours, now, zone = asked
    assert hours.is_open(now) == is_open(hours, now, zone)
    assert hours.next_change(now) == next_change(hours, now, zone, days=3) or next_change(hours, now, zone, 3) is None
    change = hours.next_change(now)
    if change is not None:
        assert hours.is_open(change - 1) == hours.is_open(now) != hours.is_open(change)


@given(questions(), st.lists(st.integers(-3 * DAY_MS, 3 * DAY_MS), max_size=20))
@settings(max_examples=100, deadline=None)
def test_what_was_asked_before_makes_no_difference(asked: tuple[Schedule, int, str], steps: list[int]) -> None:
    """What it remembers of the last answer holds for the time it is of, and for no other, the clock going back too."""
    hours, now, zone = asked
    for step in steps:
        now += step
        fresh = schedule(*hours.windows, zone=zone, special=dict(hours.special))
        assert hours.is_open(now) == fresh.is_open(now) == is_open(hours, now, zone)
        assert hours.next_change(now) == fresh.next_change(now)


@given(questions(), st.lists(st.sampled_from(ODD_ZONES), min_size=1, max_size=3, unique=True))
@settings(max_examples=60, deadline=None)
def test_a_number_of_several_zones_is_called_when_it_is_allowed_in_all(
    asked: tuple[Schedule, int, str], zones: list[str]
) -> None:
    hours, now, _ = asked
    zone = ",".join(zones)
    assert hours.is_open(now, zone) == is_open(hours, now, zone)
    expected = next_change(hours, now, zone, days=2)
    assert expected is None or hours.next_change(now, zone) == expected
    change = hours.next_change(now, zone)
    if change is not None:
        assert is_open(hours, change - 1, zone) == is_open(hours, now, zone) != is_open(hours, change, zone)


# By hand.

OFFICE = window("09:00", "18:00", WORKDAYS)
NIGHT = window("22:00", "06:00", WORKDAYS)


@pytest.mark.parametrize(
    ("hours", "at", "expected"),
    [
        (OFFICE, "2026-11-27 09:00", True),  # a Friday
        (OFFICE, "2026-11-27 08:59:59.999", False),
        (OFFICE, "2026-11-27 17:59:59.999", True),
        (OFFICE, "2026-11-27 18:00", False),
        (OFFICE, "2026-11-28 12:00", False),
        (NIGHT, "2026-11-27 22:00", True),
        (NIGHT, "2026-11-28 05:59", True),  # Saturday morning belongs to Friday
        (NIGHT, "2026-11-28 22:00", False),
        (NIGHT, "2026-11-30 05:00", False),  # Monday morning belongs to Sunday
        (window("18:00", "24:00"), "2026-11-27 23:59:59.999", True),
        (window("18:00", "24:00"), "2026-11-28 00:00", False),
    ],
)
def test_windows(hours: Window, at: str, expected: bool) -> None:
    assert schedule(hours, zone=MONTEVIDEO).is_open(ms(at, MONTEVIDEO)) is expected


def test_what_touches_is_one() -> None:
    both = schedule(window("00:00", "12:00"), window("12:00", "24:00", WORKDAYS), window("22:00", "03:00"))
    assert both.next_change(ms("2026-11-23 08:00")) == ms("2026-11-28 12:00"), "no change at noon, none at midnight"


def test_always_open_never_changes() -> None:
    assert schedule(window("00:00", "24:00")).next_change(ms("2026-11-23")) is None
    assert schedule(window("00:00", "12:00"), window("12:00", "24:00"), zone=LONDON).next_change(0) is None


def test_a_rare_day_is_found() -> None:
    leap = schedule(window("00:00", "24:00"), zone=MONTEVIDEO, special={(EVERY_YEAR, 2, 29): ()})
    assert leap.next_change(ms("2097-01-01")) == ms("2104-02-29", MONTEVIDEO), "2100 has no 29 February"
    assert leap.next_change(ms("2104-02-29 12:00", MONTEVIDEO)) == ms("2104-03-01", MONTEVIDEO)
    once = schedule(window("00:00", "24:00"), special={(2031, 5, 1): ((540, 600),)})
    assert once.next_change(ms("2026-11-23")) == ms("2031-05-01")
    assert once.next_change(ms("2031-05-01")) == ms("2031-05-01 09:00")
    assert once.next_change(ms("2031-05-02")) is None


def test_never_open_is_told() -> None:
    every_day = {(EVERY_YEAR, day.month, day.day): () for day in (date(2024, 1, 1) + timedelta(n) for n in range(366))}
    assert schedule(window("09:00", "18:00"), special=every_day).next_change(ms("2026-11-23")) is None


def test_a_holiday_is_closed_from_midnight_to_midnight() -> None:
    closed = schedule(NIGHT, OFFICE, zone=MONTEVIDEO, special={(EVERY_YEAR, 12, 25): (), (2026, 11, 27): ()})
    evening = ms("2026-12-24 23:00", MONTEVIDEO)
    assert closed.is_open(evening)
    assert closed.next_change(evening) == ms("2026-12-25 00:00", MONTEVIDEO), "what began before ends at midnight"
    assert closed.next_change(ms("2026-12-25 00:00", MONTEVIDEO)) == ms("2026-12-28 09:00", MONTEVIDEO), (
        "and nothing begins on it that would last until the next morning"
    )
    assert not closed.is_open(ms("2026-11-27 12:00", MONTEVIDEO))
    assert closed.is_open(ms("2028-11-27 12:00", MONTEVIDEO)), "a date with a year is of that year"


def test_a_day_with_hours_of_its_own_has_these_and_no_others() -> None:
    hours = schedule(NIGHT, OFFICE, special={(EVERY_YEAR, 12, 24): ((hm("09:00"), hm("13:00")), (hm("23:00"), 60))})
    at = ms("2026-12-23 23:00")
    changes = []
    for _ in range(6):
        change = hours.next_change(at)
        assert change is not None
        changes.append(f"{datetime.fromtimestamp(change / 1000, UTC):%d %H:%M}")
        at = change
    assert changes == ["24 00:00", "24 09:00", "24 13:00", "24 23:00", "25 01:00", "25 09:00"]


def test_a_day_of_one_year_goes_before_one_of_every_year() -> None:
    hours = schedule(OFFICE, special={(EVERY_YEAR, 12, 25): (), (2026, 12, 25): ((600, 660),)})
    assert hours.is_open(ms("2026-12-25 10:30"))
    assert not hours.is_open(ms("2028-12-25 10:30"))


def test_zones_that_do_not_exist_are_left_out() -> None:
    hours = schedule(OFFICE, zone=MONTEVIDEO)
    at = ms("2026-11-27 10:00", MONTEVIDEO)
    assert hours.is_open(at, "Nowhere/Land")
    assert hours.is_open(at, "../etc/passwd,,Europe")
    assert hours.next_change(at, f"Nowhere/Land,{MONTEVIDEO}") == ms("2026-11-27 18:00", MONTEVIDEO)
    assert not hours.is_open(at, "Asia/Tokyo")


def test_zones_that_are_never_open_together_say_so_at_once() -> None:
    hours = schedule(window("09:00", "12:00"))
    at = ms("2026-11-27 10:00")
    assert not hours.is_open(at, "Asia/Tokyo,America/New_York")
    assert hours.next_change(at, "Asia/Tokyo,America/New_York") is None


def test_nothing_begins_shortly_before_the_end_where_the_validity_is_cut() -> None:
    cut = schedule(window("09:00", "18:00"), window("20:00", "20:05"), cut_validity=True, min_validity_ms=600_000)
    last, end = ms("2026-11-27 17:50"), ms("2026-11-27 18:00")
    assert cut.claimable(last)
    assert cut.claimable_at(last) == last
    assert not cut.claimable(last + 1)
    assert cut.is_open(last + 1)
    assert cut.closes_at(last + 1) == end
    assert cut.claimable_at(last + 1) == ms("2026-11-28 09:00"), "20:00 is too short for anything"
    assert cut.closes_at(end) is None
    plain = schedule(window("09:00", "18:00"), min_validity_ms=600_000)
    assert plain.claimable(end - 1)
    assert plain.claimable_at(end) == ms("2026-11-28 09:00")
    hopeless = schedule(window("20:00", "20:05"), cut_validity=True, min_validity_ms=600_000)
    assert hopeless.claimable_at(end) is None


@given(questions(), st.integers(0, 40 * MINUTE_MS))
@settings(max_examples=100, deadline=None)
@example((schedule(window("23:50", "00:05"), zone=LONDON), ms("2026-10-24 22:49"), LONDON), 600_000)
def test_it_is_claimable_from_when_it_is_said_to(asked: tuple[Schedule, int, str], least_ms: int) -> None:
    hours, now, zone = asked
    cut = schedule(*hours.windows, zone=zone, special=dict(hours.special), cut_validity=True, min_validity_ms=least_ms)
    at = cut.claimable_at(now)
    if at == now:
        assert cut.claimable(now)
    elif at is not None:
        assert at > now
        assert not cut.claimable(now)
        assert not cut.claimable(at - 1)
        assert cut.claimable(at)
        for between in (now, now + (at - now) // 2, at - 1, now, at, now - HALF_DAY_MS):
            fresh = dataclasses.replace(cut)
            assert cut.claimable_at(between) == fresh.claimable_at(between), "whatever was asked before"


def test_of_zones_with_the_same_clock_one_is_kept() -> None:
    assert distinct(["America/New_York", "America/Toronto", "America/Detroit"]) == ("America/New_York",)
    assert distinct([MONTEVIDEO, "America/Havana", "America/New_York", "No/Where"]) == (
        MONTEVIDEO,
        "America/Havana",  # jumps on the same days as New York, at another hour
        "America/New_York",
    )
    assert distinct([]) == ()
