from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import EncodeError
from gatewayd.model import Message
from gatewayd.modems.pdu import (
    Address,
    Alphabet,
    Concat,
    InformationElement,
    Ports,
    RelativeValidity,
    Submit,
    UserData,
    count,
    decode,
    join_text,
    plan,
    split,
    split_data,
)
from gatewayd.modems.pdu.grapheme import is_boundary
from tests.modems.pdu.strategies import any_text, gsm_text, modest

GSM7, DATA8, UCS2 = Alphabet.GSM7, Alphabet.DATA8, Alphabet.UCS2


def texts(parts: list[UserData]) -> list[str | None]:
    return [part.text for part in parts]


@pytest.mark.parametrize(
    ("text", "ref_bits", "alphabet", "lengths"),
    [
        ("", 8, GSM7, [0]),
        ("a" * 160, 8, GSM7, [160]),
        ("a" * 161, 8, GSM7, [153, 8]),
        ("a" * 306, 8, GSM7, [153, 153]),
        ("a" * 307, 8, GSM7, [153, 153, 1]),
        ("a" * 161, 16, GSM7, [152, 9]),
        ("a" * 304, 16, GSM7, [152, 152]),
        ("€" * 80, 8, GSM7, [80]),
        ("€" * 81, 8, GSM7, [76, 5]),  # 153 is odd: one septet stays empty
        ("€" * 81, 16, GSM7, [76, 5]),
        ("a" * 152 + "€" + "a" * 20, 8, GSM7, [152, 21]),  # not between ESC and its character
        ("a" * 151 + "€" + "a" * 20, 8, GSM7, [152, 20]),
        ("é" * 160, 8, GSM7, [160]),
        ("б" * 70, 8, UCS2, [70]),
        ("б" * 71, 8, UCS2, [67, 4]),
        ("б" * 134, 8, UCS2, [67, 67]),
        ("б" * 71, 16, UCS2, [66, 5]),
        ("😀" * 35, 8, UCS2, [35]),
        ("😀" * 36, 8, UCS2, [33, 3]),  # 67 is odd: not inside a surrogate pair
        ("😀" * 36, 16, UCS2, [33, 3]),
        ("б" * 66 + "e\u0301" + "б" * 9, 8, UCS2, [66, 11]),  # not inside what people see as one character
        ("б" * 64 + "👨\u200d👩\u200d👧" + "б" * 9, 8, UCS2, [64, 14]),
        ("б" * 66 + "🇺🇾" * 2 + "б", 8, UCS2, [66, 5]),
        ("б" * 65 + "👍🏽" + "б" * 9, 8, UCS2, [65, 11]),
        ("б" + "\u0301" * 99, 8, UCS2, [67, 33]),  # unless it alone is longer than a part
        ("б" + "🇺🇾" * 40, 8, UCS2, [33, 32, 16]),
    ],
)
def test_split(text: str, ref_bits: int, alphabet: Alphabet, lengths: list[int]) -> None:
    parts = split(text, ref_bits=ref_bits)
    assert [len(part.text or "") for part in parts] == lengths
    assert {part.alphabet for part in parts} == {alphabet}
    assert "".join(part.text or "" for part in parts) == text
    assert count(text, ref_bits=ref_bits) == (alphabet, len(parts))


def test_parts_carry_their_place() -> None:
    assert [part.concat for part in split("a" * 400, concat_ref=0xAB)] == [Concat(0xAB, 3, seq) for seq in (1, 2, 3)]
    assert [part.concat for part in split("a" * 161, concat_ref=0xABCD, ref_bits=16)] == [
        Concat(0xABCD, 2, seq, 16) for seq in (1, 2)
    ]
    assert split("a" * 160)[0].udh == ()


@pytest.mark.parametrize(("text", "parts"), [("a", 255 * 153), ("б", 255 * 67)])
def test_at_most_255_parts(text: str, parts: int) -> None:
    assert len(split(text * parts)) == 255
    assert count(text * parts)[1] == 255
    for cut in (split, count):
        with pytest.raises(EncodeError, match=r"^text: takes 256 parts, at most 255"):
            cut(text * (parts + 1))


@pytest.mark.parametrize("text", ["a" * 10**6, "б" * 10**6])
def test_a_text_far_too_long_is_refused(text: str) -> None:
    for cut in (split, count):
        with pytest.raises(EncodeError, match=r"^text: "):
            cut(text)


def test_a_lower_bound_on_parts() -> None:
    assert len(split("a" * 306, max_parts=2)) == 2
    with pytest.raises(EncodeError, match="at most 2 are allowed"):
        split("a" * 307, max_parts=2)
    with pytest.raises(EncodeError, match="at most 2 are allowed"):
        count("a" * 307, max_parts=2)


def test_the_alphabet_can_be_chosen() -> None:
    assert split("a", alphabet=UCS2)[0].data == b"\0a"
    with pytest.raises(EncodeError, match=r"U\+0431"):
        split("б", alphabet=GSM7)
    with pytest.raises(EncodeError, match=r"^alphabet: "):
        split("a", alphabet=DATA8)


@pytest.mark.parametrize(("ref", "bits", "path"), [(256, 8, "concat_ref"), (-1, 8, "concat_ref"), (0, 12, "ref_bits")])
@pytest.mark.parametrize("text", ["a", "a" * 200])
def test_a_reference_that_does_not_fit(text: str, ref: int, bits: int, path: str) -> None:
    with pytest.raises(EncodeError) as error:
        split(text, concat_ref=ref, ref_bits=bits)
    assert error.value.path == path


