"""Operators against a real daemon and emulated modems: what is called back stays, what has left is shown."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process
from tests.daemon import DaemonProcess, daemon, until
from tests.faults import all_ready, hasty, post, sent_times

NUMBER = "+59898344484"
LONG = "a text that takes three segments " * 12
QUIET = 3_600_000  # ms: no report comes


async def order(gateway: DaemonProcess, action: str, **fields: Any) -> Any:
    return await gateway.operate("operations", {"action": action, **fields})


async def finished(gateway: DaemonProcess, begun: Any) -> dict[str, Any]:
    found: dict[str, Any] = begun["operation"]

    async def done() -> bool:
        nonlocal found
        status, out, _ = await cli(gateway, "operations", "show", str(found["id"]), "--json")
        assert status == 0
        found = json.loads(out)
        return found["state"] != "running"

    await until(done, lambda: found)
    return found


async def cli(gateway: DaemonProcess, *arguments: str) -> tuple[int, str, str]:
    """Run the command line against the daemon's control socket."""
    env = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "GATEWAYD_SOCKET": str(gateway.directory / "control.sock"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gatewayd", *arguments, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env, cwd=gateway.directory,
    )  # fmt: skip
    out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode or 0, out.decode(), err.decode()


async def in_hand(gateway: DaemonProcess, idm: int) -> None:
    async def has() -> bool:
        return idm in {channel["in_hand"] for channel in await gateway.channels()}

    await until(has)


async def cancelled_rows(sim: SimulatorProcess) -> int:
    return len(await sim.ledger("cancelled"))


async def test_cancel_before_the_prompt_calls_it_back_with_esc_and_nothing_goes_out(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=QUIET) as sim,
        daemon(tmp_path, hasty(tmp_path, 1)) as gateway,
    ):
        await all_ready(gateway)
        late = {"name": "late_prompt", "parameters": {"after_s": 3.0}}
        await sim.control.call({"do": "fault", "modem": 0, **late})
        idm = await gateway.send(NUMBER, "called back")
        await in_hand(gateway, idm)
        answer = await order(gateway, "cancel", ids=[idm], reason="a mistake")
        assert answer["results"][0]["changed"]
        assert (await gateway.message(idm))["wish"] == "cancel"
        found = await gateway.until(idm, lambda m: m["state"] == 7)
        assert found["wish"] == ""
        assert "cancelled by uid" in found["explain"].lower()
        await gateway.until(await gateway.send(NUMBER, "the next one"), lambda m: m["state"] == 2)
        assert await sent_times(sim) == Counter(["the next one"])
        assert await cancelled_rows(sim) == 1


async def test_cancel_after_the_pdu_is_shown_as_sent_and_the_rest_stays(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=QUIET) as sim,
        daemon(tmp_path, {**hasty(tmp_path, 1)}) as gateway,
    ):
        await all_ready(gateway)
        await sim.control.call({"do": "fault", "modem": 0, "name": "late", "parameters": {"after_s": 0.7}})
        idm = await gateway.send(NUMBER, LONG)
        await sim.control.wait("submit", 1)
        await order(gateway, "cancel", ids=[idm])
        found = await gateway.until(idm, lambda m: m["state"] == 7)
        assert [segment["state"] for segment in found["segments"]] == ["SUBMITTED", "CANCELLED", "CANCELLED"]
        assert "1 of its 3 segments went out" in found["explain"]
        assert len(await sim.ledger("submit")) == 1


async def test_held_in_hand_and_released_it_goes_out_once(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=QUIET) as sim,
        daemon(tmp_path, hasty(tmp_path, 1)) as gateway,
    ):
        await all_ready(gateway)
        late = {"name": "late_prompt", "parameters": {"after_s": 3.0}}
        await sim.control.call({"do": "fault", "modem": 0, **late})
        idm = await gateway.send(NUMBER, "held")
        await in_hand(gateway, idm)
        await order(gateway, "hold", ids=[idm])
        await gateway.until(idm, lambda m: m["held"] == "operator")
        assert not await sim.ledger("submit")
        _, out, _ = await cli(gateway, "messages", "--held", "operator")
        assert "to process, held" in out
        status, out, _ = await cli(gateway, "messages", "release", str(idm), "--reason", "it was right")
        assert (status, out) == (0, f"{idm}: released\n")
        _, out, _ = await cli(gateway, "operations", "show", "2")
        assert out.endswith(f": ids={idm} (it was right)\n"), out
        await gateway.until(idm, lambda m: m["state"] == 2)
        assert await sent_times(sim) == Counter(["held"])


