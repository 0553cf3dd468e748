"""Reading information lines: the forms of spec/gsm-modem.md §2, §6 and §8."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.modems.at import answers
from gatewayd.modems.at.profiles import GENERIC, QUIRKS, profile_for


@pytest.mark.parametrize(
    ("text", "dbm"),
    [
        ("0,0", -113),
        ("31,99", -51),
        ("17,99", -79),
        ("99,99", None),
        ("100,99", -116),
        ("191,99", -25),
        ("199,99", None),
    ],
)
def test_signal(text: str, dbm: int | None) -> None:
    assert answers.rssi_dbm(text) == dbm


@pytest.mark.parametrize(
    ("line", "iccid"),
    [
        ('+CCID: "89598070000000000001"', "89598070000000000001"),
        ("^ICCID: 98941000000000000020", "89490100000000000002"),
        ("8949010000000000004f", "8949010000000000004"),
        ("89490100000000000045", "89490100000000000045"),
        ("ERROR", ""),
        ("+CCID: 123", ""),
    ],
)
def test_iccid(line: str, iccid: str) -> None:
    assert answers.parse_iccid(line) == iccid


@pytest.mark.parametrize(
    ("text", "readable", "common"),
    [
        ('("ME","SM"),("ME","SM"),("SM")', ("ME", "SM"), ("SM",)),
        ('(("SM","BM","SR"),("SM"))', ("SM", "BM", "SR"), ("SM",)),
        ("", (), ()),
        ("rubbish", (), ()),
    ],
)
def test_stores(text: str, readable: tuple[str, ...], common: tuple[str, ...]) -> None:
    assert answers.parse_stores(text) == (readable, common)


@pytest.mark.parametrize(
    ("line", "ref"),
    [("+CMGS: 7", 7), ("+CMGS:255", 255), ("+CMGS: 256", None), ('+CMGS: 8,"01"', 8), ("+CMGS:", None), (None, None)],
)
def test_submit_ref(line: str | None, ref: int | None) -> None:
    assert answers.submit_ref(line) == ref


@pytest.mark.parametrize(
    ("stats", "roaming", "ok"),
    [
        ({"+CREG": 0, "+CEREG": 1}, True, True),  # CREG alone misleads on LTE
        ({"+CREG": 5}, True, True),
        ({"+CREG": 5}, False, False),
        ({"+CREG": 6}, False, True),
        ({"+CREG": 2}, True, False),
        ({"+CREG": 3, "+CGREG": 0}, True, False),
    ],
)
def test_registration(stats: dict[str, int], roaming: bool, ok: bool) -> None:
    reason = answers.registered(stats, roaming=roaming)
    assert (reason == "") == ok


def test_notifications_are_compared_where_they_matter() -> None:
    assert answers.notifies("2,1,0,1,0", "2,1,0,1,0")
    assert answers.notifies("1,1,0,0,1", "2,1")
    assert not answers.notifies("2,0,0,1,0", "2,1,0,1,0")
    assert not answers.notifies("2,1,0,0,0", "2,1,0,1,0")
    assert not answers.notifies("", "2,1")


@given(st.text(max_size=60))
def test_no_text_makes_a_reader_fail(text: str) -> None:
    answers.rssi_dbm(text)
    answers.parse_iccid(text)
    answers.parse_stores(text)
    answers.submit_ref(text)
    answers.notifies(text, "2,1,0,1,0")
    answers.unprefixed(text)
    answers.imei([text])
    assert answers.number(text) is None or text.strip().isdigit()


def test_profiles_are_chosen_by_what_the_modem_says_of_itself() -> None:
    assert profile_for("huawei", "E303").name == "huawei"
    assert profile_for("Quectel", "EC25").list_by_index is False
    assert profile_for("Quectel", "EP06-A").list_by_index is True
    assert "2,1,0,2,0" not in profile_for("SIMCOM_Ltd", "SIMCOM_SIM800L").cnmi  # ds has no 2 there
    assert profile_for("WAVECOM MODEM", "MULTIBAND").codes == "wavecom"
    assert profile_for("nobody", "") is GENERIC
    for quirk in QUIRKS:  # every entry can be laid over the defaults
        profile_for(quirk.manufacturer, quirk.model)
