"""Outbound routes over HTTP: submissions are routed and guarded, the table is shown, a route can be tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatewayd.config import parse
from gatewayd.http import schemas_routing
from gatewayd.wiring import submission_settings
from tests.http.helpers import ADMIN, READ, Gateway, gateway

URL = "/api/v1/messages"
TEST = "/api/v1/routes/test"
CONFIG = """
spool: {url: "sqlite:////x.db"}
http: {}
gateway: {home_country: UY, countries: {deny: [AR]}, deny_prefixes: [+59829]}
channels:
  - {name: sim1, type: modem, port: /dev/a, tags: [uy]}
  - {name: sim2, type: modem, port: /dev/b}
schedules:
  always: {windows: [{days: all, from: "00:00", to: "24:00"}]}
  newyear: {windows: [{days: all, from: "00:00", to: "24:00"}], holidays: [2030-01-01]}
routes:
  - {name: keyed, match: {key: [send]}, to: [{channel: sim2}, {group: uy}]}
  - {name: uy, match: {prefix: ["+598"], schedule: newyear}, to: [{group: uy}], dial_string: "0"}
dialers:
  - {name: spring, campaigns: [sale], recipient_schedule: always, to: [{channel: sim1}]}
  - {name: autumn, enabled: false, campaigns: [fall]}
"""


def configured() -> Any:
    return submission_settings(parse(CONFIG))


async def test_a_submission_carries_what_the_routes_made_of_it(tmp_path: Path) -> None:
    async with gateway(tmp_path, submission=configured()) as gate:
        columns = ("source", "target", "route", "zone", "pin_channel")

        async def kept(**fields: Any) -> tuple[str, ...]:
            answer = await gate.send(URL, json={"to": "098344484", "text": "hi", **fields})
            assert answer.status == 202, answer.json
            row = gate.row(answer.json["idm"])
            return tuple(row[name] for name in columns)

        assert await kept() == ("class:application", "channel:sim2>group:uy", "keyed", "", "")
        assert await kept(channel="sim1") == ("class:application", "any", "", "", "sim1")
        sale = {"class": "campaign", "campaign": "sale"}
        assert await kept(**sale) == ("dialer:spring", "dialer", "", "America/Montevideo", "")
        assert await kept(**sale, channel="sim1") == ("dialer:spring", "any", "", "America/Montevideo", "sim1")
        form = {"destination": "098344484", "message": "hi", "campaign": "sale"}
        answer = await gate.send(data=form)
        assert gate.row(answer.json["idm"])["route"] == "keyed"  # a label; the class is application


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (URL, {"json": {"to": "+5491123456789", "text": "hi"}}, "to"),
        ("/SendSMS", {"data": {"destination": "+5491123456789", "message": "hi"}}, "destination"),
    ],
)
async def test_a_number_of_a_denied_country_is_refused(tmp_path: Path, path: str, body: Any, field: str) -> None:
    async with gateway(tmp_path, submission=configured()) as gate:
        answer = await gate.send(path, **body)
        assert (answer.status, answer.fields) == (422, [field])
        assert "a number of AR" in answer.json["detail"]
        assert "gateway.countries.deny" in answer.json["detail"]
        assert gate.queued() == 0


async def test_a_number_with_a_denied_prefix_is_refused_and_the_rest_of_the_batch_is_kept(tmp_path: Path) -> None:
    async with gateway(tmp_path, submission=configured()) as gate:
        batch = [{"to": number, "text": "hi"} for number in ("+59829001234", "098344484")]
        answer = await gate.send(URL, json=batch)
        assert answer.status == 202
        assert "gateway.deny_prefixes" in answer.json["items"][0]["error"]["detail"]
        assert answer.json["items"][1]["idm"] == 1


async def test_the_table_is_shown_in_the_order_it_is_asked(tmp_path: Path) -> None:
    async with gateway(tmp_path, submission=configured()) as gate:
        assert (await gate.get("/api/v1/routes", key=READ)).status == 403
        answer = await gate.get("/api/v1/routes", key=ADMIN)
        schemas_routing.Routes.model_validate(answer.json)
        shown = [(item["kind"], item["name"], item["enabled"], item["target"]) for item in answer.json["items"]]
        assert shown == [
            ("dialer", "spring", True, "channel:sim1"),
            ("dialer", "autumn", False, "any"),
            ("route", "keyed", True, "channel:sim2>group:uy"),
            ("route", "uy", True, "turn:uy:0"),
        ]
        assert answer.json["items"][3]["conditions"] == ["prefix +598", "schedule newyear"]


async def ask(gate: Gateway, **query: str) -> Any:
    answer = await gate.get(TEST, key=ADMIN, params=query)
    assert answer.status == 200, answer.json
    schemas_routing.RouteTest.model_validate(answer.json)
    return answer.json


async def test_a_route_can_be_tried(tmp_path: Path) -> None:
    async with gateway(tmp_path, submission=configured()) as gate:
        found = await ask(gate, number="098 344 484", at="2029-06-01T12:00:00Z")
        assert found["explain"] == ("the route uy decides: ports 0 of the group uy in turn")
        assert (found["number"], found["route"], found["dialer"]) == ("+59898344484", "uy", None)
        against = [(rule["name"], rule["chosen"], rule["against"]) for rule in found["rules"]]
        assert against == [
            ("spring", False, "the class is application; dialers take class campaign"),
            ("autumn", False, "the class is application; dialers take class campaign"),
            ("keyed", False, "it has no key; send is wanted"),
            ("uy", True, ""),
        ]
        assert gate.operator.served == [("class:application", "turn:uy:0")]
        assert [(each["channel"], each["obstacle"]) for each in found["channels"]] == [
            ("sim1", ""),
            ("sim2", "it is down"),
        ]
        closed = await ask(gate, number="098344484", at="2030-01-01T12:00:00-03:00")
        assert closed["explain"] == "no route matches: any channel"
        assert closed["rules"][3]["against"] == "the schedule newyear is closed then"
        assert (await ask(gate, number="098344484", key="send"))["target"] == "channel:sim2>group:uy"
        dialled = await ask(gate, number="098344484", campaign="sale", **{"class": "campaign"})
        assert (dialled["dialer"], dialled["route"], dialled["target"]) == ("spring", None, "channel:sim1")
        assert gate.operator.served[-1] == ("dialer:spring", "dialer")
        assert gate.queued() == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "number"),
        ({"number": "12"}, "number"),
        ({"number": "+5491123456789"}, "number"),
        ({"number": "098344484", "class": "system"}, "class"),
        ({"number": "098344484", "at": "tomorrow"}, "at"),
        ({"number": "098344484", "campaign": ""}, "campaign"),
        ({"number": "098344484", "key": "x" * 129}, "key"),
        ({"number": "098344484", "colour": "red"}, "colour"),
    ],
)
async def test_a_question_that_makes_no_sense_names_the_field(
    tmp_path: Path, query: dict[str, str], field: str
) -> None:
    async with gateway(tmp_path, submission=configured()) as gate:
        answer = await gate.get(TEST, key=ADMIN, params=query)
        assert (answer.status, answer.fields) == (422, [field])
        assert (await gate.get(TEST, key=READ, params={"number": "098344484"})).status == 403
