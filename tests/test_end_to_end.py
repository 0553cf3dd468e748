"""The gateway as its users meet it: a real daemon, real HTTP, real serial code over ptys, an emulated network."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from gatewayd.modems.pdu import Address, StatusReport, Timestamp
from gatewayd.modems.simulator.process import simulator_process
from tests.daemon import configuration, daemon, delivered, until

DELIVERED = "+59898344484"
EMOJI_TEXT = ("Grüße aus Montevideo, così è la vita 🙂 " * 8)[:296] + "👨‍👩‍👧!"


async def test_a_post_goes_out_and_its_report_comes_back(tmp_path: Path) -> None:
    """S4-47, S4-48: POST …/Integra/resources/SMS/SendSMS with destination, message, campaign, agent."""
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0)])) as gateway,
    ):
        form = {"destination": "098344484", "message": "This is my SMS", "campaign": "test1", "agent": "ana"}
        status, answer = await gateway.post("/Integra/resources/SMS/SendSMS", data=form)
        assert status == 200
        assert answer["state"] == 1, "S4-42: to process"
        assert answer["segments"] == 1
        message = await gateway.until(answer["idm"], lambda found: found["delivery"] == "delivered")
        assert message["state"] == 2
        assert (message["campaign"], message["agent"], message["to"]) == ("test1", "ana", DELIVERED)
        assert [attempt["outcome"] for attempt in message["attempts"]] == ["sent"]
        (row,) = await sim.ledger("submit")
        assert (row["from"], row["to"], row["text"]) == (sim.number(0), DELIVERED, "This is my SMS")


async def test_a_long_text_with_emoji_arrives_whole(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=2, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0), sim.port(1)])) as gateway,
    ):
        assert len(EMOJI_TEXT) >= 300
        idm = await gateway.send(DELIVERED, EMOJI_TEXT)
        message = await gateway.until(idm, lambda found: found["delivery"] == "delivered")
        assert len(message["segments"]) == len(await sim.ledger("submit")) > 4
        assert await delivered(sim) == [EMOJI_TEXT]


async def test_a_thousand_posts_from_64_connections_arrive_exactly_once(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=8, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(i) for i in range(8)])) as gateway,
    ):
        numbers = itertools.count()
        texts: dict[int, str] = {}

        async def client() -> None:
            while (n := next(numbers)) < 1000:
                text = f"message {n}"
                texts[await gateway.send(f"+5989{n:05}77", text)] = text

        await asyncio.gather(*[client() for _ in range(64)])
        assert len(texts) == 1000, "each was answered with an idm of its own"
        await sim.control.wait("delivered", 1000, timeout_s=90)
        assert Counter(await delivered(sim)) == Counter(texts.values())

        async def settled() -> bool:
            return all(message["delivery"] == "delivered" for message in await gateway.messages())

        await until(settled)
        assert len(await sim.ledger("submit")) == 1000
        channels = await gateway.channels()
        assert all(channel["submitted"] > 0 for channel in channels), "all modems took part"


async def test_a_repeated_post_with_one_idempotency_key_arrives_once(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0)])) as gateway,
    ):
        headers = {"Idempotency-Key": "order-7"}
        ids = await asyncio.gather(*[gateway.send(DELIVERED, "once", headers=headers) for _ in range(5)])
        ids.append(await gateway.send(DELIVERED, "once", headers=headers))
        assert len(set(ids)) == 1
        form = {"destination": DELIVERED, "message": "something else"}
        status, problem = await gateway.post("/SendSMS", data=form, headers=headers)
        assert status == 409, problem
        last = await gateway.send(DELIVERED, "another one")
        await gateway.until(last, lambda found: found["delivery"] == "delivered")
        assert await delivered(sim) == ["once", "another one"]


async def test_what_the_network_refuses_or_cannot_deliver_is_said(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0)])) as gateway,
    ):
        refused = await gateway.send("+59899999001", "to an unassigned number: CMS 1")
        fails = await gateway.send("+59898123405", "fails for good")
        fine = await gateway.send(DELIVERED, "fine")
        assert (await gateway.until(refused, lambda found: found["state"] == 5))["delivery"] == "none"
        message = await gateway.until(fails, lambda found: found["delivery"] == "undelivered")
        assert message["state"] == 2
        await gateway.until(fine, lambda found: found["delivery"] == "delivered")
        explained = (await gateway.message(refused))["explain"]
        assert "CMS 1" in explained


@pytest.mark.parametrize(
    ("phase", "sent_by_then", "in_doubt", "wait"),
    [
        ("before_prompt", 0, False, "15m"),
        ("after_prompt", 0, None, "1s"),  # the PDU may have been on its way
        ("after_ctrl_z_not_sent", 0, True, "1s"),
        ("after_ctrl_z_sent", 1, True, "15m"),
        ("after_cmgs", 1, False, "15m"),
    ],
)
async def test_an_unplugged_modem_comes_back_and_what_it_had_is_settled_by_the_rules(
    tmp_path: Path, phase: str, sent_by_then: int, in_doubt: bool | None, wait: str
) -> None:
    config = configuration(tmp_path, [str(tmp_path / "sim" / "modem0")], gateway={"in_doubt": {"wait": wait}})
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim, daemon(tmp_path, config) as gateway:
        first = await gateway.send(DELIVERED, "first")
        await gateway.until(first, lambda found: found["state"] == 2)
        # A modem that was just plugged in drops reports until it is told to pass them on, so this one comes after that.
        await sim.control.call({"do": "delays", "report_ms": 3_600_000})
        await sim.control.call({"do": "unplug", "modem": 0, "at": phase})
        victim = await gateway.send("+59898344485", "victim")

        async def gone() -> bool:
            return (await gateway.channels())[0]["state"] != "ready"

        await until(gone)
        message = await gateway.until(
            victim, lambda found: found["segments"][0]["state"] != "SUBMITTING" and len(found["events"]) > 1
        )
        if in_doubt:
            assert message["state"] == 8, message
        elif in_doubt is False:
            assert message["state"] != 8, message
        await sim.control.call({"do": "plug", "modem": 0})
        after = await gateway.send("+59898344486", "after")
        await gateway.until(after, lambda found: found["state"] == 2)
        rows = {row["text"]: row for row in await sim.ledger("submit")}
        if "victim" in rows:
            tpdu = _report(rows["victim"]["mr"], "+59898344485", rows["victim"]["t"])
            await sim.control.call({"do": "inbound", "modem": 0, "tpdu": tpdu.hex()})
        # A report settles the doubt where there is one; else its time runs out. Nothing goes out again by itself.
        settled = await gateway.until(
            victim, lambda found: found["delivery"] in {"delivered", "unknown"} and found["state"] in {2, 8}
        )
        submits = Counter(row["text"] for row in await sim.ledger("submit"))
        assert submits["victim"] <= 1, "never twice"
        assert submits["after"] == 1
        if submits["victim"]:
            assert settled["delivery"] == "delivered", settled
        else:
            assert not sent_by_then
            assert settled["state"] == 8, "nobody can know: shown, and not sent again"


async def test_a_modem_that_dies_gives_its_messages_to_the_others(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=20) as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0), sim.port(1)])) as gateway,
    ):
        await sim.control.call({"do": "unplug", "modem": 0, "at": "before_prompt", "skip": 3})
        ids = [await gateway.send(f"+59898{i:04}77", f"text {i}") for i in range(40)]
        for idm in ids:
            await gateway.until(idm, lambda found: found["delivery"] == "delivered")
        assert Counter(await delivered(sim)) == Counter(f"text {i}" for i in range(40))


async def test_starts_on_one_channel_are_an_interval_apart(tmp_path: Path) -> None:
    """DESIGN §6, pacing: as stored per attempt, and as the modem saw it."""
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0)], interval="150ms")) as gateway,
    ):
        ids = [await gateway.send(f"+59898{i:04}77", "x" * (200 if i == 2 else 20)) for i in range(6)]
        starts = []
        for idm in ids:
            message = await gateway.until(idm, lambda found: found["state"] == 2)
            starts += [_ms(attempt["started_at"]) for attempt in message["attempts"]]
        starts.sort()
        assert len(starts) == 7
        assert all(later - earlier >= 150 for earlier, later in itertools.pairwise(starts)), starts
        seen = [row["cmgs_at"] for row in await sim.ledger("submit")]
        assert all(later - earlier >= 0.149 for earlier, later in itertools.pairwise(seen))


async def test_a_pause_holds_over_a_restart_until_it_is_ended(tmp_path: Path) -> None:
    config = configuration(tmp_path, [str(tmp_path / "sim" / "modem0")])
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim:
        async with daemon(tmp_path, config) as gateway:
            assert (await _control(gateway.directory, "pause", "--all", "--reason", "wrong text"))[0] == 0
            idm = await gateway.send(DELIVERED, "held back")
            code, text = await _control(gateway.directory, "explain", str(idm))
            assert code == 0
            assert "wrong text" in text
        async with daemon(tmp_path, config) as gateway:
            second = await gateway.send(DELIVERED, "held back too")
            assert (await gateway.message(second))["state"] == 1
            assert await sim.ledger("submit") == []
            assert (await _control(gateway.directory, "resume"))[0] == 0
            await gateway.until(second, lambda found: found["delivery"] == "delivered")
            assert len(await sim.ledger("submit")) == 2


async def test_a_changed_sim_parks_the_channel_until_somebody_accepts_it(tmp_path: Path) -> None:
    """DESIGN §5."""
    config = configuration(tmp_path, [str(tmp_path / "sim" / "modem0")])
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim:
        async with daemon(tmp_path, config) as gateway:
            await gateway.until(await gateway.send(DELIVERED, "one"), lambda found: found["state"] == 2)
        await sim.control.call({"do": "swap_sim", "modem": 0, "number": "+59899123999"})
        async with daemon(tmp_path, config) as gateway:

            async def parked() -> bool:
                return (await gateway.channels())[0]["state"] == "parked"

            await until(parked)
            idm = await gateway.send(DELIVERED, "two")
            code, text = await _control(gateway.directory, "explain", str(idm))
            assert code == 0
            assert "accept m0" in text
            assert (await _control(gateway.directory, "channels", "accept", "m0"))[0] == 0
            await gateway.until(idm, lambda found: found["delivery"] == "delivered")
            assert (await sim.ledger("submit"))[-1]["from"] == "+59899123999"


async def test_sigterm_lets_the_modem_finish_and_says_so(tmp_path: Path) -> None:
    config = configuration(tmp_path, [str(tmp_path / "sim" / "modem0")])
    async with simulator_process(modems=1, directory=tmp_path / "sim", latency_ms=400) as sim:
        async with daemon(tmp_path, config) as gateway:
            ids = [await gateway.send(DELIVERED, f"text {i}") for i in range(5)]

            async def in_hand() -> bool:
                return (await gateway.channels())[0]["in_hand"] is not None

            await until(in_hand)
            assert await gateway.stop() == 0
            assert "stopped" in gateway.log[-1]
        assert len(await sim.ledger("submit")) < 5
        async with daemon(tmp_path, config) as gateway:
            for idm in ids:
                await gateway.until(idm, lambda found: found["delivery"] == "delivered")
            assert sorted(await delivered(sim)) == [f"text {i}" for i in range(5)]


async def test_inbound_messages_are_on_disk_before_the_sim_forgets_them(tmp_path: Path) -> None:
    """Promise 3."""
    import sqlite3

    config = configuration(tmp_path, [str(tmp_path / "sim" / "modem0")])
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim:
        await sim.control.call({"do": "inbound", "modem": 0, "from": "+59898123401", "text": "while it was down"})
        async with daemon(tmp_path, config):
            await sim.control.call({"do": "inbound", "modem": 0, "from": "+59898123401", "text": "¿qué tal? 🙂 " * 9})
            spool = sqlite3.connect(f"file:{tmp_path}/spool.db?mode=ro", uri=True)

            async def kept() -> bool:
                return int(spool.execute("SELECT count(*) FROM inbound_parts").fetchone()[0]) == 3

            await until(kept)

            async def forgotten() -> bool:
                answer = await sim.control.call({"do": "store", "modem": 0, "store": "ME"})
                return not answer["slots"]

            await until(forgotten)
            rows = spool.execute(
                "SELECT originator, text, concat_total, error FROM inbound_parts ORDER BY id"
            ).fetchall()
            assert rows[0] == ("+59898123401", "while it was down", None, None)
            assert "".join(row[1] for row in rows[1:]) == "¿qué tal? 🙂 " * 9
            spool.close()


def _report(mr: int, recipient: str, submitted_s: float) -> bytes:
    """The status report of a delivered segment."""
    moment = Timestamp(int(submitted_s), 0)
    return StatusReport(mr, Address.to_send(recipient), moment, moment, 0).encode()


def _ms(moment: str) -> int:
    """A time of the API in epoch milliseconds."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


