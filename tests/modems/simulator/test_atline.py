"""AT command lines taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.modems.simulator.atline import Command, LineError, parse


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("", []),
        ("E0", [Command("E", "", "0")]),
        ("E0V1Q0", [Command("E", "", "0"), Command("V", "", "1"), Command("Q", "", "0")]),
        ("e0 v1 q0", [Command("E", "", "0"), Command("V", "", "1"), Command("Q", "", "0")]),
        ("&F0&D2Z", [Command("&F", "", "0"), Command("&D", "", "2"), Command("Z")]),
        ("E0+CMEE=1;+CREG?", [Command("E", "", "0"), Command("+CMEE", "=", "1"), Command("+CREG", "?")]),
        (" + cmgs = 2 3 ", [Command("+CMGS", "=", "23")]),
        ("+CMGS=?", [Command("+CMGS", "=?")]),
        ("+CNMA", [Command("+CNMA")]),
        ('+CPMS="sm","M E";^ICCID?', [Command("+CPMS", "=", '"sm","M E"'), Command("^ICCID", "?")]),
        ('+CUSD=1,"a;b",15', [Command("+CUSD", "=", '1,"a;b",15')]),
        ("S3=13S0?", [Command("S", "", "3=13"), Command("S", "", "0?")]),
        ("D*100#;", [Command("D", "", "*100#;")]),
        ("_OSIGQ=1", [Command("_OSIGQ", "=", "1")]),
    ],
)
def test_lines(line: str, commands: list[Command]) -> None:
    assert parse(line) == commands


@pytest.mark.parametrize("line", ["+", "1", "+CSQ+CREG?", "?", "=1", "\u00e9"])
def test_no_lines(line: str) -> None:
    with pytest.raises(LineError):
        parse(line)


def test_arguments() -> None:
    assert parse('+X="a,b",,3,"c"')[0].arguments() == ["a,b", "", "3", "c"]
    assert parse("+X=1,,3")[0].numbers(5) == [1, None, 3, None, None]
    assert parse("+X=")[0].numbers(2) == [None, None]
    for line, count in (("+X=1,2", 1), ('+X="ALL"', 1), ("+X=1234567890", 1)):
        with pytest.raises(LineError):
            parse(line)[0].numbers(count)


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_any_text_is_commands_or_a_line_error(line: str) -> None:
    try:
        for command in parse(line):
            command.arguments()
    except LineError:
        pass
