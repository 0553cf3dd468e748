from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import DecodeError, EncodeError
from gatewayd.modems.pdu import Address, TypeOfNumber, address
from gatewayd.modems.pdu.octets import Octets
from tests.modems.pdu.strategies import addresses, modest, names, numbers


def read(octets: str) -> Address:
    cursor = Octets(bytes.fromhex(octets))
    found = address.decode(cursor, "originator")
    assert cursor.left == 0
    return found


@pytest.mark.parametrize(
    ("number", "octets"),
    [
        ("+59898344484", "0B919598384484F4"),
        ("+31641600986", "0B911346610089F6"),
        ("7373", "04813737"),
        ("911", "038119F1"),
        ("*100#", "05811A00FB"),
        ("0abc", "0481C0ED"),
        ("+12345678901234567890", "149121436587092143658709"),
        ("1", "0181F1"),
    ],
)
def test_a_number_to_send_to(number: str, octets: str) -> None:
    assert Address.to_send(number).encode() == bytes.fromhex(octets)
    assert read(octets).text == number


@pytest.mark.parametrize(
    "number",
    ["", "+", "++1", "1+2", "12 34", "+598-98", "x", "ACME", "12\n", "٣٤", "0A", "1" * 21, "+" + "1" * 21, "d", "e"],
)
def test_what_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(EncodeError, match=r"^number: "):
        Address.to_send(number)


@pytest.mark.parametrize(
    ("octets", "expected", "text"),
    [
        ("0091", Address("", 1, 1), ""),  # no digits, and still a type octet
        ("0080", Address("", 0, 0), ""),
        ("00D0", Address("", 5, 0), ""),
        ("04A11234", Address("2143", 2, 1), "2143"),  # national
        ("0B111346610089F6", Address("31641600986", 1, 1), "+31641600986"),  # extension bit not set
        ("0491F122", Address("1", 1, 1), "+1"),  # 0xF ends it
        ("039121F3", Address("123", 1, 1), "+123"),
        ("039121A3", Address("123", 1, 1), "+123"),  # the last fill need not be 0xF
        ("02D041", Address("A", 5, 0), "A"),
        ("0ED0E474D81C0EBB01", Address("diafaan@", 5, 0), "diafaan@"),
        ("0DD0E474D81C0EBB01", Address("diafaan", 5, 0), "diafaan"),
        ("07D061F1980C", Address("abcd", 5, 0), "abcd"),
    ],
)
def test_decode(octets: str, expected: Address, text: str) -> None:
    assert read(octets) == expected
    assert read(octets).text == text


def test_an_alphanumeric_address_has_at_most_eleven_letters() -> None:
    eleven = Address.alphanumeric("ABCDEFGHIJK")
    assert eleven.encode()[0] == 20  # ceil(77 / 4) semi-octets
    packed = eleven.encode()[2:]
    assert read("14D0" + packed.hex()).text == "ABCDEFGHIJK"
    assert read("16D0" + packed.hex() + "44").text == "ABCDEFGHIJK"  # a longer one is clipped


@pytest.mark.parametrize("letters", range(12))
def test_an_alphanumeric_length_counts_useful_semi_octets(letters: int) -> None:
    octets = Address.alphanumeric("@" * letters).encode()
    assert octets[0] == -(-7 * letters // 4)
    assert len(octets) == 2 + -(-7 * letters // 8)
    assert read(octets.hex()).text == "@" * letters


@pytest.mark.parametrize("name", ["ABCDEFGHIJKL", "ABCDEFGHI€€", "Москва", "`"])
def test_a_name_that_does_not_fit(name: str) -> None:
    with pytest.raises(EncodeError, match=r"^name: "):
        Address.alphanumeric(name)
    with pytest.raises(EncodeError, match=r"^originator: "):
        Address(name, TypeOfNumber.ALPHANUMERIC, 0).encode("originator")


@pytest.mark.parametrize(
    "broken", [Address("1" * 21, 1, 1), Address("12x", 1, 1), Address("1", 8, 1), Address("1", 1, 16)]
)
def test_an_address_that_does_not_fit(broken: Address) -> None:
    with pytest.raises(EncodeError, match=r"^destination: "):
        broken.encode("destination")


@pytest.mark.parametrize(
    ("octets", "path", "offset"),
    [
        ("", "originator.length", 0),
        ("0B", "originator.type", 1),
        ("0B91", "originator.value", 2),
        ("0B911346610089", "originator.value", 2),
        ("FFD0C8", "originator.value", 2),
    ],
)
def test_octets_missing(octets: str, path: str, offset: int) -> None:
    with pytest.raises(DecodeError) as error:
        read(octets)
    assert (error.value.path, error.value.offset) == (path, offset)


@modest
@given(numbers)
def test_number_round_trip(number: str) -> None:
    assert read(Address.to_send(number).encode().hex()).text == number


@modest
@given(names)
def test_name_round_trip(name: str) -> None:
    assert read(Address.alphanumeric(name).encode().hex()).text == name


@modest
@given(addresses)
def test_address_round_trip(any_address: Address) -> None:
    assert read(any_address.encode().hex()) == any_address


@modest
@given(st.binary(max_size=150))
def test_any_octets_are_an_address_or_a_decode_error(octets: bytes) -> None:
    try:
        found = address.decode(Octets(octets), "originator")
    except DecodeError:
        return
    assert len(found.digits) <= octets[0]
