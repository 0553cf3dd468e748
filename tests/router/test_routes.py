"""Outbound routes: first match wins; conditions, shares, dialers. S4-26, S4-33."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.config import Config, parse
from gatewayd.model import MessageClass
from gatewayd.router.routes import (
    Asked,
    Conditions,
    Destination,
    Drain,
    Routed,
    Router,
    RouterSettings,
    Rule,
)
from gatewayd.router.target import Kind, Tier
from gatewayd.wiring import router

UY, AR, US, CA = "+59898344484", "+5491123456789", "+12125551234", "+14165551234"
SIM1 = Destination((Tier(Kind.CHANNEL, "sim1"),))
OPEN_MS, CLOSED_MS = 1_000, 2_000


@dataclass(frozen=True)
class Office:
    """Open at one moment only."""

    def is_open(self, now_ms: int) -> bool:
        return now_ms == OPEN_MS


def router_of(*rules: Rule, drains: tuple[Drain, ...] = (), **fields: Any) -> Router:
    values = {"schedules": {"office": Office()}, "home_country": "UY", **fields}
    return Router(RouterSettings(rules, drains, **values))


def when(**conditions: Any) -> Rule:
    return Rule("r", Conditions(**conditions), SIM1)


def test_what_no_rule_matches_goes_by_any_channel() -> None:
    assert router_of().route(Asked(UY)) == Routed("", "any", "", "")
    assert router_of(when(campaigns=frozenset({"x"}))).route(Asked(UY)) == Routed()


@pytest.mark.parametrize(
    ("rule", "matching", "other", "against"),
    [
        (when(campaigns=frozenset({"a", "b"})), Asked(UY, campaign="b"), Asked(UY, campaign="c"), "is c, not a or b"),
        (when(campaigns=frozenset({"a"})), Asked(UY, campaign="a"), Asked(UY), "it has no campaign; a is wanted"),
        (when(prefixes=("+5989", "+54")), Asked(AR), Asked(US), "does not begin with +5989 or +54"),
        (when(countries=frozenset({"CA"})), Asked(CA), Asked(US), "the country is US, not CA"),  # one calling code
        (when(countries=frozenset({"UY"})), Asked("7373"), Asked("+80012345678"), "it has no country; UY is wanted"),
        (when(pattern=r"^\+59[89]"), Asked(UY), Asked(AR), r"does not match ^\+59[89]"),
        (when(pattern="44484$"), Asked(UY), Asked(AR), "does not match"),
        (when(keys=frozenset({"crm"})), Asked(UY, key="crm"), Asked(UY, key="app"), "the key is app, not crm"),
        (
            when(classes=frozenset({MessageClass.ALERT})),
            Asked(UY, MessageClass.ALERT),
            Asked(UY),
            "the class is application, not alert",
        ),
        (when(schedule="office"), Asked(UY, due_at=OPEN_MS), Asked(UY, due_at=CLOSED_MS), "office is closed then"),
    ],
)
def test_conditions(rule: Rule, matching: Asked, other: Asked, against: str) -> None:
    routes = router_of(rule)
    assert routes.route(matching) == Routed("", "channel:sim1", "r")
    assert routes.route(other) == Routed()
    (verdict,) = routes.explain(matching).verdicts
    assert (verdict.chosen, verdict.against) == (True, "")
    (verdict,) = routes.explain(other).verdicts
    assert not verdict.chosen
    assert against in verdict.against


def test_all_conditions_must_hold_and_the_first_match_counts() -> None:
    both = Rule("both", Conditions(campaigns=frozenset({"a"}), prefixes=("+598",)), SIM1)
    rest = Rule("rest", Conditions(), Destination(sticky=True))
    routes = router_of(both, rest, rest)
    assert routes.route(Asked(UY, campaign="a")).route == "both"
    assert routes.route(Asked(AR, campaign="a")) == Routed("", "sticky:any", "rest")
    assert [each.chosen for each in routes.explain(Asked(AR)).verdicts] == [False, True, False]


def test_what_is_pinned_is_not_routed() -> None:
    assert router_of(when()).route(Asked(UY, pinned=True)) == Routed()


def test_a_dialer_takes_its_campaigns_and_no_other_class() -> None:
    drain = Drain("spring", frozenset({"x", "y"}), SIM1)
    routes = router_of(when(), drains=(drain,))
    assert routes.route(Asked(UY, MessageClass.CAMPAIGN, "y")) == Routed("dialer:spring", "dialer", "", "")
    assert routes.route(Asked(UY, MessageClass.CAMPAIGN, "z")).route == "r"
    assert routes.route(Asked(UY, campaign="y")).route == "r"  # a label: the application's own traffic
    pinned = Asked(UY, MessageClass.CAMPAIGN, "y", pinned=True)
    assert routes.route(pinned) == Routed("dialer:spring", "any", "", "")
    explained = routes.explain(Asked(UY, MessageClass.CAMPAIGN, "y"))
    assert [each.chosen for each in explained.verdicts] == [True, False]
    assert explained.places.text == "channel:sim1"
    assert "dialers take class campaign" in routes.explain(Asked(UY, campaign="y")).verdicts[0].against


def test_zones_are_asked_where_a_dialer_goes_by_them() -> None:
    drains = (Drain("here", frozenset({"a"})), Drain("there", frozenset({"b"}), by_zone=True))
    routes = router_of(drains=drains, zones_of=lambda number: ("Europe/Rome", "Europe/Vaduz"))
    assert routes.route(Asked(UY, MessageClass.CAMPAIGN, "a")).zone == ""
    assert routes.route(Asked(UY, MessageClass.CAMPAIGN, "b")).zone == "Europe/Rome,Europe/Vaduz"


WEIGHTED = Destination(tuple(Tier(Kind.CHANNEL, name) for name in "abc"), (5, 1, 1))


def test_shares_are_smooth_and_the_others_follow_as_failover() -> None:
    routes = router_of(Rule("w", Conditions(), WEIGHTED))
    expected = routes.explain(Asked(UY)).routed.target
    assert expected == routes.explain(Asked(UY)).routed.target  # to ask is not to take
    targets = [routes.route(Asked(UY)).target for _ in range(7)]
    assert targets[0] == expected
    assert "".join(target.removeprefix("channel:")[0] for target in targets) == "aabacaa"
    assert targets[2] == "channel:b>channel:a>channel:c"


def test_a_dialer_s_share_is_drawn_at_acceptance() -> None:
    routes = router_of(drains=(Drain("w", frozenset({"x"}), WEIGHTED),))
    drawn = Counter(routes.route(Asked(UY, MessageClass.CAMPAIGN, "x")).target for _ in range(70))
    assert drawn["channel:a>channel:b>channel:c"] == 50
    assert len(drawn) == 3


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_after_one_round_every_place_had_its_share(weights: list[int]) -> None:
    places = tuple(Tier(Kind.CHANNEL, f"c{index}") for index in range(len(weights)))
    routes = router_of(Rule("w", Conditions(), Destination(places, tuple(weights))))
    drawn = Counter(routes.route(Asked(UY)).target.partition(">")[0] for _ in range(sum(weights)))
    assert [drawn[tier.text] for tier in places] == weights


def configured(text: str) -> Config:
    return parse(
        'spool: {url: "sqlite:////x.db"}\nhttp: {}\ngateway: {home_country: UY}\n'
        "channels:\n"
        "  - {name: sim1, type: modem, port: /dev/a, tags: [uy]}\n"
        "  - {name: sim2, type: modem, port: /dev/b, tags: [uy]}\n"
        "  - {name: sim3, type: modem, port: /dev/c}\n" + text
    )


def test_the_configuration_becomes_targets() -> None:
    routes = router(
        configured("""