async def test_doubts_are_listed_and_resolved_on_the_command_line(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=QUIET) as sim,
        daemon(tmp_path, hasty(tmp_path, 1)) as gateway,
    ):
        await all_ready(gateway)
        idms = []
        for i, text in enumerate(["was sent", "send again", "give up"]):
            fault = {"name": "silent", "parameters": {"sent": text != "send again"}}
            await sim.control.call({"do": "fault", "modem": 0, **fault})
            body = {"to": f"+5989834448{i}", "text": text, "in_doubt": "hold"}
            _, answer = await gateway.post("/api/v1/messages", json=body)
            idms.append(answer["idm"])
            await gateway.until(answer["idm"], lambda m: m["state"] == 8)
            if i < 2:
                await gateway.until(await gateway.send("+59898344480", f"between {i}"), lambda m: m["state"] == 2)
        sent, again, up = map(str, idms)
        status, out, _ = await cli(gateway, "messages", "--in-doubt", "--json")
        assert [json.loads(line)["idm"] for line in out.splitlines()] == idms
        status, out, _ = await cli(gateway, "messages", "--in-doubt")
        assert status == 0
        assert "hold" in out
        assert (await cli(gateway, "messages", "resolve", sent))[0] == 2, "say how"
        status, out, _ = await cli(gateway, "messages", "resolve", sent, "--sent")
        assert (status, "taken for sent" in out) == (0, True)
        assert (await gateway.message(idms[0]))["state"] == 2
        assert (await cli(gateway, "messages", "resolve", up, "--give-up"))[0] == 0
        assert (await gateway.message(idms[2]))["state"] == 8
        status, out, _ = await cli(gateway, "messages", "resolve", again, "--not-sent")
        assert (status, "it may arrive twice" in out) == (0, True)
        await gateway.until(idms[1], lambda m: m["state"] == 2)
        assert (await cli(gateway, "messages", "resolve", sent, "--sent"))[0] == 1
        status, out, _ = await cli(gateway, "messages", "--in-doubt", "--json")
        assert [json.loads(line)["idm"] for line in out.splitlines()] == [idms[2]]
        times = await sent_times(sim)
        assert times["was sent"] == times["send again"] == times["give up"] == 1


async def test_a_thousand_are_cancelled_on_the_command_line(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=QUIET) as sim,
        daemon(tmp_path, hasty(tmp_path, 1)) as gateway,
    ):
        await gateway.operate("pause", {"reason": "a test"})
        accepted = await post(gateway, 1000, "spring", campaign="spring")
        kept = await gateway.send(NUMBER, "autumn")
        wrong, _, err = await cli(gateway, "messages", "cancel", "--campaign", "spring")
        assert (wrong, "--yes" in err) == (2, True), "nobody can be asked"
        wrong, _, err = await cli(gateway, "messages", "--campaign", "spring", "cancel", "--yes", "--all")
        assert (wrong, "come after it" in err) == (2, True), "or everything would be cancelled"
        assert (await cli(gateway, "messages", "cancel", "--yes"))[0] == 2, "say which"
        status, out, _ = await cli(gateway, "messages", "cancel", "--campaign", "spring", "--dry-run")
        assert (status, out) == (0, "1000 messages (campaign spring)\n")
        status, out, _ = await cli(gateway, "messages", "cancel", "--campaign", "spring", "--yes", "--reason", "wrong")
        assert (status, out) == (0, "operation 1 is done: 1000 of 1000 messages changed\n")
        status, out, _ = await cli(gateway, "operations", "--json")
        assert [json.loads(line)["changed"] for line in out.splitlines()] == [1000]
        status, out, _ = await cli(gateway, "operations")
        assert "campaign=spring" in out
        _, out, _ = await cli(gateway, "messages", "--state", "cancelled", "--limit", "1000", "--json")
        assert [json.loads(line)["idm"] for line in out.splitlines()] == list(accepted)
        await gateway.operate("resume")
        await gateway.until(kept, lambda m: m["state"] == 2)
        assert await sent_times(sim) == Counter(["autumn"])


