"""The emulated SMS centre: who gets what, and what is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatewayd.modems.pdu import Address, Submit, split_data
from gatewayd.modems.simulator.control_server import COMMANDS
from gatewayd.modems.simulator.faults import FAULTS
from gatewayd.modems.simulator.subscribers import RULES, Fate, Verdict, fate
from tests.modems.simulator.rig import CTRL_Z, Rig, reports

DOCS = Path(__file__).parents[3] / "docs" / "simulator.md"


@pytest.fixture
def rig() -> Rig:
    rig = Rig(modems=2)
    for modem in (0, 1):
        rig.quiet(modem)
    return rig


@pytest.mark.parametrize(
    ("digits", "expected"),
    [
        ("59898000010", Fate(Verdict.DELIVERED)),
        ("7301", Fate(Verdict.ANSWERS)),
        ("59898000002", Fate(Verdict.STOPS)),
        ("04", Fate(Verdict.DELIVERED)),
        ("59891999038", Fate(Verdict.REFUSED, 38)),
        ("59891999500", Fate(Verdict.REFUSED, 500)),
        ("59891999001", Fate(Verdict.REFUSED, 1)),
        ("59891999000", Fate(Verdict.DELIVERED)),
        ("59891998069", Fate(Verdict.STATUS, 69)),
        ("59891998255", Fate(Verdict.STATUS, 255)),
        ("59891998256", Fate(Verdict.DELIVERED)),
        ("", Fate(Verdict.DELIVERED)),
    ],
)
def test_rules(digits: str, expected: Fate) -> None:
    assert fate(digits) == expected


def test_the_manual_has_every_rule_command_and_fault() -> None:
    manual = DOCS.read_text()
    for ending in RULES:
        assert f"| …{ending} |" in manual
    assert "| …999ccc |" in manual
    assert "| …998sss |" in manual
    for command in COMMANDS:
        assert f"| `{command}` |" in manual
    for fault in FAULTS.values():
        action, phase, _ = fault.name.partition(f"_{fault.point}")
        assert f"| `{action}{'_PHASE' if phase else ''}` |" in manual


def test_delivered_and_reported(rig: Rig) -> None:
    assert rig.send("+59898000010", "hello") == "\r\n+CMGS: 0\r\n\r\nOK\r\n"
    assert not rig.of("delivered")
    rig.timers.advance(1)
    assert rig.of("delivered")[0]["text"] == "hello"
    assert reports(rig.heard()) == [(0, 0)]
    row = rig.of("submit")[0]
    assert (row["modem"], row["from"], row["to"], row["mr"], row["text"]) == (
        "modem0",
        "+59899000001",
        "+59898000010",
        0,
        "hello",
    )
    assert rig.of("report")[0]["submit"] == row["n"]


def test_no_report_unless_asked_for(rig: Rig) -> None:
    rig.send("+59898000010", "hello", report=False)
    rig.timers.advance(100)
    assert rig.of("delivered")
    assert not rig.of("report")
    assert rig.heard() == ""


def test_answering_subscriber(rig: Rig) -> None:
    rig.send("+59898000001", "hello")
    rig.timers.advance(1)
    assert [(row["from"], row["text"]) for row in rig.of("inbound")] == [("+59898000001", "Re: hello")]
    assert '+CMTI: "SM",1' in rig.heard()


def test_stopping_subscriber_says_so_once_to_each(rig: Rig) -> None:
    for modem in (0, 0, 1):
        rig.send("+59898000002", "offer", modem)
        rig.timers.advance(1)
    assert [(row["modem"], row["text"]) for row in rig.of("inbound")] == [("modem0", "STOP"), ("modem1", "STOP")]


def test_subscriber_never_reached(rig: Rig) -> None:
    rig.send("+59898000003", "hello")
    rig.timers.advance(1)
    assert reports(rig.heard()) == [(0, 0x20)]
    rig.timers.advance(rig.centre.expiry_delay_s)
    assert reports(rig.heard()) == [(0, 0x46)]
    assert not rig.of("delivered")


def test_refused_at_submission(rig: Rig) -> None:
    assert rig.send("+59898000004", "hello") == "\r\n+CMS ERROR: 28\r\n"
    assert rig.send("+59891999500", "hello") == "\r\n+CMS ERROR: 500\r\n"
    rig.timers.advance(100)
    assert [(row["code"], row["by"]) for row in rig.of("refused")] == [(28, "network"), (500, "network")]
    assert not rig.of("submit")
    assert not rig.of("delivered")


def test_failing_subscriber(rig: Rig) -> None:
    rig.send("+59898000005", "hello")
    rig.timers.advance(1)
    assert reports(rig.heard()) == [(0, 0x41)]
    assert not rig.of("delivered")


def test_silent_subscriber(rig: Rig) -> None:
    rig.send("+59898000006", "hello")
    rig.timers.advance(1000)
    assert rig.heard() == ""
    assert rig.of("delivered")
    assert not rig.of("report")


def test_ordered_status(rig: Rig) -> None:
    for number, status in (("+59891998001", 1), ("+59891998069", 69)):
        rig.send(number, "hello")
        rig.timers.advance(1)
        assert [report for _, report in reports(rig.heard())] == [status]
    assert len(rig.of("delivered")) == 1


def test_report_can_come_before_the_answer(rig: Rig) -> None:
    rig.modem.latency_s = (5.0, 5.0)
    rig.send("+59898000010", "hello")
    rig.timers.advance(1)
    assert reports(rig.heard()) == [(0, 0)]
    rig.timers.advance(4)
    assert rig.heard() == "\r\n+CMGS: 0\r\n\r\nOK\r\n"


@pytest.mark.parametrize("text", ["gsm " * 100, "smile 😀🇺🇾 " * 30, "x" * 152 + "€" * 5])
def test_parts_are_joined_at_the_subscriber(rig: Rig, text: str) -> None:
    rig.send("+59898000010", text)
    rig.timers.advance(1)
    assert [row["text"] for row in rig.of("delivered")] == [text]
    submits = rig.of("submit")
    assert len(submits) == submits[0]["total"] > 1
    assert rig.of("delivered")[0]["submits"] == [row["n"] for row in submits]
    assert len(rig.of("report")) == len(submits)


def test_parts_of_different_messages_stay_apart(rig: Rig) -> None:
    texts = {3: "a" * 200, 4: "b" * 200}
    for ref, text in texts.items():
        rig.send("+59898000010", text, ref=ref)
    rig.send("+59898000010", "c" * 200, 1, ref=3)
    rig.timers.advance(1)
    assert sorted(row["text"][0] for row in rig.of("delivered")) == ["a", "b", "c"]


def test_missing_part_delivers_nothing(rig: Rig) -> None:
    tpdu = bytes.fromhex(_first_part_only())
    rig.at(f"+CMGS={len(tpdu)}")
    rig.say(b"00" + tpdu.hex().encode() + CTRL_Z)
    rig.timers.advance(1)
    assert rig.of("submit")
    assert not rig.of("delivered")


def _first_part_only() -> str:
    part = split_data(b"\x00" * 200, concat_ref=1)[0]
    return Submit(Address.to_send("+59898000010"), part).encode().hex()


def test_data_is_kept_as_octets(rig: Rig) -> None:
    for part in split_data(bytes(range(200)), concat_ref=1):
        tpdu = Submit(Address.to_send("+59898000010"), part).encode()
        rig.at(f"+CMGS={len(tpdu)}")
        rig.say(b"00" + tpdu.hex().encode() + CTRL_Z)
    rig.timers.advance(1)
    assert rig.of("delivered")[0]["data"] == bytes(range(200)).hex().upper()


@pytest.mark.parametrize("to", ["+59899000002", "099000002", "59899000002"])
def test_from_modem_to_modem(rig: Rig, to: str) -> None:
    rig.send(to, "hello 😀")
    rig.timers.advance(1)
    assert '+CMTI: "SM",1' in rig.heard(1)
    row = rig.of("inbound")[0]
    assert (row["modem"], row["from"], row["text"]) == ("modem1", "+59899000001", "hello 😀")
    assert reports(rig.heard()) == [(0, 0)]


def test_modem_to_modem_is_reported_when_it_arrives(rig: Rig) -> None:
    rig.modems[1].unplug()
    rig.send("+59899000002", "hello")
    rig.timers.advance(10)
    assert not rig.of("report")
    rig.lines[1].plugged = True
    rig.modems[1].power_on()
    assert len(rig.of("report")) == 1


def test_number_is_unique(rig: Rig) -> None:
    with pytest.raises(ValueError, match="number"):
        rig.make_sim(9, "+59899000001")
