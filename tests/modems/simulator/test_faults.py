"""Faults ordered by name, against what the SMS centre has."""

from __future__ import annotations

import pytest

from gatewayd.modems.simulator.faults import FAULTS
from gatewayd.modems.simulator.modem import State
from tests.modems.simulator.rig import CTRL_Z, ESC, Rig, submit_pdus

OK = "\r\nOK\r\n"
LENGTH, PDU = submit_pdus("+59898000010", "hello", report=False)[0]


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.quiet()
    return rig


def try_to_send(rig: Rig) -> str:
    """Prompt, PDU, and all that is said."""
    said = rig.at(f"+CMGS={LENGTH}")
    return said + rig.say(PDU + CTRL_Z) if said.endswith("> ") else said


@pytest.mark.parametrize(
    ("phase", "said", "submitted"),
    [
        ("before_prompt", "", 0),
        ("after_prompt", "\r\n> ", 0),
        ("after_ctrl_z_not_sent", "\r\n> ", 0),
        ("after_ctrl_z_sent", "\r\n> ", 1),
        ("after_cmgs", "\r\n> \r\n+CMGS: 0\r\n", 1),
    ],
)
@pytest.mark.parametrize("action", ["unplug", "restart"])
def test_power_is_lost_at_each_phase(rig: Rig, action: str, phase: str, said: str, submitted: int) -> None:
    rig.modem.faults.arm(f"{action}_{phase}")
    assert try_to_send(rig) == said
    assert len(rig.of("submit")) == submitted
    assert rig.modem.state is State.OFF
    assert rig.lines[0].plugged is (action == "restart")
    if action == "restart":
        rig.timers.advance(1)
        assert "RDY" in rig.heard()
        assert rig.at("") == "AT\r" + OK


def test_silent(rig: Rig) -> None:
    rig.modem.faults.arm("silent", count=2)
    rig.modem.faults.arm("silent", parameters={"sent": False})
    assert [try_to_send(rig) for _ in range(3)] == ["\r\n> "] * 3
    assert len(rig.of("submit")) == 2
    assert rig.at("") == OK
    assert try_to_send(rig) == "\r\n> \r\n+CMGS: 2\r\n" + OK


def test_late(rig: Rig) -> None:
    rig.modem.faults.arm("late", parameters={"after_s": 30})
    assert try_to_send(rig) == "\r\n> "
    assert rig.at("") == OK
    rig.timers.advance(30)
    assert rig.heard() == "\r\n+CMGS: 0\r\n" + OK
    rig.modem.faults.arm("late", parameters={"sent": False})
    try_to_send(rig)
    rig.timers.advance(30)
    assert rig.heard() == "\r\n+CMS ERROR: 332\r\n"


def test_ordered_code(rig: Rig) -> None:
    rig.modem.faults.arm("cms_error", parameters={"code": 500, "sent": True})
    rig.modem.faults.arm("cms_error", parameters={"code": 42})
    assert try_to_send(rig) == "\r\n> \r\n+CMS ERROR: 500\r\n"
    assert try_to_send(rig) == "\r\n> \r\n+CMS ERROR: 42\r\n"
    assert len(rig.of("submit")) == 1
    assert [(row["by"], row["code"]) for row in rig.of("refused")] == [("modem", 42)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_prompt", ""),
        ("no_ok", "\r\n> \r\n+CMGS: 5\r\n"),
        ("no_cmgs", "\r\n> " + OK),
        ("zero_mr", "\r\n> \r\n+CMGS: 0\r\n" + OK),
    ],
)
def test_answers_that_lack_something(rig: Rig, name: str, said: str) -> None:
    rig.sim.next_mr = 5
    rig.modem.faults.arm(name)
    assert try_to_send(rig) == said
    assert rig.at("") == OK


def test_count_and_skip(rig: Rig) -> None:
    rig.modem.faults.arm("no_cmgs", count=2, skip=1)
    rig.modem.faults.arm("zero_mr", skip=1)
    rig.sim.next_mr = 5
    said = [try_to_send(rig).removeprefix("\r\n> ").replace("\r\n", " ") for _ in range(5)]
    assert said == [" +CMGS: 5  OK ", " OK ", " OK ", " +CMGS: 0  OK ", " +CMGS: 9  OK "]
    assert rig.modem.faults.names() == []


def test_faults_that_are_none(rig: Rig) -> None:
    for name, options in (("no_such", {}), ("silent", {"parameters": {"x": 1}}), ("silent", {"count": 0})):
        with pytest.raises(ValueError):
            rig.modem.faults.arm(name, **options)  # type: ignore[arg-type]


def test_every_fault_leaves_a_modem_that_can_be_used(rig: Rig) -> None:
    for name in FAULTS:
        rig.modem.faults.arm(name)
        try_to_send(rig)
        rig.timers.advance(5)
        rig.lines[0].plugged = True
        if rig.modem.state is State.OFF:
            rig.modem.power_on()
        if rig.modem.state is State.PDU:
            rig.say(ESC)
        rig.at("E0")
        rig.heard()
        assert rig.at("") == OK, name
