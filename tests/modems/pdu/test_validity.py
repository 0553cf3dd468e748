from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import DecodeError, EncodeError
from gatewayd.modems.pdu import AbsoluteValidity, EnhancedValidity, RelativeValidity, Timestamp, Validity, validity
from gatewayd.modems.pdu.octets import Octets
from tests.modems.pdu.strategies import modest, validities

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86400, 604800


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 5 * MINUTE),
        (1, 10 * MINUTE),
        (143, 12 * HOUR),
        (144, 12 * HOUR + 30 * MINUTE),
        (167, 24 * HOUR),
        (168, 2 * DAY),
        (170, 4 * DAY),
        (196, 30 * DAY),
        (197, 5 * WEEK),
        (255, 63 * WEEK),
    ],
)
def test_relative(value: int, seconds: int) -> None:
    assert RelativeValidity(value).seconds == seconds
    assert RelativeValidity.of_seconds(seconds) == RelativeValidity(value)


@pytest.mark.parametrize(
    ("seconds", "value"),
    [
        (-1, 0),  # five minutes is the least
        (0, 0),
        (299, 0),
        (599, 0),
        (601, 1),
        (12 * HOUR + 29 * MINUTE, 143),
        (36 * HOUR, 167),  # there is nothing between 24 hours and 2 days
        (2 * DAY - 1, 167),
        (34 * DAY, 196),  # nor between 30 days and 5 weeks
        (64 * WEEK, 255),
        (10**12, 255),
    ],
)
def test_relative_is_never_longer_than_asked(seconds: int, value: int) -> None:
    assert RelativeValidity.of_seconds(seconds) == RelativeValidity(value)


@pytest.mark.parametrize("value", [-1, 256])
def test_no_such_relative_value(value: int) -> None:
    with pytest.raises(EncodeError, match=r"^validity: "):
        RelativeValidity(value).encode()


@pytest.mark.parametrize(
    ("octets", "seconds", "single_shot"),
    [
        ("00000000000000", None, False),
        ("40000000000000", None, True),
        ("01AA0000000000", 4 * DAY, False),
        ("423C0000000000", 60, True),
        ("02000000000000", None, False),  # zero seconds is reserved
        ("03214365000000", 12 * HOUR + 34 * MINUTE + 56, False),
        ("03FF0000000000", None, False),
        ("04FF0000000000", None, False),  # reserved
        ("8100AA00000000", 4 * DAY, False),  # one more functionality indicator
        ("81808080808080", None, False),  # nothing but indicators
        ("83808080802143", None, False),
    ],
)
def test_enhanced(octets: str, seconds: int | None, single_shot: bool) -> None:
    found = validity.decode(Octets(bytes.fromhex(octets)), validity.ENHANCED)
    assert isinstance(found, EnhancedValidity)
    assert (found.seconds, found.single_shot) == (seconds, single_shot)
    assert found.encode() == bytes.fromhex(octets)


def test_enhanced_has_seven_octets() -> None:
    with pytest.raises(EncodeError, match=r"^validity: "):
        EnhancedValidity(b"\x01\x02").encode()


def test_absolute() -> None:
    octets = bytes.fromhex("32114191310221")
    found = validity.decode(Octets(octets), validity.ABSOLUTE)
    assert found == AbsoluteValidity(Timestamp(1699978400, 12))
    assert found.encode() == octets
    assert validity.decode(Octets(bytes(7)), validity.ABSOLUTE) == AbsoluteValidity(None)


def test_none() -> None:
    cursor = Octets(b"\x01")
    assert validity.decode(cursor, validity.NOT_PRESENT) is None
    assert cursor.left == 1


@pytest.mark.parametrize(
    ("vpf", "octets"), [(validity.RELATIVE, b""), (validity.ABSOLUTE, bytes(6)), (validity.ENHANCED, bytes(6))]
)
def test_octets_missing(vpf: int, octets: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^validity at octet 0"):
        validity.decode(Octets(octets), vpf)


@modest
@given(validities)
def test_round_trip(period: Validity) -> None:
    assert validity.decode(Octets(period.encode()), period.format) == period


@modest
@given(st.integers(300, 70 * WEEK))
def test_of_seconds_is_the_longest_that_fits(seconds: int) -> None:
    found = RelativeValidity.of_seconds(seconds)
    assert found.seconds <= seconds
    assert found.value == 255 or RelativeValidity(found.value + 1).seconds > seconds
