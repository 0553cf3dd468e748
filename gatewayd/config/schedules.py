"""The configuration of when something may happen: `schedules`, and how far the clock is trusted: `gateway.clock`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from gatewayd.config.addresses import TimeZone
from gatewayd.config.section import Flag, Section
from gatewayd.config.units import Duration, Format, format_duration
from gatewayd.config.yaml_lines import shown

DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 1440

_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})", re.ASCII)
_DATE = re.compile(r"(?:([0-9]{4})-)?([0-9]{2})-([0-9]{2})", re.ASCII)
_DAY = f"({'|'.join(DAY_NAMES)})"
_YEARS = range(2000, 2200)
_LEAP_YEAR = 2024


class CalendarDay(NamedTuple):
    """A day; year 0 for one of every year."""

    year: int
    month: int
    day: int

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}-{self.day:02}" if self.year else f"{self.month:02}-{self.day:02}"


@dataclass(frozen=True)
class Days(Format):
    """Weekdays, 0 is Monday."""

    wording = "weekdays such as mon-fri, sat or mon,wed-fri, or all"

    def parse(self, value: object) -> frozenset[int]:
        if isinstance(value, frozenset):
            return value
        text = self.text(value)
        if text == "all":
            return frozenset(range(7))
        found: set[int] = set()
        for item in re.split(r" *, *| +", text.strip()):
            names = item.split("-")
            if len(names) > 2 or not set(names) <= set(DAY_NAMES):
                raise ValueError(f"{self.wording} is expected, not {shown(text)}")
            first, last = DAY_NAMES.index(names[0]), DAY_NAMES.index(names[-1])
            found |= {day % 7 for day in range(first, last + (7 if last < first else 0) + 1)}
        return frozenset(found)

    def show(self, value: frozenset[int]) -> str:
        return "all" if len(value) == 7 else ",".join(DAY_NAMES[day] for day in sorted(value))

    def schema(self) -> dict[str, object]:
        item = f"{_DAY}(-{_DAY})?"
        return {"type": "string", "pattern": f"^(all|{item}(( *, *| +){item})*)$"}


@dataclass(frozen=True)
class TimeOfDay(Format):
    """Minutes since midnight. `most` is the last one that may be written."""

    most: int

    @property
    def wording(self) -> str:  # type: ignore[override]
        return f"a time from 00:00 to {self.show(self.most)}"

    def parse(self, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            minutes = value
        else:
            text = self.text(value)
            match = _TIME.fullmatch(text)
            if match is None or int(match[2]) > 59:
                hint = f": write {text}:00" if re.fullmatch(r"[0-9]{1,2}", text, re.ASCII) else ""
                raise ValueError(f"{self.wording} is expected, not {shown(text)}{hint}")
            minutes = int(match[1]) * 60 + int(match[2])
        if minutes == DAY_MINUTES > self.most:
            raise ValueError("24:00 is the end of a day: write 00:00 for its beginning")
        if not 0 <= minutes <= self.most:
            raise ValueError(f"out of range: {self.wording} is expected")
        return minutes

    def show(self, value: int) -> str:
        return f"{value // 60:02}:{value % 60:02}"

    def schema(self) -> dict[str, object]:
        late = "" if self.most < DAY_MINUTES else "|24:00"
        return {"type": "string", "pattern": f"^(([01]?[0-9]|2[0-3]):[0-5][0-9]{late})$"}


@dataclass(frozen=True)
class DateFormat(Format):
    wording = "a date such as 2026-12-25, or 12-25 for every year,"

    def parse(self, value: object) -> CalendarDay:
        if isinstance(value, CalendarDay):
            return value
        text = self.text(value)
        match = _DATE.fullmatch(text)
        if match is None:
            raise ValueError(f"{self.wording} is expected, not {shown(text)}")
        day = CalendarDay(int(match[1] or 0), int(match[2]), int(match[3]))
        if match[1] is not None and day.year not in _YEARS:
            raise ValueError(f"the year is not within {_YEARS[0]} to {_YEARS[-1]}")
        try:
            date(day.year or _LEAP_YEAR, day.month, day.day)
        except ValueError:
            raise ValueError(f"there is no day {text}: {self.wording} is expected") from None
        return day

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": "^([0-9]{4}-)?[0-9]{2}-[0-9]{2}$"}


class Hours(Section):
    """Open from a time to a time. `to` at or before `from` is on the next day."""

    begin: Annotated[int, TimeOfDay(DAY_MINUTES - 1)] = Field(validation_alias="from", description="When it opens.")
    end: Annotated[int, TimeOfDay(DAY_MINUTES)] = Field(
        validation_alias="to", description="When it closes. Earlier than `from`: on the next day."
    )

    @property
    def minutes(self) -> int:
        """How long it is open by the wall clock."""
        return (self.end - self.begin) % DAY_MINUTES or DAY_MINUTES

    @model_validator(mode="after")
    def _is_some_time(self) -> Hours:
        if self.begin == self.end:
            raise ValueError('from and to are the same: for a whole day write from: "00:00", to: "24:00"')
        return self


class Window(Hours):
    """Open from a time to a time on some weekdays. A window across midnight belongs to the day it begins on."""

    days: Annotated[frozenset[int], Days()] = Field(
        default=frozenset(range(7)), description="The days it begins on: `mon-fri`, `sat`, `mon,wed-fri`, `all`."
    )

    @classmethod
    def hint(cls, key: str) -> str:
        """`{days: sat,sun}` without quotes is a key `sun` to YAML."""
        return ': put days in quotes, "sat,sun", for in {…} a comma ends a value' if key[:3] in DAY_NAMES else ""


class SpecialDays(Section):
    """Dates with hours of their own instead of the weekday's."""

    dates: tuple[Annotated[CalendarDay, DateFormat()], ...] = Field(
        min_length=1, max_length=1000, description="`2026-12-24`, or `12-24` for every year."
    )
    windows: tuple[Hours, ...] = Field(
        min_length=1, max_length=100, description="When it is open on these days, and only then."
    )


