"""The opt-out list over HTTP: what an operator may do with it, and what that leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gatewayd.http.schemas_inbound import OptOutChanged, OptOutDetail, OptOutPage
from gatewayd.spool.optouts import OptState, Said, Source
from tests.http.helpers import ADMIN, READ, SEND, Answer, Gateway, gateway

URL = "/api/v1/optouts"
NUMBER = "+59898344484"


async def add(gate: Gateway, number: str = "098344484", **body: Any) -> Answer:
    return await gate.send(URL, key=ADMIN, json={"number": number, **body})


async def remove(gate: Gateway, number: str = NUMBER, **body: Any) -> Answer:
    return await gate.send(f"{URL}/{number}/remove", key=ADMIN, json=body)


async def state(gate: Gateway, number: str = NUMBER) -> dict[str, Any]:
    answer = await gate.get(f"{URL}/{number}", key=ADMIN)
    assert answer.status == 200, answer.json
    OptOutDetail.model_validate(answer.json)
    return dict(answer.json)


async def said_stop(gate: Gateway, number: str = NUMBER) -> None:
    said = Said(number, number, "opt_out", Source.KEYWORD, "keyword", text="STOP", tier="A", rule="keyword: stop")
    await gate.store.opt(said, OptState.OUT)


async def test_adding_a_number_blocks_what_is_queued_to_it(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        for text in ("one", "two"):
            assert (await gate.send("/api/v1/messages", json={"to": NUMBER, "text": text})).status == 202
        answer = await add(gate, evidence="asked by telephone, ticket 7")
        assert answer.status == 200
        OptOutChanged.model_validate(answer.json)
        assert answer.json == {
            "number": NUMBER, "scope": "global", "state": "out", "prior_state": "none", "changed": True,
            "blocked": 2, "in_hand": 0, "event": 1,
        }  # fmt: skip
        assert [gate.row(idm)["state"] for idm in (1, 2)] == [3, 3]
        found = await state(gate)
        assert (found["state"], found["scopes"][0]["blocks"]) == (
            "out", ["campaign", "application", "alert", "agent"],
        )  # fmt: skip
        (event,) = found["events"]
        assert (event["source"], event["actor"], event["number_received"]) == ("api", "admin", "098344484")
        assert (event["evidence"], event["blocked"]) == ("asked by telephone, ticket 7", 2)


async def test_adding_what_is_on_the_list_changes_nothing_and_says_so(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        await said_stop(gate)
        before = (await state(gate))["scopes"]
        answer = await add(gate)
        assert (answer.status, answer.json["changed"], answer.json["prior_state"]) == (200, False, "out")
        found = await state(gate)
        assert found["scopes"] == before, "the evidence of the state is still the person's own STOP"
        assert len(found["events"]) == 2


async def test_removing_needs_evidence(tmp_path: Path) -> None:
    """S2-73: who wrote STOP is not written to; the decision to undo it has a name and a reason."""
    async with gateway(tmp_path) as gate:
        await said_stop(gate)
        bad: list[dict[str, Any]] = [{}, {"evidence": ""}, {"evidence": "  "}, {"evidence": None}, {"evidence": "a\nb"}]
        for body in bad:
            answer = await remove(gate, **body)
            assert (answer.status, answer.fields) == (422, ["evidence"]), body
        assert (await state(gate))["state"] == "out"
        answer = await remove(gate, evidence="signed form of 12 May")
        assert answer.status == 200
        OptOutChanged.model_validate(answer.json)
        assert (answer.json["state"], answer.json["prior_state"], answer.json["changed"]) == ("in", "out", True)
        found = await state(gate)
        assert (found["state"], found["scopes"][0]["blocks"]) == ("in", [])
        assert [event["evidence"] for event in found["events"]] == ["", "signed form of 12 May"]
        assert (await gate.send("/api/v1/messages", json={"to": NUMBER, "text": "x"})).json["state"] == 1


async def test_removing_what_is_not_on_the_list_changes_nothing(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        answer = await remove(gate, evidence="x")
        OptOutChanged.model_validate(answer.json)
        assert (answer.json["changed"], answer.json["state"], answer.json["event"]) == (False, "none", None)
        assert await state(gate) == {
            "number": NUMBER, "state": "none", "scopes": [], "events": [], "history_cut": False,
        }  # fmt: skip


async def test_a_sender_that_is_a_word_can_be_found_and_removed(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        await said_stop(gate, "Bank & Co")
        assert (await state(gate, "Bank%20&%20Co"))["state"] == "out"
        assert (await remove(gate, "Bank%20&%20Co", evidence="x")).json["state"] == "in"
        assert (await gate.get(f"{URL}/Nobody", key=ADMIN)).fields == ["number"]


async def test_pages_of_the_list(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        numbers = [f"+5989800000{n}" for n in (4, 2, 5, 1, 3)]
        for number in numbers:
            assert (await add(gate, number)).json["changed"]
        await remove(gate, "+59898000005", evidence="x")

        async def paged(**query: Any) -> list[str]:
            seen: list[str] = []
            while True:
                page = (await gate.get(URL, key=ADMIN, params={"limit": 2, **query})).json
                OptOutPage.model_validate(page)
                seen += [item["number"] for item in page["items"]]
                if page["next"] is None:
                    return seen
                query["after"] = page["next"]

        assert await paged() == [f"+5989800000{n}" for n in (1, 2, 3, 4)]
        newest = await paged(order="newest")
        assert sorted(newest) == [f"+5989800000{n}" for n in (1, 2, 3, 4)]
        assert await paged(state="in") == ["+59898000005"]
        unescaped = await gate.get(f"{URL}?after=+59898000003", key=ADMIN)
        assert [item["number"] for item in unescaped.json["items"]] == ["+59898000004"], "a bare + counts as one"


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": ({}, ["number"]),
    "no number": ({"number": "hello"}, ["number"]),
    "a number as a number": ({"number": 98344484}, ["number"]),
    "another scope": ({"number": NUMBER, "scope": "campaign"}, ["scope"]),
    "unknown field": ({"number": NUMBER, "reason": "x"}, ["reason"]),
    "evidence of two lines": ({"number": NUMBER, "evidence": "a\nb"}, ["evidence"]),
    "NUL in the evidence": ({"number": NUMBER, "evidence": "a\0b"}, ["evidence"]),
    "half a surrogate pair": ({"number": NUMBER, "evidence": "a\ud800"}, ["evidence"]),
    "long evidence": ({"number": NUMBER, "evidence": "x" * 501}, ["evidence"]),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_not_acceptable_is_named_and_nothing_changes(tmp_path: Path, name: str) -> None:
    body, fields = BAD[name]
    async with gateway(tmp_path) as gate:
        headers = {"Content-Type": "application/json"}
        answer = await gate.send(URL, key=ADMIN, data=json.dumps(body), headers=headers)
        assert (answer.status, answer.fields) == (422, fields)
        assert (await gate.get(URL, key=ADMIN)).json["items"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [("state=none", "state"), ("order=asc", "order"), ("after=", "after"), ("order=newest&after=x", "after")],
)
async def test_bad_parameters_are_named(tmp_path: Path, query: str, field: str) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.get(f"{URL}?{query}", key=ADMIN)
        assert (answer.status, answer.fields) == (422, [field])


async def test_only_an_administrator_may(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        for method, path in (("GET", URL), ("POST", URL), ("GET", f"{URL}/1"), ("POST", f"{URL}/{NUMBER}/remove")):
            assert (await gate.request(method, path, key=None)).status == 401
            for key in (READ, SEND):
                assert (await gate.request(method, path, key=key)).status == 403


async def test_on_the_control_socket_it_is_an_operator(tmp_path: Path) -> None:
    socket = str(tmp_path / "control.sock")
    async with gateway(tmp_path, control_socket=socket) as gate:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session,
            session.post(f"http://gatewayd{URL}", json={"number": NUMBER}) as response,
        ):
            assert response.status == 200
        (event,) = (await state(gate))["events"]
        assert event["source"] == "operator"
        assert event["actor"].startswith("uid ")
