"""SIMs and their quotas as people see them: the API, the command line with and without a daemon, the metrics."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from gatewayd import wiring
from gatewayd.config import Config, load, parse
from gatewayd.http.schemas_sims import Sims
from gatewayd.model import SimIdentity
from gatewayd.spool import quota as quotas
from gatewayd.spool.periods import PERIODS
from gatewayd.spool.quota import RECIPIENTS, QuotaLeft, SimQuota
from gatewayd.spool.writer import Tx
from tests.http.helpers import ADMIN, READ, Gateway, gateway, view
from tests.test_cli import gateway as command
from tests.test_metrics import LOOPBACK, scraped

ONE, TWO, THREE = "8959801234567890123", "8959801234567890131", "8959801234567890149"
CONFIG = f"""\
gateway: {{timezone: America/Montevideo}}
spool: {{url: "sqlite:////var/lib/gatewayd/spool.db"}}
http: {{}}
sims:
  - {{iccid: "{ONE}", quota: {{per_day: 500, recipients_per_month: 2, reset_day: 15}}}}
  - {{iccid: "{TWO}", number: "+59899000002"}}
  - {{imsi: "748011234567890", quota: {{}}}}
channels:
  - name: sim1
    type: modem
    port: /dev/ttyUSB0
    quota: {{per_minute: 5, timezone: UTC}}
  - {{name: sim2, type: modem, port: /dev/ttyUSB1}}
"""


def test_a_sim_s_own_quota_goes_before_that_of_its_channel() -> None:
    config = parse(CONFIG)
    own = SimQuota(per_day=500, recipients_per_month=2, reset_day=15, timezone="America/Montevideo")
    default = SimQuota(per_minute=5, timezone="UTC")
    none = SimQuota(timezone="America/Montevideo")
    asked = {
        (ONE, "", "sim1"): own,
        (ONE, "", "sim2"): own,
        (ONE, "", ""): own,
        (TWO, "", "sim1"): default,  # listed, but says nothing of a quota
        (THREE, "", "sim1"): default,
        (THREE, "", "sim2"): none,
        ("", "748011234567890", "sim1"): none,  # {}: no limit at all
        ("", "", "sim1"): default,
    }
    for (iccid, imsi, channel), expected in asked.items():
        assert wiring.quota_for(config, SimIdentity(iccid, imsi), channel) == expected
    assert own.limited
    assert not none.limited


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a path short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="gw") as path:
        yield Path(path)


async def used(gate: Gateway, config: Config) -> None:
    """One SIM sends three segments to two numbers; another is only there."""
    gate.context.quota_of = partial(wiring.quota_for, config)
    one = (await gate.store.see_sim("sim1", SimIdentity(ONE, "748010000000001"), "+59899000001")).sim_id
    await gate.store.see_sim("sim2", SimIdentity("", "748010000000002"), "")
    now = gate.context.clock.now_ms()

    def reserve(tx: Tx) -> None:
        quota = wiring.quota_for(config, SimIdentity(ONE), "sim1")
        for number in ("+59898344401", "+59898344402", "+59898344401"):
            assert quotas.reserve(tx, one, quota, number, 1, now, begun=False) is None

    await gate.store.writer.run(reserve)


async def test_the_api_shows_what_is_used_of_what(folder: Path) -> None:
    async with gateway(folder) as gate:
        await used(gate, parse(CONFIG))
        assert (await gate.get("/api/v1/sims", key=READ)).status == 403
        answer = await gate.get("/api/v1/sims", key=ADMIN)
        Sims.model_validate(answer.json)
        one, two = answer.json["items"]
        assert (one["iccid"], one["imsi"], one["number"], one["channel"]) == (
            ONE, "748010000000001", "+59899000001", "sim1",
        )  # fmt: skip
        assert (one["timezone"], one["reset_day"]) == ("America/Montevideo", 15)
        by_period = {each["period"]: each for each in one["usage"]}
        assert (by_period["day"]["used"], by_period["day"]["limit"]) == (3, 500)
        assert by_period["day"]["until"].endswith("T03:00:00.000Z")  # midnight there
        assert by_period["month"]["until"][8:] == "15T03:00:00.000Z"
        assert (by_period["month"]["used"], by_period["month"]["limit"]) == (3, None)
        assert (by_period[RECIPIENTS]["used"], by_period[RECIPIENTS]["limit"]) == (2, 2)
        assert (two["iccid"], two["imsi"]) == ("", "748010000000002")
        assert [(each["period"], each["used"], each["limit"]) for each in two["usage"]] == [
            (period, 0, None) for period in PERIODS
        ]


async def test_the_command_shows_it_with_and_without_a_daemon(folder: Path) -> None:
    socket, path = folder / "c.sock", folder / "gatewayd.yaml"
    document = yaml.safe_load(CONFIG)
    document["gateway"]["control_socket"] = str(socket)
    document["spool"]["url"] = f"sqlite:///{folder / 'spool.db'}"
    path.write_text(yaml.safe_dump(document))

    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = await asyncio.to_thread(command, "sims", "-c", str(path), *arguments)
        assert done.returncode == 0, done.stderr
        return done

    async with gateway(folder, control_socket=str(socket)) as gate:
        await used(gate, load(path))
        table = await run()
        assert table.stderr == ""
        lines = [json.loads(line) for line in (await run("--json")).stdout.splitlines()]
    head, one, two = table.stdout.splitlines()
    assert head.split()[:9] == ["sim", "channel", "number", "ICCID", *PERIODS, "recipients"]
    assert one.split()[:9] == ["1", "sim1", "+59899000001", ONE, "3", "3", "3/500", "3", "2/2"]
    assert two.split()[:8] == ["2", "sim2", "IMSI", "748010000000002", "0", "0", "0", "0"]
    offline = await run("--json")
    assert "this is read from the spool" in offline.stderr
    assert [json.loads(line)["usage"][2:] for line in offline.stdout.splitlines()] == [
        line["usage"][2:] for line in lines
    ]


async def test_the_metrics_show_what_is_left(tmp_path: Path) -> None:
    async with gateway(tmp_path, metrics_networks=LOOPBACK) as gate:
        now = gate.context.clock.now_ms()
        left = (
            QuotaLeft("minute", 5, 5, now - 1),  # that minute is over
            QuotaLeft("hour", 100, 107, now + 3_600_000),  # the limit was lowered
            QuotaLeft("day", 500, 200, now + 3_600_000),
            QuotaLeft("month", None, 200, now + 3_600_000),
            QuotaLeft(RECIPIENTS, 50, 20, now + 3_600_000),
        )
        gate.operator.views = [view("sim1", quota=left), view("sim2")]
        found = await scraped(gate)
        segments = [
            (
                found.get("gatewayd_sim_quota_segments", channel="sim1", period=period),
                found.get("gatewayd_sim_quota_left_segments", channel="sim1", period=period),
            )
            for period in PERIODS
        ]
        infinite = float("inf")
        assert segments == [(5, 5), (100, 0), (500, 300), (infinite, infinite)]
        assert found.get("gatewayd_sim_quota_recipients", channel="sim1") == 50
        assert found.get("gatewayd_sim_quota_left_recipients", channel="sim1") == 30
        assert found.get("gatewayd_sim_quota_left_segments", channel="sim2", period="day") == infinite
        assert found.get("gatewayd_sim_quota_left_recipients", channel="sim2") == infinite
