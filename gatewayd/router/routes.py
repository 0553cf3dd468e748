"""Outbound routes: which rule decides where a message goes out, and what that puts into `messages.target`. Pure.

The rules are tried in order, the first whose conditions all hold counts; what none matches goes by any channel. A
message of class campaign whose campaign a dialer drains goes by that dialer instead. DESIGN §6, issue 4 item 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gatewayd.model import MessageClass
from gatewayd.router.numbers import country_of
from gatewayd.router.target import ANY, DIALER, Kind, Target, Tier

SOURCE_OF_DIALER = "dialer:"
_ANY = Tier(Kind.ANY)


class Opening(Protocol):
    """A schedule, as far as it is asked here."""

    def is_open(self, now_ms: int) -> bool: ...


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the messages of a rule go. `places` empty: every channel. `weights`, one for each place: one of them is
    drawn for each message, with the others behind it. `ports`: strict turn among the channels of the only place.
    """

    places: tuple[Tier, ...] = ()
    weights: tuple[int, ...] = ()
    ports: tuple[int, ...] | None = None
    sticky: bool = False

    def target(self, first: int = 0) -> Target:
        """The target of a message whose first choice is the place `first`."""
        places = self.places or (_ANY,)
        rest = places[:first] + places[first + 1 :]
        return Target((places[first], *rest), self.ports, self.sticky)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold. An empty one always does; `schedule` is a name, `pattern` an expression of RE2."""

    campaigns: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    countries: frozenset[str] = frozenset()
    pattern: str = ""
    keys: frozenset[str] = frozenset()
    classes: frozenset[MessageClass] = frozenset()
    schedule: str = ""

    def words(self) -> list[str]:
        """Each as the configuration has it, on a line of its own; none: it holds for all."""
        lists = {
            "class": sorted(class_.value for class_ in self.classes),
            "campaign": sorted(self.campaigns),
            "key": sorted(self.keys),
            "prefix": list(self.prefixes),
            "country": sorted(self.countries),
            "number_matches": [self.pattern] if self.pattern else [],
            "schedule": [self.schedule] if self.schedule else [],
        }
        return [f"{name} {_any_of(values)}" for name, values in lists.items() if values]


@dataclass(frozen=True, slots=True)
class Rule:
    """A route. First match wins."""

    name: str
    conditions: Conditions = Conditions()
    destination: Destination = Destination()


@dataclass(frozen=True, slots=True)
class Drain:
    """A dialer, as far as routing asks: whose messages it drains, whether recipients' zones matter to it, and whether
    it sends in order of entry, whatever the priorities.
    """

    name: str
    campaigns: frozenset[str] = frozenset()
    destination: Destination = Destination()
    enabled: bool = True
    by_zone: bool = False
    by_entry: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A message to be routed. `number`: E.164 or a short code. `due_at`: when it may go first, UTC epoch ms.

    `pinned`: its submitter named a channel, which no route changes.
    """

    number: str
    class_: MessageClass = MessageClass.APPLICATION
    campaign: str = ""
    key: str = ""
    due_at: int = 0
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Routed:
    """What becomes of it: NewMessage's fields of the same names. `route` "": no rule matched. `by_entry`: its priority
    does not count.
    """

    source: str = ""
    target: str = ANY
    route: str = ""
    zone: str = ""
    by_entry: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says of a message: `against` is the first condition that does not hold, "" where all do.

    `kind` is "dialer" or "route"; `chosen`: this is the one that counts.
    """

    kind: str
    name: str
    against: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Explained:
    """Why a message is routed as it is: every rule in the order they are asked, and what comes of it."""

    verdicts: tuple[Verdict, ...]
    routed: Routed
    places: Target
    """As `routed.target`; of a dialer what it says now."""


def _no_zones(number: str) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """What routing depends on. `zones_of` gives the time zones that a number may be in."""

    rules: tuple[Rule, ...] = ()
    drains: tuple[Drain, ...] = ()
    schedules: Mapping[str, Opening] = field(default_factory=dict)
    home_country: str = ""
    zones_of: Callable[[str], tuple[str, ...]] = _no_zones


class Router:
    """Applies the rules of `settings`. It remembers how far each weighted rule has come; a reload begins anew."""

    def __init__(self, settings: RouterSettings) -> None:
        self.settings = settings
        self._drains = {campaign: drain for drain in settings.drains for campaign in drain.campaigns}
        self._wheels = {id(rule): _Wheel(rule.destination.weights) for rule in _both(settings)}
        self._patterns = {rule.name: _compiled(rule.conditions.pattern) for rule in settings.rules}

    def route(self, asked: Asked) -> Routed:
        """Where a message goes; of a weighted rule this takes the next place."""
        drain = self._drain(asked)
        if drain is not None:
            return self._drained(asked, drain, take=True)
        if not asked.pinned:
            for rule in self.settings.rules:
                if not self._failing(rule, asked):
                    return self._routed(rule, take=True)
        return Routed()

    def explain(self, asked: Asked) -> Explained:
        """As `route`, with what each rule says; takes nothing."""
        verdicts: list[Verdict] = []
        routed, places, decided = Routed(), Target(), False
        for drain in self.settings.drains:
            against = self._against_drain(drain, asked)
            chosen = not against and not decided
            if chosen:
                routed, decided = self._drained(asked, drain, take=False), True
                places = Target() if asked.pinned else drain.destination.target(self._wheels[id(drain)].peek())
            verdicts.append(Verdict("dialer", drain.name, against, chosen))
        for rule in self.settings.rules:
            against = "it is pinned to a channel" if asked.pinned else self._against(rule, asked)
            chosen = not against and not decided
            if chosen:
                routed, decided = self._routed(rule, take=False), True
                places = rule.destination.target(self._wheels[id(rule)].peek())
            verdicts.append(Verdict("route", rule.name, against, chosen))
        return Explained(tuple(verdicts), routed, places)

    def _drain(self, asked: Asked) -> Drain | None:
        return self._drains.get(asked.campaign) if asked.class_ is MessageClass.CAMPAIGN else None

    def _against_drain(self, drain: Drain, asked: Asked) -> str:
        if asked.class_ is not MessageClass.CAMPAIGN:
            return f"the class is {asked.class_.value}; dialers take class campaign"
        if asked.campaign not in drain.campaigns:
            return _not_one("campaign", asked.campaign, drain.campaigns)
        return ""

    def _drained(self, asked: Asked, drain: Drain, *, take: bool) -> Routed:
        zone = ",".join(self.settings.zones_of(asked.number)) if drain.by_zone else ""
        source = SOURCE_OF_DIALER + drain.name
        target = DIALER
        if asked.pinned:
            target = ANY
        elif drain.destination.weights:  # a share is drawn once, so it cannot be left for later
            target = drain.destination.target(self._next(drain, take)).text
        return Routed(source, target, "", zone, drain.by_entry)

    def _routed(self, rule: Rule, *, take: bool) -> Routed:
        return Routed("", rule.destination.target(self._next(rule, take)).text, rule.name)

    def _next(self, rule: Rule | Drain, take: bool) -> int:
        wheel = self._wheels[id(rule)]
        return wheel.take() if take else wheel.peek()

    def _failing(self, rule: Rule, asked: Asked) -> str:
        """The first condition of a rule that does not hold, by its key in the configuration; "" if all do."""
        wanted = rule.conditions
        if wanted.classes and asked.class_ not in wanted.classes:
            return "class"
        if wanted.campaigns and asked.campaign not in wanted.campaigns:
            return "campaign"
        if wanted.keys and asked.key not in wanted.keys:
            return "key"
        if wanted.prefixes and not asked.number.startswith(wanted.prefixes):
            return "prefix"
        if wanted.countries and self._country(asked) not in wanted.countries:
            return "country"
        pattern = self._patterns[rule.name]
        if pattern is not None and not pattern(asked.number):
            return "number_matches"
        if wanted.schedule and not self.settings.schedules[wanted.schedule].is_open(asked.due_at):
            return "schedule"
        return ""

    def _against(self, rule: Rule, asked: Asked) -> str:
        """What `_failing` finds, in words."""
        wanted = rule.conditions
        words: dict[str, Callable[[], str]] = {
            "": lambda: "",
            "class": lambda: _not_one("class", asked.class_.value, [class_.value for class_ in wanted.classes]),
            "campaign": lambda: _not_one("campaign", asked.campaign, wanted.campaigns),
            "key": lambda: _not_one("key", asked.key, wanted.keys),
            "prefix": lambda: f"the number does not begin with {_any_of(wanted.prefixes)}",
            "country": lambda: _not_one("country", self._country(asked), wanted.countries),
            "number_matches": lambda: f"the number does not match {wanted.pattern}",
            "schedule": lambda: f"the schedule {wanted.schedule} is closed then",
        }
        return words[self._failing(rule, asked)]()

    def _country(self, asked: Asked) -> str:
        return country_of(asked.number, self.settings.home_country)


class _Wheel:
    """Smooth weighted round robin: of weights 3 and 1 it makes 0, 0, 1, 0.

    Source: nginx, ngx_http_upstream_get_peer.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = tuple(weights)
        self._now = [0] * len(self._weights)

    def peek(self) -> int:
        """The place whose turn is next; 0 without weights."""
        ahead = [now + weight for now, weight in zip(self._now, self._weights, strict=True)]
        return ahead.index(max(ahead)) if ahead else 0

    def take(self) -> int:
        """The same, and the turn moves on."""
        if not self._weights:
            return 0
        place = self.peek()
        self._now = [now + weight for now, weight in zip(self._now, self._weights, strict=True)]
        self._now[place] -= sum(self._weights)
        return place


def _both(settings: RouterSettings) -> Iterator[Rule | Drain]:
    yield from settings.rules
    yield from settings.drains


def _compiled(pattern: str) -> Callable[[str], bool] | None:
    """Whether RE2 finds the pattern in a text; None without a pattern. It was compiled once already, when the
    configuration was checked.
    """
    if not pattern:
        return None
    import re2  # type: ignore[import-untyped]  # who has no such rule does not need it

    search: Callable[[str], object] = re2.compile(pattern).search
    return lambda number: search(number) is not None


def _not_one(what: str, value: str, wanted: Sequence[str] | frozenset[str]) -> str:
    if not value:
        return f"it has no {what}; {_any_of(sorted(wanted))} is wanted"
    return f"the {what} is {value}, not {_any_of(sorted(wanted))}"


def _any_of(words: Sequence[str]) -> str:
    shown = [*words[:5], *([f"one of {len(words) - 5} more"] if len(words) > 5 else [])]
    return " or ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
