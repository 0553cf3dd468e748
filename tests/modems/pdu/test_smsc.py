from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import DecodeError, EncodeError
from gatewayd.modems.pdu import Address, check_length, encode_smsc, split_smsc
from gatewayd.modems.pdu.smsc import from_hex
from tests.modems.pdu.strategies import modest, numbers

DELIVER = "07911326040000F0040B911346610089F60000208062917314080CC8F71D14969741F977FD07"


@pytest.mark.parametrize(
    ("octets", "smsc", "tpdu"),
    [
        ("00" + "0100", None, "0100"),
        ("07911326040000F0" + "04", Address("31624000000", 1, 1), "04"),
        ("0481123456", Address("214365", 0, 1), ""),
        ("0191" + "04", Address("", 1, 1), "04"),
        ("00", None, ""),
    ],
)
def test_split(octets: str, smsc: Address | None, tpdu: str) -> None:
    assert split_smsc(bytes.fromhex(octets)) == (smsc, bytes.fromhex(tpdu))


@pytest.mark.parametrize(("octets", "path"), [("", "smsc.length"), ("07", "smsc.type"), ("079113", "smsc.value")])
def test_octets_missing(octets: str, path: str) -> None:
    with pytest.raises(DecodeError) as error:
        split_smsc(bytes.fromhex(octets))
    assert error.value.path == path


def test_encode() -> None:
    assert encode_smsc(None) == b"\0"
    assert encode_smsc(Address.to_send("+31624000000")) == bytes.fromhex("07911326040000F0")
    with pytest.raises(EncodeError, match=r"^smsc: "):
        encode_smsc(Address("ACME", 5, 0))


@modest
@given(numbers, st.binary(max_size=10))
def test_round_trip(number: str, tpdu: bytes) -> None:
    assert split_smsc(encode_smsc(Address.to_send(number)) + tpdu) == (Address.to_send(number), tpdu)


@pytest.mark.parametrize(
    ("text", "octets"), [("", b""), ("00ff", b"\x00\xff"), ("00 FF\r\n", b"\x00\xff"), ("0 0f F", b"\x00\xff")]
)
def test_hex(text: str, octets: bytes) -> None:
    assert from_hex(text) == octets


@pytest.mark.parametrize(
    ("text", "offset", "reason"),
    [("000", 1, "odd"), ("00zz", 1, "'z'"), ("0x00", 0, "'x'"), ("00٠٠", 1, "hex digit"), ("00\0", 1, "hex digit")],
)
def test_what_is_no_hex(text: str, offset: int, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason) as error:
        from_hex(text)
    assert (error.value.path, error.value.offset) == ("hex", offset)


def test_a_whole_line_passes() -> None:
    check_length(DELIVER, 30)
    check_length(DELIVER, None)
    check_length(DELIVER[16:], 30, smsc=False)
    check_length(DELIVER + "FF", 30)  # more than announced is not cut


@pytest.mark.parametrize("digits", range(len(DELIVER)))
def test_a_line_cut_anywhere_is_found(digits: int) -> None:
    with pytest.raises(DecodeError):
        check_length(DELIVER[:digits], 30)
