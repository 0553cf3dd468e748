from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.modems.pdu import ucs2
from tests.modems.pdu.strategies import modest, no_surrogates


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        ("", ""),
        ("00610431", "aб"),
        ("D83DDE00", "😀"),
        ("D83D", "\ufffd"),  # lone surrogates
        ("DE00", "\ufffd"),
        ("D83D0061", "\ufffda"),
        ("DE00D83D", "\ufffd\ufffd"),
        ("D83DD83DDE00", "\ufffd😀"),
        ("0061FF", "a"),  # an odd octet is dropped
        ("61", ""),
        ("D83DDE", "\ufffd"),
        ("FEFF0061", "\ufeffa"),
    ],
)
def test_decode(octets: str, text: str) -> None:
    assert ucs2.decode(bytes.fromhex(octets)) == text


@pytest.mark.parametrize(
    ("text", "octets"),
    [("😀", "D83DDE00"), ("\ud83d", "FFFD"), ("a\ude00b", "0061FFFD0062"), ("\ud83d\ude00", "D83DDE00")],
)
def test_encode(text: str, octets: str) -> None:
    assert ucs2.encode(text) == bytes.fromhex(octets)
    assert ucs2.units(text) * 2 == len(bytes.fromhex(octets))


@modest
@given(st.text(no_surrogates))
def test_round_trip(text: str) -> None:
    assert ucs2.decode(ucs2.encode(text)) == text


@modest
@given(st.binary())
def test_any_octets_are_text_that_can_be_stored(octets: bytes) -> None:
    ucs2.decode(octets).encode("utf-8")