async def _control(directory: Path, *words: str) -> tuple[int, str]:
    """Run the command line against the daemon's control socket; exit status and all it said."""
    import sys

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gatewayd", *words, "--socket", str(directory / "control.sock"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_make_runs_demo_prints_a_curl_line_that_works(short_path: Path) -> None:
    import os
    import shlex
    import sys

    import aiohttp

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gatewayd", "demo", "--port", "0", "--latency-ms", "0",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[1], env=os.environ | {"TMPDIR": str(short_path)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        printed = ""
        async with asyncio.timeout(30):
            while "Ctrl-C" not in printed:
                line = (await process.stdout.readline()).decode()
                assert line, (await process.stderr.read()).decode() if process.stderr else ""
                printed += line
        curl = shlex.split(next(line for line in printed.splitlines() if line.strip().startswith("curl")))
        form = dict(curl[i + 1].split("=", 1) for i, word in enumerate(curl) if word in {"-d", "--data-urlencode"})
        async with aiohttp.ClientSession() as session, session.post(curl[-1], data=form) as response:
            assert response.status == 200
            idm = json.loads(await response.text())["idm"]
        explain = next(line for line in printed.splitlines() if "explain" in line).split()

        async def says_delivered() -> bool:
            asking = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gatewayd", "explain", str(idm), stdout=asyncio.subprocess.PIPE,
                cwd=Path(__file__).parents[1], env=os.environ | {"TMPDIR": str(short_path)},
            )  # fmt: skip
            output, _ = await asking.communicate()
            return asking.returncode == 0 and bool(re.search(r"\bdelivered\b", output.decode(), re.I))

        assert explain[-2:] == ["explain", "1"]
        await until(says_delivered)
    finally:
        process.terminate()
        await process.communicate()
    assert list(short_path.glob("gatewayd-demo-*/*")) == [], "the demo leaves nothing behind"
