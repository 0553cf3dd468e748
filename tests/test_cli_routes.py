"""`gatewayd routes` and `routes test` as they are typed, with a daemon's API and with a configuration alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from gatewayd.config import examine, load
from gatewayd.reload import differences
from gatewayd.wiring import submission_settings
from tests.http.helpers import gateway
from tests.test_cli import gateway as command

CONFIG = """
gateway: {{home_country: UY, countries: {{deny: [AR]}}, control_socket: {folder}/none.sock}}
spool: {{url: "sqlite:///{folder}/spool.db"}}
http: {{listen: "127.0.0.1:0"}}
channels:
  - {{name: sim1, type: modem, port: /dev/a, tags: [uy]}}
  - {{name: sim2, type: modem, port: /dev/b, tags: [uy], enabled: false}}
  - {{name: sim3, type: modem, port: /dev/c}}
sims: [{{iccid: "8959801234567890123", tags: [gold]}}]
routes:
  - name: premium
    match: {{key: [crm]}}
    to: [{{channel: sim3, weight: 3}}, {{group: gold, weight: 1}}]
    choose: weighted
  - {{name: uy, match: {{country: [UY]}}, to: [{{group: uy}}], dial_string: (0.1)}}
dialers:
  - {{name: spring, enabled: false, campaigns: [sale]}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gatewayd.yaml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return path


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done
    return done.stdout


async def test_with_a_daemon(tmp_path: Path, config: Path) -> None:
    socket = str(tmp_path / "control.sock")

    async def typed(*words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(command, "routes", *words, "--socket", socket)

    settings = submission_settings(load(config))
    async with gateway(tmp_path, submission=settings, control_socket=socket) as running:
        lines = good(await typed()).splitlines()
        assert [" ".join(line.split()) for line in lines] == [
            "rule goes by which",
            "dialer spring (disabled) any class campaign and campaign sale",
            "route premium channel:sim3>group:gold (by weights 3:1) key crm",
            "route uy turn:uy:(0.1) country UY",
            "what none of them matches goes by any channel",
        ]
        assert [item["name"] for item in json.loads(good(await typed("--json")))["items"]] == [
            "spring",
            "premium",
            "uy",
        ]
        text = good(await typed("test", "098 344 484"))
        assert text.startswith(
            "+59898344484, class application: the route uy decides: ports 0, 1 of the group uy in turn\n"
        )
        assert "it has no key; crm is wanted" in text
        assert "sim2" in text
        assert "it is down" in text
        words = ("test", "098344484", "--class", "campaign", "--campaign", "sale", "--json")
        assert json.loads(good(await typed(*words)))["dialer"] == "spring"
        running.operator.why = "paused by ana: the bill"
        text = good(await typed("test", "098344484"))
        assert text.endswith("\npaused by ana: the bill; nothing is sent until `gatewayd resume`\n")
        refused = await typed("test", "+5491123456789")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "number: +5491123456789 is a number of AR" in refused.stderr


def test_without_a_daemon(config: Path) -> None:
    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        return command("routes", *words, "-c", str(config))

    done = typed()
    assert "this is by the configuration alone" in done.stderr
    assert "route uy" in good(done)
    found = json.loads(good(typed("test", "098344484", "--json", "--at", "2030-01-01T00:00:00Z")))
    assert (found["route"], found["at"]) == ("uy", "2030-01-01T00:00:00.000Z")
    assert [(each["channel"], "disabled" in each["obstacle"]) for each in found["channels"]] == [
        ("sim1", False),
        ("sim2", True),
    ]
    text = good(typed("test", "098344484", "--key", "crm"))
    assert "the route premium decides: channel sim3, then the group gold" in text
    assert "if the SIM in it is tagged gold" in text
    for words, said in (
        (("test", "+5491123456789"), "gateway.countries.deny"),
        (("test", "098344484", "--class", "system"), "class: one of campaign"),
        (("test", "098344484", "--at", "soon"), "at: a time with its offset"),
    ):
        refused = typed(*words)
        assert (refused.returncode, said in refused.stderr) == (1, True), refused


def test_what_is_seldom_meant_is_a_warning(tmp_path: Path, config: Path) -> None:
    found = {fault.path: fault.reason for fault in examine(config).warnings}
    assert not [path for path in found if path.startswith(("routes", "dialers"))]
    config.write_text(
        CONFIG.format(folder=tmp_path)
        .replace("{country: [UY]}", "{}")
        .replace("routes:\n", "routes:\n  - {name: all, to: [{channel: sim2}]}\n")
    )
    found = {fault.path: fault.reason for fault in examine(config).warnings}
    assert found["routes[0].to"] == "all its channels are disabled: its messages wait"
    assert found["routes[1]"] == "is never asked: routes[0] (all) before it matches every message"
    assert "routes[2]" in found


def test_a_reload_says_that_routes_changed_places(config: Path) -> None:
    before = load(config)
    after = before.model_copy(update={"routes": before.routes[::-1]})
    assert differences(before, after) == ["routes: in another order"]
