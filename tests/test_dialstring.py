"""Dial strings: decision 2, S4-27 to S4-31."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.config.dialstring import MAX_PORT, DialStringError, parse, write

PORTS = st.lists(st.integers(0, MAX_PORT), unique=True, min_size=1, max_size=20).map(tuple)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("(0.3)", (0, 1, 2, 3)),  # S4-28
        ("3", (3,)),  # S4-29
        ("0.3", (0, 1, 2, 3)),
        ("0-3", (0, 1, 2, 3)),
        ("(0-3)", (0, 1, 2, 3)),
        ("0,2,3", (0, 2, 3)),
        ("3,0,2", (3, 0, 2)),  # the order written is the order of the turn
        ("(0.3),7", (0, 1, 2, 3, 7)),
        ("7,(0.2),4-5", (7, 0, 1, 2, 4, 5)),
        ("(5.5)", (5,)),
        ("0", (0,)),
    ],
)
def test_what_is_understood(text: str, ports: tuple[int, ...]) -> None:
    assert parse(text) == ports


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 1, "it is empty"),
        ("(0.3", 5, "not closed"),
        ("(0)", 3, "a range"),
        ("(0,3)", 3, "a range"),
        ("0.3)", 4, "')' does not belong"),
        ("0,,3", 3, "not ','"),
        ("0,", 3, "but it ends"),
        (",0", 1, "not ','"),
        ("3.0", 3, "backwards; 0.3 is expected"),
        ("0,1,0", 5, "port 0 stands in it twice"),
        ("(0.3),2", 7, "port 2 stands in it twice"),
        ("0 ", 2, "' ' does not belong"),
        ("00", 1, "leading zeros"),
        ("99999", 1, "numbers from 0 to 9999"),
        ("-1", 1, "not '-'"),
        ("0..3", 3, "not '.'"),
        ("sim1", 1, "not 's'"),
        ("٣", 1, "not '٣'"),
    ],
)
def test_anything_else_shows_the_position_of_the_fault(text: str, position: int, reason: str) -> None:
    with pytest.raises(DialStringError, match="at character") as caught:
        parse(text)
    assert (caught.value.position, reason in caught.value.reason) == (position, True), caught.value


@given(PORTS)
def test_any_ports_can_be_written(ports: tuple[int, ...]) -> None:
    assert parse(write(ports)) == ports


@given(st.text(alphabet="0123456789().,-", max_size=20) | st.text(max_size=20))
def test_any_text_gives_ports_or_the_position_of_its_fault(text: str) -> None:
    position, ports = 1, (0,)
    try:
        ports = parse(text)
    except DialStringError as error:
        position = error.position
    assert 1 <= position <= len(text) + 1
    assert ports
    assert len(set(ports)) == len(ports)
    assert parse(write(ports)) == ports
