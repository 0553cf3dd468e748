from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from gatewayd.commands.pdu import app
from gatewayd.modems.pdu import Address, Alphabet, Deliver, RelativeValidity, StatusReport, Submit, UserData, decode_pdu

DELIVER = "07911326040000F0040B911346610089F60000208062917314080CC8F71D14969741F977FD07"
SUBMIT = "0011000B916407281553F80000AA0AE8329BFD4697D9EC37"


def run(*arguments: str, stdin: str | bytes = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    return result.exit_code, result.stdout, result.stderr


def decoded(*arguments: str, stdin: str | bytes = "") -> tuple[int, list[dict[str, Any]]]:
    status, out, _ = run("decode", "--json", *arguments, stdin=stdin)
    return status, [json.loads(line) for line in out.splitlines()]


def test_a_deliver() -> None:
    status, (found,) = decoded(DELIVER)
    assert status == 0
    assert found["hex"] == DELIVER
    assert found["type"] == "deliver"
    assert found["smsc"] == "+31624000000"
    assert found["originator"] == "+31641600986"
    assert found["text"] == "How are you?"
    assert found["scts"] == "2002-08-26T19:37:41+00:00"
    assert found["concat"] is None
    assert "error" not in found


def test_a_submit_is_recognised_or_named() -> None:
    for arguments in ([SUBMIT], ["--submit", SUBMIT], ["--to-sc", SUBMIT]):
        status, (found,) = decoded(*arguments)
        assert status == 0
        assert (found["type"], found["destination"], found["text"]) == ("submit", "+46708251358", "hellohello")
        assert found["validity"] == "345600s"
    status, (found,) = decoded("--deliver", SUBMIT)
    assert status == 1
    assert found["path"] == "first_octet"


def test_without_the_sms_centre() -> None:
    status, (found,) = decoded("--no-smsc", DELIVER[16:])
    assert status == 0
    assert (found["smsc"], found["text"]) == (None, "How are you?")


def test_a_status_report() -> None:
    report = StatusReport(7, Address.to_send("+59898344484"), None, None, 0x46)
    status, (found,) = decoded("--no-smsc", report.encode().hex())
    assert status == 0
    assert (found["type"], found["mr"], found["recipient"]) == ("status_report", 7, "+59898344484")
    assert (found["status"], found["status_text"], found["verdict"]) == (0x46, "validity period expired", "undelivered")
    assert found["text"] is None
    assert found["scts"] is None


def test_data_has_no_text() -> None:
    tpdu = Deliver(Address.alphanumeric("ACME"), UserData(Alphabet.DATA8, data=b"\xca\xfe"))
    _, (found,) = decoded("--no-smsc", tpdu.encode().hex())
    assert (found["originator"], found["ton"]) == ("ACME", "alphanumeric")
    assert (found["text"], found["data"]) == (None, "CAFE")


def test_one_bad_pdu_does_not_stop_the_rest() -> None:
    status, found = decoded(DELIVER, "0791", "nonsense", SUBMIT)
    assert status == 1
    assert [line.get("text") for line in found] == ["How are you?", None, None, "hellohello"]
    assert [line["hex"] for line in found] == [DELIVER, "0791", "nonsense", SUBMIT]
    assert found[1]["error"] == "smsc.value at octet 2: needs 6 octets, 0 octets left"
    assert (found[1]["path"], found[1]["offset"]) == ("smsc.value", 2)
    assert "error" in found[2]


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_lines_from_standard_input(arguments: list[str]) -> None:
    status, found = decoded(*arguments, stdin=f"{DELIVER}\r\n\n  {SUBMIT}  \n")
    assert status == 0
    assert [line["text"] for line in found] == ["How are you?", "hellohello"]


def test_standard_input_that_is_no_text() -> None:
    status, found = decoded(stdin=b"\xff\xfe\x00\n" + DELIVER.encode())
    assert status == 1
    assert ["error" in line for line in found] == [True, False]


def test_nothing_is_no_failure() -> None:
    assert decoded(stdin="") == (0, [])


def test_for_people() -> None:
    status, out, _ = run("decode", DELIVER, "xx")
    assert status == 1
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if line)
    assert lines["originator"] == "+31641600986"
    assert lines["text"] == "How are you?"
    assert "'x' is not a hex digit" in lines["error"]


def test_a_text_cannot_write_to_the_terminal() -> None:
    hostile = "\x1b[2J\x9b2J\u202e\ntype   submit [bold]é"
    tpdu = Deliver(Address.to_send("+1"), UserData(Alphabet.UCS2, hostile))
    _, out, _ = run("decode", "--no-smsc", tpdu.encode().hex())
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert "\u202e" not in out
    assert "\\x1b[2J\\x9b2J\\x202e" in out
    assert [line for line in out.splitlines() if line.startswith("type")] == ["type               deliver"]
    assert "[bold]é" in out


def test_encode() -> None:
    status, out, _ = run("encode", "+46708251358", "hellohello", "--validity", "4d")
    assert (status, out) == (0, f"23 {SUBMIT}\n")


def test_encode_with_everything() -> None:
    arguments = ["7373", "б" * 71, "--report", "--validity", "90m", "--class", "0", "--ref", "300", "--ref-bits", "16"]
    status, out, _ = run("encode", *arguments, "--smsc", "+59899000000", "--json")
    assert status == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 2
    for seq, line in enumerate(lines, start=1):
        smsc, tpdu = decode_pdu(line["hex"], from_sc=False)
        assert smsc == Address.to_send("+59899000000")
        assert isinstance(tpdu, Submit)
        assert line["length"] == len(tpdu.encode())
        assert tpdu.report
        assert tpdu.validity == RelativeValidity.of_seconds(5400)
        assert tpdu.user_data.message_class == 0
        assert tpdu.user_data.concat is not None
        assert (tpdu.user_data.concat.ref, tpdu.user_data.concat.seq) == (300, seq)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["ACME", "a"], "number"),
        (["+1 2", "a"], "number"),
        (["7373", "a", "--class", "4"], "message_class"),
        (["7373", "a", "--ref", "256"], "concat_ref"),
        (["7373", "a", "--ref-bits", "7"], "ref_bits"),
        (["7373", "a", "--validity", "10"], "validity"),
        (["7373", "a", "--validity", "0m"], "validity"),
        (["7373", "a", "--smsc", "x"], "smsc"),
        (["7373", "a" * 40_000], "text"),
    ],
)
def test_an_error_names_the_field(arguments: list[str], field: str) -> None:
    status, out, err = run("encode", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"{field}: ")


def test_what_is_encoded_can_be_decoded() -> None:
    _, out, _ = run("encode", "+59898344484", "hola 😀", "--json")
    _, (found,) = decoded(json.loads(out)["hex"])
    assert (found["destination"], found["text"]) == ("+59898344484", "hola 😀")
