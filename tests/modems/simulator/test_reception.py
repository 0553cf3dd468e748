"""What an emulated modem does with messages for it: stores, indications, acknowledgement."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gatewayd.modems.pdu import Address, Deliver, decode_pdu
from tests.modems.simulator.rig import Rig, reports

OK = "\r\nOK\r\n"
SENDER = Address.to_send("+59898111222")


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.quiet()
    return rig


def arrive(rig: Rig, text: str, **options: int) -> str:
    rig.centre.send_text(rig.sim, SENDER, text, **options)
    return rig.heard()


def listed(rig: Rig) -> list[tuple[str, str]]:
    """(index and status, text) of each message AT+CMGL=4 shows."""
    lines = rig.at("+CMGL=4").split("\r\n")
    found = []
    for head, pdu in pairwise(lines):
        if head.startswith("+CMGL: "):
            index, stat, _, length = head.removeprefix("+CMGL: ").split(",")
            deliver = decode_pdu(pdu)[1]
            assert isinstance(deliver, Deliver)
            assert len(pdu) // 2 - 8 == int(length)
            found.append((f"{index},{stat}", deliver.user_data.text or ""))
    return found


def test_stored_and_indicated(rig: Rig) -> None:
    assert arrive(rig, "one") == '\r\n+CMTI: "SM",1\r\n'
    assert arrive(rig, "two") == '\r\n+CMTI: "SM",2\r\n'
    assert listed(rig) == [("1,0", "one"), ("2,0", "two")]
    assert listed(rig) == [("1,1", "one"), ("2,1", "two")]
    assert rig.at("+CMGL=0") == OK
    assert rig.at("+CMGR=2").startswith("\r\n+CMGR: 1,,")
    assert rig.at("+CMGD=1") == OK
    assert rig.at("+CMGR=1") == "\r\n+CMS ERROR: 321\r\n"
    assert rig.at("+CMGD=99") == "\r\n+CMS ERROR: 321\r\n"
    assert arrive(rig, "three") == '\r\n+CMTI: "SM",1\r\n'
    assert [row["how"] for row in rig.of("inbound")] == ["SM:1", "SM:2", "SM:1"]


def test_stores_are_chosen_apart(rig: Rig) -> None:
    assert rig.at('+CPMS="ME","SM","ME"') == "\r\n+CPMS: 0,100,0,10,0,100\r\n" + OK
    assert arrive(rig, "one") == '\r\n+CMTI: "ME",1\r\n'
    assert rig.at("+CPMS?") == '\r\n+CPMS: "ME",1,100,"SM",0,10,"ME",1,100\r\n' + OK
    assert arrive(rig, "for the SIM", message_class=2) == '\r\n+CMTI: "SM",1\r\n'
    assert rig.at('+CPMS="XX"') == "\r\n+CMS ERROR: 302\r\n"
    assert rig.at('+CPMS="SM"').startswith("\r\n+CPMS: 1,10,1,10,1,100")
    assert listed(rig) == [("1,0", "for the SIM")]


def test_index_base_zero() -> None:
    rig = Rig(personality="huawei")
    rig.quiet()
    rig.at('+CPMS="ME","ME","ME"')
    assert arrive(rig, "one") == '\r\n+CMTI: "ME",0\r\n'


@pytest.mark.parametrize(
    ("cnmi", "message_class", "heard"),
    [
        ("2,0,0,0", None, ""),
        ("2,1,0,0", None, '\r\n+CMTI: "SM",1\r\n'),
        ("2,2,0,0", None, "\r\n+CMT: ,"),
        ("2,2,0,0", 2, '\r\n+CMTI: "SM",1\r\n'),
        ("2,3,0,0", 3, "\r\n+CMT: ,"),
        ("2,3,0,0", 1, '\r\n+CMTI: "SM",1\r\n'),
        ("2,1,0,0", 0, "\r\n+CMT: ,"),
        ("0,1,0,0", None, ""),
    ],
)
def test_routing_by_cnmi(rig: Rig, cnmi: str, message_class: int | None, heard: str) -> None:
    assert rig.at(f"+CNMI={cnmi}") == OK
    rig.centre.send_text(rig.sim, SENDER, "text", message_class=message_class)
    assert rig.heard().startswith(heard)
    assert bool(rig.sim.store.slots) is not heard.startswith("\r\n+CMT: ,")


def test_held_indications_are_flushed_or_dropped(rig: Rig) -> None:
    rig.at("+CNMI=0,1,0,0,0")
    arrive(rig, "one")
    assert rig.at("+CNMI=2,1,0,0,0") == OK + '\r\n+CMTI: "SM",1\r\n'
    rig.at("+CNMI=0,1,0,0,0")
    arrive(rig, "two")
    assert rig.at("+CNMI=2,1,0,0,1") == OK


def test_direct_delivery_wants_an_acknowledgement(rig: Rig) -> None:
    rig.at("+CSMS=1")
    rig.at("+CNMI=2,2,0,1,0")
    assert arrive(rig, "one").startswith("\r\n+CMT: ,")
    assert arrive(rig, "two") == ""
    assert not rig.of("inbound")
    assert rig.at("+CNMA").startswith("\r\n+CMT: ,")  # the next one, before this OK
    assert [row["text"] for row in rig.of("inbound")] == ["one"]
    assert rig.at("+CNMA=0") == OK
    assert rig.at("+CNMA") == "\r\n+CMS ERROR: 340\r\n"


def test_no_acknowledgement_ends_direct_delivery_and_the_network_tries_again(rig: Rig) -> None:
    rig.at("+CSMS=1")
    rig.at("+CNMI=2,2,0,1,0")
    arrive(rig, "one")
    rig.timers.advance(16)
    assert rig.at("+CNMI?") == "\r\n+CNMI: 2,0,0,0,0\r\n" + OK
    assert not rig.of("inbound")
    rig.timers.advance(10)
    assert [row["how"] for row in rig.of("inbound")] == ["SM:1"]


def test_full_store_and_retry(rig: Rig) -> None:
    rig.sim.store.size = 2
    for text in ("one", "two", "three", "four"):
        arrive(rig, text)
    assert rig.centre.waiting(rig.sim) == 2
    assert rig.at("+CPMS?").count('"SM",2,2') == 3
    assert rig.at("+CMGD=1") == OK + '\r\n+CMTI: "SM",1\r\n'
    assert rig.at("+CMGD=1,4").startswith(OK + '\r\n+CMTI: "SM",1\r\n')
    assert [row["text"] for row in rig.of("inbound")] == ["one", "two", "three", "four"]
    assert rig.centre.waiting(rig.sim) == 0


def test_reports_pass_a_full_store(rig: Rig) -> None:
    rig.sim.store.size = 0
    arrive(rig, "waits")
    rig.send("+59898000010", "x")
    rig.timers.advance(1)
    assert reports(rig.heard()) == [(0, 0)]


def test_full_is_announced() -> None:
    rig = Rig(personality="simcom")
    rig.quiet()
    rig.sim.store.size = 1
    assert "+SMS FULL" in arrive(rig, "one")


def test_reports_by_cnmi(rig: Rig) -> None:
    for ds, heard, how in ((0, "", "dropped"), (1, "\r\n+CDS: ", "+CDS"), (2, '\r\n+CDSI: "SR",1\r\n', "SR:1")):
        rig.at(f"+CNMI=2,1,0,{ds},0")
        rig.send("+59898000010", "x")
        rig.timers.advance(1)
        assert rig.heard().startswith(heard)
        assert rig.of("report")[-1]["how"] == how
    assert rig.at('+CPMS="SR"').startswith("\r\n+CPMS: 1,20,")
    assert "+CMGL: 1,0,," in rig.at("+CMGL=4")


def test_unreachable_modem_gets_it_later(rig: Rig) -> None:
    rig.modem.set_registration(dict.fromkeys(rig.modem.registration, 3))
    assert arrive(rig, "late") == ""
    rig.modem.set_registration({"+CREG": 1})
    assert rig.heard() == '\r\n+CMTI: "SM",1\r\n'


def test_stores_survive_a_restart_and_go_with_the_sim(rig: Rig) -> None:
    arrive(rig, "kept")
    rig.modem.restart()
    rig.timers.advance(1)
    rig.at("E0")
    assert listed(rig) == [("1,0", "kept")]
    sim = rig.sim
    rig.modem.insert_sim(rig.make_sim(7, "+59891234567"))
    assert listed(rig) == []
    rig.modem.insert_sim(sim)
    rig.heard()
    assert listed(rig) == [("1,1", "kept")]


def test_undecodable_tpdu_is_handed_over_all_the_same(rig: Rig) -> None:
    rig.centre.send_tpdu(rig.sim, bytes.fromhex("04FFEEDD"))
    assert rig.heard() == '\r\n+CMTI: "SM",1\r\n'
    assert "04FFEEDD" in rig.at("+CMGR=1")


def test_a_long_message_to_a_modem_comes_in_parts(rig: Rig) -> None:
    text = "naïve 😀 " * 40
    rig.centre.send_text(rig.sim, SENDER, text)
    rows = rig.of("inbound")
    assert len(rows) == rows[0]["total"] > 1
    assert len({row["ref"] for row in rows}) == 1
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
