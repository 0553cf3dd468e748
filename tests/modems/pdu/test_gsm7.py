from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import DecodeError, EncodeError
from gatewayd.modems.pdu import gsm7
from tests.modems.pdu.strategies import gsm_text, modest

septet_strings = st.binary(max_size=170).map(lambda octets: bytes(octet & 0x7F for octet in octets))


@pytest.mark.parametrize(
    ("text", "septets"),
    [
        ("", ""),
        ("@", "00"),
        ("§", "5F"),
        ("Ç", "09"),
        ("_", "11"),
        ("Δ", "10"),
        ("¤", "24"),
        ("$", "02"),
        ("¡¿", "4060"),
        ("ÄÖÑÜ", "5B5C5D5E"),
        ("äöñüà", "7B7C7D7E7F"),
        ("ÆæßÉ", "1C1D1E1F"),
        ("\n\r", "0A0D"),
        ("€", "1B65"),
        ("[]{}~|^\\\f", "1B3C1B3E1B281B291B3D1B401B141B2F1B0A"),
    ],
)
def test_characters(text: str, septets: str) -> None:
    assert gsm7.encode(text) == bytes.fromhex(septets)
    assert gsm7.decode(bytes.fromhex(septets)) == text
    assert gsm7.length(text) == len(bytes.fromhex(septets))


def test_the_default_table_has_128_different_places() -> None:
    assert len(gsm7.DEFAULT) == 128
    assert len(set(gsm7.DEFAULT)) == 127  # the space is also what ESC is shown as


@pytest.mark.parametrize(
    ("text", "named"), [("`", "1 (U+0060)"), ("aç", "2 (U+00E7)"), ("ÿ", "U+00FF"), ("a😀", "U+1F600"), ("\x1b", "1B")]
)
def test_a_character_outside_is_named(text: str, named: str) -> None:
    assert not gsm7.encodable(text)
    with pytest.raises(EncodeError, match=r"^text: ") as error:
        gsm7.encode(text)
    assert named in error.value.reason


@pytest.mark.parametrize(
    ("septets", "text"),
    [
        ("1B61", "a"),  # an unknown escape is the character of the main table
        ("1B0D", "\r"),
        ("611B", "a"),  # a dangling escape is nothing
        ("1B", ""),
        ("1B1B", " "),  # an escape to a further table that nobody defined
        ("1B1B65", " e"),
        ("1B00", "@"),
    ],
)
def test_escapes(septets: str, text: str) -> None:
    assert gsm7.decode(bytes.fromhex(septets)) == text


def test_an_unknown_language_is_the_default() -> None:
    assert gsm7.decode(b"\x1b\x65\x5f", locking_shift=200, single_shift=200) == "€§"


@pytest.mark.parametrize(
    ("septets", "fill_bits", "octets"),
    [
        (b"hellohello", 0, "E8329BFD4697D9EC37"),
        (b"", 0, ""),
        (b"a", 0, "61"),
        (b"a", 1, "C2"),
        (b"a", 6, "4018"),
        (b"aaaaaaaa", 0, "E170381C0E87C3"),  # eight septets are seven octets
        (b"aaaaaaa", 0, "E170381C0E8701"),  # seven leave seven spare bits, which are zero
        (b"aaaaaaa\0", 0, "E170381C0E8701"),  # and look the same with an @ behind: only TP-UDL tells
    ],
)
def test_packing(septets: bytes, fill_bits: int, octets: str) -> None:
    assert gsm7.pack(septets, fill_bits) == bytes.fromhex(octets)
    assert gsm7.unpack(bytes.fromhex(octets), len(septets), fill_bits) == septets


def test_seven_spare_bits_are_no_character_whatever_they_hold() -> None:
    padded_with_cr = bytes.fromhex("E170381C0E871B")  # 0x0D in the spare bits
    assert gsm7.unpack(padded_with_cr, 7) == b"aaaaaaa"
    assert gsm7.unpack(padded_with_cr, 8) == b"aaaaaaa\r"


@pytest.mark.parametrize(
    ("octets", "septets", "fill_bits"), [(b"", 1, 0), (b"a", 2, 0), (b"a", 1, 2), (bytes(7), 9, 0)]
)
def test_too_few_octets(octets: bytes, septets: int, fill_bits: int) -> None:
    with pytest.raises(DecodeError, match="septets"):
        gsm7.unpack(octets, septets, fill_bits)


@pytest.mark.parametrize(
    ("septets", "octets"),
    [
        (b"*100#", "AA180C3602"),
        (b"aaaaaaa", "E170381C0E871B"),  # seven spare bits: CR, or it would be read as @
        (b"aaaaaaa\r", "E170381C0E871B0D"),  # its own CR at the border: one more
        (b"aaaaaaa\0", "E170381C0E8701"),
        (b"", ""),
    ],
)
def test_ussd_packing(septets: bytes, octets: str) -> None:
    assert gsm7.pack_ussd(septets) == bytes.fromhex(octets)


def test_ussd_unpacking() -> None:
    assert gsm7.unpack_ussd(bytes.fromhex("AA180C3602")) == b"*100#"
    assert gsm7.unpack_ussd(bytes.fromhex("E170381C0E871B")) == b"aaaaaaa"
    assert gsm7.unpack_ussd(bytes.fromhex("E170381C0E8701")) == b"aaaaaaa\0"
    assert gsm7.unpack_ussd(b"") == b""


@modest
@given(gsm_text)
def test_text_round_trip(text: str) -> None:
    septets = gsm7.encode(text)
    assert gsm7.decode(septets) == text
    assert len(septets) == gsm7.length(text)


@modest
@given(septet_strings, st.integers(0, 6))
def test_packing_round_trip(septets: bytes, fill_bits: int) -> None:
    octets = gsm7.pack(septets, fill_bits)
    assert len(octets) == (7 * len(septets) + fill_bits + 7) // 8
    assert gsm7.unpack(octets, len(septets), fill_bits) == septets
    assert gsm7.unpack(octets + b"\xff", len(septets), fill_bits) == septets


@modest
@given(st.binary(max_size=200))
def test_any_septets_are_text(septets: bytes) -> None:
    assert len(gsm7.decode(septets)) <= len(septets)


@modest
@given(septet_strings.filter(lambda septets: not septets.endswith(b"\r")))
def test_ussd_round_trip(septets: bytes) -> None:
    assert gsm7.unpack_ussd(gsm7.pack_ussd(septets)) == septets
