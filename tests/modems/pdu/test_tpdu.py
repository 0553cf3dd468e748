from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.errors import DecodeError, EncodeError
from gatewayd.modems.pdu import (
    AbsoluteValidity,
    Address,
    Alphabet,
    Concat,
    Deliver,
    EnhancedValidity,
    Ports,
    RelativeValidity,
    StatusReport,
    Submit,
    Timestamp,
    Tpdu,
    UserData,
    decode,
    decode_pdu,
    split,
)
from tests.modems.pdu.strategies import delivers, modest, status_reports, submits

HI = UserData(Alphabet.GSM7, "hi")
TO = Address.to_send("+46708251358")

SUBMITS = [
    ("01000B916407281553F800000AE8329BFD4697D9EC37", Submit(TO, UserData(Alphabet.GSM7, "hellohello"))),
    (
        "11000B916407281553F80000AA0AE8329BFD4697D9EC37",
        Submit(TO, UserData(Alphabet.GSM7, "hellohello"), validity=RelativeValidity(0xAA)),
    ),
    (
        "B5FF0481373740180004D83DDE00",
        Submit(
            Address.to_send("7373"),
            UserData(Alphabet.UCS2, "😀", dcs=0x18),
            mr=255,
            report=True,
            reject_duplicates=True,
            reply_path=True,
            pid=0x40,
            validity=RelativeValidity(0),
        ),
    ),
    (
        "1900039121F30000" + "32114191310221" + "02E834",
        Submit(Address.to_send("+123"), HI, validity=AbsoluteValidity(Timestamp(1699978400, 12))),
    ),
    (
        "0900039121F30000" + "01AA0000000000" + "02E834",
        Submit(Address.to_send("+123"), HI, validity=EnhancedValidity(bytes.fromhex("01AA0000000000"))),
    ),
    (
        "4100039121F30004" + "09" + "0605040B8423F0" + "CAFE",
        Submit(
            Address.to_send("+123"),
            UserData(Alphabet.DATA8, data=b"\xca\xfe", udh=(Ports(2948, 9200).element(),)),
        ),
    ),
]
DELIVERS = [
    (
        "040B911346610089F60000208062917314000CC8F71D14969741F977FD07",
        Deliver(Address.to_send("+31641600986"), UserData(Alphabet.GSM7, "How are you?"), Timestamp(1030390661)),
    ),
    (
        "240DD0E474D81C0EBB010000111011315214000BE474D81C0EBB5DE3771B",
        Deliver(
            Address.alphanumeric("diafaan"),
            UserData(Alphabet.GSM7, "diafaan.com"),
            Timestamp(1294752341),
            report_indicator=True,
        ),
    ),
    (
        "C80491214341113211419131022A08050003010201C2",
        Deliver(
            Address.to_send("+1234"),
            UserData(Alphabet.GSM7, "a", udh=(Concat(1, 2, 1).element(),), dcs=0x11),
            Timestamp(1700009000, -22),
            pid=0x41,
            more_messages=True,
            reply_path=True,
            loop_prevention=True,
        ),
    ),
    ("040080000000000000000000" + "00", Deliver(Address("", 0, 0), UserData(Alphabet.GSM7, ""))),
]
STATUS_REPORTS = [
    (
        "06050691951832321141913102213211419141022100",
        StatusReport(5, Address.to_send("+598123"), Timestamp(1699978400, 12), Timestamp(1699978460, 12), 0x00),
    ),
    (
        "0205039121F3" + "00" * 14 + "46",
        StatusReport(5, Address.to_send("+123"), None, None, 0x46, more_messages=True),
    ),
    (
        "6EFF039121F3" + "00" * 14 + "20" + "07" + "40" + "04" + "08" + "050003010201" + "CAFE",
        StatusReport(
            255,
            Address.to_send("+123"),
            None,
            None,
            0x20,
            loop_prevention=True,
            command=True,
            pid=0x40,
            user_data=UserData(Alphabet.DATA8, data=b"\xca\xfe", udh=(Concat(1, 2, 1).element(),)),
        ),
    ),
]


@pytest.mark.parametrize(("octets", "tpdu"), SUBMITS)
def test_submit(octets: str, tpdu: Submit) -> None:
    assert tpdu.encode().hex().upper() == octets
    assert decode(bytes.fromhex(octets), from_sc=False) == tpdu


