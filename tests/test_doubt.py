"""Doubt is settled by the report or late result that is about it, and by no other."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gatewayd.modems.simulator.process import simulator_process
from tests.daemon import daemon, until
from tests.faults import all_ready, all_settled, hasty


async def test_reports_settle_two_doubts_in_a_row(tmp_path: Path) -> None:
    """Both texts went out; the second has the TP-MR after the first one's, which nobody ever told."""
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, hasty(tmp_path, 1)) as gateway,
    ):
        await all_ready(gateway)
        await gateway.until(await gateway.send("+59898344484", "known"), lambda m: m["delivery"] == "delivered")
        await sim.control.call({"do": "fault", "modem": 0, "name": "silent", "count": 2})
        accepted = {await gateway.send(f"+5989834448{i}", f"silent {i}"): f"silent {i}" for i in range(2)}
        found = await all_settled(gateway)
        assert len([row for row in await sim.ledger("report") if row["how"] == "+CDS"]) == 3, "the modem told"
        assert {found[idm]["delivery"] for idm in accepted} == {"delivered"}, found


async def test_a_report_settles_a_doubt_after_a_refusal(tmp_path: Path) -> None:
    """A refused TPDU uses up a TP-MR too."""
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, hasty(tmp_path, 1)) as gateway,
    ):
        await all_ready(gateway)
        await gateway.until(await gateway.send("+59898344484", "known"), lambda m: m["delivery"] == "delivered")
        await gateway.until(await gateway.send("+59899999001", "refused"), lambda m: m["state"] == 5)
        await sim.control.call({"do": "fault", "modem": 0, "name": "silent"})
        idm = await gateway.send("+59898344485", "silent")
        found = await all_settled(gateway)
        assert found[idm]["delivery"] == "delivered", found[idm]


async def test_a_late_result_settles_the_doubt_it_is_about(tmp_path: Path) -> None:
    """Two doubts; the result of the first comes late. The second, newer one must stay in doubt."""
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=3_600_000) as sim,
        daemon(tmp_path, hasty(tmp_path, 1, in_doubt={"wait": "15m"})) as gateway,
    ):
        await all_ready(gateway)
        await gateway.until(await gateway.send("+59898344484", "known"), lambda m: m["state"] == 2)
        idms = []
        for i, sent in enumerate([True, False]):
            await all_ready(gateway)
            fault = {"name": "silent", "parameters": {"sent": sent}}
            await sim.control.call({"do": "fault", "modem": 0, **fault})
            idms.append(await gateway.send(f"+5989834449{i}", f"silent {i}"))
            await gateway.until(idms[-1], lambda m: m["state"] == 8)
        await all_ready(gateway)
        mr = (await sim.ledger("submit"))[-1]["mr"]
        await sim.control.call({"do": "emit", "modem": 0, "text": f"+CMGS: {mr}\r\n\r\nOK"})

        async def settled() -> bool:
            return 8 not in {(await gateway.message(idm))["state"] for idm in idms} or any(
                [(await gateway.message(idm))["state"] == 2 for idm in idms]
            )

        await until(settled)
        assert [(await gateway.message(idm))["state"] for idm in idms] == [2, 8], "the first was sent, not the second"


async def test_a_result_of_another_message_settles_no_doubt(tmp_path: Path) -> None:
    """A modem says +CMGS once more for a message that is known to be sent."""
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=3_600_000) as sim,
        daemon(tmp_path, hasty(tmp_path, 1, in_doubt={"wait": "15m"})) as gateway,
    ):
        await all_ready(gateway)
        await sim.control.call({"do": "fault", "modem": 0, "name": "silent", "parameters": {"sent": False}})
        lost = await gateway.send("+59898344484", "lost")
        await gateway.until(lost, lambda m: m["state"] == 8)
        known = await gateway.send("+59898344485", "known")
        await gateway.until(known, lambda m: m["state"] == 2)
        (row,) = await sim.ledger("submit")
        await sim.control.call({"do": "emit", "modem": 0, "text": f"+CMGS: {row['mr']}\r\n\r\nOK"})
        # Whatever the late result does is done when a message that the modem stores after it was taken from there.
        await sim.control.call({"do": "inbound", "modem": 0, "from": "+59898123401", "text": "after it"})

        async def taken() -> bool:
            return not (await sim.control.call({"do": "store", "modem": 0, "store": "ME"}))["slots"]

        await until(taken)
        message = await gateway.message(lost)
        assert message["state"] == 8, f"said to be sent, but the SMS centre never got it: {message['explain']}"


@pytest.mark.parametrize("way", ["reload", "restart", "kill"])
async def test_a_result_that_is_still_owed_completes_no_submission_of_another_session(tmp_path: Path, way: str) -> None:
    """The channel is opened anew while the modem still owes a result, and the next message is refused.

    No session before this one can tell: SIGHUP made another channel, or the daemon is another one.
    """
    async with simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=3_600_000) as sim:
        config = hasty(tmp_path, 1, in_doubt={"wait": "15m"})
        async with AsyncExitStack() as stack:
            gateway = await stack.enter_async_context(daemon(tmp_path, config))
            await all_ready(gateway)
            await sim.control.call({"do": "fault", "modem": 0, "name": "silent"})
            first = await gateway.send("+59898344490", "silent")
            if way == "kill":
                await sim.control.wait("submit", 1)
                await gateway.kill()
            else:
                await gateway.until(first, lambda m: m["state"] == 8)
            mr = (await sim.ledger("submit"))[-1]["mr"]
            config["channels"][0]["submit_timeout"] = "20s"
            if way == "reload":
                assert "configuration reloaded" in await gateway.reload(config)
            else:
                await gateway.stop()
                gateway = await stack.enter_async_context(daemon(tmp_path, config))
            await all_ready(gateway)
            await sim.control.call({"do": "latency", "ms": 2000, "modem": 0})
            second = await gateway.send("+59899999001", "refused")
            await sim.control.wait("refused", 1)
            await sim.control.call({"do": "emit", "modem": 0, "text": f"+CMGS: {mr}\r\n\r\nOK"})
            await gateway.until(second, lambda m: m["state"] != 1)
            assert (await gateway.message(second))["state"] == 5, "it was not sent"
            await gateway.until(first, lambda m: m["state"] == 2)
