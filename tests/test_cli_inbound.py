"""`messages --inbound`, `explain --inbound` and `optout` as they are typed, with a daemon's API and without."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from gatewayd.spool.inbound import NewPart
from gatewayd.spool.optouts import OptState, Said, Source
from tests.http.helpers import Gateway, gateway
from tests.test_cli import gateway as command

ANA, LUIS = "+59898344484", "+59898000001"


class Line:
    """Types commands, first at the control socket of a running server, then at its configuration alone."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "control.sock")
        self.config = folder / "gatewayd.yaml"
        document: dict[str, Any] = {
            "gateway": {"home_country": "UY", "control_socket": str(folder / "none.sock")},
            "spool": {"url": f"sqlite:///{folder}/spool.db"},
            "http": {"listen": "127.0.0.1:0"},
            "channels": [],
        }
        self.config.write_text(yaml.safe_dump(document))

    async def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(command, *words, "--socket", self.socket)

    async def good(self, *words: str) -> str:
        done = await self(*words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    async def bad(self, *words: str) -> str:
        done = await self(*words)
        assert done.returncode in (1, 2), done
        return done.stderr

    async def offline(self, *words: str) -> str:
        done = await asyncio.to_thread(command, *words, "-c", str(self.config))
        assert done.returncode == 0, done
        assert "this is read from the spool" in done.stderr
        return done.stdout


async def came(gate: Gateway, raw: str, text: str | None, originator: str = ANA, **fields: Any) -> None:
    values = {"listing": "l1", "storage": "SM", "storage_index": 3, "dcs": 0, "user_data": b"", **fields}
    await gate.store.receive(NewPart("sim1", 1, raw, originator=originator, text=text, **values))


async def test_what_came_in(tmp_path: Path) -> None:
    line = Line(tmp_path)
    asked = [
        ("messages", "--inbound"),
        ("messages", "--inbound", "--json", "--limit", "1"),
        ("messages", "--inbound", "--from", "098344484", "--json"),
        ("messages", "--inbound", "--after", "1", "--json"),
        ("explain", "--inbound", "1"),
        ("explain", "--inbound", "1", "--json"),
    ]
    async with gateway(tmp_path, control_socket=line.socket) as gate:
        await came(gate, "A1B2", "hello\nthere \x1b[31m")
        await came(gate, "A1B2", "hello\nthere \x1b[31m", listing="l2")
        await came(gate, "A9", "from Luis", LUIS)
        await came(gate, "07911", None, "", error="an odd number of hex digits")
        answers = [await line.good(*words) for words in asked]
        table, newest, of_ana, after, one, one_json = answers
        head, *rows = table.splitlines()
        assert head.split() == ["id", "from", "channel", "received", "(UTC)", "asks", "parts", "text"]
        assert [row.split()[0] for row in rows] == ["1", "2", "3"], "the newest last"
        assert "(cannot be decoded: an odd number of hex digits)" in rows[2]
        assert "\x1b" not in table + one
        assert [json.loads(each)["id"] for each in newest.splitlines()] == [3]
        assert [json.loads(each)["id"] for each in of_ana.splitlines()] == [1]
        assert [json.loads(each)["id"] for each in after.splitlines()] == [2, 3]
        assert one.startswith(f"inbound 1 from {ANA} by sim1\n")
        assert one.splitlines()[-1].split()[-4:] == ["SM", "3", "1", "A1B2"], "seen again once"
        assert json.loads(one_json)["pdus"][0]["raw"] == "A1B2"
        assert await line.bad("explain", "--inbound", "9") == "there is no inbound message 9\n"
        assert "number: 'x'" in await line.bad("messages", "--inbound", "--from", "x")
        assert "not with --inbound" in await line.bad("messages", "--inbound", "--state", "1")
        assert "only with --inbound" in await line.bad("messages", "--from", ANA)
    assert [await line.offline(*asked[index]) for index in (0, 2, 4)] == [table, of_ana, one]


async def test_the_opt_out_list(tmp_path: Path) -> None:
    line = Line(tmp_path)
    async with gateway(tmp_path, control_socket=line.socket) as gate:
        for text in ("one", "two"):
            await gate.send("/api/v1/messages", json={"to": ANA, "text": text})
        assert await line.good("optout", "add", "098344484", "--evidence", "by telephone") == (
            f"{ANA} is on the opt-out list; 2 queued messages to it blocked\n"
        )
        assert await line.good("optout", "add", ANA) == f"{ANA} was on the opt-out list already: nothing changed\n"
        said = Said(LUIS, LUIS, "opt_out", Source.KEYWORD, "keyword", text="STOP \x1b[2J", tier="A", inbound_id=7)
        await gate.store.opt(said, OptState.OUT)
        assert "Missing option '--evidence'" in await line.bad("optout", "remove", LUIS)
        assert "evidence: " in await line.bad("optout", "remove", LUIS, "--evidence", " ")
        assert "number: " in await line.bad("optout", "add", "nobody")
        asked = [
            ("optout", "list"),
            ("optout", "list", "--json"),
            ("optout", "list", "--by-number", "--limit", "1", "--json"),
            ("optout", "list", "--after", LUIS, "--json"),
            ("optout", "list", "--state", "in"),
            ("optout", "show", "098344484"),
            ("optout", "show", LUIS),
            ("optout", "show", LUIS, "--json"),
            ("optout", "show", "+59898000009"),
        ]
        answers = [await line.good(*words) for words in asked]
        table, _, first, after, nobody_in, ana, luis, luis_json, unknown = answers
        assert {row.split()[0] for row in table.splitlines()[1:]} == {ANA, LUIS}
        assert json.loads(first)["number"] == LUIS
        assert json.loads(after)["number"] == ANA
        assert len(nobody_in.splitlines()) == 1
        assert ana.splitlines()[0] == f"{ANA}: opted out; not sent to it: campaign, application, alert, agent"
        assert "by telephone" in ana
        assert "STOP" in luis
        assert "\x1b" not in luis
        assert json.loads(luis_json)["events"][0]["inbound"] == 7
        assert unknown == "+59898000009: never opted out\n"
    assert [await line.offline(*asked[index]) for index in (0, 3, 5)] == [table, after, ana]
    async with gateway(tmp_path, control_socket=line.socket):
        done = await line.good("optout", "remove", LUIS, "--evidence", "signed form")
        assert done == f"{LUIS} is off the opt-out list; what was blocked stays blocked\n"
        again = await line.good("optout", "remove", LUIS, "--evidence", "signed form")
        assert again == f"{LUIS} is not on the opt-out list: nothing changed\n"
        assert "signed form" in await line.good("optout", "show", LUIS)


async def test_a_change_needs_the_daemon(tmp_path: Path) -> None:
    line = Line(tmp_path)
    assert "is gatewayd running?" in await line.bad("optout", "add", ANA)
    assert "is gatewayd running?" in await line.bad("optout", "remove", ANA, "--evidence", "x")
