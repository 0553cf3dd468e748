"""Modems and callers that misbehave while the daemon runs.

Asserted on what the SMS centre got, and on what the daemon says of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gatewayd.modems.simulator.control import SimulatorError
from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process
from tests.daemon import DaemonProcess, configuration, daemon, until
from tests.faults import all_ready, all_settled, check, hasty, post, sent_times

Fault = tuple[str, dict[str, Any]]
PHASES = ("before_prompt", "after_prompt", "after_ctrl_z_not_sent", "after_ctrl_z_sent", "after_cmgs")
GROUPS: dict[str, Sequence[Fault]] = {
    "silence and odd answers": [
        ("silent", {}),
        ("silent", {"sent": False}),
        ("late", {"after_s": 1.3}),
        ("late", {"after_s": 3.0}),
        ("late", {"after_s": 1.5, "sent": False}),
        ("late", {"after_s": 3.0, "sent": False, "code": 38}),
        ("cms_error", {"code": 500}),
        ("cms_error", {"code": 500, "sent": True}),
        ("cms_error", {"code": 38}),
        ("no_ok", {}),
        ("no_cmgs", {}),
        ("zero_mr", {}),
        ("no_prompt", {}),
    ],
    "loss of power": [*((f"restart_{phase}", {}) for phase in PHASES), *((f"unplug_{phase}", {}) for phase in PHASES)],
}
SLOW = frozenset({"no_prompt", "no_ok"})  # 10 s and 5 s until gatewayd gives up waiting


@pytest.mark.parametrize("group", GROUPS)
async def test_a_modem_that_fails_in_the_middle_of_a_message_loses_and_doubles_nothing(
    tmp_path: Path, group: str
) -> None:
    faults = GROUPS[group]
    modems = len(faults)
    async with (
        simulator_process(modems=modems, directory=tmp_path / "sim", latency_ms=20) as sim,
        daemon(tmp_path, hasty(tmp_path, modems)) as gateway,
    ):
        await all_ready(gateway)
        for modem, (name, parameters) in enumerate(faults):
            count = 1 if name in SLOW else 2
            await sim.control.call(
                {"do": "fault", "modem": modem, "name": name, "parameters": parameters, "skip": 2, "count": count}
            )
        accepted = await post(gateway, 30)
        for modem in range(modems):
            accepted |= await post(gateway, 6, f"for m{modem},", channel=f"m{modem}")
        await plug_again(sim, modems)
        found = await all_settled(gateway)
        check(accepted, found, await sent_times(sim))
        await all_ready(gateway)
        for modem in range(modems):
            assert (await sim.control.call({"do": "fault", "modem": modem}))["armed"] == [], "every fault struck"


async def plug_again(sim: SimulatorProcess, modems: int) -> None:
    """Plug every modem in again that is out, until none has a fault to come."""

    async def over() -> bool:
        armed = []
        for modem in range(modems):
            with contextlib.suppress(SimulatorError):  # it is plugged in
                await sim.control.call({"do": "plug", "modem": modem})
            armed += (await sim.control.call({"do": "fault", "modem": modem}))["armed"]
        return not armed

    await until(over)


@pytest.mark.parametrize("sent", [True, False])
async def test_a_late_final_result_is_not_taken_for_that_of_the_next_message(tmp_path: Path, sent: bool) -> None:
    """The modem sent the first text, or was refused, and says so only while the second one is under way."""
    config = hasty(tmp_path, 1, in_doubt={"wait": "15m"})
    config["channels"][0]["submit_timeout"] = "2s"
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=3_600_000) as sim,
        daemon(tmp_path, config) as gateway,
    ):
        await all_ready(gateway)
        await sim.control.call({"do": "fault", "modem": 0, "name": "silent", "parameters": {"sent": sent}})
        late = await gateway.send("+59898344484", "late")
        await gateway.until(late, lambda found: found["state"] == 8)
        await sim.control.call({"do": "latency", "ms": 1000})
        second = await gateway.send("+59898344485", "second")
        await sim.control.wait("submit", 1 + sent)
        mr = (await sim.ledger("submit"))[-1]["mr"]
        text = f"+CMGS: {mr - 1}\r\n\r\nOK" if sent else "+CMS ERROR: 38"
        await sim.control.call({"do": "emit", "modem": 0, "text": text})
        message = await gateway.until(second, lambda found: found["state"] != 1)
        assert (message["state"], message["segments"][0]["tp_mr"]) == (2, mr), message
        await sim.control.call({"do": "latency", "ms": 0})
        third = await gateway.send("+59898344486", "third")
        await gateway.until(third, lambda found: found["state"] == 2)
        assert await sent_times(sim) == ({"late": 1} if sent else {}) | {"second": 1, "third": 1}
        assert (await gateway.message(late))["state"] == (2 if sent else 8), "the late result settled it"


async def test_a_modem_that_says_nothing_definite_does_not_spoil_the_whole_queue(tmp_path: Path) -> None:
    """DESIGN §3: after three doubts in a row a channel takes no more work until it was brought up again."""
    async with (
        simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=100) as sim,
        daemon(tmp_path, hasty(tmp_path, 2)) as gateway,
    ):
        await all_ready(gateway)
        fault = {"name": "cms_error", "parameters": {"code": 500}, "count": 1000}
        await sim.control.call({"do": "fault", "modem": 0, **fault})
        accepted = await post(gateway, 30)
        found = await all_settled(gateway)
        check(accepted, found, await sent_times(sim))
        spoiled = sum(m["state"] == 8 for m in found.values())
        assert 3 <= spoiled <= 10, spoiled
        assert [line for line in gateway.log if "m0: " in line and "in doubt in a row" in line]


async def test_a_late_result_settles_a_doubt(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=3_600_000) as sim,
        daemon(tmp_path, hasty(tmp_path, 1, in_doubt={"wait": "15m"})) as gateway,
    ):
        await all_ready(gateway)
        mr = await doubtful(sim, gateway)
        (idm,) = [m["idm"] for m in await gateway.messages()]
        await all_ready(gateway)
        assert (await gateway.message(idm))["state"] == 8
        await sim.control.call({"do": "emit", "modem": 0, "text": f"+CMGS: {mr}\r\n\r\nOK"})
        message = await gateway.until(idm, lambda found: found["state"] == 2)
        assert message["segments"][0]["tp_mr"] == mr
        assert "late result" in [event["event"] for event in message["events"]]
        await gateway.until(await gateway.send("+59898344485", "after"), lambda found: found["state"] == 2)
        assert await sent_times(sim) == {"doubtful": 1, "after": 1}


async def test_a_late_result_settles_a_doubt_of_the_daemon_that_was_killed(tmp_path: Path) -> None:
    config = hasty(tmp_path, 1, in_doubt={"wait": "15m"})
    config["channels"][0]["submit_timeout"] = "3m"
    async with simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=3_600_000) as sim:
        async with daemon(tmp_path, config) as gateway:
            await sim.control.call({"do": "fault", "modem": 0, "name": "silent"})
            idm = await gateway.send("+59898344484", "doubtful")
            await sim.control.wait("submit")
            await gateway.kill()
        async with daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            message = await gateway.message(idm)
            assert message["state"] == 8, message
            assert "daemon ended" in message["explain"]
            (row,) = await sim.ledger("submit")
            await sim.control.call({"do": "emit", "modem": 0, "text": f"+CMGS: {row['mr']}\r\n\r\nOK"})
            await gateway.until(idm, lambda found: found["state"] == 2)
            assert await sent_times(sim) == {"doubtful": 1}


async def doubtful(sim: SimulatorProcess, gateway: DaemonProcess) -> int:
    """Submit a message that the SMS centre gets and the modem never confirms; its TP-MR, once it is in doubt."""
    await sim.control.call({"do": "fault", "modem": 0, "name": "silent"})
    idm = await gateway.send("+59898344484", "doubtful")
    message = await gateway.until(idm, lambda found: found["state"] != 1)
    assert message["state"] == 8, message
    return int((await sim.ledger("submit"))[-1]["mr"])


# What callers and modems throw at it

NOISE = (
    {"hex": "00ff00ff80c3"},
    {"hex": "7e7e0d0a0d0a0d0aff"},
    {"text": "RING"},
    {"text": '+CMTI: "ME",-1'},
    {"text": '+CDSI: "SR",8'},
    {"text": "+CREG: 1"},
    {"text": '+CREG: 5,"00D2","0000C1A5",7'},
    {"text": "^RSSI: 21"},
    {"text": '+CUSD: 0,"your balance\r\nOK\r\nERROR\r\n+CMGS: 7\r\nis 12",15'},
    {"text": "NO CARRIER"},
    {"text": "+NEVERHEARD: 1,2,3"},
    {"text": "\r\n\r\n  \r\n"},
    {"text": "+CMT: ,24\r\nDEADBEEF"},
    {"text": "+CDS: 25\r\n00"},
    {"text": "+CSQ: 99,99"},
    {"text": "> "},
)


async def test_noise_on_the_line_neither_stops_nor_doubles_anything(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=30) as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0), sim.port(1)])) as gateway,
    ):
        await all_ready(gateway)
        accepted = await post(gateway, 100)

        async def flood(modem: int) -> None:
            for noise in itertools.cycle(NOISE):
                await sim.control.call({"do": "emit", "modem": modem, **noise})
                await asyncio.sleep(0.002)

        floods = [asyncio.create_task(flood(modem)) for modem in range(2)]
        try:
            found = await all_settled(gateway)
        finally:
            for task in floods:
                task.cancel()
            await asyncio.gather(*floods, return_exceptions=True)
        check(accepted, found, await sent_times(sim))
        assert {(m["state"], m["delivery"]) for m in found.values()} == {(2, "delivered")}
        assert not [line for line in gateway.log if "next try in" in line], "no session was lost for it"
        assert not [line for line in gateway.log if "Traceback" in line]


async def test_a_modem_that_speaks_no_at_any_more_is_given_up_and_comes_back(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=30) as sim,
        daemon(tmp_path, hasty(tmp_path, 2)) as gateway,
    ):
        await all_ready(gateway)
        accepted = await post(gateway, 60)
        await sim.control.wait("submit", 10)
        await sim.control.call({"do": "emit", "modem": 0, "hex": b"Linux version 3.10 ".hex() * 400})
        found = await all_settled(gateway)
        check(accepted, found, await sent_times(sim))
        assert sum(m["state"] == 8 for m in found.values()) <= 1
        await all_ready(gateway)
        assert [line for line in gateway.log if "m0: the modem does not speak AT" in line]


JUNK = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 50,
    b"GET /" + b"a" * 50_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
    b"POST /SendSMS HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 99999999999\r\n\r\n",
    b"POST /SendSMS HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 20\r\n\r\ndestination=&message",
    b"POST /SendSMS HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    b"POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2000\r\n\r\n"
    + b"[" * 2000,
    b"POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 38\r\n\r\n"
    b'{"to": "+59898344484", "text": "\xff\xfe"}  ',
    b"GET /api/v1/messages/999999999999999999999999 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /api/v1/messages?after=-1&limit=x&state=99 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"BREW /SendSMS HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%2e%2e/%00%ff HTTP/1.1\r\nHost: x\r\n\r\n",
)
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


async def test_64_connections_of_junk_do_not_hold_up_the_sending(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=4, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(i) for i in range(4)])) as gateway,
    ):
        await all_ready(gateway)
        host, _, port = gateway.address.rpartition(":")
        statuses: Counter[int] = Counter()

        async def attacker(first: int) -> None:
            for junk in itertools.islice(itertools.cycle(JUNK), first, None):
                with contextlib.suppress(ConnectionError, TimeoutError):
                    reader, writer = await asyncio.open_connection(host, int(port))
                    try:
                        writer.write(junk)
                        async with asyncio.timeout(0.3):
                            answer = await reader.read(65536)
                        statuses.update(int(status) for status in STATUS.findall(answer))
                    finally:
                        writer.transport.abort()
                await asyncio.sleep(0.1)

        attackers = [asyncio.create_task(attacker(i)) for i in range(64)]
        try:
            accepted = {await gateway.send(f"+59898{i:04}77", f"text {i}"): f"text {i}" for i in range(20)}
            accepted |= await post(gateway, 100, "more")
            found = await all_settled(gateway)
            assert (await gateway.get("/healthz"))[0] == 200
        finally:
            for task in attackers:
                task.cancel()
            await asyncio.gather(*attackers, return_exceptions=True)
        check(accepted, found, await sent_times(sim))
        assert {(m["state"], m["delivery"]) for m in found.values()} == {(2, "delivered")}
        assert {400, 404, 413} <= statuses.keys(), statuses
        assert max(statuses) < 500, statuses
        assert not [line for line in gateway.log if "ERROR" in line or "Traceback" in line]
