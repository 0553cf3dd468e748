"""Schedules: when something may happen, by the wall clock of a time zone. Pure.

A schedule is open at an instant iff the wall clock of the zone reads inside one of its windows then. So both passes
through a repeated hour count, a window that lies in a skipped hour does not take place, and a boundary in a skipped
hour lies at the jump. Nothing is found by trying minute after minute: between two jumps of a zone its wall clock is UTC
plus a constant, and there the boundaries are computed. DESIGN §6, behaviours S4-07 and S4-25.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache, lru_cache
from zoneinfo import ZoneInfo

MINUTE_MS = 60_000
DAY_MINUTES = 1440
DAY_MS = DAY_MINUTES * MINUTE_MS
EVERY_YEAR = 0

SEARCHED_DAYS = 8 * 366 + 2  # 29 February may be eight years away (1896, 1904; 2096, 2104)
SEARCHED_TOGETHER_DAYS = 31  # for several zones: they may never be open at the same time

Spans = tuple[tuple[int, int], ...]
Day = tuple[int, int, int]
"""(year, month, day); EVERY_YEAR for a day that comes each year."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_WHOLE: Spans = ((0, DAY_MINUTES),)
_SAMPLES = tuple(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=14 * step) for step in range(131))
"""Of five years: two jumps of a zone are never less than a fortnight apart (Ramadan is the shortest time)."""


@dataclass(frozen=True, slots=True)
class Window:
    """Open from minute `begin` (0..1439) to minute `end` (1..1440, exclusive) of the day it begins on.

    `end` <= `begin`: to that minute of the next day. `days`: the weekdays it begins on, 0 is Monday.
    """

    days: frozenset[int]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class _Spell:
    """What holds from `since` to `until` (epoch ms). `change`: when it becomes the other; None: not that one knows."""

    open: bool
    since: int
    until: float
    change: int | None