async def test_an_operation_goes_on_after_kill_9_while_another_campaign_is_sent(tmp_path: Path) -> None:
    """5000 are cancelled in steps; the channel keeps sending, the daemon is killed in the middle."""
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=QUIET) as sim,
        AsyncExitStack() as stack,
    ):
        config = hasty(tmp_path, 1)
        gateway = await stack.enter_async_context(daemon(tmp_path, config))
        await gateway.operate("pause", {"reason": "until all are there"})
        spring: dict[int, str] = {}
        for part in range(5):
            spring |= await post(gateway, 1000, f"spring {part}", campaign="spring")
        autumn = await post(gateway, 200, "autumn", campaign="autumn", priority=5)
        await gateway.operate("resume")
        await sim.control.wait("submit", 20)
        begun = await order(gateway, "cancel", filter={"campaign": "spring"})
        assert begun["operation"]["state"] == "running"
        number = begun["operation"]["id"]

        async def halfway() -> bool:
            _, page = await gateway.get("/api/v1/messages", params={"state": "cancelled", "limit": 1000})
            return len(page["items"]) >= 500

        await until(halfway)
        await gateway.kill()
        gateway = await stack.enter_async_context(daemon(tmp_path, config))
        found = await finished(gateway, begun)
        assert (found["id"], found["state"]) == (number, "done")
        for idm in autumn:
            await gateway.until(idm, lambda m: m["state"] in {2, 8})
        messages = {message["idm"]: message for message in await gateway.messages()}
        times = await sent_times(sim)
        assert max(times.values()) == 1, "sent twice"
        states = Counter(messages[idm]["state"] for idm in spring)
        assert set(states) <= {7, 2, 8}, states
        assert states[7] > 4000
        assert all(times.get(spring[idm], 0) == 0 for idm in spring if messages[idm]["state"] == 7)
        assert sum(text in times for text in autumn.values()) >= 199


async def test_a_channel_is_paused_drained_and_resumed_over_a_restart(tmp_path: Path) -> None:
    async with simulator_process(modems=2, directory=tmp_path / "sim", report_delay_ms=QUIET) as sim:
        config = hasty(tmp_path, 2)
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            status, out, _ = await cli(gateway, "channels", "pause", "m0", "--reason", "new SIM")
            assert (status, "paused by uid" in out, "new SIM" in out) == (0, True, True)
            assert (await cli(gateway, "channels", "pause", "none"))[0] == 1
            _, answer = await gateway.post("/api/v1/messages", json={"to": NUMBER, "text": "pinned", "channel": "m0"})
            pinned = answer["idm"]
            for i in range(4):
                await gateway.until(await gateway.send(f"+5989834449{i}", f"free {i}"), lambda m: m["state"] == 2)
            found = await gateway.message(pinned)
            assert found["state"] == 1
            assert "m0 is paused by uid" in found["explain"]
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            assert (await gateway.channels())[0]["mode"] == "paused"
            status, out, _ = await cli(gateway, "channels")
            assert "ready, paused" in out
            assert (await gateway.message(pinned))["state"] == 1
            assert (await cli(gateway, "channels", "resume", "m0"))[:2] == (0, "m0: works\n")
            await gateway.until(pinned, lambda m: m["state"] == 2)
            rows = await sim.ledger("submit")
            assert {row["modem"] for row in rows if row["text"] == "pinned"} == {"modem0"}
            assert {row["modem"] for row in rows if row["text"] != "pinned"} == {"modem1"}


async def test_a_channel_that_drains_finishes_what_it_began(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=QUIET, latency_ms=300) as sim,
        daemon(tmp_path, hasty(tmp_path, 1)) as gateway,
    ):
        await all_ready(gateway)
        begun = await gateway.send(NUMBER, LONG)
        waiting = await gateway.send("+59898344485", "waits")
        await sim.control.wait("submit", 1)
        await gateway.operate("channels/m0/drain", {"reason": "new SIM"})
        await gateway.until(begun, lambda m: m["state"] == 2)
        found = await gateway.message(waiting)
        assert found["state"] == 1
        assert "draining" in found["explain"]
        await gateway.operate("channels/m0/resume")
        await gateway.until(waiting, lambda m: m["state"] == 2)
