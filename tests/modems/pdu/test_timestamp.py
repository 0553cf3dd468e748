from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import DecodeError, EncodeError
from gatewayd.modems.pdu import Timestamp, timestamp
from gatewayd.modems.pdu.octets import Octets
from tests.modems.pdu.strategies import modest, timestamps


def read(octets: str) -> Timestamp | None:
    return timestamp.decode(Octets(bytes.fromhex(octets)), "scts")


@pytest.mark.parametrize(
    ("octets", "iso"),
    [
        ("20806291731400", "2002-08-26T19:37:41+00:00"),
        ("32114191310221", "2023-11-14T19:13:20+03:00"),
        ("3211419131022A", "2023-11-14T19:13:20-05:30"),  # bit 3 is the sign, 22 quarters
        ("32114191310223", "2023-11-14T19:13:20+08:00"),
        ("00101000000000", "2000-01-01T00:00:00+00:00"),
        ("98213132959500", "2089-12-13T23:59:59+00:00"),
        ("09101000000000", "1990-01-01T00:00:00+00:00"),
        ("99213132959500", "1999-12-13T23:59:59+00:00"),
        ("42209200000000", "2024-02-29T00:00:00+00:00"),
    ],
)
def test_decode(octets: str, iso: str) -> None:
    found = read(octets)
    assert str(found) == iso
    assert found is not None
    assert found.encode() == bytes.fromhex(octets)


def test_minus_zero_is_zero() -> None:
    assert read("20806291731408") == Timestamp(1030390661, 0)


@pytest.mark.parametrize(
    "octets",
    [
        "00000000000000",
        "FFFFFFFFFFFFFF",
        "32004191310200",  # month 0
        "32314191310200",  # month 13
        "32110091310200",  # day 0
        "32209200000000",  # 29 February 2023
        "32114142310200",  # hour 24
        "32114191060200",  # minute 60
        "32114191310600",  # second 60
        "A2114191310200",  # no decimal digit
        "321141913102F0",  # no decimal digit in the offset
        "321141913102FF",
    ],
)
def test_what_is_no_time_is_unknown(octets: str) -> None:
    assert read(octets) is None


def test_octets_missing() -> None:
    with pytest.raises(DecodeError, match="scts at octet 0: needs 7 octets, 6 octets left"):
        read("000000000000")


def test_the_moment_keeps_its_offset() -> None:
    stamp = Timestamp(1700000000, -12)
    assert stamp.moment.utcoffset() == timedelta(hours=-3)
    assert stamp.moment == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert stamp.epoch_ms == 1700000000000


@pytest.mark.parametrize(
    "stamp", [Timestamp(0), Timestamp(4102444800), Timestamp(1700000000, 80), Timestamp(10**30), Timestamp(-(10**15))]
)
def test_what_does_not_fit(stamp: Timestamp) -> None:
    with pytest.raises(EncodeError, match=r"^scts: "):
        stamp.encode("scts")


@modest
@given(timestamps)
def test_round_trip(stamp: Timestamp) -> None:
    assert read(stamp.encode().hex()) == stamp


@modest
@given(st.binary(min_size=7, max_size=7))
def test_any_seven_octets_are_a_time_or_unknown(octets: bytes) -> None:
    stamp = timestamp.decode(Octets(octets), "scts")
    if stamp is not None:
        assert read(stamp.encode().hex()) == stamp