@dataclass(frozen=True)
class Schedule:
    """When something may happen. Every `now_ms` is UTC epoch ms.

    `timezone` is the IANA zone that counts where a question names none. `special` are days with hours of their own:
    (begin, end) in minutes as in `Window`, () for a holiday. Such a day has these hours and no others, from midnight to
    midnight: what began on the evening before ends there. A day of one year goes before one of every year.

    Questions take a `zone`: "" for the schedule's own, or another (a recipient's), or several with commas between them
    for a number that may be in any of them: then it is open only where it is open in all. Zones that do not exist are
    left out.

    `cut_validity`: what is sent is to end with the window, and nothing is begun less than `min_validity_ms` before it.
    """

    name: str
    timezone: str
    windows: tuple[Window, ...]
    special: Mapping[Day, Spans] = field(default_factory=dict)
    cut_validity: bool = False
    min_validity_ms: int = 0
    _spells: dict[str, _Spell] = field(default_factory=dict, init=False, repr=False, compare=False)
    _next: dict[str, tuple[int, int | None]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _hours: dict[int, Spans] = field(default_factory=dict, init=False, repr=False, compare=False)

    def is_open(self, now_ms: int, zone: str = "") -> bool:
        """Whether it is open at `now_ms`."""
        return self._spell(now_ms, zone).open

    def next_change(self, now_ms: int, zone: str = "") -> int | None:
        """When it next opens or closes, after `now_ms`.

        None: never, or for several zones not within 31 days.
        """
        return self._spell(now_ms, zone).change

    def closes_at(self, now_ms: int, zone: str = "") -> int | None:
        """When it closes, where it is open at `now_ms`; None where it is closed, or does not close."""
        spell = self._spell(now_ms, zone)
        return spell.change if spell.open else None

    def claimable(self, now_ms: int, zone: str = "") -> bool:
        """Whether something may begin at `now_ms`: it is open, and stays so for long enough where that counts."""
        return self._allows(self._spell(now_ms, zone), now_ms)

    def claimable_at(self, now_ms: int, zone: str = "") -> int | None:
        """From when on it is `claimable`: `now_ms` if it is, None if it will not be (within 1000 changes)."""
        spell = self._spell(now_ms, zone)
        if self._allows(spell, now_ms):
            return now_ms
        if not self.cut_validity:
            return spell.change
        since, known = self._next.get(zone, (0, 0))
        if known is None or not since <= now_ms < known:
            known = self._search_claimable(spell.change, zone)
            self._next[zone] = (now_ms, known)
        return known

    def _search_claimable(self, at: int | None, zone: str) -> int | None:
        """From `at` on, at which it opens or closes."""
        for _ in range(1000):
            if at is None:
                return None
            spell = self._at(at, zone)
            if self._allows(spell, at):
                return at
            at = spell.change
        return None

    def _allows(self, spell: _Spell, now_ms: int) -> bool:
        if not spell.open or not self.cut_validity or spell.change is None:
            return spell.open
        return spell.change - now_ms >= self.min_validity_ms

    def _spell(self, now_ms: int, zone: str) -> _Spell:
        spell = self._spells.get(zone)
        if spell is None or not spell.since <= now_ms < spell.until:
            spell = self._spells[zone] = self._look(now_ms, zone)
        return spell

    def _look(self, now_ms: int, zone: str) -> _Spell:
        zones = [name for name in zone.split(",") if zone_info(name) is not None] or [self.timezone]
        if len(zones) > 1:
            return self._look_together(now_ms, zones)
        info = zone_info(zones[0]) or UTC
        is_open = self._reads_open(now_ms, info)
        change = self._search(now_ms, is_open, info)
        return _Spell(is_open, now_ms, float("inf") if change is None else change, change)

    def _look_together(self, now_ms: int, zones: Sequence[str]) -> _Spell:
        spells = [self._spell(now_ms, zone) for zone in zones]
        if all(spell.open for spell in spells):
            change = min((spell.change for spell in spells if spell.change is not None), default=None)
            return _Spell(True, now_ms, float("inf") if change is None else change, change)
        horizon = now_ms + SEARCHED_TOGETHER_DAYS * DAY_MS
        at = now_ms
        while at <= horizon:
            closed = [spell for spell in (self._at(at, zone) for zone in zones) if not spell.open]
            if not closed:
                return _Spell(False, now_ms, at, at)
            if any(spell.change is None for spell in closed):
                break
            at = max(spell.change for spell in closed if spell.change is not None)
        return _Spell(False, now_ms, now_ms + DAY_MS, None)

    def _at(self, at_ms: int, zone: str) -> _Spell:
        """As `_spell`, for a time that lies ahead: what is remembered of now stays."""
        spell = self._spells.get(zone)
        return spell if spell is not None and spell.since <= at_ms < spell.until else self._look(at_ms, zone)

    def _reads_open(self, at_ms: int, info: tzinfo) -> bool:
        day, within = divmod(at_ms + _offset_ms(at_ms, info), DAY_MS)
        return any(begin * MINUTE_MS <= within < end * MINUTE_MS for begin, end in self._hours_of(day))

    def _search(self, now_ms: int, is_open: bool, info: tzinfo) -> int | None:
        """The first instant after `now_ms` at which the wall clock reads the other of open and closed."""
        at = self._skip(now_ms, is_open)
        if at is None:
            return None
        horizon = at + SEARCHED_DAYS * DAY_MS
        while at < horizon:
            offset = _offset_ms(at, info)
            day, within = divmod(at + offset, DAY_MS)
            edge = self._edge(day, within, is_open)
            step = at - within + (DAY_MS if edge is None else edge)  # by this offset
            if _offset_ms(step, info) != offset:
                step, edge = _jump(at, step, offset, info), None
            if edge is not None or self._reads_open(step, info) != is_open:
                return step
            at = step
        return None

    def _edge(self, day: int, within: int, is_open: bool) -> int | None:
        """The ms of the day at which it opens, or closes, before the day ends; None if it does not."""
        for begin, end in self._hours_of(day):
            if is_open and within < end * MINUTE_MS < DAY_MS:
                return end * MINUTE_MS
            if not is_open and within < begin * MINUTE_MS:
                return begin * MINUTE_MS
        return None

    def _skip(self, now_ms: int, is_open: bool) -> int | None:
        """Where to begin the search: what is always open but for special days need not be looked through day by day."""
        if not is_open or any(self._plain_hours(weekday) != _WHOLE for weekday in range(7)):
            return now_ms
        today = now_ms // DAY_MS
        first_year = _date(today).year - 1
        years = range(first_year, first_year + 10)
        days = (
            date(each, month, day).toordinal() - _EPOCH_DAY
            for year, month, day in self.special
            for each in ([year] if year != EVERY_YEAR else years)
            if _exists(each, month, day)
        )
        ahead = min((day for day in days if day >= today - 2), default=None)
        return None if ahead is None else max(now_ms, (ahead - 2) * DAY_MS)

    def _hours_of(self, day: int) -> Spans:
        """When it is open on a day (counted from 1970-01-01): minutes, in order, apart from each other."""
        hours = self._hours.get(day)
        if hours is None:
            if len(self._hours) > 1000:
                self._hours.clear()
            hours = self._hours[day] = self._make_hours(_date(day))
        return hours

    def _make_hours(self, day: date) -> Spans:
        special = self._special_of(day)
        if special is not None:
            return _merged(_first_part(special))
        before = day - timedelta(days=1)
        begun = self._special_of(before)
        if begun is None:
            begun = self._begun_on(before.weekday())
        return _merged([*_first_part(self._begun_on(day.weekday())), *_second_part(begun)])

    def _plain_hours(self, weekday: int) -> Spans:
        return _merged([*_first_part(self._begun_on(weekday)), *_second_part(self._begun_on((weekday - 1) % 7))])

    def _begun_on(self, weekday: int) -> Spans:
        return tuple((window.begin, window.end) for window in self.windows if weekday in window.days)

    def _special_of(self, day: date) -> Spans | None:
        found = self.special.get((day.year, day.month, day.day))
        return self.special.get((EVERY_YEAR, day.month, day.day)) if found is None else found


@cache
def zone_info(name: str) -> ZoneInfo | None:
    """The time zone of that name; None if there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not there, no such name, a folder
        return None


def distinct(zones: Iterable[str]) -> tuple[str, ...]:
    """Of zones whose clocks read the same all through 2026 to 2030 only the first; what is no zone left out."""
    kept: dict[tuple[tuple[int, int], ...], str] = {}
    for zone in zones:
        info = zone_info(zone)
        if info is not None:
            kept.setdefault(_reading(info), zone)
    return tuple(kept.values())


@lru_cache(maxsize=1024)
def _reading(info: ZoneInfo) -> tuple[tuple[int, int], ...]:
    """A zone's jumps in five years: (epoch ms, offset in ms), the first at the beginning. Half a millisecond's work."""
    offsets = [moment.astimezone(info).utcoffset() for moment in _SAMPLES]
    found = [(0, _offset_ms(_ms(_SAMPLES[0]), info))]
    for place in range(1, len(_SAMPLES)):
        if offsets[place] != offsets[place - 1]:
            before, after = _ms(_SAMPLES[place - 1]), _ms(_SAMPLES[place])
            found.append((_jump(before, after, found[-1][1], info), _offset_ms(after, info)))
    return tuple(found)


def _jump(before: int, after: int, offset: int, info: tzinfo) -> int:
    """The first ms in (before, after] at which the zone's offset is not `offset`, as it is at `before`."""
    while after - before > 1:
        middle = (before + after) // 2
        if _offset_ms(middle, info) == offset:
            before = middle
        else:
            after = middle
    return after


def _offset_ms(at_ms: int, info: tzinfo) -> int:
    offset = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(info).utcoffset()
    assert offset is not None
    return offset // timedelta(milliseconds=1)


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _date(day: int) -> date:
    return date.fromordinal(day + _EPOCH_DAY)


def _exists(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _first_part(begun: Spans) -> list[tuple[int, int]]:
    """What of these hours lies on the day they begin on."""
    return [(begin, end if end > begin else DAY_MINUTES) for begin, end in begun]


def _second_part(begun: Spans) -> list[tuple[int, int]]:
    """What of these hours lies on the next day."""
    return [(0, end) for begin, end in begun if 0 < end <= begin]


def _merged(spans: Iterable[tuple[int, int]]) -> Spans:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return tuple(merged)
