from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import DecodeError, EncodeError
from gatewayd.modems.pdu import Alphabet, Concat, InformationElement, Ports, UserData, join_text, split, userdata
from gatewayd.modems.pdu.octets import Octets
from tests.modems.pdu.strategies import any_text, concats, modest, octet, user_data

GSM7, DATA8, UCS2 = Alphabet.GSM7, Alphabet.DATA8, Alphabet.UCS2


def read(octets: str, dcs: int, udh: bool = False) -> UserData:
    return userdata.decode(Octets(bytes.fromhex(octets)), dcs, udh)


@pytest.mark.parametrize(
    ("octets", "dcs", "udh", "text"),
    [
        ("0AE8329BFD4697D9EC37", 0x00, False, "hellohello"),
        ("00", 0x00, False, ""),
        ("00", 0x08, False, ""),
        ("07E170381C0E871B", 0x00, False, "aaaaaaa"),  # seven spare bits hold CR: no character
        ("08E170381C0E8701", 0x00, False, "aaaaaaa@"),  # eight septets, the last an @
        ("10E170381C0E8701E170381C0E8701", 0x00, False, "aaaaaaa@aaaaaaa@"),
        ("04D83DDE00", 0x08, False, "😀"),
        ("0300610062", 0x08, False, "a"),  # an odd octet is dropped
        ("0461626364", 0x04, False, None),
        ("0241E1", 0x00, False, "AB"),
        # six octets of header are seven septets with one fill bit
        ("08050003010201C2", 0x00, True, "a"),
        # seven octets of header are eight septets without any
        ("09060804000102014131", 0x00, True, "A"),
        ("0A0500030102010041D83D", 0x08, True, "A\ufffd"),
        ("06050003010201", 0x00, True, ""),
        ("07050003010201FF", 0x00, True, ""),
    ],
)
def test_text(octets: str, dcs: int, udh: bool, text: str | None) -> None:
    assert read(octets, dcs, udh).text == text


def test_what_follows_the_user_data_is_not_read() -> None:
    cursor = Octets(bytes.fromhex("02" + "41E1" + "FFFF"))
    assert userdata.decode(cursor, 0x00, False).text == "AB"
    assert cursor.left == 2


@pytest.mark.parametrize(
    ("octets", "dcs", "udh", "path", "offset"),
    [
        ("", 0x00, False, "user_data.udl", 0),
        ("01", 0x00, False, "user_data", 1),
        ("0AE8329BFD4697D9EC", 0x00, False, "user_data", 1),
        ("0300", 0x08, False, "user_data", 1),
        ("FF" + "00" * 140, 0x00, False, "user_data", 1),
        ("00", 0x00, True, "user_data.udh", 1),
        ("020500", 0x04, True, "user_data.udh", 1),
        ("0105", 0x04, True, "user_data.udh", 1),
    ],
)
def test_what_does_not_fit(octets: str, dcs: int, udh: bool, path: str, offset: int) -> None:
    with pytest.raises(DecodeError) as error:
        read(octets, dcs, udh)
    assert (error.value.path, error.value.offset) == (path, offset)


@pytest.mark.parametrize(
    ("udh", "concat"),
    [
        ("0003010201", Concat(1, 2, 1, 8)),
        ("0003FF0303", Concat(255, 3, 3, 8)),
        ("080401020201", Concat(0x0102, 2, 1, 16)),
        ("0804FFFFFFFF", Concat(0xFFFF, 255, 255, 16)),
        ("0003010001", None),  # of none
        ("0003010200", None),  # the zeroth
        ("0003010203", None),  # the third of two
        ("00020102", None),  # too short
        ("000401020102", None),  # too long
        ("0803010201", None),
        ("0003010201080412340302", Concat(0x1234, 3, 2, 16)),  # the last counts
        ("00030102010003020302", Concat(2, 3, 2, 8)),
        ("00030102010003020304", Concat(1, 2, 1, 8)),  # if it is valid
        ("050400010002" + "0003010201", Concat(1, 2, 1, 8)),
        ("", None),
    ],
)
def test_concatenation(udh: str, concat: Concat | None) -> None:
    octets = bytes.fromhex(udh)
    found = read(bytes([len(octets) + 1, len(octets)]).hex() + udh, 0x04, True)
    assert found.concat == concat


def test_elements_are_kept_raw() -> None:
    found = read("0D" + "0C" + "2401FF" + "0003010201" + "7002ABCD", 0x04, True)
    assert found.udh == (
        InformationElement(0x24, b"\xff"),
        InformationElement(0x00, b"\x01\x02\x01"),
        InformationElement(0x70, b"\xab\xcd"),
    )


@pytest.mark.parametrize("cut", ["0003010201" + "05", "0003010201" + "0504", "0003010201" + "05040001"])
def test_an_element_that_is_cut_is_ignored(cut: str) -> None:
    octets = bytes.fromhex(cut)
    found = read(bytes([len(octets) + 1, len(octets)]).hex() + cut, 0x04, True)
    assert found.concat == Concat(1, 2, 1, 8)
    assert len(found.udh) == 1


