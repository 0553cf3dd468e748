"""The simulator as a process, over real terminals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from gatewayd.modems.simulator.control import SimulatorControl, SimulatorError
from gatewayd.modems.simulator.process import simulator_process
from tests.modems.simulator.rig import DEADLINE_S, Gone, dialogue, reports, submit_pdus


async def test_submission_ledger_and_report(tmp_path: Path) -> None:
    async with simulator_process(modems=2, directory=tmp_path) as sim, dialogue(sim.port(0)) as talk:
        await talk.quiet()
        assert await talk.send("+59898000010", "first 😀") == "\r\n+CMGS: 0\r\n\r\nOK\r\n"
        assert reports(await talk.until("+CDS: ") + await talk.until("\r\n") + await talk.until("\r\n")) == [(0, 0)]
        assert (await talk.send("+59898000004", "second")).startswith("\r\n+CMS ERROR: ")
        rows = await sim.ledger()
        assert [row["kind"] for row in rows] == [
            "submit", "answered", "delivered", "report", "refused", "answered",
        ]  # fmt: skip
        assert [row["n"] for row in rows] == list(range(6))
        assert rows[0]["cmgs_at"] <= rows[0]["ctrl_z_at"] <= rows[1]["final_at"]
        file = (tmp_path / "ledger.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in file] == rows
        assert sim.number(1) == "+59899000002"


async def test_every_subscriber_over_the_wire(tmp_path: Path) -> None:
    async with simulator_process(directory=tmp_path, report_delay_ms=20) as sim, dialogue(sim.port()) as talk:
        await talk.quiet()
        for ending in ("01", "02", "03", "05", "06", "10"):
            await talk.send(f"+598980000{ending}", "hello")
        await sim.control.wait("report", 6)
        await sim.control.wait("inbound", 2)
        by_number: dict[str, list[int]] = {}
        for row in await sim.ledger("report"):
            by_number.setdefault(row["to"][-2:], []).append(row["status"])
        assert by_number == {"01": [0], "02": [0], "03": [0x20, 0x46], "05": [0x41], "10": [0]}
        assert sorted(row["text"] for row in await sim.ledger("inbound")) == ["Re: hello", "STOP"]


async def test_a_program_that_goes_away_leaves_the_modem_as_it_is(tmp_path: Path) -> None:
    async with simulator_process(directory=tmp_path) as sim:
        async with dialogue(sim.port()) as talk:
            await talk.quiet()
        async with dialogue(sim.port()) as talk:
            assert await talk.at("+CNMI?") == "\r\n+CNMI: 2,1,0,1,0\r\n\r\nOK\r\n"


@pytest.mark.parametrize(
    ("phase", "submits", "seen"),
    [
        ("before_prompt", 0, ""),
        ("after_prompt", 0, "\r\n> "),
        ("after_ctrl_z_not_sent", 0, "\r\n> "),
        ("after_ctrl_z_sent", 1, "\r\n> "),
        ("after_cmgs", 1, "\r\n> \r\n+CMGS: 0\r\n"),
    ],
)
async def test_unplugged_while_sending(tmp_path: Path, phase: str, submits: int, seen: str) -> None:
    async with simulator_process(directory=tmp_path) as sim:
        async with dialogue(sim.port()) as talk:
            await talk.quiet()
            await sim.control.call({"do": "unplug", "modem": 0, "at": phase})
            length, pdu = submit_pdus("+59898000010", "hello")[0]
            talk.write(f"AT+CMGS={length}\r")
            said = ""
            try:
                said = await talk.until("> ")
                talk.write(pdu + b"\x1a")
                said += await talk.until("OK\r\n")
            except Gone:
                said += talk.text
            await talk.until_gone()
            assert said == seen
        assert not os.path.lexists(sim.port())
        assert len(await sim.ledger("submit")) == submits
        await sim.control.call({"do": "plug", "modem": 0})
        async with dialogue(sim.port()) as talk:
            await talk.until("SMS Ready")
            await talk.quiet()
            assert await talk.send("+59898000010", "again") == f"\r\n+CMGS: {submits}\r\n\r\nOK\r\n"


async def test_plugged_in_again_under_another_name(tmp_path: Path) -> None:
    async with simulator_process(directory=tmp_path) as sim:
        await sim.control.call({"do": "unplug", "modem": 0})
        answer = await sim.control.call({"do": "plug", "modem": 0, "as": "other"})
        assert answer["path"] == str(tmp_path / "other")
        async with dialogue(answer["path"]) as talk:
            await talk.quiet()


async def test_latency(tmp_path: Path) -> None:
    async with simulator_process(directory=tmp_path) as sim, dialogue(sim.port()) as talk:
        await talk.quiet()
        await sim.control.call({"do": "latency", "ms": [60, 80], "modem": 0})
        await talk.send("+59898000010", "hello")
        submit, answered = (await sim.ledger())[:1] + (await sim.ledger("answered"))
        assert answered["final_at"] - submit["ctrl_z_at"] >= 0.06


async def test_control(tmp_path: Path) -> None:
    async with simulator_process(modems=2, directory=tmp_path, personality="quectel") as sim:
        call = sim.control.call
        async with dialogue(sim.port(1)) as talk:
            await talk.quiet()
            await call({"do": "inbound", "modem": 1, "from": "+59898111222", "text": "olá 😀 " * 30})
            for _ in range(4):
                await talk.until('+CMTI: "ME",')
            await call({"do": "inbound", "modem": 1, "from": "Bank", "text": "named"})
            await call({"do": "inbound", "modem": 1, "tpdu": "04FF"})
            await sim.control.wait("inbound", 6)
            assert (await call({"do": "store", "modem": 1, "store": "ME"}))["size"] == 255
            await call({"do": "store", "modem": 1, "store": "ME", "size": 6})
            await call({"do": "inbound", "modem": 1, "from": "+59898111222", "text": "kept back"})
            assert (await call({"do": "status", "modem": 1}))["sim"]["waiting"] == 1
            await talk.at("+CMGD=0")
            await sim.control.wait("inbound", 7)

            await call({"do": "signal", "rssi": 7})
            assert "+CSQ: 7,99" in await talk.at("+CSQ")
            await talk.at("+CREG=1")
            await call({"do": "registration", "modem": 1, "stat": 2})
            await talk.until("+CREG: 2")
            await call({"do": "registration", "modem": 1, "stat": {"+CREG": 1}})
            await talk.until("+CREG: 1")
            await call({"do": "emit", "modem": 1, "text": "RING"})
            await talk.until("\r\nRING\r\n")

            new = await call({"do": "swap_sim", "modem": 1, "number": "+59891112233"})
            assert new["iccid"] in await talk.at("+QCCID")
            await call({"do": "swap_sim", "modem": 1, "iccid": sim.iccid(1)})
            assert sim.iccid(1) in await talk.at("+QCCID")
            await call({"do": "pin", "modem": 1, "pin": "1234"})
            assert "SIM PIN" in await talk.at("+CPIN?")
            await call({"do": "restart", "modem": 1, "start_ms": 1})
            await talk.until("RDY")
        await call({"do": "fault", "modem": 0, "name": "cms_error", "parameters": {"code": 38}})
        async with dialogue(sim.port(0)) as talk:
            await talk.quiet()
            assert (await talk.send("+59898000010", "x")).startswith("\r\n+CMS ERROR: ")
        assert (await sim.control.counts())["refused"] == 1


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"do": "dance"},
        {"do": "unplug"},
        {"do": "unplug", "modem": 7},
        {"do": "unplug", "modem": 0, "at": "lunch"},
        {"do": "plug", "modem": 0},
        {"do": "latency", "ms": -1},
        {"do": "inbound", "modem": 0, "from": "a name that is too long", "text": "x"},
        {"do": "inbound", "modem": 0, "tpdu": "zz"},
        {"do": "fault", "modem": 0, "name": "none"},
        {"do": "swap_sim", "modem": 0, "number": "+59899000001"},
        {"do": "wait", "kind": "submit", "timeout_s": 0.01},
    ],
    ids=str,
)
async def test_requests_that_are_refused(shared: SimulatorControl, request_: dict[str, Any]) -> None:
    with pytest.raises(SimulatorError):
        await shared.call(request_)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One simulator for the tests that change nothing in it."""
    directory = tmp_path_factory.mktemp("shared")
    import subprocess

    command = [sys.executable, "-m", "gatewayd.modems.simulator", "--dir", str(directory), "--exit-on-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "ready":
            assert process.poll() is None
        yield SimulatorControl(directory / "control.sock")
        process.terminate()


async def test_no_simulator(tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match="no simulator"):
        await SimulatorControl(tmp_path / "control.sock").call({"do": "ledger"})


async def _start(directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gatewayd.modems.simulator", "--dir", str(directory), *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, None])
async def test_prints_its_modems_and_ends_cleanly(tmp_path: Path, end: signal.Signals | None) -> None:
    process = await _start(tmp_path, "--modems", "2", *(["--exit-on-eof"] if end is None else []))
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        lines = [(await process.stdout.readline()).decode().split() for _ in range(3)]
        if end is None:
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(end)
        _, errors = await process.communicate()
    assert lines[0][:2] == [str(tmp_path / "modem0"), "+59899000001"]
    assert lines[1][:2] == [str(tmp_path / "modem1"), "+59899000002"]
    assert lines[2] == ["ready"]
    assert len(lines[0][2]) == 19
    assert process.returncode == 0
    assert errors == b""
    assert sorted(os.listdir(tmp_path)) == ["ledger.jsonl"]  # noqa: PTH208


async def test_options_that_make_no_sense(tmp_path: Path) -> None:
    for arguments in (["--modems", "0"], ["--latency-ms", "-1"], ["--number-base", "099"]):
        process = await _start(tmp_path, *arguments)
        _, errors = await asyncio.wait_for(process.communicate(), DEADLINE_S)
        assert process.returncode == 1
        assert len(errors.splitlines()) == 1


async def test_many_modems_at_once(tmp_path: Path) -> None:
    """Eight modems, each with its own messages in its own order; no two share a TP-MR sequence."""
    async with simulator_process(modems=8, directory=tmp_path) as sim:

        async def use(modem: int) -> None:
            async with dialogue(sim.port(modem)) as talk:
                await talk.quiet()
                for number in range(40):
                    said = await talk.send("+59898000010", f"{modem} {number}", report=False)
                    assert said == f"\r\n+CMGS: {number}\r\n\r\nOK\r\n"

        await asyncio.gather(*(use(modem) for modem in range(8)))
        rows = await sim.ledger("submit")
        for modem in range(8):
            mine = [row["text"] for row in rows if row["modem"] == f"modem{modem}"]
            assert mine == [f"{modem} {number}" for number in range(40)]


async def test_python_gsmmodem_works_on_it(tmp_path: Path) -> None:
    """A program that knows nothing of the simulator: bring-up, a submission with report, a message received."""
    async with simulator_process(directory=tmp_path, report_delay_ms=50) as sim:
        peer = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", "-m", "tests.modems.simulator.gsmmodem_peer", sim.port(), str(DEADLINE_S),
            stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[3],
        )  # fmt: skip
        assert peer.stdout is not None
        assert json.loads(await peer.stdout.readline()) == {"signal": 22, "delivered": True}
        await sim.control.call({"do": "inbound", "modem": 0, "from": "+59898111222", "text": "to you"})
        assert json.loads(await peer.stdout.readline()) == ["+59898111222", "to you"]
        assert await peer.wait() == 0
        assert [row["text"] for row in await sim.ledger("submit")] == ["hello"]
