"""One emulated modem's command line, without a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.modems.simulator.modem import INPUT_LIMIT, LINE_LIMIT, State
from tests.modems.simulator.rig import CTRL_Z, ESC, Rig, submit_pdus

OK = "\r\nOK\r\n"


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.quiet()
    return rig


def test_echo_until_switched_off() -> None:
    rig = Rig()
    assert rig.say("A") == "A"
    assert rig.say("T") == "T"
    assert rig.say("\r") == "\r" + OK
    assert rig.at("E0") == "ATE0\r" + OK
    assert rig.at("") == OK
    assert rig.at("E1") == OK
    assert rig.at("") == "AT\r" + OK


def test_settings_together_and_numeric_results(rig: Rig) -> None:
    assert rig.at("E1V0Q0") == "0\r"
    assert rig.at("+CSQ") == "AT+CSQ\r+CSQ: 22,99\r\n0\r"
    assert rig.at("+NONE") == "AT+NONE\r4\r"
    assert rig.at("E0V1Q1") == "ATE0V1Q1\r"
    assert rig.at("") == ""
    assert rig.at("ATE0V1Q0".removeprefix("AT")) == OK


@pytest.mark.parametrize("line", ["AT", "at", "aT", "\r\n\x00 at", "xxxAT", "\x1b\x1aAT", "A\x08AT", "ATE0\x08\x08"])
def test_a_line_is_found_in_noise(rig: Rig, line: str) -> None:
    assert rig.say(line + "\r") == OK


def test_lines_that_are_no_command_lines(rig: Rig) -> None:
    assert rig.say("\r\n\r\nhello\r") == ""
    assert rig.at("+CSQ+CREG?") == "\r\nERROR\r\n"
    assert rig.say("AT+CSQ\r") == rig.say("A/\r") == "\r\n+CSQ: 22,99\r\n" + OK
    assert rig.say("AT" + "X" * LINE_LIMIT + "\r") == "\r\nERROR\r\n"
    assert rig.at("") == OK


def test_first_failure_ends_a_line(rig: Rig) -> None:
    assert rig.at("+CSQ;+CIMI=1;+CREG?") == "\r\n+CSQ: 22,99\r\n\r\n+CME ERROR: 4\r\n"


def test_error_modes(rig: Rig) -> None:
    rig.sim.pin = "1234"
    for mode, answer in ((0, "ERROR"), (1, "+CME ERROR: 11"), (2, "+CME ERROR: SIM PIN required")):
        rig.at(f"+CMEE={mode}")
        assert rig.at("+CIMI") == f"\r\n{answer}\r\n"
    for mode, answer in ((0, "ERROR"), (1, "+CMS ERROR: 311"), (2, "+CMS ERROR: SIM PIN required")):
        rig.at(f"+CMEE={mode}")
        assert rig.at("+CMGS=20") == f"\r\n{answer}\r\n"
    assert rig.at("+CMEE?") == "\r\n+CMEE: 2\r\n" + OK


def test_pin(rig: Rig) -> None:
    rig.sim.pin = "1234"
    rig.sim.power_up()
    assert rig.at("+CREG=1") == OK
    assert rig.at("+CPIN?") == "\r\n+CPIN: SIM PIN\r\n" + OK
    assert rig.at("+CREG?") == "\r\n+CREG: 1,0\r\n" + OK
    assert rig.at('+CPIN="0000"') == "\r\n+CME ERROR: 16\r\n"
    assert "+CPINR: SIM PIN,2,3" in rig.at("+CPINR")
    assert rig.at('+CPIN="1234"') == OK + "\r\n+CREG: 1\r\n"
    assert rig.at("+CPIN?") == "\r\n+CPIN: READY\r\n" + OK
    assert "+CPINR: SIM PIN,3,3" in rig.at("+CPINR")
    assert rig.at('+CPIN="1234"') == "\r\n+CME ERROR: 3\r\n"


def test_puk(rig: Rig) -> None:
    rig.sim.pin = "1234"
    for _ in range(3):
        assert rig.at('+CPIN="0000"') == "\r\n+CME ERROR: 16\r\n"
    assert rig.at("+CPIN?") == "\r\n+CPIN: SIM PUK\r\n" + OK
    assert rig.at("+CIMI") == "\r\n+CME ERROR: 12\r\n"
    assert rig.at("+CMGS=20") == "\r\n+CMS ERROR: 316\r\n"
    assert rig.at('+CPIN="00000000","4321"') == "\r\n+CME ERROR: 16\r\n"
    assert "+CPINR: SIM PUK,9,10" in rig.at("+CPINR")
    assert rig.at('+CPIN="12345678","4321"') == OK
    assert rig.sim.pin == "4321"
    assert rig.at("+CPIN?") == "\r\n+CPIN: READY\r\n" + OK


def test_no_sim(rig: Rig) -> None:
    sim = rig.sim
    rig.modem.insert_sim(None)
    assert rig.heard() == "\r\n+CPIN: NOT READY\r\n"
    assert rig.at("+CPIN?") == "\r\n+CME ERROR: 10\r\n"
    assert rig.at("+CMGS=20") == "\r\n+CMS ERROR: 310\r\n"
    assert rig.at("+CREG?") == "\r\n+CREG: 0,0\r\n" + OK
    rig.modem.insert_sim(sim)
    assert rig.heard() == "\r\n+CPIN: READY\r\n"


def test_registration(rig: Rig) -> None:
    rig.at("+CREG=2")
    rig.at("+CEREG=1")
    rig.modem.set_registration({"+CREG": 2, "+CGREG": 2, "+CEREG": 2})
    assert rig.heard() == '\r\n+CREG: 2,"2A1B","00C3D4E5"\r\n\r\n+CEREG: 2\r\n'
    assert rig.at("+COPS?") == "\r\n+COPS: 0\r\n" + OK
    assert "+CMS ERROR: 331" in rig.send("+59898000010", "x")
    rig.modem.set_registration({"+CEREG": 5})
    assert rig.heard() == "\r\n+CEREG: 5\r\n"
    assert rig.at("+COPS=3,2;+COPS?") == '\r\n+COPS: 0,2,"74899",7\r\n' + OK
    assert "+CMGS:" in rig.send("+59898000010", "x")
    assert rig.at("+CFUN=4").endswith("\r\n+CEREG: 0\r\n")
    assert rig.at("+CREG?").startswith("\r\n+CREG: 2,0,")


def test_iccid_by_personality() -> None:
    asked = {"generic": "+CCID", "huawei": "^ICCID?", "quectel": "+QCCID", "simcom": "+CCID"}
    for personality, command in asked.items():
        rig = Rig(personality=personality)
        rig.quiet()
        assert rig.sim.iccid in rig.at(command)
        swapped = rig.at("+CRSM=176,12258,0,0,10").split('"')[1]
        digits = "".join(swapped[at + 1] + swapped[at] for at in range(0, 20, 2))
        assert digits.rstrip("F") == rig.sim.iccid


def test_unknown_command_by_personality() -> None:
    for personality, answer in (("generic", "ERROR"), ("huawei", "COMMAND NOT SUPPORT")):
        rig = Rig(personality=personality)
        rig.quiet()
        assert rig.at("+NONE?") == f"\r\n{answer}\r\n"
        assert rig.at("") == OK


def test_restart_loses_settings_and_says_so(rig: Rig) -> None:
    assert rig.at("+CFUN=1,1") == OK
    assert rig.modem.state is State.OFF
    assert rig.at("") == ""
    rig.timers.advance(1)
    noise = rig.heard()
    assert "RDY" in noise
    assert "+CPIN: READY" in noise
    assert rig.at("") == "AT\r" + OK
    assert "+CNMI: 0,0,0,0,0" in rig.at("+CNMI?")


def test_profile() -> None:
    rig = Rig()
    rig.quiet()
    assert rig.at("&W") == OK
    assert rig.at("Z") == OK
    assert "+CNMI: 0,0,0,0,0" in rig.at("+CNMI?")
    assert rig.at("&F") == OK
    assert rig.at("") == "AT\r" + OK


def test_submission_checks(rig: Rig) -> None:
    length, pdu = submit_pdus("+59898000010", "hello")[0]
    cases = [
        (length + 1, pdu),
        (length - 1, pdu),
        (length, pdu[:-2]),
        (length, pdu[:-1]),
        (length, b"zz" + pdu[2:]),
        (length, b""),
        (length, b"00" + b"00" * length),
        (length, pdu + b"00" * 2000),
        (7, b"00" + bytes.fromhex("0100009100000000").hex().encode()),
    ]
    for announced, text in cases:
        assert rig.at(f"+CMGS={announced}") == "\r\n> "
        assert rig.say(text + CTRL_Z) == "\r\n+CMS ERROR: 304\r\n"
    assert len(rig.of("malformed")) == len(cases)
    assert not rig.of("submit")
    for refused in ("0", "165", "", '"+598"', "99999999999"):
        assert rig.at(f"+CMGS={refused}") == "\r\n+CMS ERROR: 304\r\n"
    assert rig.at("+CMGS=?") == OK
    assert rig.send("+59898000010", "hello").startswith("\r\n+CMGS: 0\r\n")


def test_esc_cancels(rig: Rig) -> None:
    length, pdu = submit_pdus("+59898000010", "hello")[0]
    rig.at(f"+CMGS={length}")
    assert rig.say(pdu) == ""
    assert rig.say(ESC) == OK
    assert [row["kind"] for row in rig.rows] == ["cancelled"]
    assert rig.at("") == OK


def test_own_smsc_in_the_pdu(rig: Rig) -> None:
    length, pdu = submit_pdus("+59898000010", "hello")[0]
    rig.at('+CSCA=""')
    rig.at(f"+CMGS={length}")
    assert rig.say(pdu + CTRL_Z) == "\r\n+CMS ERROR: 330\r\n"
    rig.at(f"+CMGS={length}")
    assert "+CMGS:" in rig.say(b"07919598999900F0" + pdu[2:] + CTRL_Z)
    assert rig.at('+CSCA="59899000000",145') == OK
    assert rig.at("+CSCA?") == '\r\n+CSCA: "+59899000000",145\r\n' + OK


def test_tp_mr_counts_and_wraps_and_survives(rig: Rig) -> None:
    rig.sim.next_mr = 254
    assert [rig.send("+59898000010", "x").split()[1] for _ in range(2)] == ["254", "255"]
    rig.modem.restart()
    rig.timers.advance(1)
    rig.heard()
    assert rig.send("+59898000010", "x").split("+CMGS: ")[1].split()[0] == "0"


def test_input_waits_while_the_network_thinks(rig: Rig) -> None:
    rig.modem.latency_s = (2.0, 2.0)
    assert rig.send("+59898000010", "x", report=False) == ""
    assert rig.at("+CSQ") == ""
    assert len(rig.of("submit")) == 1
    rig.timers.advance(2)
    assert rig.heard() == "\r\n+CMGS: 0\r\n" + OK + "\r\n+CSQ: 22,99\r\n" + OK


def test_urcs_wait_behind_the_prompt(rig: Rig) -> None:
    length, pdu = submit_pdus("+59898000010", "hello")[0]
    rig.at(f"+CMGS={length}")
    rig.modem.urc("RING")
    assert rig.heard() == ""
    assert rig.say(pdu + CTRL_Z) == "\r\n+CMGS: 0\r\n" + OK + "\r\nRING\r\n"


def test_timing_shows_the_idle_gap(rig: Rig) -> None:
    rig.modem.latency_s = (1.0, 1.0)
    rig.send("+59898000010", "one")
    rig.timers.advance(1)
    rig.timers.advance(0.25)
    rig.send("+59898000010", "two")
    first, second = rig.of("submit")
    assert first["prev_final_at"] is None
    assert second["prev_final_at"] == rig.of("answered")[0]["final_at"] == first["ctrl_z_at"] + 1
    assert second["cmgs_at"] - second["prev_final_at"] == 0.25


_LINES = """AT AT+CMGS=17 AT+CMGL=4 AT+CMGD=1,4 ATE0V0Q1 AT+CNMA AT+CPMS="SM","SR" AT+CPIN="1 AT+CNMI=,,,, AT+CFUN=1,1
    AT&F AT+CSMS=1;+CNMI=2,2,0,1 AT+CSCA="+" AT+CMGR=1 AT+CRSM=176,12258,0,0,10 AT+CLCK="SC",2 ATD123 ATS0? AT+COPS=,,
"""
_pieces = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([line.encode() + b"\r" for line in _LINES.split()]),
    st.sampled_from([b"AT", b"A/", b"\r", b"\x08", b"\x1a", b"\x1b", submit_pdus("+59898000001", "x")[0][1]]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_pieces, max_size=12), st.sampled_from(["generic", "huawei", "quectel", "simcom"]))
def test_no_octets_kill_a_modem(pieces: list[bytes], personality: str) -> None:
    rig = Rig(personality=personality)
    for piece in pieces:
        rig.modem.feed(piece)
        rig.timers.advance(0.3)
    rig.timers.advance(60)
    for _ in range(2):  # the first one may complete an A/ that prompts again
        rig.say(ESC + b"\r")
        rig.timers.advance(60)
    rig.at("&F")
    assert rig.at("") == "AT\r" + OK


def test_input_is_bounded(rig: Rig) -> None:
    rig.modem.latency_s = (5.0, 5.0)
    rig.send("+59898000010", "x")
    for _ in range(100):
        rig.modem.feed(b"x" * 4096)
    assert len(rig.modem._input) <= INPUT_LIMIT
    rig.timers.advance(5)
    rig.say("\r")
    assert rig.at("") == OK
