"""Alertmanager's and Grafana's webhooks: one text for each group of alerts, once, and no alert is lost by its form."""

from __future__ import annotations

import asyncio
import sqlite3
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewayd.http.alertmanager import AlertsKept
from gatewayd.router.alerts import AlertGroup
from gatewayd.router.submission import SubmissionSettings
from gatewayd.spool.optouts import OptState, Said, Source
from tests.http.helpers import READ, SEND, TRUSTED, Answer, Gateway, gateway

GROUPS = (
    AlertGroup("oncall", ("+59898344484", "+59898344485")),
    AlertGroup("quiet", ("+59898344486",), send_resolved=False, channel="sim2", max_segments=1, severity_label="level"),
    AlertGroup("mixed", ("+999123456789", "+59898344487")),
    AlertGroup("none", ("+999123456789",)),
)
ON = {"alert_groups": GROUPS}

ALERTMANAGER: dict[str, Any] = {
    "receiver": "sms",
    "status": "firing",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "HighLoad", "instance": "web1:9100", "job": "node", "severity": "critical"},
            "annotations": {"summary": "CPU above 90 %"},
            "startsAt": "2026-11-28T07:00:00.000Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus:9090/graph",
            "fingerprint": "c0ffee0000000001",
        }
    ],
    "groupLabels": {"alertname": "HighLoad"},
    "commonLabels": {"alertname": "HighLoad", "instance": "web1:9100", "job": "node", "severity": "critical"},
    "commonAnnotations": {"summary": "CPU above 90 %"},
    "externalURL": "http://alertmanager:9093",
    "version": "4",
    "groupKey": '{}:{alertname="HighLoad"}',
    "truncatedAlerts": 0,
}
GRAFANA: dict[str, Any] = {
    **ALERTMANAGER,
    "receiver": "SMS",
    "alerts": [
        {
            **ALERTMANAGER["alerts"][0],
            "values": {"A": 93.5},
            "valueString": "[ var='A' value=93.5 ]",
            "dashboardURL": "",
            "panelURL": "",
            "silenceURL": "http://grafana/silence",
            "imageURL": None,
        }
    ],
    "version": "1",
    "orgId": 1,
    "title": "[FIRING:1] HighLoad node (web1:9100)",
    "state": "alerting",
    "message": "**Firing**\n\nValue: A=93.5\nLabels:\n - alertname = HighLoad\n",
}
TEXT = "FIRING 1: HighLoad (critical): web1:9100: CPU above 90 %; job=node"


async def post(gate: Gateway, document: Any, group: str = "oncall", **more: Any) -> Answer:
    return await gate.send(f"/alertmanager/{group}", json=document, **more)


@pytest.mark.parametrize("document", [ALERTMANAGER, GRAFANA], ids=["alertmanager", "grafana"])
async def test_one_text_for_each_number_once_it_is_on_disk(tmp_path: Path, document: dict[str, Any]) -> None:
    async with gateway(tmp_path, **ON) as gate:
        answer = await post(gate, document)
        assert (answer.status, answer.json) == (200, {"idm": [1, 2], "duplicate": False})
        AlertsKept.model_validate(answer.json)
        rows = [gate.row(idm) for idm in answer.json["idm"]]
        assert [row["to_number"] for row in rows] == ["+59898344484", "+59898344485"]
        for row in rows:
            assert (row["text"], row["class"], row["priority"]) == (TEXT, "alert", 9000)
            assert (row["api_key"], row["state"], row["pin_channel"]) == ("send", 1, "")


async def test_what_was_posted_before_sends_nothing(tmp_path: Path) -> None:
    resolved = {**ALERTMANAGER, "status": "resolved", "alerts": [{**ALERTMANAGER["alerts"][0], "status": "resolved"}]}
    again = {**ALERTMANAGER, "alerts": [{**ALERTMANAGER["alerts"][0], "startsAt": "2026-11-28T09:00:00Z"}]}
    async with gateway(tmp_path, **ON, **TRUSTED) as gate:
        first = await post(gate, ALERTMANAGER)
        repeats = await asyncio.gather(*(post(gate, {**ALERTMANAGER, "version": str(i)}) for i in range(5)))
        repeats.append(await post(gate, ALERTMANAGER, key=None))  # the other of two Alertmanagers
        for repeat in repeats:
            assert (repeat.status, repeat.json) == (200, {**first.json, "duplicate": True})
            assert repeat.headers["Idempotency-Replayed"] == "true"
        assert (await post(gate, resolved)).json == {"idm": [3, 4], "duplicate": False}
        assert (await post(gate, again)).json == {"idm": [5, 6], "duplicate": False}
        assert (await post(gate, resolved)).json == {"idm": [3, 4], "duplicate": True}
        assert (await post(gate, ALERTMANAGER, "quiet")).json == {"idm": [7], "duplicate": False}, "other people"