class Schedule(Section):
    """When something may happen, by the wall clock: docs/schedules.md."""

    timezone: Annotated[str, TimeZone()] | None = Field(
        default=None, description="The zone whose clock counts. Default: `gateway.timezone`."
    )
    windows: tuple[Window, ...] = Field(
        min_length=1, max_length=1000, description="It is open while the clock reads inside one of them."
    )
    holidays: tuple[Annotated[CalendarDay, DateFormat()], ...] = Field(
        default=(),
        max_length=10_000,
        description="Closed from midnight to midnight: `2026-12-25`, or `12-25` for every year.",
    )
    extra: tuple[SpecialDays, ...] = Field(
        default=(), max_length=10_000, description="Dates with hours of their own, such as 24 December until noon."
    )
    cut_validity: Flag = Field(
        default=False,
        description="The validity given to the network ends with the window, so that nothing arrives after it. "
        "The last `min_validity` of a window is then not used.",
    )
    min_validity_s: Annotated[float, Duration("5m", "12h")] = Field(
        default=600.0,
        validation_alias="min_validity",
        description="The shortest validity worth sending with, where `cut_validity` is on.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Schedule:
        closed = set(self.holidays)
        seen: set[CalendarDay] = set()
        for day in (day for extra in self.extra for day in extra.dates):
            if day in closed:
                raise ValueError(f"{day} is in holidays and in extra: remove it from one of them")
            if day in seen:
                raise ValueError(f"{day} is in extra twice: give it all its windows in one place")
            seen.add(day)
        for hours in (*self.windows, *(hours for extra in self.extra for hours in extra.windows)):
            if self.cut_validity and hours.minutes * 60 < self.min_validity_s:
                shown_hours = f"{TimeOfDay(DAY_MINUTES).show(hours.begin)} to {TimeOfDay(DAY_MINUTES).show(hours.end)}"
                least = format_duration(self.min_validity_s)
                raise ValueError(f"nothing could be sent in the window {shown_hours}: min_validity is {least}")
        return self


def _frozen(schedules: Mapping[str, Schedule]) -> Mapping[str, Schedule]:
    return MappingProxyType(dict(schedules))


Schedules = Annotated[Mapping[str, Schedule], AfterValidator(_frozen)]


class ClockTrust(Section):
    """When the machine's clock is believed. While it is not, what has a window or a quota by day or month waits."""

    require_sync: Flag = Field(
        default=True,
        description="Soon after the machine has started wait until a time service has set its clock. `false`: for "
        "machines without one whose clock runs on while they are off.",
    )
    wait_s: Annotated[float, Duration("0s", "1d")] = Field(
        default=900.0, validation_alias="wait", description="So long after the start of the machine, and no longer."
    )
