"""The alert rules, the dashboard and the runbook: they hold together, and a real Prometheus understands the daemon."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from gatewayd.modems.simulator.process import simulator_process
from tests.daemon import DaemonProcess, configuration, daemon, until

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "config/prometheus"
DASHBOARD = ROOT / "config/grafana/gatewayd.json"
METRIC = re.compile(r"\b(?:gatewayd|process|python)_\w+|\bup\b")
NOT_WITHOUT_TLS = {"gatewayd_tls_certificate_expiry_timestamp_seconds"}
"""What the daemon of this test has not; tests/test_metrics.py has it."""

promtool = pytest.mark.needs("promtool", "prometheus")


@cache
def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@cache
def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text(encoding="utf-8")))


def panels() -> list[dict[str, Any]]:
    return list(dashboard()["panels"])


def queries() -> Iterator[tuple[str, str]]:
    """Every expression of the dashboard, its variables filled in as Grafana does for All."""
    for panel in panels():
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "1m")
            yield panel["title"], expression.replace("$instance", ".*").replace("$channel", ".*")


def named() -> set[str]:
    """Every metric that a rule, the dashboard, or one of its variables names."""
    texts = [rule["expr"] for rule in rules()] + [expression for _, expression in queries()]
    texts += [variable.get("definition", "") for variable in dashboard()["templating"]["list"]]
    return {name for text in texts for name in METRIC.findall(re.sub(r'"[^"]*"', '""', text))}


# The files, each by itself and together.


def test_every_alert_says_how_bad_it_is_what_it_means_and_where_help_is() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    for rule in rules():
        name = rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, name
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert headings.count(name) == 1, f"{name} has no entry in the runbook"
    assert set(headings) == {rule["alert"] for rule in rules()}, "and no entry is of an alert that is gone"


def test_every_entry_of_the_runbook_says_what_to_do() -> None:
    text = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    for entry in text.split("\n## ")[1:]:
        assert [word in entry for word in ("**Means.**", "**Look.**", "**Do.**")] == [True] * 3, entry[:30]
    anchors = {heading.lower() for heading in re.findall(r"^## (\w+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_every_alert_has_an_incident_in_which_it_is_silent_and_one_in_which_it_fires() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    silent = {check["alertname"] for check in checks if not check["exp_alerts"]}
    fires = {check["alertname"] for check in checks if check["exp_alerts"]}
    assert silent == fires == {rule["alert"] for rule in rules()}


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@promtool
def test_the_rules_are_rules_and_each_fires_in_its_incident() -> None:
    assert f"{len(rules())} rules found" in run("promtool", "check", "rules", "alerts.yml")
    run("promtool", "test", "rules", "alerts_test.yml")


@promtool
def test_the_example_configuration_is_one() -> None:
    run("promtool", "check", "config", "prometheus.yml")
    (job,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert job["job_name"] == "gatewayd", "the rules and the dashboard go by it"


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    board = dashboard()
    assert board["schemaVersion"] >= 36, "Grafana 10"
    assert "id" not in board or board["id"] is None
    assert not re.search(r'"uid": "(?!\$\{datasource\}|gatewayd"|-- Grafana --)', DASHBOARD.read_text(encoding="utf-8"))
    source, *variables = board["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert {variable["name"] for variable in variables} == {"instance", "channel"}
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows == [
        "Overview", "Sending", "Channels", "Inbound and opt-out", "Callbacks", "Spool and writer", "HTTP and process",
    ]  # fmt: skip
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", panel["title"]
            assert 'job="gatewayd",instance=~"$instance"' in target["expr"], panel["title"]


# A real Prometheus and a real daemon.


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[str]:
    """A Prometheus that scrapes `target` each second, with our rules; gives its address."""
    folder.mkdir()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(FOLDER / "alerts.yml")],
        "scrape_configs": [{"job_name": "gatewayd", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={address}", stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
        try:
            yield address
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                async with asyncio.timeout(30):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


class Api:
    """Prometheus's HTTP API."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._url = f"http://{address}/api/v1/"

    async def get(self, path: str, **parameters: str) -> Any:
        async with self._session.get(self._url + path, params=parameters) as response:
            answer = await response.json()
            assert answer["status"] == "success", (path, parameters, answer)
            return answer["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        return list((await self.get("query", query=expression))["result"])

    async def up(self) -> bool:
        try:
            return any(found["value"][1] == "1" for found in await self.query('up{job="gatewayd"}'))
        except aiohttp.ClientError:
            return False


async def busy(running: DaemonProcess) -> None:
    """Let a little of everything happen, and something wait."""
    body = [{"to": f"+598983444{i}1", "text": "is anybody there?"} for i in range(10)]
    status, answer = await running.post("/api/v1/messages", json=body)
    assert status == 202, answer

    async def all_delivered() -> bool:
        return all(message["delivery"] == "delivered" for message in await running.messages())

    await until(all_delivered)
    await running.operate("pause")
    await running.send("+59898344484", "waits")


@pytest.mark.needs("prometheus", "prometheus")
async def test_a_real_prometheus_finds_every_metric_that_is_named(tmp_path: Path) -> None:
    async with (
        simulator_process(modems=2, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0), sim.port(1)])) as running,
        prometheus(tmp_path / "prometheus", running.address) as address,
    ):
        api = Api(running.session, address)
        await until(api.up, lambda: (tmp_path / "prometheus/log").read_text()[-2000:])
        await busy(running)
        missing: set[str] = set()

        async def all_there() -> bool:
            nonlocal missing
            missing = named() - NOT_WITHOUT_TLS - set(await api.get("label/__name__/values"))
            return not missing

        await until(all_there, lambda: f"not there: {sorted(missing)}")
        (target,) = (await api.get("targets"))["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")

        for _, expression in queries():
            await api.query(expression)  # no fault in it

        groups: list[dict[str, Any]] = []

        async def evaluated() -> bool:
            nonlocal groups
            groups = (await api.get("rules"))["groups"]
            return all(rule["health"] == "ok" for group in groups for rule in group["rules"])

        await until(evaluated, lambda: [(r["name"], r["lastError"]) for g in groups for r in g["rules"]])
        assert {rule["name"] for group in groups for rule in group["rules"]} == {rule["alert"] for rule in rules()}

        async def paused_is_pending() -> bool:
            alerts = (await api.get("alerts"))["alerts"]
            return {(alert["labels"]["alertname"], alert["state"]) for alert in alerts} == {
                ("GatewaydPaused", "pending")
            }

        await until(paused_is_pending)

        empty: set[str] = set()

        async def all_shown() -> bool:
            nonlocal empty
            shown = {
                title
                for title, expression in queries()
                if any(each["value"][1] != "NaN" for each in await api.query(expression))
            }
            empty = {title for title, _ in queries()} - shown - QUIET
            return not empty

        await until(all_shown, lambda: f"panels that show nothing: {empty}")

        assert await running.stop() == 0

        async def down() -> bool:
            return not await api.up()

        await until(down)


QUIET = {"Quota left", "Sessions that ended, an hour", "Opt-outs, an hour", "Blocked by opt-out, an hour"}
"""Panels that show nothing while all is well."""
