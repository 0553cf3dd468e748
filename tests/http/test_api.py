"""The JSON API from outside: submissions, lists, details, steering."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, update

from gatewayd.http import schemas
from gatewayd.model import ChannelState, Message, Outcome, ReportVerdict, Segment, SimIdentity
from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.reports import NewReport
from gatewayd.spool.work import Line, Result, Want
from tests.http.helpers import ADMIN, READ, RESEND, SEND, Gateway, gateway, view

URL = "/api/v1/messages"
GOOD = {"to": "098344484", "text": "hello"}


def later(**span: float) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


async def test_one_message_is_accepted(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.send(URL, json={**GOOD, "client_ref": "c1"})
        assert answer.status == 202
        assert answer.json == {
            "idm": 1,
            "state": 1,
            "state_name": "to_process",
            "reason": "",
            "to": "+59898344484",
            "segments": 1,
            "alphabet": "gsm7",
            "client_ref": "c1",
        }
        schemas.Accepted.model_validate(answer.json)
        assert gate.row(1)["client_ref"] == "c1"


async def test_every_field_reaches_the_spool(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.send(
            URL,
            json={
                **GOOD,
                "class": "alert",
                "priority": 9999,
                "not_before": "2030-01-01T00:00:00+01:00",
                "expires_at": "2030-01-02T00:00:00.500Z",
                "channel": "sim1",
                "in_doubt": "hold",
                "report": False,
                "campaign": "ñ",
                "client_ref": "c",
                "callback_url": "https://app.example/sms",
            },
        )
        assert answer.status == 202
        row = gate.row(answer.json["idm"])
        assert (row["class"], row["priority"], row["pin_channel"]) == ("alert", 9999, "sim1")
        assert (row["not_before"], row["expires_at"]) == (1_893_452_400_000, 1_893_542_400_500)
        assert (row["in_doubt"], row["report"], row["campaign"]) == ("hold", 0, "ñ")
        assert row["callback_url"] == "https://app.example/sms"


BAD: dict[str, tuple[Any, list[str]]] = {
    "nothing": ({}, ["to", "text"]),
    "no object": ("hello", [""]),
    "null": (None, [""]),
    "empty array": ([], []),
    "numbers for texts": ({"to": 98344484, "text": 1}, ["to", "text"]),
    "empty text": ({**GOOD, "text": " \n"}, ["text"]),
    "impossible number": ({**GOOD, "to": "+9991234567"}, ["to"]),
    "unknown field": ({**GOOD, "colour": "red"}, ["colour"]),
    "unknown fields and a bad one": ({**GOOD, "colour": 1, "priority": "high"}, ["colour", "priority"]),
    "a callback of another scheme": ({**GOOD, "callback_url": "ftp://example.org/"}, ["callback_url"]),
    "a callback to this machine": ({**GOOD, "callback_url": "http://127.0.0.1/"}, ["callback_url"]),
    "a callback to this machine by name": ({**GOOD, "callback_url": "http://localhost:80/"}, ["callback_url"]),
    "a callback to this machine as one number": ({**GOOD, "callback_url": "http://2130706433/"}, ["callback_url"]),
    "a callback to this machine in short": ({**GOOD, "callback_url": "http://127.1/"}, ["callback_url"]),
    "a callback to this machine in hex": ({**GOOD, "callback_url": "http://0x7f.1:80/"}, ["callback_url"]),
    "a callback to this machine in octal": ({**GOOD, "callback_url": "http://0177.0.0.1./"}, ["callback_url"]),
    "a callback to the clouds' metadata": ({**GOOD, "callback_url": "http://169.254.169.254/"}, ["callback_url"]),
    "a callback with a password": ({**GOOD, "callback_url": "http://a:b@example.org/"}, ["callback_url"]),
    "a callback of 3000 characters": ({**GOOD, "callback_url": "http://a/" + "x" * 3000}, ["callback_url"]),
    "class system": ({**GOOD, "class": "system"}, ["class"]),
    "unknown class": ({**GOOD, "class": "x"}, ["class"]),
    "priority too large": ({**GOOD, "priority": 10_000}, ["priority"]),
    "negative priority": ({**GOOD, "priority": -1}, ["priority"]),
    "priority true": ({**GOOD, "priority": True}, ["priority"]),
    "priority 1.5": ({**GOOD, "priority": 1.5}, ["priority"]),
    "priority 10^19": ({**GOOD, "priority": 10**19}, ["priority"]),
    "report 1": ({**GOOD, "report": 1}, ["report"]),
    "expired": ({**GOOD, "expires_at": "2020-01-01T00:00:00Z"}, ["expires_at"]),
    "no offset": ({**GOOD, "not_before": "2030-01-01T00:00:00"}, ["not_before"]),
    "epoch": ({**GOOD, "not_before": 1_893_452_400}, ["not_before"]),
    "epoch as text": ({**GOOD, "not_before": "1893452400"}, ["not_before"]),
    "no such day": ({**GOOD, "not_before": "2030-02-30T00:00:00Z"}, ["not_before"]),
    "a far year": ({**GOOD, "not_before": "9999-12-31T23:59:59-14:00"}, ["not_before"]),
    "starts after its end": (
        {**GOOD, "not_before": "2030-01-02T00:00:00Z", "expires_at": "2030-01-01T00:00:00Z"},
        ["not_before"],
    ),
    "unknown channel": ({**GOOD, "channel": "sim9"}, ["channel"]),
    "empty channel": ({**GOOD, "channel": ""}, ["channel"]),
    "unknown policy": ({**GOOD, "in_doubt": "x"}, ["in_doubt"]),
    "resend without permission": ({**GOOD, "in_doubt": "resend"}, ["in_doubt"]),
    "empty client_ref": ({**GOOD, "client_ref": ""}, ["client_ref"]),
    "long client_ref": ({**GOOD, "client_ref": "x" * 256}, ["client_ref"]),
    "control characters in client_ref": ({**GOOD, "client_ref": "a\x1bb"}, ["client_ref"]),
    "NUL": ({**GOOD, "text": "a\0b"}, ["text"]),
    "half a surrogate pair": ({**GOOD, "text": "a\ud800b"}, ["text"]),
    "half a pair in the number": ({**GOOD, "to": "\udfff098344484"}, ["to"]),
    "half a pair in a name": ({**GOOD, "\ud800": 1}, ["\ud800"]),
    "an object for a text": ({**GOOD, "text": {"a": []}}, ["text"]),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_not_acceptable_is_named_and_nothing_is_queued(tmp_path: Path, name: str) -> None:
    document, fields = BAD[name]
    async with gateway(tmp_path) as gate:
        headers = {"Content-Type": "application/json"}
        answer = await gate.send(URL, data=json.dumps(document), headers=headers)
        assert (answer.status, answer.fields) == (422, fields)
        assert all(error["reason"] for error in answer.json["errors"])
        assert gate.queued() == 0


UNREADABLE: dict[str, tuple[bytes, str, int]] = {
    "no JSON": (b"to=1", "line 1, column 1", 400),
    "nothing": (b"", "line 1", 400),
    "cut off": (b'{"to": "1",\n "text"', "line 2, column 8", 400),
    "bad UTF-8": (b'{"to": "\xff"}', "octet 9", 400),
    "UTF-16": ('{"to": "1"}'.encode("utf-16"), "octet 1", 400),
    "nested": (b"[" * 100_000, "nested", 400),
    "nested in an object": (b'{"a":' * 100_000, "nested", 400),
    "huge integer": (b'{"priority": ' + b"9" * 5000 + b"}", "5000 digits", 400),
    "NaN": (b'{"priority": NaN}', "NaN", 400),
    "Infinity": (b"[-Infinity]", "Infinity", 400),
    "given twice": (b'{"to": "1", "to": "2"}', "more than once", 400),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_what_is_no_json_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    body, detail, status = UNREADABLE[name]
    async with gateway(tmp_path) as gate:
        answer = await gate.send(URL, data=body, headers={"Content-Type": "application/json"})
        assert answer.status == status
        assert detail in answer.json["detail"]
        assert gate.queued() == 0


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=latin1"]
)
async def test_another_content_type_is_refused(tmp_path: Path, content_type: str) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.send(URL, data=json.dumps(GOOD), headers={"Content-Type": content_type})
        assert answer.status == 415


async def test_a_key_may_allow_resend_and_makes_it_the_default(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        asked = await gate.send(URL, json={**GOOD, "in_doubt": "resend"}, key=RESEND)
        default = await gate.send(URL, json=GOOD, key=RESEND)
        other = await gate.send(URL, json={**GOOD, "in_doubt": "fail"}, key=RESEND)
        usual = await gate.send(URL, json=GOOD, key=SEND)
        policies = [gate.row(answer.json["idm"])["in_doubt"] for answer in (asked, default, other, usual)]
        assert policies == ["resend", "resend", "fail", "fail"]


async def test_an_array_has_a_result_for_each_in_its_order(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.send(
            URL, json=[{**GOOD, "client_ref": "a"}, {**GOOD, "to": "x"}, 7, {**GOOD, "client_ref": "b"}]
        )
        assert answer.status == 202
        schemas.AcceptedMany.model_validate(answer.json)
        first, second, third, fourth = answer.json["items"]
        assert (first["idm"], first["client_ref"], fourth["idm"], fourth["client_ref"]) == (1, "a", 2, "b")
        assert second["error"]["errors"][0]["field"] == "to"
        assert second["error"]["status"] == third["error"]["status"] == 422
        assert (answer.json["accepted"], answer.json["refused"]) == (2, 2)
        assert gate.queued() == 2


async def test_an_array_of_which_nothing_is_acceptable_is_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.send(URL, json=[{**GOOD, "to": "x"}, {"to": "7373"}])
        assert (answer.status, answer.fields) == (422, ["[0].to", "[1].text"])
        assert len(answer.json["items"]) == 2
        assert gate.queued() == 0


async def test_an_array_is_bounded(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        thousand = await gate.send(URL, json=[GOOD] * 1000)
        assert (thousand.status, thousand.json["accepted"]) == (202, 1000)
        more = await gate.send(URL, json=[GOOD] * 1001)
        assert more.status == 422
        assert gate.queued() == 1000


async def test_an_array_is_kept_once_per_idempotency_key(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        headers = {"Idempotency-Key": "k"}
        body = [GOOD, {**GOOD, "to": "x"}]
        first, again = [await gate.send(URL, json=body, headers=headers) for _ in range(2)]
        assert (again.status, again.json) == (202, first.json)
        assert again.headers["Idempotency-Replayed"] == "true"
        reordered = await gate.send(URL, json=[dict(reversed(GOOD.items())), body[1]], headers=headers)
        assert reordered.json == first.json
        assert (await gate.send(URL, json=[GOOD], headers=headers)).status == 409
        assert gate.queued() == 1


async def test_a_refused_request_does_not_use_its_key_up(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        headers = {"Idempotency-Key": "k"}
        assert (await gate.send(URL, json={**GOOD, "text": ""}, headers=headers)).status == 422
        assert (await gate.send(URL, json=GOOD, headers=headers)).status == 202


async def test_the_same_key_at_the_same_time_with_other_bodies(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        headers = {"Idempotency-Key": "k"}
        answers = await asyncio.gather(
            *(gate.send(URL, json={**GOOD, "text": f"text {n % 4}"}, headers=headers) for n in range(16))
        )
        assert sorted(answer.status for answer in answers) == [202] * 4 + [409] * 12
        assert gate.queued() == 1


async def deliver(gate: Gateway, text: str = "hello") -> int:
    """Have one message sent and reported through the spool, as a channel does; returns its idm."""
    idm: int = (await gate.send(URL, json={**GOOD, "text": text})).json["idm"]
    pairing = await gate.store.see_sim("sim1", SimIdentity("8959"), "+59899000001")
    line = Line("sim1", pairing.sim_id)

    def plan(message: Message) -> list[Segment]:
        return [Segment(message, 1, 1, b"\x01")]

    taken = await gate.store.work(line, None, Want(lambda lane: True, plan))
    assert taken.claim is not None
    now = gate.context.clock.now_ms()
    await gate.store.work(line, Result(taken.claim, Outcome.SENT, now, now, ref=9), None)
    report = NewReport(
        "sim1", line.sim_id, 9, "+59898344484", 0, ReportVerdict.DELIVERED, "delivered", now, now, "00", "l"
    )
    await gate.store.report(report)
    return idm


async def test_a_message_is_shown_with_its_history_and_explained(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        idm = await deliver(gate)
        answer = await gate.get(f"{URL}/{idm}")
        assert answer.status == 200
        schemas.MessageDetail.model_validate(answer.json)
        shown = answer.json
        assert (shown["state"], shown["state_name"], shown["delivery"]) == (2, "processed", "delivered")
        assert shown["explain"].startswith("Delivered at ")
        assert [segment["state"] for segment in shown["segments"]] == ["DELIVERED"]
        assert [(attempt["channel"], attempt["outcome"]) for attempt in shown["attempts"]] == [("sim1", "sent")]
        assert [event["event"] for event in shown["events"]] == ["accepted", "intent", "sent", "report: delivered"]
        assert [report["status_text"] for report in shown["reports"]] == ["delivered"]
        assert shown["sim"]["iccid"] == "8959"


async def test_s4_41_a_message_that_was_not_picked_up_has_state_0(tmp_path: Path) -> None:
    """S4-41: 0 is NONE. Nothing that the API accepts stays there; what another way in leaves there is shown so."""
    statement = Statement(
        update(schema.messages)
        .where(schema.messages.c.id == bindparam("b_id"))
        .values(state=schema.sqltext(0), admission=schema.sqltext("none"), queue=schema.sqltext(0))
    )
    async with gateway(tmp_path) as gate:
        idm = (await gate.send(URL, json=GOOD)).json["idm"]
        await gate.store.writer.run(lambda tx: tx.run(statement, {"b_id": idm}))
        shown = (await gate.get(f"{URL}/{idm}")).json
        assert (shown["state"], shown["state_name"]) == (0, "none")
        assert shown["explain"] == "It was not picked up yet."


@pytest.mark.parametrize("idm", ["0", "7", "-1", "abc", "1.0", "9" * 18, "9" * 30, "%00", "١"])
async def test_an_unknown_message_is_404(tmp_path: Path, idm: str) -> None:
    async with gateway(tmp_path) as gate:
        assert (await gate.get(f"{URL}/{idm}")).status == 404


async def test_lists_are_paged_filtered_and_ordered(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        await deliver(gate)
        await gate.send(URL, json=[{**GOOD, "client_ref": f"c{n % 2}"} for n in range(6)])
        page = await gate.get(f"{URL}?limit=3")
        schemas.Messages.model_validate(page.json)
        assert [item["idm"] for item in page.json["items"]] == [1, 2, 3]
        assert page.json["next"] == 3
        page = await gate.get(f"{URL}?limit=4&after=3")
        assert ([item["idm"] for item in page.json["items"]], page.json["next"]) == ([4, 5, 6, 7], None)
        page = await gate.get(f"{URL}?order=desc&limit=2&after=7")
        assert ([item["idm"] for item in page.json["items"]], page.json["next"]) == ([6, 5], 5)
        for state in ("2", "processed", "PROCESSED"):
            assert [item["idm"] for item in (await gate.get(f"{URL}?state={state}")).json["items"]] == [1]
        for state in ("1", "to_process", "TO PROCESS", "to-process"):
            assert len((await gate.get(URL, params={"state": state})).json["items"]) == 6
        found = await gate.get(f"{URL}?client_ref=c1&state=1")
        assert [item["idm"] for item in found.json["items"]] == [3, 5, 7]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after=x", "after"),
        ("after=-1", "after"),
        ("after=" + "9" * 40, "after"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=", "limit"),
        ("state=9", "state"),
        ("state=gone", "state"),
        ("order=up", "order"),
        ("client_ref=", "client_ref"),
        ("client_ref=%00", "client_ref"),
        ("client_ref=%FF", "client_ref"),
        ("colour=red", "colour"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_a_bad_parameter_is_named(tmp_path: Path, query: str, field: str) -> None:
    async with gateway(tmp_path) as gate:
        from yarl import URL as Yarl

        address = Yarl(f"{gate.url}{URL}?{query}", encoded=True)
        async with gate.client.get(address, headers={"X-API-Key": READ}) as response:
            document = await response.json(content_type=None)
            if query.endswith("%FF"):  # not UTF-8: it becomes a replacement character, and matches nothing
                assert (response.status, document["items"]) in [(200, []), (422, None)]
                return
            assert response.status == 422
            assert [error["field"] for error in document["errors"]] == [field]


async def test_channels_are_shown(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.operator.views = [
            view("sim1", in_hand=7),
            view("sim2", ChannelState.PARKED, reason="the PIN is asked for"),
        ]
        answer = await gate.get("/api/v1/channels", key=ADMIN)
        schemas.Channels.model_validate(answer.json)
        assert [(item["name"], item["state"], item["in_hand"]) for item in answer.json["items"]] == [
            ("sim1", "ready", 7),
            ("sim2", "parked", None),
        ]


async def test_a_changed_sim_is_accepted(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.operator.changed = {"sim2"}
        answer = await gate.send("/api/v1/channels/sim2/accept", key=ADMIN)
        assert (answer.status, answer.json) == (200, {"channel": "sim2", "accepted": True})
        assert gate.operator.said == [("accept", "sim2", "admin")]
        assert (await gate.send("/api/v1/channels/sim1/accept", key=ADMIN)).status == 409
        assert (await gate.send("/api/v1/channels/sim9/accept", key=ADMIN)).status == 404


async def test_pause_and_resume_say_who_and_why(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.send("/api/v1/pause", key=ADMIN, json={"reason": "wrong list"})
        assert (answer.status, answer.json) == (200, {"paused": "paused by admin: wrong list"})
        idm = (await gate.send(URL, json=GOOD)).json["idm"]
        explained = (await gate.get(f"{URL}/{idm}")).json["explain"]
        assert explained == "Queued, but nothing is sent: paused by admin: wrong list."
        assert (await gate.send("/api/v1/resume", key=ADMIN)).json == {"paused": ""}
        assert (await gate.send("/api/v1/pause", key=ADMIN)).status == 200
        for bad in ({"reason": 1}, {"why": "x"}, {"reason": "a\nb"}, {"reason": "x" * 501}, []):
            assert (await gate.send("/api/v1/pause", key=ADMIN, json=bad)).status == 422
        assert gate.operator.said == [("pause", "admin", "wrong list"), ("resume", "admin"), ("pause", "admin", "")]


async def test_the_status_counts(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        await deliver(gate)
        await gate.send(URL, json=[GOOD, {**GOOD, "not_before": later(hours=1)}])
        answer = await gate.get("/api/v1/status", key=ADMIN)
        schemas.Status.model_validate(answer.json)
        assert answer.json["messages"]["processed"] == 1
        assert answer.json["messages"]["to_process"] == 2
        assert [(queue["due"], queue["later"]) for queue in answer.json["queues"]] == [(1, 1)]
        assert answer.json["channels"] == {"total": 2, "ready": 1}
        assert (answer.json["instance"], answer.json["spool_writable"]) == ("gw1", True)


async def test_what_is_not_there_is_a_problem(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        missing = await gate.get("/nothing")
        assert (missing.status, missing.fields) == (404, [])
        method = await gate.request("DELETE", URL)
        assert (method.status, method.headers["Allow"]) == (405, "GET, HEAD, POST")


async def test_the_openapi_document_has_every_route(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.get("/api/v1/openapi.json", key=None)
        assert (answer.status, answer.json["openapi"]) == (200, "3.1.0")
        documented = {(path, method) for path, item in answer.json["paths"].items() for method in item}
        from gatewayd.http.server import build

        served = {
            (str(route.resource.canonical), route.method.lower())
            for route in build(gate.context).router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
        assert documented == served
        known = set(answer.json["components"]["schemas"])
        refs = set(json.dumps(answer.json).split('"#/components/schemas/')[1:])
        assert {ref.partition('"')[0] for ref in refs} <= known
        message = answer.json["components"]["schemas"]["NewMessage"]
        assert message["additionalProperties"] is False
        assert set(message["properties"]) == {
            "to", "text", "class", "priority", "not_before", "expires_at", "channel", "in_doubt", "report", "campaign",
            "client_ref", "callback_url",
        }  # fmt: skip
