"""The asyncio shell of the AT engine, over a pty: one command in flight, late results, debts, limits."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayd.clock import SystemClock
from gatewayd.errors import ChannelLost
from gatewayd.modems.at import commands
from gatewayd.modems.at.commands import Command, Limit
from gatewayd.modems.at.engine import Event, Garbage, Late, Urc
from gatewayd.modems.at.results import Kind
from gatewayd.modems.client import AtClient, Timing
from gatewayd.modems.transport import open_serial
from tests.modems.dialogue import DELIVER, TIMING, Peer, error, ok, peer_at, within

SLOW = Command("AT+SLOW", Limit(0.1, "a test"), ("+SLOW:",))


@contextlib.asynccontextmanager
async def connected(peer: Peer, timing: Timing = TIMING) -> AsyncIterator[tuple[AtClient, list[Event]]]:
    events: list[Event] = []
    client = AtClient(clock=SystemClock(), on_event=events.append, on_lost=lambda reason: None, timing=timing)
    client.attach(await open_serial(str(peer.path), baudrate=115200, protocol=client))
    try:
        await within(client.start())
        client.lenient = False
        yield client, events
    finally:
        await client.close()


async def test_a_late_final_cannot_complete_the_next_command(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, connected(peer) as (client, events):
        peer.answers["AT+SLOW"] = b""
        assert (await within(client.execute(SLOW))).result.kind is Kind.TIMEOUT
        peer.answers["AT"] = b"\r\n+SLOW: 1\r\n\r\nOK\r\n" + ok()
        peer.answers["AT+CMGF?"] = b"\r\nERROR\r\n" + ok("+CMGF: 0")  # and another late one
        peer.answers["AT+CSQ"] = ok("+CSQ: 9,99")
        assert (await within(client.execute(commands.SIGNAL))).text == "9,99"
        assert Garbage("OK") in events
        assert Garbage("ERROR") in events


async def test_a_late_reference_is_told(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, connected(peer) as (client, events):
        peer.answers["AT+SLOW"] = b""
        await within(client.execute(SLOW))
        peer.say(b"\r\n+CMGS: 12\r\n" + ok())
        await within(client.execute(commands.SIGNAL))
        assert Late("+CMGS: 12") in events


async def test_commands_go_one_by_one_in_order(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, connected(peer) as (client, _):
        names = [f"AT+A{number}" for number in range(20)]
        peer.answers.update({name: ok(f"{name[2:]}: x") for name in names})
        peer.heard.clear()
        tasks = [asyncio.create_task(client.execute(commands.setting(name))) for name in names]
        for name, response in zip(names, await within(asyncio.gather(*tasks)), strict=True):
            assert response.lines[0].line == f"{name[2:]}: x"
        assert peer.heard == names


async def test_no_command_starts_while_a_urc_owes_its_pdu(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, connected(peer) as (client, events):
        peer.answers["AT+ONE"] = b"\r\n+CMT: ,24" + ok()
        await within(client.execute(commands.setting("AT+ONE")))
        task = asyncio.create_task(client.execute(commands.SIGNAL))
        await asyncio.sleep(0)
        assert "AT+CSQ" not in peer.heard
        peer.say(f"\r\n{DELIVER}\r\n".encode())
        await within(task)
        assert Urc("+CMT: ,24", DELIVER) in events
        assert "AT+CSQ" in peer.heard


async def test_a_debt_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    timing = dataclasses.replace(TIMING, owed_s=0.05)
    async with peer_at(tmp_path) as peer, connected(peer, timing) as (client, events):
        peer.answers["AT+ONE"] = b"\r\n+CMT: ,24" + ok()
        await within(client.execute(commands.setting("AT+ONE")))
        assert (await within(client.execute(commands.SIGNAL))).ok
        assert Garbage("+CMT: ,24") in events


async def test_a_long_answer_may_take_its_time_but_not_fall_silent(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, connected(peer) as (client, _):
        listing = Command("AT+LONG", Limit(3600, "a test", silence_s=0.2), ("+LONG:",))
        peer.answers["AT+LONG"] = b"\r\n+LONG: 1\r\n"
        response = await within(client.execute(listing))
        assert response.result.kind is Kind.TIMEOUT
        assert [info.line for info in response.lines] == ["+LONG: 1"]


async def test_a_cancelled_command_leaves_no_answer_to_the_next(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, connected(peer) as (client, _):
        peer.answers["AT+SLOW"] = b""
        task = asyncio.create_task(client.execute(SLOW))
        await peer.until(lambda: "AT+SLOW" in peer.heard)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(task)
        peer.say(ok("+SLOW: 1"))
        assert (await within(client.execute(commands.SIGNAL))).text == "17,99"


async def test_a_modem_that_answers_no_question_any_more_is_given_up(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, connected(peer) as (client, _):
        peer.answers.update({"AT+SLOW": b"", "AT+CMGF?": error(), "AT+CMEE?": error()})
        await within(client.execute(SLOW))
        with pytest.raises(ChannelLost, match="out of step"):
            await within(client.execute(commands.SIGNAL))


async def test_who_waits_learns_that_the_link_is_lost(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, connected(peer) as (client, _):
        peer.answers["AT+CSQ"] = peer.unplug_after()
        tasks = [asyncio.create_task(client.execute(commands.SIGNAL)) for _ in range(3)]
        for result in await within(asyncio.gather(*tasks, return_exceptions=True)):
            assert isinstance(result, ChannelLost)


async def test_the_guard_time_lies_after_each_final_result(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, connected(peer) as (client, _):
        client.guard_time_s = 0.05
        loop = asyncio.get_running_loop()
        await within(client.execute(commands.SIGNAL))
        ended = loop.time()
        await within(client.execute(commands.SIGNAL))
        assert loop.time() - ended >= 0.04