@pytest.mark.parametrize(
    ("udh", "ports"),
    [
        ("05040B8423F0", Ports(2948, 9200, 16)),
        ("040201FF", Ports(1, 255, 8)),
        ("0503010203", None),
        ("0504000100020402 0304", Ports(3, 4, 8)),
    ],
)
def test_ports(udh: str, ports: Ports | None) -> None:
    octets = bytes.fromhex(udh)
    found = read(bytes([len(octets) + 1, len(octets)]).hex() + octets.hex(), 0x04, True)
    assert found.ports == ports
    if ports:
        assert ports.element() == found.udh[-1]


def test_an_unknown_national_language_is_the_default() -> None:
    assert read("0C" + "06" + "2401EE" + "2501EE" + "E8329B0D", 0x00, True).text == "hell"


def test_text_of_parts_is_decoded_after_joining() -> None:
    first = UserData(UCS2, data=bytes.fromhex("0061D83D"))
    second = UserData(UCS2, data=bytes.fromhex("DE000062"))
    assert (first.text, second.text) == ("a\ufffd", "\ufffdb")
    assert join_text([first, second]) == "a😀b"


def test_parts_in_different_alphabets_are_joined() -> None:
    parts = [
        UserData(UCS2, data=bytes.fromhex("D83D")),
        UserData(GSM7, "a€"),
        UserData(UCS2, data=bytes.fromhex("DE00")),
        UserData(DATA8, data=b"data"),
        UserData(GSM7, data=b"b\x1b"),
        UserData(GSM7, data=b"ec"),
    ]
    assert join_text(parts) == "\ufffda€\ufffdbec"
    assert join_text([]) == ""


def test_text_and_data_follow_from_each_other() -> None:
    assert UserData(GSM7, "a€").data == b"a\x1be"
    assert UserData(UCS2, "é").data == b"\0\xe9"
    assert UserData(GSM7, data=b"a\x1be").text == "a€"
    assert UserData(DATA8, data=b"abc").text is None
    assert (UserData(GSM7, "a").dcs, UserData(UCS2, "a").dcs, UserData(DATA8).dcs) == (0x00, 0x08, 0x04)
    assert UserData(GSM7, "a", dcs=0x11).message_class == 1


@pytest.mark.parametrize(
    ("alphabet", "text", "message"), [(GSM7, "б", "not in the GSM 7-bit"), (DATA8, "a", "8-bit data has no text")]
)
def test_text_that_cannot_be_written(alphabet: Alphabet, text: str, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        UserData(alphabet, text)


@pytest.mark.parametrize(
    ("broken", "path"),
    [
        (UserData(GSM7, "a", dcs=0x08), "user_data.dcs"),
        (UserData(UCS2, "a", dcs=0x00), "user_data.dcs"),
        (UserData(GSM7, "a", dcs=0x100), "user_data.dcs"),
        (UserData(GSM7, data=b"\x80"), "user_data.data"),
        (UserData(GSM7, "a" * 161), "user_data"),
        (UserData(UCS2, "é" * 71), "user_data"),
        (UserData(DATA8, data=bytes(141)), "user_data"),
        (UserData(GSM7, "a" * 154, udh=(Concat(0, 2, 1).element(),)), "user_data"),
        (UserData(GSM7, "a", udh=(InformationElement(256, b""),)), "user_data.udh"),
        (UserData(GSM7, "a", udh=(InformationElement(1, bytes(141)),)), "user_data.udh"),
        (UserData(GSM7, "a", udh=(InformationElement(1, bytes(138)),)), "user_data.udh"),
    ],
)
def test_what_cannot_be_encoded(broken: UserData, path: str) -> None:
    with pytest.raises(EncodeError) as error:
        broken.encode()
    assert error.value.path == path


@pytest.mark.parametrize(
    ("broken", "path"),
    [
        (Concat(256, 1, 1, 8), "concat_ref"),
        (Concat(-1, 1, 1, 8), "concat_ref"),
        (Concat(65536, 1, 1, 16), "concat_ref"),
        (Concat(0, 1, 1, 7), "ref_bits"),
        (Concat(0, 256, 1), "concat"),
        (Concat(0, 2, 3), "concat"),
        (Concat(0, 0, 0), "concat"),
        (Ports(256, 0, 8), "ports"),
        (Ports(0, 65536, 16), "ports"),
        (Ports(0, 0, 9), "ports"),
    ],
)
def test_no_such_element(broken: Concat | Ports, path: str) -> None:
    with pytest.raises(EncodeError) as error:
        broken.element()
    assert error.value.path == path


@modest
@given(user_data)
def test_round_trip(data: UserData) -> None:
    encoded = data.encode()
    assert len(encoded) <= 141
    found = userdata.decode(Octets(encoded), data.dcs, bool(data.udh))
    assert found == data


@modest
@given(concats)
def test_concat_round_trip(concat: Concat) -> None:
    assert UserData(GSM7, "a", udh=(concat.element(),)).concat == concat


@modest
@given(any_text.filter(bool), st.sampled_from([8, 16]))
def test_join_undoes_split(text: str, ref_bits: int) -> None:
    assert join_text(split(text, ref_bits=ref_bits)) == text


@modest
@given(st.binary(max_size=160), octet, st.booleans())
def test_any_octets_are_user_data_or_a_decode_error(octets: bytes, dcs: int, udh: bool) -> None:
    try:
        found = userdata.decode(Octets(octets), dcs, udh)
    except DecodeError:
        return
    assert (found.text is None) == (found.alphabet is DATA8)
    assert found.concat is None or 1 <= found.concat.seq <= found.concat.total