schedules:
  always: {windows: [{days: all, from: "00:00", to: "24:00"}]}
routes:
  - {name: alerts, match: {class: [alert]}, to: [{channel: sim3}, {group: uy}]}
  - {name: turn, match: {prefix: ["+598"]}, to: [{group: uy}], dial_string: (0.1)}
  - {name: all, match: {country: [AR], schedule: always}, dial_string: "2,0"}
  - {name: shares, to: [{channel: sim1, weight: 2}, {channel: sim2, weight: 1}], choose: weighted}
dialers:
  - {name: d, campaigns: [c], recipient_schedule: always, to: [{group: uy}], dial_string: 0-1}
""")
    )
    assert routes.route(Asked(UY, MessageClass.ALERT)) == Routed("", "channel:sim3>group:uy", "alerts")
    assert routes.route(Asked(UY)) == Routed("", "turn:uy:(0.1)", "turn")
    assert routes.route(Asked(AR)) == Routed("", "turn::2,0", "all")
    assert routes.route(Asked(US)) == Routed("", "channel:sim1>channel:sim2", "shares")
    asked = Asked(UY, MessageClass.CAMPAIGN, "c")
    assert routes.route(asked) == Routed("dialer:d", "dialer", "", "America/Montevideo")
    assert routes.explain(asked).places.text == "turn:uy:(0.1)"


def test_no_regular_expression_hangs() -> None:
    """(a+)+$ takes Python's own engine hours on this; RE2's time is linear in the number."""
    routes = router(configured("routes: [{name: evil, match: {number_matches: '^(([0-9]+)+)+$'}}]\n"))
    before = time.process_time()
    assert routes.route(Asked("+" + "9" * 60)) == Routed()
    assert time.process_time() - before < 5


def test_a_dialer_in_order_of_entry_takes_priorities_for_nothing() -> None:  # decision 3, S4-38
    drains = (Drain("a", frozenset({"a"})), Drain("b", frozenset({"b"}), by_entry=True))
    routes = router_of(drains=drains)
    asked = [Asked(UY, MessageClass.CAMPAIGN, campaign) for campaign in "ab"]
    assert [routes.route(each).by_entry for each in asked] == [False, True]