def test_a_class_is_in_every_part() -> None:
    assert {part.dcs for part in split("a" * 200, message_class=0)} == {0x10}
    assert {part.dcs for part in split("б" * 100, message_class=0)} == {0x18}
    with pytest.raises(EncodeError, match="message_class"):
        split("a", message_class=4)


def test_a_lone_surrogate_is_replaced() -> None:
    assert texts(split("a\ud83d")) == ["a\ufffd"]
    assert count("a\ud83d") == (UCS2, 1)
    assert count("\ud83d" * 71) == (UCS2, 2)


def test_data_with_ports() -> None:
    ports = Ports(2948, 9200)
    parts = split_data(bytes(300), concat_ref=7, udh=(ports.element(),))
    assert [len(part.data) for part in parts] == [128, 128, 44]
    assert {part.ports for part in parts} == {ports}
    assert [part.concat for part in parts] == [Concat(7, 3, seq) for seq in (1, 2, 3)]
    assert [len(part.data) for part in split_data(bytes(140))] == [140]
    assert [len(part.data) for part in split_data(bytes(141))] == [134, 7]
    assert [len(part.data) for part in split_data(bytes(134), udh=(ports.element(),))] == [128, 6]
    assert [len(part.data) for part in split_data(b"")] == [0]
    with pytest.raises(EncodeError, match="at most 255"):
        split_data(bytes(134 * 255 + 1))


def test_a_header_makes_parts_smaller() -> None:
    udh = (InformationElement(0x70, bytes(4)),)
    assert len(split("a" * 152, udh=udh)) == 1
    assert len(split("a" * 153, udh=udh)) == 2
    with pytest.raises(EncodeError, match="udh"):
        split("a" * 153, udh=(InformationElement(0x70, bytes(131)),))
    with pytest.raises(EncodeError, match="udh"):
        split_data(bytes(153), udh=(InformationElement(0x70, bytes(135)),))


def test_plan() -> None:
    message = Message(1, "+59898344484", "a" * 161, report=True, concat_ref=0x1234, validity_s=3600)
    segments = plan(message)
    assert [(segment.seq, segment.total, segment.parts) for segment in segments] == [(1, 2, 1), (2, 2, 1)]
    assert all(segment.message is message for segment in segments)
    for segment in segments:
        tpdu = decode(segment.tpdu, from_sc=False)
        assert isinstance(tpdu, Submit)
        assert tpdu.destination == Address.to_send("+59898344484")
        assert tpdu.report
        assert tpdu.mr == 0
        assert tpdu.validity == RelativeValidity(11)
        assert tpdu.user_data.concat == Concat(0x34, 2, segment.seq, 8)


def test_plan_with_what_the_channel_wants() -> None:
    message = Message(1, "7373", "a" * 161, concat_ref=0x1234, validity_s=3600)
    tpdu = decode(plan(message, ref_bits=16, submit_report=False, submit_validity=False)[0].tpdu, from_sc=False)
    assert isinstance(tpdu, Submit)
    assert (tpdu.report, tpdu.validity) == (False, None)
    assert tpdu.user_data.concat == Concat(0x1234, 2, 1, 16)
    quiet = decode(plan(Message(1, "7373", "a", report=False))[0].tpdu, from_sc=False)
    assert isinstance(quiet, Submit)
    assert (quiet.report, quiet.validity) == (False, None)


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (Message(1, "ACME", "a"), "number"),
        (Message(1, "", "a"), "number"),
        (Message(1, "+598", "a" * 50_000), "text"),
    ],
)
def test_what_cannot_be_planned(message: Message, path: str) -> None:
    with pytest.raises(EncodeError) as error:
        plan(message)
    assert error.value.path == path


@modest
@given(any_text, st.sampled_from([8, 16]), st.integers(0, 65535))
def test_count_is_what_is_planned(text: str, ref_bits: int, concat_ref: int) -> None:
    message = Message(1, "+598", text, concat_ref=concat_ref)
    segments = plan(message, ref_bits=ref_bits)
    alphabet, parts = count(text, ref_bits=ref_bits)
    tpdus = [decode(segment.tpdu, from_sc=False) for segment in segments]
    assert len(segments) == parts
    assert {tpdu.user_data.alphabet for tpdu in tpdus if isinstance(tpdu, Submit)} == {alphabet}
    assert join_text([tpdu.user_data for tpdu in tpdus if isinstance(tpdu, Submit)]) == text


@modest
@given(any_text, st.sampled_from([8, 16]))
def test_parts_fit_and_no_character_is_torn(text: str, ref_bits: int) -> None:
    parts = split(text, ref_bits=ref_bits)
    assert "".join(part.text or "" for part in parts) == text
    end = 0
    for part in parts:
        part.encode()
        start, end = end, end + len(part.text or "")
        if end < len(text) and part.alphabet is UCS2:
            whole = any(is_boundary(text, index, start) for index in range(start + 1, end + 1))
            assert is_boundary(text, end, start) or not whole


@modest
@given(gsm_text.map(lambda text: text * 8), st.sampled_from([8, 16]))
def test_gsm_parts_are_as_full_as_they_can_be(text: str, ref_bits: int) -> None:
    parts = split(text, ref_bits=ref_bits)
    capacity = {8: 153, 16: 152}[ref_bits]
    for part, following in pairwise(parts):
        assert part.data[-1] != 0x1B
        assert len(part.data) == capacity or (len(part.data) == capacity - 1 and following.data[0] == 0x1B)