async def test_a_group_has_settings_of_its_own(tmp_path: Path) -> None:
    long = {**ALERTMANAGER, "commonAnnotations": {"summary": "disk nearly full " * 50}}
    long["alerts"] = [{"labels": {"level": "warning", "severity": "critical"}}]
    async with gateway(tmp_path, **ON) as gate:
        (idm,) = (await post(gate, long, "quiet")).json["idm"]
        row = gate.row(idm)
        assert (row["segments"], row["priority"], row["pin_channel"]) == (1, 5000, "sim2")
        assert row["text"].endswith("...")
        answer = await post(gate, {**long, "status": "resolved"}, "quiet")
        assert (answer.status, answer.json) == (200, {"idm": [], "duplicate": False})
        idm = (await post(gate, long)).json["idm"][0]
        assert gate.row(idm)["segments"] == 2
    (tmp_path / "other").mkdir()
    async with gateway(tmp_path / "other", submission=SubmissionSettings(max_segments=1), **ON) as gate:
        idm = (await post(gate, long)).json["idm"][0]
        assert gate.row(idm)["segments"] == 1, "never more than the gateway allows"


async def test_a_number_that_is_refused_does_not_keep_the_others_from_being_told(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        (idm,) = (await post(gate, ALERTMANAGER, "mixed")).json["idm"]
        assert gate.row(idm)["to_number"] == "+59898344487"
        answer = await post(gate, ALERTMANAGER, "none")
        assert (answer.status, answer.fields) == (422, ["to"])


async def test_who_opted_out_gets_no_alert(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        number = "+59898344484"
        await gate.store.opt(Said(number, number, "opt_out", Source.OPERATOR, "test"), OptState.OUT)
        answer = await post(gate, ALERTMANAGER)
        assert [gate.row(idm)["state"] for idm in answer.json["idm"]] == [3, 1]


@pytest.mark.parametrize(
    "document",
    [
        {"status": "firing", "alerts": [{}]},
        {"status": "resolved", "alerts": [{"labels": None, "annotations": None, "startsAt": None}], "groupKey": None},
        {**ALERTMANAGER, "alerts": [{"startsAt": 5, "fingerprint": {}, "status": 1}], "groupKey": 7, "title": []},
        {**ALERTMANAGER, "somethingNew": {"deep": [1]}, "commonLabels": None, "groupLabels": None},
        {**ALERTMANAGER, "alerts": [{**ALERTMANAGER["alerts"][0], "labels": {"alertname": 5, "x": {"y": None}}}]},
        {**ALERTMANAGER, "commonAnnotations": {"summary": "a\u0000b\r\n\ud800 ñ€😀"}},
    ],
)
async def test_what_is_unknown_or_missing_loses_no_alert(tmp_path: Path, document: dict[str, Any]) -> None:
    async with gateway(tmp_path, **ON) as gate:
        answer = await post(gate, document)
        assert answer.status == 200, answer.json
        assert len(answer.json["idm"]) == 2


@pytest.mark.parametrize(
    ("arguments", "status", "fields"),
    [
        ({"json": {}}, 422, ["status", "alerts"]),
        ({"json": {"status": "pending", "alerts": [{}]}}, 422, ["status"]),
        ({"json": {"status": "firing", "alerts": []}}, 422, ["alerts"]),
        ({"json": {"status": "firing", "alerts": [{"labels": []}]}}, 422, ["alerts[0].labels"]),
        ({"json": [ALERTMANAGER]}, 422, []),
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, []),
        ({"data": b"x=1", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}, 415, []),
    ],
)
async def test_what_is_no_alert_is_refused(
    tmp_path: Path, arguments: dict[str, Any], status: int, fields: list[str]
) -> None:
    async with gateway(tmp_path, **ON) as gate:
        answer = await gate.send("/alertmanager/oncall", **arguments)
        assert (answer.status, answer.fields) == (status, fields)
        assert gate.queued() == 0


async def test_an_unknown_group_is_told_which_there_are(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        answer = await post(gate, ALERTMANAGER, "onkall")
        assert answer.status == 404
        assert "there are oncall, quiet, mixed, none" in answer.json["detail"]
    async with gateway(tmp_path) as gate:
        assert "http.alertmanager.groups" in (await post(gate, ALERTMANAGER)).json["detail"]


async def test_it_needs_a_key_that_may_send(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        assert (await post(gate, ALERTMANAGER, key=None)).status == 401
        assert (await post(gate, ALERTMANAGER, key=READ)).status == 403
        basic = {"Authorization": "Basic " + b64encode(f"any:{SEND}".encode()).decode()}
        assert (await post(gate, ALERTMANAGER, key=None, headers=basic)).status == 200


async def test_the_spool_in_trouble_is_a_503_which_alertmanager_tries_again(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        blocker = sqlite3.connect(gate.path, isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        try:
            assert (await asyncio.wait_for(post(gate, ALERTMANAGER), 60)).status == 503
        finally:
            blocker.rollback()
            blocker.close()
        assert (await post(gate, ALERTMANAGER)).json["duplicate"] is False


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from([*GRAFANA, "labels", "other"])
DOCUMENTS = st.builds(
    lambda changes, alert: {**GRAFANA, "alerts": [{**GRAFANA["alerts"][0], **alert}], **changes},
    st.dictionaries(MEMBERS, ANYTHING, max_size=3),
    st.dictionaries(st.sampled_from([*GRAFANA["alerts"][0], "other"]), ANYTHING, max_size=3),
)


async def test_whatever_is_posted_there_is_no_5xx(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with gateway(tmp_path, **ON) as gate:

        @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(DOCUMENTS)
        def check(document: dict[str, Any]) -> None:
            answer = asyncio.run_coroutine_threadsafe(post(gate, document), loop).result(60)
            assert answer.status in {200, 422}, answer.json

        await asyncio.to_thread(check)