@pytest.mark.parametrize(("octets", "tpdu"), [*DELIVERS, *STATUS_REPORTS])
def test_from_the_sms_centre(octets: str, tpdu: Tpdu) -> None:
    assert tpdu.encode().hex().upper() == octets
    assert decode(bytes.fromhex(octets)) == tpdu


def test_the_reserved_type_from_the_sms_centre_is_a_deliver() -> None:
    octets, tpdu = DELIVERS[0]
    assert decode(bytes.fromhex("07" + octets[2:])) == tpdu


@pytest.mark.parametrize(("first", "from_sc"), [("01", True), ("00", False), ("02", False), ("03", False)])
def test_other_types_are_refused(first: str, from_sc: bool) -> None:
    with pytest.raises(DecodeError, match=r"^first_octet at octet 0: message type"):
        decode(bytes.fromhex(first + DELIVERS[0][0][2:]), from_sc=from_sc)


@pytest.mark.parametrize(
    ("octets", "from_sc", "path", "offset"),
    [
        ("", True, "first_octet", 0),
        ("04", True, "originator.length", 1),
        ("040B91134661", True, "originator.value", 3),
        ("04039121F3", True, "pid", 5),
        ("04039121F300", True, "user_data.dcs", 6),
        ("04039121F30000321141", True, "scts", 7),
        ("04039121F3000032114191310221", True, "user_data.udl", 14),
        ("04039121F30000321141913102210268", True, "user_data", 15),
        ("44039121F300003211419131022101FF", True, "user_data.udh", 15),
        ("01", False, "mr", 1),
        ("0100039121", False, "destination.value", 4),
        ("1100039121F30000", False, "validity", 8),
        ("1900039121F30000321141", False, "validity", 8),
        ("0205039121F3" + "00" * 6, True, "scts", 6),
        ("0205039121F3" + "00" * 13, True, "discharge", 13),
        ("0205039121F3" + "00" * 14, True, "status", 20),
    ],
)
def test_a_tpdu_that_is_cut(octets: str, from_sc: bool, path: str, offset: int) -> None:
    with pytest.raises(DecodeError) as error:
        decode(bytes.fromhex(octets), from_sc=from_sc)
    assert (error.value.path, error.value.offset) == (path, offset)


@pytest.mark.parametrize(("octets", "tpdu"), [*SUBMITS, *DELIVERS])
def test_octets_after_the_last_field_are_ignored(octets: str, tpdu: Tpdu) -> None:
    assert decode(bytes.fromhex(octets + "61626300FF"), from_sc=not isinstance(tpdu, Submit)) == tpdu


@pytest.mark.parametrize("tail", ["00", "FF", "FFFFFFFF", "80", "02", "04", "0404", "07", "040561", "8000", "F8"])
def test_a_report_is_not_lost_over_what_follows_it(tail: str) -> None:
    octets, tpdu = STATUS_REPORTS[0]
    assert decode(bytes.fromhex(octets + tail)) == tpdu


def test_a_report_keeps_what_could_be_read_behind_it() -> None:
    report = decode(bytes.fromhex(STATUS_REPORTS[0][0] + "0540" + "05"))
    assert isinstance(report, StatusReport)
    assert (report.pid, report.user_data) == (0x40, None)
    extended = decode(bytes.fromhex(STATUS_REPORTS[0][0] + "850040" + "0241E1"))
    assert isinstance(extended, StatusReport)
    assert extended.user_data is not None
    assert (extended.pid, extended.user_data.text) == (0x40, "AB")  # without TP-DCS: the default alphabet


@pytest.mark.parametrize(
    ("broken", "path"),
    [
        (Submit(TO, HI, mr=256), "mr"),
        (Submit(TO, HI, pid=-1), "pid"),
        (Submit(TO, HI, validity=RelativeValidity(256)), "validity"),
        (Submit(Address("x", 1, 1), HI), "destination"),
        (Submit(TO, UserData(Alphabet.GSM7, "a" * 161)), "user_data"),
        (Submit(TO, UserData(Alphabet.GSM7, "a", dcs=0x08)), "user_data.dcs"),
        (Deliver(Address("x", 1, 1), HI), "originator"),
        (Deliver(TO, HI, Timestamp(0)), "scts"),
        (StatusReport(256, TO, None, None, 0), "mr"),
        (StatusReport(0, Address("x", 1, 1), None, None, 0), "recipient"),
        (StatusReport(0, TO, Timestamp(0), None, 0), "scts"),
        (StatusReport(0, TO, None, Timestamp(0), 0), "discharge"),
        (StatusReport(0, TO, None, None, 256), "status"),
        (StatusReport(0, TO, None, None, 0, pid=256), "pid"),
    ],
)
def test_what_cannot_be_encoded(broken: Tpdu, path: str) -> None:
    with pytest.raises(EncodeError) as error:
        broken.encode()
    assert error.value.path == path


