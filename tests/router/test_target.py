"""What stands in messages.target: readable later, whatever the configuration is then."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.router.target import Kind, Target, Tier, parse

NAMES = st.text(alphabet="abcXYZ019_.-", min_size=1, max_size=32)
TIERS = st.one_of(
    st.just(Tier(Kind.ANY)),
    st.builds(Tier, st.sampled_from([Kind.CHANNEL, Kind.GROUP]), NAMES),
    st.builds(Tier, st.just(Kind.SIM), st.integers(1, 10**9).map(str)),
)
TARGETS = st.one_of(
    st.builds(Target, st.lists(TIERS, min_size=1, max_size=5, unique=True).map(tuple), st.none(), st.booleans()),
    st.builds(
        Target,
        st.one_of(st.just(Tier(Kind.ANY)), st.builds(Tier, st.just(Kind.GROUP), NAMES)).map(lambda tier: (tier,)),
        st.lists(st.integers(0, 99), min_size=1, unique=True).map(tuple),
        st.booleans(),
    ),
    st.just(Target(())),
)


@given(TARGETS)
def test_a_target_is_read_as_it_was_written(target: Target) -> None:
    assert parse(target.text) == target
    assert parse(target.text).text == target.text


@pytest.mark.parametrize("text", ["any", "dialer", "channel:a>group:b>any", "sticky:any", "turn::(0.3)", "sim:7"])
def test_canonical_texts(text: str) -> None:
    assert parse(text).text == text


def test_what_a_target_says() -> None:
    assert parse("dialer").dialer
    assert not parse("any").dialer
    turn = parse("sticky:turn:uy:0-3,7")
    assert (turn.ports, turn.group, turn.sticky) == ((0, 1, 2, 3, 7), "uy", True)
    assert turn.text == "sticky:turn:uy:(0.3),7"
    assert (parse("group:uy").group, parse("group:uy").ports) == ("", None)
    assert [tier.sim_id for tier in parse("sim:12>any").tiers] == [12, 0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no place to send from"),
        ("nowhere", "no place to send from: any, channel:NAME"),
        ("channel:", "a name of 1 to 32"),
        ("channel:a b", "a name of 1 to 32"),
        ("sim:0", "a number from 1"),
        ("sim:x", "a number from 1"),
        ("any>", "no place to send from"),
        ("any>any", "twice"),
        ("sticky:dialer", "no place to send from"),
        ("turn:uy", "lacks its dial string"),
        ("turn:uy:(0.3", "at character 5"),
        ("turn:a b:0", "a name of 1 to 32"),
        ("any" * 2000, "at most 4000"),
    ],
)
def test_what_is_no_target(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse(text)


@given(st.text(max_size=60) | st.text(alphabet="any:>turnsticky(0.3)", max_size=30))
def test_any_text_is_a_target_or_none(text: str) -> None:
    try:
        target = parse(text)
    except ValueError:
        return
    assert parse(target.text) == target
