"""`schedules` and `gateway.clock` in the configuration, and what the router is given of them. S4-07, S4-25."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from gatewayd import wiring
from gatewayd.config import Config, json_schema, manual, parse
from gatewayd.config.schedules import Days, Hours
from gatewayd.reload import differences

LEAST = """\
gateway: {timezone: America/Montevideo}
spool: {url: "sqlite:////var/lib/gatewayd/spool.db"}
http: {}
channels: [{name: sim1, type: modem, port: /dev/ttyUSB0, schedule: office}]
sims: [{imsi: "748011234567890", schedule: night.2}]
"""
GOOD = """\
schedules:
  office:
    windows:
      - {days: mon-fri, from: 9:00, to: "18:00"}
      - {days: "sat, sun", from: 09:00, to: 12:30}
    holidays: [2026-12-31, 12-25, 02-29]
    extra:
      - dates: [12-24, 2026-11-27]
        windows: [{from: "09:00", to: "13:00"}, {from: "23:00", to: "01:00"}]
    cut_validity: true
    min_validity: 15m
  night.2:
    timezone: Europe/London
    windows: [{from: "18:00", to: "24:00"}, {from: "18:00", to: "00:00"}]
"""


def ms(text: str, zone: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).timestamp() * 1000)


def test_every_key_is_read() -> None:
    config = parse(LEAST + GOOD)
    office, night = config.schedules["office"], config.schedules["night.2"]
    assert office.timezone is None
    assert [(window.days, window.begin, window.end) for window in office.windows] == [
        (frozenset({0, 1, 2, 3, 4}), 540, 1080),
        (frozenset({5, 6}), 540, 750),
    ]
    assert [str(day) for day in office.holidays] == ["2026-12-31", "12-25", "02-29"]
    assert [str(day) for day in office.extra[0].dates] == ["12-24", "2026-11-27"]
    assert (office.cut_validity, office.min_validity_s) == (True, 900)
    assert (night.timezone, night.holidays, night.extra) == ("Europe/London", (), ())
    assert (night.cut_validity, night.min_validity_s) == (False, 600)
    assert config.channels[0].schedule == "office"
    assert config.sims[0].schedule == "night.2"
    assert (config.gateway.clock.require_sync, config.gateway.clock.wait_s) == (True, 900)
    assert parse("gateway: {clock: {require_sync: false, wait: 0}}\n" + LEAST.split("\n", 1)[1] + GOOD)


def test_without_schedules_there_are_none_and_nobody_can_add_one() -> None:
    config = parse(LEAST.replace(", schedule: office", "").replace(", schedule: night.2", "") + "schedules:\n")
    assert config.schedules == MappingProxyType({})
    with pytest.raises(TypeError):
        parse(LEAST + GOOD).schedules["more"] = None  # type: ignore[index]


@pytest.mark.parametrize(
    ("written", "days"),
    [
        ("mon", "0"),
        ("sat-mon", "056"),
        ("mon-sun", "0123456"),
        ("sun-sat", "0123456"),
        ("all", "0123456"),
        ("fri-fri", "4"),
        ("mon,wed-fri", "0234"),
        (" mon , wed  fri", "024"),
    ],
)
def test_days(written: str, days: str) -> None:
    assert Days().parse(written) == frozenset(map(int, days))
    assert Days().parse(Days().show(Days().parse(written))) == frozenset(map(int, days))


@pytest.mark.parametrize("written", ["", "Mon", "mon-", "-mon", "mon--fri", "mon;fri", "0", "mon,,fri", "all,mon"])
def test_no_days(written: str) -> None:
    with pytest.raises(ValueError, match="mon-fri"):
        Days().parse(written)


def test_code_can_build_models_by_attribute_name() -> None:
    assert Hours(begin=540, end=1440).minutes == 900
    assert Hours(begin=1320, end=360).minutes == 480
    with pytest.raises(ValidationError):
        Hours(begin=1440, end=60)


def test_the_router_gets_plain_schedules() -> None:
    schedules = wiring.schedules(parse(LEAST + GOOD))
    office, night = schedules["office"], schedules["night.2"]
    assert (office.name, office.timezone, night.timezone) == ("office", "America/Montevideo", "Europe/London")
    assert (office.cut_validity, office.min_validity_ms, night.min_validity_ms) == (True, 900_000, 600_000)
    assert office.is_open(ms("2026-11-26 10:00", "America/Montevideo"))
    assert not office.is_open(ms("2026-11-27 14:00", "America/Montevideo")), "extra: until 13:00"
    assert not office.is_open(ms("2026-12-25 10:00", "America/Montevideo"))
    assert office.is_open(ms("2026-12-25 00:30", "America/Montevideo")) is False, "closed from midnight"
    assert office.is_open(ms("2026-11-28 00:30", "America/Montevideo")), "extra: until 01:00 of the next day"
    assert night.is_open(ms("2026-11-27 23:59", "Europe/London"))
    assert not night.is_open(ms("2026-11-28 00:00", "Europe/London"))


def test_a_reload_names_what_is_different() -> None:
    before = parse(LEAST + GOOD)
    assert differences(before, before) == []
    other = parse(LEAST + GOOD.replace("15m", "20m").replace("18:00", "19:00"))
    assert set(differences(before, other)) >= {
        "schedules[office].windows[0].to",
        "schedules[office].min_validity",
        "schedules[night.2].windows[0].from",
    }
    more = parse(LEAST + GOOD + '  more: {windows: [{from: "09:00", to: "10:00"}]}\n')
    assert differences(before, more) == ["schedules[more]: added"]
    assert differences(more, before) == ["schedules[more]: removed"]
    assert differences(before, parse(LEAST + GOOD.replace(', {from: "18:00", to: "00:00"}', ""))) == [
        "schedules[night.2].windows[1]: removed"
    ]


def test_editors_and_the_manual_know_names() -> None:
    schema = json.loads(json.dumps(json_schema()))["properties"]["schedules"]
    assert (schema["type"], schema["propertyNames"]["pattern"]) == ("object", "^[A-Za-z0-9_.-]{1,32}$")
    office = schema["additionalProperties"]
    assert office["required"] == ["windows"]
    assert set(office["properties"]["windows"]["items"]["properties"]) == {"from", "to", "days"}
    assert "## `schedules.NAME.windows[]`" in manual()
    assert isinstance(Config.model_fields["schedules"].get_default(call_default_factory=True), MappingProxyType)
