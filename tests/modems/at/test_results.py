"""Final results and their meaning: spec/gsm-modem.md §3 and §5."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.model import FailureClass, Outcome
from gatewayd.modems.at.results import CME_ROWS, CMS_ROWS, OK, TIMEOUT, Kind, Phase, Result, judge, parse_final


def cms(code: int) -> Result:
    return Result(Kind.CMS, code)


def cme(code: int) -> Result:
    return Result(Kind.CME, code)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("OK", "OK"),
        ("ERROR", "ERROR"),
        ("+CMS ERROR: 38", "CMS 38"),
        ("+CMS ERROR:38", "CMS 38"),
        ("+CMS ERROR 38", "CMS 38"),
        ("+CME ERROR: SIM busy", "CME 14"),
        ("+CME ERROR: (U)SIM not inserted", "CME 10"),
        ("+CMS ERROR: (U)SIM PIN required", "CMS 311"),
        ("+CMS ERROR: something new", "+CMS ERROR: something new"),
        ("COMMAND NOT SUPPORT", "COMMAND NOT SUPPORT"),
        ("TOO MANY PARAMETERS", "TOO MANY PARAMETERS"),
        ("MODEM ERROR: 5", "MODEM ERROR: 5"),
        ("+EXT ERROR: 1", "+EXT ERROR: 1"),
        ("ABORTED", "ABORTED"),
    ],
)
def test_final_results_are_read_whole(line: str, shown: str) -> None:
    result = parse_final(line)
    assert result is not None
    assert str(result) == shown
    assert result.ok == (line == "OK")


@pytest.mark.parametrize("line", ["OKAY", "IT IS OK", "ERRORS", "NO ERROR", "0", "NO CARRIER", "+CMGS: 1", "CONNECTED"])
def test_what_only_contains_a_result_is_none(line: str) -> None:
    assert parse_final(line) is None


@pytest.mark.parametrize(
    ("result", "elapsed_s", "outcome", "failure"),
    [
        (cms(1), 2, Outcome.NOT_SENT, FailureClass.NUMBER),
        (cms(21), 2, Outcome.NOT_SENT, FailureClass.REJECTED),
        (cms(38), 24, Outcome.NOT_SENT, FailureClass.NETWORK),
        (cms(38), 26, Outcome.IN_DOUBT, FailureClass.NETWORK),
        (cms(41), 26, Outcome.IN_DOUBT, FailureClass.NETWORK),
        (cms(42), 26, Outcome.NOT_SENT, FailureClass.CONGESTION),
        (cms(47), 26, Outcome.IN_DOUBT, FailureClass.CONGESTION),
        (cms(111), 26, Outcome.IN_DOUBT, FailureClass.NETWORK),
        (cms(60), 2, Outcome.NOT_SENT, FailureClass.NETWORK),  # unlisted RP cause: as 41
        (cms(60), 26, Outcome.IN_DOUBT, FailureClass.NETWORK),
        (cms(195), 2, Outcome.NOT_SENT, FailureClass.NUMBER),
        (cms(197), 2, Outcome.SENT, FailureClass.UNKNOWN),
        (cms(230), 2, Outcome.NOT_SENT, FailureClass.REJECTED),
        (cms(300), 2, Outcome.IN_DOUBT, FailureClass.DEVICE),
        (cms(304), 0.5, Outcome.NOT_SENT, FailureClass.SETUP),
        (cms(304), 1.5, Outcome.IN_DOUBT, FailureClass.SETUP),
        (cms(332), 2, Outcome.IN_DOUBT, FailureClass.NETWORK),
        (cms(350), 130, Outcome.IN_DOUBT, FailureClass.SIM),
        (cms(500), 2, Outcome.IN_DOUBT, FailureClass.UNKNOWN),
        (cms(400), 2, Outcome.IN_DOUBT, FailureClass.UNKNOWN),  # unknown
        (cms(700), 2, Outcome.IN_DOUBT, FailureClass.UNKNOWN),
        (Result(Kind.CMS, None, "+CMS ERROR: so"), 2, Outcome.IN_DOUBT, FailureClass.UNKNOWN),
        (cme(14), 2, Outcome.NOT_SENT, FailureClass.DEVICE),
        (cme(100), 2, Outcome.IN_DOUBT, FailureClass.DEVICE),
        (cme(999), 2, Outcome.IN_DOUBT, FailureClass.UNKNOWN),
        (Result(Kind.ERROR, None, "ERROR"), 0.5, Outcome.NOT_SENT, FailureClass.UNKNOWN),
        (Result(Kind.ERROR, None, "ERROR"), 1.5, Outcome.IN_DOUBT, FailureClass.UNKNOWN),
        (TIMEOUT, 180, Outcome.IN_DOUBT, FailureClass.UNKNOWN),
    ],
)
def test_after_the_pdu(result: Result, elapsed_s: float, outcome: Outcome, failure: FailureClass) -> None:
    verdict = judge(Phase.AFTER_PDU, result, elapsed_s)
    assert (verdict.outcome, verdict.failure) == (outcome, failure)
    assert verdict.text
    assert verdict.source


results = st.one_of(
    st.just(OK),
    st.just(TIMEOUT),
    st.builds(Result, st.sampled_from([Kind.CMS, Kind.CME]), st.one_of(st.none(), st.integers(0, 99999))),
    st.just(Result(Kind.ERROR, None, "ERROR")),
)


@given(results, st.floats(0, 1000), st.sampled_from(["", "wavecom", "cinterion", "unheard of"]))
def test_before_the_pdu_nothing_was_sent(result: Result, elapsed_s: float, vendor: str) -> None:
    assert judge(Phase.BEFORE_PDU, result, elapsed_s, vendor).outcome is Outcome.NOT_SENT


def test_vendors_have_their_own_codes() -> None:
    assert judge(Phase.AFTER_PDU, cms(514), 2).outcome is Outcome.IN_DOUBT
    assert judge(Phase.AFTER_PDU, cms(514), 2, "wavecom").outcome is Outcome.NOT_SENT
    assert judge(Phase.AFTER_PDU, cms(514), 2, "cinterion").failure is FailureClass.MESSAGE


def test_no_code_has_two_rows() -> None:
    for rows in (CMS_ROWS, CME_ROWS):
        pairs = [(row.vendor, code) for row in rows for code in row.codes]
        assert len(pairs) == len(set(pairs))
