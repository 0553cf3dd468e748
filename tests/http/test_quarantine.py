"""Numbers in quarantine over HTTP and on the command line: shown, and let out by an operator, which is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gatewayd.http.schemas_quarantine import NumberReleased, QuarantinePage
from gatewayd.spool import quarantine
from gatewayd.spool.quarantine import QuarantineBook, QuarantinePolicy
from gatewayd.spool.writer import Tx
from tests.http.helpers import ADMIN, READ, SEND, Gateway, gateway
from tests.test_cli_inbound import Line

URL = "/api/v1/quarantine"
BAD = "+59898344484"


async def spoil(gate: Gateway, *numbers: str, times: int = 3) -> None:
    """So many messages to each number fail."""

    def operation(tx: Tx) -> None:
        book, now = QuarantineBook(), gate.context.clock.now_ms()
        for number in numbers:
            for n in range(times):
                quarantine.failed(
                    tx, book, number, 900 + n, 1 + n % 2, "CMS 1", "unassigned number", now, QuarantinePolicy()
                )

    await gate.store.writer.run(operation)


async def test_the_list_and_the_way_out(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        await spoil(gate, BAD)
        await spoil(gate, "+59890000009", times=2)
        page = await gate.get(URL, key=ADMIN)
        QuarantinePage.model_validate(page.json)
        (item,) = page.json["items"]
        assert (item["number"], item["failures"], item["sims"], item["code"]) == (BAD, 3, 2, "CMS 1")
        assert (item["probe_idm"], page.json["next"]) == (None, None)
        released = await gate.request("DELETE", f"{URL}/098344484", key=ADMIN)
        NumberReleased.model_validate(released.json)
        assert (released.status, released.json) == (200, {"number": BAD, "released": True, "messages": 0})
        assert (await gate.get(URL, key=ADMIN)).json["items"] == []
        again = await gate.request("DELETE", f"{URL}/{BAD}", key=ADMIN)
        assert (again.status, again.json["detail"]) == (404, f"nothing counts against {BAD}: it is not in quarantine")


async def test_pages(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        numbers = [f"+5989800000{n}" for n in range(5)]
        await spoil(gate, *numbers)
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 2}
        while True:
            page = (await gate.get(URL, key=ADMIN, params=query)).json
            seen += [item["number"] for item in page["items"]]
            if page["next"] is None:
                break
            query["after"] = page["next"]
        assert seen == numbers
        assert (await gate.get(URL, key=ADMIN, params={"limit": "0"})).fields == ["limit"]
        assert (await gate.get(URL, key=ADMIN, params={"state": "out"})).status == 422


async def test_it_is_the_operators(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        for key in (SEND, READ):
            assert (await gate.get(URL, key=key)).status == 403
            assert (await gate.request("DELETE", f"{URL}/{BAD}", key=key)).status == 403
        assert (await gate.request("DELETE", f"{URL}/nobody", key=ADMIN)).fields == ["number"]


async def test_on_the_command_line(tmp_path: Path) -> None:
    line = Line(tmp_path)
    async with gateway(tmp_path, control_socket=line.socket) as gate:
        assert "number" in (await line.good("numbers", "quarantined"))
        await spoil(gate, BAD)
        table = await line.good("numbers", "quarantined")
        assert [word for word in (BAD, "3", "CMS 1 unassigned number") if word not in table] == []
        (item,) = map(json.loads, (await line.good("numbers", "quarantined", "--json")).splitlines())
        assert item["number"] == BAD
    assert json.loads(await line.offline("numbers", "quarantined", "--json")) == item
    async with gateway(tmp_path, control_socket=line.socket) as gate:
        said = await line.good("numbers", "release", "098344484")
        assert said == f"{BAD} is out of quarantine; 0 messages to it due now\n"
        assert "not in quarantine" in await line.bad("numbers", "release", BAD)
        assert "not in quarantine" in await line.bad("numbers", "release", BAD, "--json")
