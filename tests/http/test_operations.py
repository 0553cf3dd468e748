"""Operations on the queue over HTTP: a few ids at once, many in steps, and every wrong question answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatewayd.http import schemas_operations as shapes
from gatewayd.http.schemas import Messages
from gatewayd.model import MessageState
from tests.daemon import until
from tests.http.helpers import ADMIN, READ, SEND, Gateway, gateway

PATH = "/api/v1/operations"


async def accept(running: Gateway, count: int, **fields: Any) -> list[int]:
    body = [{"to": f"+59898{i:06}", "text": "hello", **fields} for i in range(count)]
    answer = await running.send("/api/v1/messages", json=body)
    assert answer.status == 202, answer.json
    return [item["idm"] for item in answer.json["items"]]


async def order(running: Gateway, action: str, *, key: str = ADMIN, **fields: Any) -> Any:
    return await running.request("POST", PATH, key=key, json={"action": action, **fields})


async def finished(running: Gateway, operation_id: int) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def done() -> bool:
        found.update((await running.get(f"{PATH}/{operation_id}", key=ADMIN)).json)
        return bool(found["state"] != "running")

    await until(done, lambda: found)
    return found


async def test_a_few_are_answered_one_by_one(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        one, two = await accept(running, 2)
        answer = await order(running, "cancel", ids=[one, 999, one], reason="wrong list")
        assert answer.status == 200
        begun = shapes.OperationBegun.model_validate(answer.json)
        assert begun.operation is not None
        assert (begun.operation.state, begun.operation.matched, begun.operation.changed) == ("done", 1, 1)
        assert (begun.operation.actor, begun.operation.reason) == ("admin", "wrong list")
        assert [(r.idm, r.found, r.changed, r.said) for r in begun.results] == [
            (one, True, True, "cancelled"),
            (999, False, False, "there is no message 999 that is meant"),
        ]
        assert running.row(one)["state"] == MessageState.CANCELLED.value
        assert running.row(two)["state"] == MessageState.TO_PROCESS.value
        message = (await running.get(f"/api/v1/messages/{one}")).json
        assert "cancelled by admin" in message["explain"].lower()
        assert "wrong list" in message["explain"]


async def test_many_are_worked_off_and_can_be_watched(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        await accept(running, 400, campaign="spring")
        others = await accept(running, 3, campaign="autumn")
        dry = await order(running, "hold", filter={"campaign": "spring"}, dry_run=True)
        assert (dry.status, dry.json["count"], dry.json["more"], dry.json["operation"]) == (200, 400, False, None)
        answer = await order(running, "hold", filter={"campaign": "spring"})
        assert answer.status == 202
        found = await finished(running, answer.json["operation"]["id"])
        shapes.Operation.model_validate(found)
        assert (found["state"], found["matched"], found["changed"], found["progress"]) == ("done", 400, 400, 1.0)
        assert found["filter"]["campaign"] == "spring"
        held = await running.get("/api/v1/messages?held=operator&limit=1000")
        assert len(Messages.model_validate(held.json).items) == 400
        assert [running.row(idm)["held"] for idm in others] == ["", "", ""]
        page = shapes.Operations.model_validate((await running.get(f"{PATH}?limit=1", key=ADMIN)).json)
        assert [item.id for item in page.items] == [found["id"]]
        assert (await running.request("POST", f"{PATH}/{found['id']}/stop", key=ADMIN)).status == 409


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("campaign=spring", [1, 2]),
        ("campaign=", [3]),
        ("to=%2B59898000001", [2]),
        ("to=+59898000001", [2]),
        ("to=098000001", [2]),
        ("class=agent", [3]),
        ("class=agent&campaign=spring", []),
        ("caller=send", [1, 2, 3]),
        ("caller=nobody", []),
        ("state=to_process,cancelled", [1, 2, 3]),
        ("state=failed", []),
        ("held=any", []),
        ("in_doubt=true", []),
        ("in_doubt=false", [1, 2, 3]),
        ("accepted_after=2199-01-01T00:00:00Z", []),
        ("accepted_before=2199-01-01T00:00:00Z", [1, 2, 3]),
        ("channel=sim1", []),
        ("target=any", [1, 2, 3]),
    ],
)
async def test_lists_take_the_same_filter(tmp_path: Path, query: str, ids: list[int]) -> None:
    async with gateway(tmp_path) as running:
        await accept(running, 2, campaign="spring")
        await accept(running, 1, **{"class": "agent"})
        answer = await running.get(f"/api/v1/messages?{query}")
        assert answer.status == 200, answer.json
        assert [item["idm"] for item in answer.json["items"]] == ids
        assert answer.json["next"] is None


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"action": "cancel"}, ["filter"]),
        ({"action": "cancel", "filter": {}}, ["filter"]),
        ({"action": "cancel", "ids": []}, ["filter"]),
        ({"action": "explode", "ids": [1]}, ["action"]),
        ({"ids": [1]}, ["action"]),
        ({"action": "cancel", "ids": [0]}, ["ids"]),
        ({"action": "cancel", "ids": [2**63]}, ["ids"]),
        ({"action": "cancel", "ids": ["1"]}, ["ids"]),
        ({"action": "cancel", "ids": [True]}, ["ids"]),
        ({"action": "cancel", "ids": list(range(1, 1002))}, ["ids"]),
        ({"action": "cancel", "filter": {"campain": "x"}}, ["filter.campain"]),
        ({"action": "cancel", "filter": {"states": ["unheard"]}}, ["filter.states"]),
        ({"action": "cancel", "filter": {"states": "failed"}}, ["filter.states"]),
        ({"action": "cancel", "filter": {"to": "no number"}}, ["filter.to"]),
        ({"action": "cancel", "filter": {"campaign": "a\0b"}}, ["filter.campaign"]),
        ({"action": "cancel", "filter": {"campaign": "x" * 1000}}, ["filter.campaign"]),
        ({"action": "cancel", "filter": {"accepted_after": "yesterday"}}, ["filter.accepted_after"]),
        ({"action": "release", "filter": {"held": "restor"}}, ["filter.held"]),
        ({"action": "cancel", "filter": [1]}, ["filter"]),
        ({"action": "cancel", "ids": [1], "reason": "a\nb"}, ["reason"]),
        ({"action": "cancel", "ids": [1], "reason": "x" * 501}, ["reason"]),
        ({"action": "cancel", "ids": [1], "priority": 3}, ["priority"]),
        ({"action": "cancel", "ids": [1], "may_double": True}, ["may_double"]),
        ({"action": "cancel", "ids": [1], "unknown": True}, ["unknown"]),
        ({"action": "priority", "ids": [1]}, ["priority"]),
        ({"action": "priority", "ids": [1], "priority": 10_000}, ["priority"]),
        ({"action": "priority", "ids": [1], "priority": -1}, ["priority"]),
        ({"action": "route", "ids": [1]}, ["target"]),
        ({"action": "route", "ids": [1], "target": "nowhere"}, ["target"]),
        ({"action": "route", "ids": [1], "target": "dialer"}, ["target"]),
        ({"action": "requeue", "ids": [1], "expires_at": "2001-01-01T00:00:00Z"}, ["expires_at"]),
        ({"action": "resolve", "ids": [1]}, ["resolution"]),
        ({"action": "resolve", "ids": [1], "resolution": "perhaps"}, ["resolution"]),
        ([], [""]),
        ("cancel", [""]),
    ],
    ids=str,
)
async def test_what_is_wrong_is_named_and_nothing_is_done(tmp_path: Path, body: Any, fields: list[str]) -> None:
    async with gateway(tmp_path) as running:
        (idm,) = await accept(running, 1)
        answer = await running.request("POST", PATH, key=ADMIN, json=body)
        assert answer.status == 422, answer.json
        assert answer.fields == fields
        assert all(error["reason"] for error in answer.json["errors"])
        assert running.row(idm)["state"] == MessageState.TO_PROCESS.value
        assert (await running.get(PATH, key=ADMIN)).json["items"] == []


@pytest.mark.parametrize(
    "query",
    [
        "state=x", "class=x", "to=x", "in_doubt=maybe", "accepted_after=now", "accepted_before=1999-01-01T00:00:00Z",
        "campaign=%00", "held=%00", "held=operators", "campain=x",
    ],
)  # fmt: skip
async def test_a_wrong_parameter_of_a_list_is_named(tmp_path: Path, query: str) -> None:
    async with gateway(tmp_path) as running:
        answer = await running.get(f"/api/v1/messages?{query}")
        assert answer.status == 422
        assert answer.fields == [query.partition("=")[0]]
        assert answer.json["detail"].count("expected") <= 1


async def test_the_plus_of_an_offset_need_not_be_escaped(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        await accept(running, 1)
        for moment, count in (
            ("2000-01-01T00:00:00+01:00", 1), ("2000-01-01 00:00:00Z", 1), ("2199-01-01T00:00:00+01:00", 0),
        ):  # fmt: skip
            answer = await running.get(f"/api/v1/messages?accepted_after={moment}")
            assert answer.status == 200, answer.json
            assert len(answer.json["items"]) == count


@pytest.mark.parametrize("key", [SEND, READ])
async def test_only_administrators_may(tmp_path: Path, key: str) -> None:
    async with gateway(tmp_path) as running:
        assert (await order(running, "cancel", ids=[1], key=key)).status == 403
        assert (await running.get(PATH, key=key)).status == 403
        assert (await running.get(f"{PATH}/1", key=key)).status == 403
        assert (await running.request("POST", f"{PATH}/1/stop", key=key)).status == 403
        assert (
            await running.request("POST", "/api/v1/messages/1/resolve", key=key, json={"resolution": "sent"})
        ).status == 403
        assert (await running.request("POST", "/api/v1/channels/sim1/pause", key=key)).status == 403


async def test_resolve_says_why_it_cannot(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        (idm,) = await accept(running, 1)
        path = f"/api/v1/messages/{idm}/resolve"
        answer = await running.request("POST", path, key=ADMIN, json={"resolution": "sent"})
        assert answer.status == 409
        assert "not in doubt" in answer.json["detail"]
        for missing in ("999", "x", "9" * 30):
            path = f"/api/v1/messages/{missing}/resolve"
            assert (await running.request("POST", path, key=ADMIN, json={"resolution": "sent"})).status == 404
        assert (await running.get(f"{PATH}/999", key=ADMIN)).status == 404
        assert (await running.request("POST", f"{PATH}/999/stop", key=ADMIN)).status == 404


async def test_channels_are_paused_drained_and_resumed(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        for word, mode in (("pause", "paused"), ("drain", "draining"), ("resume", "")):
            path = f"/api/v1/channels/sim1/{word}"
            answer = await running.request("POST", path, key=ADMIN, json={"reason": "new SIM"})
            assert answer.status == 200, answer.json
            assert shapes.ChannelModeSet.model_validate(answer.json).mode == mode
            assert running.operator.said[-1] == ("mode", "sim1", mode, "admin", "new SIM")
            shown = (await running.get("/api/v1/channels", key=ADMIN)).json["items"][0]
            assert (shown["mode"], bool(shown["mode_reason"])) == (mode, bool(mode))
        assert (await running.request("POST", "/api/v1/channels/sim1/pause", key=ADMIN)).status == 200
        assert (await running.request("POST", "/api/v1/channels/none/pause", key=ADMIN)).status == 404
        wrong = await running.request("POST", "/api/v1/channels/sim1/pause", key=ADMIN, json={"reason": "a\nb"})
        assert wrong.fields == ["reason"]