def test_a_whole_pdu() -> None:
    octets, tpdu = DELIVERS[0]
    assert decode_pdu(" 07911326040000f0" + octets.lower() + "\r\n") == (Address.to_send("+31624000000"), tpdu)
    assert decode_pdu("00" + octets) == (None, tpdu)
    assert decode_pdu(octets, smsc=False) == (None, tpdu)
    assert decode_pdu("00" + SUBMITS[0][0], from_sc=False) == (None, SUBMITS[0][1])


@pytest.mark.parametrize(
    ("hex_text", "path", "offset"),
    [
        ("", "smsc.length", 0),
        ("0791", "smsc.value", 2),
        ("07911326040000F0", "first_octet", 8),
        ("07911326040000F00", "hex", 8),
        ("07911326040000F0040B91134661", "originator.value", 11),
        ("OK", "hex", 0),
    ],
)
def test_offsets_count_from_the_first_octet_of_the_pdu(hex_text: str, path: str, offset: int) -> None:
    with pytest.raises(DecodeError) as error:
        decode_pdu(hex_text)
    assert (error.value.path, error.value.offset) == (path, offset)


def test_a_tpdu_has_at_most_164_octets() -> None:
    part = split("x" * 500)[0]
    longest = Submit(Address.to_send("+" + "1" * 20), part, validity=AbsoluteValidity(Timestamp(1699978400, 12)))
    assert len(longest.encode()) == 164


@modest
@given(submits)
def test_submit_round_trip(tpdu: Submit) -> None:
    assert decode(tpdu.encode(), from_sc=False) == tpdu


@modest
@given(st.one_of(delivers, status_reports))
def test_round_trip(tpdu: Tpdu) -> None:
    assert decode(tpdu.encode()) == tpdu


@modest
@given(st.one_of(submits, delivers), st.data())
def test_cut_anywhere_it_is_a_decode_error(tpdu: Tpdu, data: st.DataObject) -> None:
    octets = tpdu.encode()
    cut = octets[: data.draw(st.integers(0, len(octets) - 1))]
    with pytest.raises(DecodeError):
        decode(cut, from_sc=not isinstance(tpdu, Submit))


@modest
@given(st.one_of(submits, delivers, status_reports), st.data())
def test_damaged_anywhere_it_is_a_tpdu_or_a_decode_error(tpdu: Tpdu, data: st.DataObject) -> None:
    octets = bytearray(tpdu.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    _decodes_or_says_why(bytes(octets))


@modest
@given(st.binary(max_size=400))
@example(bytes(100_000))
@example(b"\x02" + bytes(30) + b"\xff" * 100_000)
@example(b"\xff" * 1000)
def test_any_octets_are_a_tpdu_or_a_decode_error(octets: bytes) -> None:
    _decodes_or_says_why(octets)


@modest
@given(st.text(max_size=100))
def test_any_text_is_a_pdu_or_a_decode_error(text: str) -> None:
    for smsc in (True, False):
        fault = _fault_of(lambda smsc=smsc: decode_pdu(text, smsc=smsc)[1])  # type: ignore[misc]
        assert fault is None or 0 <= fault.offset <= len(text)


def _decodes_or_says_why(octets: bytes) -> None:
    for from_sc in (True, False):
        fault = _fault_of(lambda from_sc=from_sc: decode(octets, from_sc=from_sc))  # type: ignore[misc]
        assert fault is None or (fault.path and 0 <= fault.offset <= len(octets))


def _fault_of(decoding: Callable[[], Tpdu]) -> DecodeError | None:
    """None if it gave a TPDU."""
    try:
        assert isinstance(decoding(), Submit | Deliver | StatusReport)
    except DecodeError as fault:
        return fault
    return None
