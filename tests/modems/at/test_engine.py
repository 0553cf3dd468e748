"""The AT engine: what a line means in each state, and that it does not depend on how the octets come."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import LocalProtocolError, RemoteProtocolError
from gatewayd.modems.at import commands
from gatewayd.modems.at.commands import Command
from gatewayd.modems.at.engine import (
    MAX_LINE,
    Engine,
    Event,
    Final,
    Garbage,
    Info,
    Late,
    Prompt,
    State,
    Urc,
)
from gatewayd.modems.at.results import OK, TIMEOUT, Kind, Result
from tests.modems.dialogue import DELIVER, NAMES, load

PDU = "0011000B915989433844F40000AA05E8329BFD06"
CSQ = commands.SIGNAL
CMGS = commands.submit(19)


def idle() -> Engine:
    engine = Engine()
    engine.trust()
    return engine


def asking(command: Command) -> Engine:
    engine = idle()
    assert engine.send(command) == command.text.encode() + b"\r"
    return engine


def sending() -> Engine:
    engine = asking(CMGS)
    assert engine.receive(b"\r\n> ") == [Prompt()]
    assert engine.send_pdu(PDU) == PDU.encode() + b"\x1a"
    return engine


def pieces(data: bytes, how: str) -> list[bytes]:
    """`data` whole, octet by octet, or cut at random (the same cuts each time)."""
    if how == "whole":
        return [data]
    if how == "octets":
        return [data[i : i + 1] for i in range(len(data))]
    dice = random.Random(how)
    cuts = sorted(dice.sample(range(len(data) + 1), min(len(data), 4)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


HOWS = ("whole", "octets", "random 1", "random 2", "random 3")


def feed(engine: Engine, data: bytes, how: str = "whole") -> list[Event]:
    return [event for piece in pieces(data, how) for event in engine.receive(piece)]


# -- recorded-style dialogues --


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", HOWS)
def test_a_dialogue_gives_the_same_events_however_it_is_split(name: str, how: str) -> None:
    assert play(name, how) == play(name, "whole")


def play(name: str, how: str) -> list[list[Event]]:
    played = []
    answers = load(name)
    for text, answer in answers.items():
        if text in ("AT+CMGS=", "PDU"):
            continue
        engine = asking(
            Command(
                text, prefixes=(f"{text[2:].split('=')[0].rstrip('?')}:",), bare="?" not in text and "=" not in text
            )
        )
        events = feed(engine, answer, how)
        assert not [event for event in events if isinstance(event, Garbage | Late)], (text, events)
        if b"OK\r\n" in answer or b"ERROR" in answer or b"SUPPORT" in answer:
            assert engine.state is State.IDLE, text
        played.append(events)
    engine = asking(CMGS)
    played.append(feed(engine, answers["AT+CMGS="], how))
    assert Prompt() in played[-1]
    engine.send_pdu(PDU)
    played.append(feed(engine, answers["PDU"].replace(b"{pdu}", PDU.encode()), how))
    assert played[-1][-1] == Final(OK)
    assert any(isinstance(event, Info) for event in played[-1])
    return played


# -- the states --


@pytest.mark.parametrize("how", HOWS)
def test_an_answer(how: str) -> None:
    assert feed(asking(CSQ), b"AT+CSQ\r\r\n+CSQ: 17,99\r\n\r\nOK\r\n", how) == [Info("+CSQ: 17,99"), Final(OK)]


@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\n", b"\r\r\n", b"\r\n\r\n\x00"])
def test_line_endings_of_all_kinds(ending: bytes) -> None:
    data = ending.join([b"\x00\xff", b"+CSQ: 1,99", b" ", b"OK", b""])
    assert feed(asking(CSQ), data) == [Info("+CSQ: 1,99"), Final(OK)]


def test_urcs_are_never_part_of_an_answer() -> None:
    data = b'AT+CSQ\r\r\n+CMTI: "SM",3\r\n\r\n^RSSI:15\r\n+CSQ: 17,99\r\n\r\nRING\r\nNO CARRIER\r\nOK\r\n'
    assert feed(asking(CSQ), data) == [
        Urc('+CMTI: "SM",3'),
        Urc("^RSSI:15"),
        Info("+CSQ: 17,99"),
        Urc("RING"),
        Urc("NO CARRIER"),
        Final(OK),
    ]


def test_registration_answers_and_urcs_are_told_apart() -> None:
    engine = asking(commands.query("+CREG"))
    data = b'\r\n+CREG: 1\r\n+CREG: 1,"00C3","1A2B"\r\n+CREG: 2,5,"00C3","1A2B",7\r\n\r\nOK\r\n'
    assert feed(engine, data) == [
        Urc("+CREG: 1"),
        Urc('+CREG: 1,"00C3","1A2B"'),
        Info('+CREG: 2,5,"00C3","1A2B",7'),
        Final(OK),
    ]


def test_pin_state_is_an_answer_only_when_asked_for() -> None:
    assert feed(asking(commands.query("+CPIN")), b"+CPIN: READY\r\nOK\r\n")[0] == Info("+CPIN: READY")
    assert feed(asking(CSQ), b"+CPIN: READY\r\n") == [Urc("+CPIN: READY")]


def test_a_bare_answer_takes_no_urc_and_no_stranger() -> None:
    data = b'AT+CIMI\r\r\n+CMTI: "SM",1\r\n^NEW: 1\r\n748010000000001\r\n\r\nOK\r\n'
    assert feed(asking(commands.bare("AT+CIMI")), data) == [
        Urc('+CMTI: "SM",1'),
        Garbage("^NEW: 1"),
        Info("748010000000001"),
        Final(OK),
    ]


@pytest.mark.parametrize("how", HOWS)
def test_a_delivered_pdu_owns_the_next_line_whatever_comes_between(how: str) -> None:
    data = f'\r\n+CMT: ,24\r\n\r\n\r\n+CMTI: "SM",1\r\n\r\n{DELIVER}\r\n'.encode()
    assert feed(idle(), data, how) == [Urc('+CMTI: "SM",1'), Urc("+CMT: ,24", DELIVER)]


def test_a_delivered_pdu_inside_an_answer() -> None:
    data = f"\r\n+CSQ: 17,99\r\n\r\n+CDS: 25\r\n{DELIVER}\r\n\r\nOK\r\n".encode()
    assert feed(asking(CSQ), data) == [Info("+CSQ: 17,99"), Urc("+CDS: 25", DELIVER), Final(OK)]


def test_a_final_result_between_a_urc_and_its_pdu_counts() -> None:
    engine = asking(CSQ)
    assert feed(engine, b"\r\n+CMT: ,24\r\n\r\nOK\r\n") == [Final(OK)]
    assert engine.owed
    assert feed(engine, DELIVER.encode() + b"\r\n") == [Urc("+CMT: ,24", DELIVER)]
    assert not engine.owed


def test_a_debt_that_is_not_paid_is_garbage() -> None:
    engine = idle()
    feed(engine, b"\r\n+CMT: ,24\r\n")
    assert engine.forgo() == [Garbage("+CMT: ,24")]
    assert not engine.owed


@pytest.mark.parametrize("how", HOWS)
def test_ok_inside_a_text_is_no_result(how: str) -> None:
    data = b'\r\n+CMT: "+598",,"26/11/23,12:00:00-12"\r\nOK\r\n\r\n+CUSD: 1,"Menu\r\nOK\r\n> 1 ""x""\r\nERROR",15\r\n'
    engine = asking(CMGS)
    assert feed(engine, data, how) == [
        Urc('+CMT: "+598",,"26/11/23,12:00:00-12"', "OK"),
        Urc('+CUSD: 1,"Menu\nOK\n> 1 ""x""\nERROR",15'),
    ]
    assert engine.state is State.AWAIT_PROMPT


def test_a_listing() -> None:
    data = (
        f'\r\n+CMGL: 0,1,,24\r\n{DELIVER}\r\n+CMGL: 3,0,"a,b",24\r\n\r\n^RSSI:3\r\n{DELIVER}\r\n'
        f"+CMT: ,24\r\n{DELIVER}\r\n+CMGL: 4,0,,24\r\n+CMGL: 5,0,,24\r\n\r\nOK\r\n"
    )
    assert feed(asking(commands.LIST_ALL), data.encode()) == [
        Info("+CMGL: 0,1,,24", DELIVER),
        Urc("^RSSI:3"),
        Info('+CMGL: 3,0,"a,b",24', DELIVER),
        Urc("+CMT: ,24", DELIVER),
        Info("+CMGL: 4,0,,24"),
        Info("+CMGL: 5,0,,24"),
        Final(OK),
    ]


# -- sending --


@pytest.mark.parametrize("prompt", [b"\r\n> ", b"\r\n>", b"> ", b"AT+CMGS=19\r\r\n> ", b'\r\n+CMTI: "SM",1\r\n\r\n> '])
@pytest.mark.parametrize("how", HOWS)
def test_the_prompt(prompt: bytes, how: str) -> None:
    events = feed(asking(CMGS), prompt, how)
    assert events[-1] == Prompt()
    assert events.count(Prompt()) == 1


@pytest.mark.parametrize("how", HOWS)
def test_a_urc_behind_the_prompt(how: str) -> None:
    assert feed(asking(CMGS), b"\r\n> \r\n+CREG: 1\r\n", how) == [Prompt(), Urc("+CREG: 1")]


def test_a_prompt_nobody_waits_for_is_none() -> None:
    assert feed(asking(CSQ), b"\r\n> \r\nOK\r\n") == [Garbage(">"), Final(OK)]
    assert feed(asking(CMGS), b"\r\nfoo > bar") == []


@pytest.mark.parametrize("how", HOWS)
def test_the_echo_of_a_pdu_is_dropped(how: str) -> None:
    data = f'{PDU}\x1a\r\n+CMTI: "SM",1\r\n\r\n+CMGS: 7\r\n\r\nOK\r\n'.encode()
    assert feed(sending(), data, how) == [Urc('+CMTI: "SM",1'), Info("+CMGS: 7"), Final(OK)]


def test_an_error_instead_of_the_prompt() -> None:
    engine = asking(CMGS)
    assert feed(engine, b"\r\n+CMS ERROR: 330\r\n") == [Final(Result(Kind.CMS, 330, "+CMS ERROR: 330"))]
    assert engine.state is State.IDLE


def test_the_second_half_of_a_double_final_does_not_end_a_submission() -> None:
    assert feed(asking(CMGS), b"\r\nOK\r\n\r\n> ") == [Garbage("OK"), Prompt()]


def test_a_withdrawal_ends_with_any_result() -> None:
    engine = asking(CMGS)
    feed(engine, b"\r\n> ")
    assert engine.cancel() == b"\x1b"
    assert feed(engine, b"\r\n+CMGS: 3\r\n\r\nOK\r\n") == [Late("+CMGS: 3"), Final(OK)]


def test_numeric_results_only_where_they_are_to_be_expected() -> None:
    assert feed(asking(commands.FORMAT), b"0\r") == [Final(OK)]
    assert feed(asking(commands.ATTENTION), b"4\r")[0].result.kind is Kind.ERROR  # type: ignore[union-attr]
    assert feed(asking(CSQ), b"0\r\n") == [Garbage("0")]


# -- late results --


@pytest.mark.parametrize("line", ["+CMGS: 7"])
def test_a_reference_nobody_waits_for_is_late(line: str) -> None:
    data = f"\r\n{line}\r\n\r\nOK\r\n".encode()
    assert feed(idle(), data) == [Late(line), Garbage("OK")]
    assert feed(asking(CSQ), f"\r\n{line}\r\n".encode()) == [Late(line)]
    assert feed(asking(CMGS), f"\r\n{line}\r\n".encode()) == [Late(line)]


def test_a_late_final_cannot_complete_the_next_command() -> None:
    engine = sending()
    assert engine.timed_out() == [Final(TIMEOUT)]
    with pytest.raises(LocalProtocolError):
        engine.send(CSQ)
    assert engine.probe() == b"AT\r"
    assert feed(engine, b"\r\n+CMGS: 9\r\n\r\nOK\r\n") == [Late("+CMGS: 9"), Garbage("OK")]
    assert engine.probed
    assert engine.question(commands.PDU_MODE_QUERY) == b"AT+CMGF?\r"
    assert feed(engine, b"\r\nOK\r\n\r\n+CMS ERROR: 38\r\n") == [Garbage("OK"), Garbage("+CMS ERROR: 38")]
    assert feed(engine, b"\r\n+CMGF: 0\r\n\r\nOK\r\n") == []
    assert engine.state is State.IDLE


def test_a_new_engine_trusts_nobody() -> None:
    engine = Engine()
    assert engine.state is State.RESYNC
    assert feed(engine, b"AT+OLD\r\r\nOK\r\n") == [Garbage("AT+OLD"), Garbage("OK")]


# -- misuse and hostility --


def test_misuse_is_told() -> None:
    with pytest.raises(LocalProtocolError):
        asking(CSQ).send(CSQ)
    with pytest.raises(LocalProtocolError):
        asking(CMGS).send_pdu(PDU)
    with pytest.raises(LocalProtocolError):
        idle().cancel()
    engine = asking(CMGS)
    feed(engine, b"> ")
    with pytest.raises(LocalProtocolError):
        engine.send_pdu("00\r\nAT")


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        feed(idle(), b"x" * (MAX_LINE + 1))
    with pytest.raises(RemoteProtocolError):
        feed(idle(), b"x" * (MAX_LINE + 1) + b"\r\n")


def test_an_answer_without_end_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        feed(asking(CSQ), b"+CSQ: 1,1\r\n" * 5000)


tokens = st.sampled_from(
    [
        *(b"OK", b"ERROR", b"\r\n", b"\r", b"> ", b">", b"+CMGS: 1", b"+CMT: ,3", b"+CMT: x", b'+CUSD: 0,"', b'"'),
        *(b"0011", b"+CMS ERROR: 38", b"+CREG: 1", b"+CMGL: 1,1,,3", b"+CMGF: 0", b"AT+CMGS=19", b"0", b"NO CARRIER"),
        *(b"\x00", b"\xff", b"\x1a", b" "),
    ]
)
streams = st.lists(st.one_of(tokens, st.binary(max_size=20)), max_size=30).map(b"".join)
starts = st.sampled_from(["resync", "idle", "answer", "listing", "prompt", "pdu", "question"])


def started(how: str) -> Engine:
    match how:
        case "resync":
            return Engine()
        case "idle":
            return idle()
        case "answer":
            return asking(CSQ)
        case "listing":
            return asking(commands.LIST_ALL)
        case "prompt":
            return asking(CMGS)
        case "pdu":
            return sending()
    engine = Engine()
    engine.question(commands.PDU_MODE_QUERY)
    return engine


@settings(max_examples=300, deadline=None)
@given(starts, streams, st.lists(st.integers(0, 400), max_size=6))
def test_any_octets_give_the_same_events_in_any_pieces(start: str, data: bytes, cuts: list[int]) -> None:
    whole, octets, cut = started(start), started(start), started(start)
    edges = sorted({min(edge, len(data)) for edge in cuts} | {0, len(data)})
    events = feed(whole, data)
    assert feed(octets, data, "octets") == events
    assert [e for a, b in itertools.pairwise(edges) for e in cut.receive(data[a:b])] == events
    assert whole.state is octets.state is cut.state


@settings(max_examples=200, deadline=None)
@given(starts, st.lists(st.binary(max_size=3000), max_size=8), st.booleans())
def test_any_octets_give_events_or_a_protocol_error(start: str, chunks: list[bytes], dirty: bool) -> None:
    engine = started(start)
    try:
        for chunk in chunks:
            for event in engine.receive(chunk):
                assert isinstance(event, Info | Final | Prompt | Urc | Late | Garbage)
            assert len(engine._rest) <= MAX_LINE
        if dirty:
            engine.timed_out()
            assert engine.state is State.RESYNC
    except RemoteProtocolError:
        pass
