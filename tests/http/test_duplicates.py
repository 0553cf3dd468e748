"""The guard against duplicates as callers see it: on each interface, alone and in batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatewayd.http import schemas
from gatewayd.router.submission import SubmissionSettings
from gatewayd.spool.guards import DuplicateGuard
from tests.http.helpers import SEND, gateway

URL = "/api/v1/messages"
GOOD = {"to": "098344484", "text": "hello"}
FORM = {"destination": "098344484", "message": "hello"}


def guarded(refuse: bool) -> dict[str, Any]:
    return {"submission": SubmissionSettings("UY", duplicates=DuplicateGuard(600_000, refuse))}


async def test_refused_alone_it_is_a_conflict_that_names_the_earlier_message(tmp_path: Path) -> None:
    async with gateway(tmp_path, **guarded(True)) as gate:
        first = await gate.send(URL, json=GOOD)
        assert "warnings" not in first.json
        for answer in (await gate.send(URL, json=GOOD), await gate.send(data=FORM)):
            assert answer.status == 409
            assert answer.json["type"] == "urn:gatewayd:problem:duplicate"
            assert answer.json["duplicate_of"] == first.json["idm"] == 1
            assert "as message 1, accepted" in answer.json["detail"]
        assert gate.queued() == 1
        assert (await gate.send(URL, json={**GOOD, "class": "alert"})).status == 202


async def test_in_a_batch_the_others_are_kept_and_a_repetition_gets_the_same_answer(tmp_path: Path) -> None:
    async with gateway(tmp_path, **guarded(True)) as gate:
        await gate.send(URL, json=GOOD)
        batch = [GOOD, {**GOOD, "text": "other"}, {"to": "1", "text": "x"}, {**GOOD, "text": "other"}]
        answer = await gate.send(URL, json=batch, headers={"Idempotency-Key": "k1"})
        assert answer.status == 202
        schemas.AcceptedMany.model_validate(answer.json)
        items = answer.json["items"]
        assert (items[0]["error"]["status"], items[0]["error"]["duplicate_of"]) == (409, 1)
        assert (items[1]["idm"], items[2]["error"]["status"]) == (2, 422)
        assert items[3]["error"]["duplicate_of"] == 2
        assert {name: answer.json[name] for name in ("accepted", "blocked", "refused")} == {
            "accepted": 1, "blocked": 0, "refused": 3,
        }  # fmt: skip
        again = await gate.send(URL, json=batch, headers={"Idempotency-Key": "k1"})
        assert (again.json, again.headers["Idempotency-Replayed"]) == (answer.json, "true")
        assert gate.queued() == 2


async def test_a_repeated_key_is_no_duplicate(tmp_path: Path) -> None:
    async with gateway(tmp_path, **guarded(True)) as gate:
        answers = [await gate.send(URL, json=GOOD, headers={"Idempotency-Key": "k1"}) for _ in range(2)]
        assert [answer.status for answer in answers] == [202, 202]
        assert answers[0].json == answers[1].json


@pytest.mark.parametrize(("extra", "status", "kind"), [([], 409, "duplicate"), ([{"to": "1"}], 422, "invalid-field")])
async def test_a_batch_of_nothing_but_duplicates_is_refused_as_a_whole(
    tmp_path: Path, extra: list[Any], status: int, kind: str
) -> None:
    async with gateway(tmp_path, **guarded(True)) as gate:
        await gate.send(URL, json=GOOD)
        answer = await gate.send(URL, json=[GOOD, GOOD, *extra])
        assert (answer.status, answer.json["type"]) == (status, f"urn:gatewayd:problem:{kind}")
        assert [item["error"]["status"] for item in answer.json["items"]] == [409, 409, *[422 for _ in extra]]
        assert gate.queued() == 1


async def test_with_a_warning_it_is_kept_and_said(tmp_path: Path) -> None:
    async with gateway(tmp_path, **guarded(False)) as gate:
        await gate.send(URL, json=GOOD)
        answer = await gate.send(URL, json=GOOD)
        assert (answer.status, answer.json["idm"]) == (202, 2)
        assert "as message 1, accepted" in answer.json["warnings"][0]
        schemas.Accepted.model_validate(answer.json)
        answer = await gate.send(data=FORM)
        assert (answer.status, answer.json["idm"]) == (200, 3)
        assert "as message 2, accepted" in answer.json["warnings"][0]
        schemas.SendSmsAccepted.model_validate(answer.json)
        detail = await gate.get(f"{URL}/2")
        assert "as message 1" in next(e["detail"] for e in detail.json["events"] if e["event"] == "duplicate")


async def test_kannel_counts_it_among_the_denied(tmp_path: Path) -> None:
    async with gateway(tmp_path, kannel_path="/cgi-bin/sendsms", **guarded(True)) as gate:
        await gate.send(URL, json=GOOD)
        params = {"password": SEND, "to": "+59898344484 +59898344485", "text": "hello"}
        async with gate.client.get(f"{gate.url}/cgi-bin/sendsms", params=params) as response:
            assert response.status == 202
            assert {"+59898344484", "2"} <= set(response.headers.values())
        params["to"] = "+59898344484"
        async with gate.client.get(f"{gate.url}/cgi-bin/sendsms", params=params) as response:
            assert (response.status, "as message 1" in await response.text()) == (409, True)
        assert gate.queued() == 2


async def test_what_is_refused_does_not_count_against_the_rate(tmp_path: Path) -> None:
    async with gateway(tmp_path, **guarded(True)) as gate:
        given: list[tuple[str, int]] = []
        back = gate.context.rates.give_back
        gate.context.rates.give_back = lambda name, count: (given.append((name, count)), back(name, count))[1]  # type: ignore[method-assign]
        await gate.send(URL, json=[GOOD, GOOD, {**GOOD, "text": "other"}])
        assert given == [("send", 1)]
