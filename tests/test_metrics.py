"""GET /metrics: what it counts is what happened, its labels are few, and scraping it is cheap and nobody else's."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from gatewayd import metrics
from gatewayd.clock import SystemClock
from gatewayd.http import metrics as http_metrics
from gatewayd.http.routes import ROUTES
from gatewayd.model import ChannelState, ChannelStatus, FailureClass, MessageClass, Outcome, ReportVerdict
from gatewayd.modems.simulator.process import simulator_process
from gatewayd.router.control import ChannelView
from gatewayd.spool import schema
from gatewayd.spool.engine import open_database
from gatewayd.spool.events import DEAD, DONE, PENDING
from gatewayd.spool.reader import Counts, Reader
from gatewayd.spool.store import Store
from gatewayd.spool.work import Rules
from gatewayd.spool.writer import Tx
from tests.daemon import DaemonProcess, configuration, daemon, until
from tests.http.helpers import ADMIN, READ, SEND, Gateway, bearer, gateway
from tests.spool.conftest import database_url, postgres_server  # noqa: F401  fixtures

LOOPBACK = (ip_network("127.0.0.0/8"),)
Labels = tuple[tuple[str, str], ...]


class Scraped:
    """An exposition, as Prometheus's own parser for Python reads it."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: dict[tuple[str, Labels], float] = {}
        for family in self.families.values():
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in self.samples, f"{key} is there twice"
                self.samples[key] = sample.value

    def get(self, name: str, **labels: str) -> float:
        """The one sample with exactly these labels."""
        return self.samples[name, tuple(sorted(labels.items()))]

    def sum(self, name: str, **labels: str) -> float:
        """Over all samples that have these labels, whatever others they have."""
        wanted = set(labels.items())
        found = [value for (each, has), value in self.samples.items() if each == name and wanted <= set(has)]
        assert found, f"no {name} with {labels}"
        return sum(found)

    def has(self, name: str, **labels: str) -> bool:
        return any(each == name and set(labels.items()) <= set(has) for each, has in self.samples)


async def scraped(gate: Gateway, **arguments: Any) -> Scraped:
    async with gate.client.get(gate.url + "/metrics", **arguments) as response:
        text = await response.text()
        assert response.status == 200, text
    return Scraped(text)


async def of_daemon(running: DaemonProcess) -> tuple[str, Scraped]:
    async with running.session.get(f"http://{running.address}/metrics") as response:
        text = await response.text()
        assert response.status == 200, text
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return text, Scraped(text)


@contextmanager
def prepared(*channels: str, endpoints: tuple[str, ...] = ()) -> Iterator[None]:
    """The process's metrics with these channels, and without them afterwards."""
    metrics.prepare(channels, endpoints, [(route.method, route.path) for route in ROUTES])
    try:
        yield
    finally:
        metrics.prepare(())


# The text format.


def test_our_exposition_says_what_the_library_s_does(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    nasty = 'a "quoted" \\ back\nslash ñ'
    Counter("c", f"help: {nasty}", ["a", "b"], registry=registry).labels(nasty, "").inc(1e-9)
    Gauge("g", "", registry=registry).set(float("-inf"))
    Histogram("h_seconds", "x", ["channel"], buckets=(0.5, 1), registry=registry).labels("m0").observe(0.7)
    Info("build", "x", registry=registry).info({"version": "1"})
    monkeypatch.setattr(metrics, "REGISTRY", registry)
    family = GaugeMetricFamily("now", "of the moment", labels=["x"])
    for label, value in (("1", float("nan")), ("2", True), ("3", 12345678901234567890), ("4", float("inf"))):
        family.add_metric([label], value)

    def read(text: bytes) -> str:
        return repr([
            (each.name, each.documentation, each.type, each.samples)
            for each in text_string_to_metric_families(text.decode())
        ])  # fmt: skip

    class Together:
        def collect(self) -> Iterator[Any]:
            return itertools.chain(registry.collect(), [family])

    assert read(metrics.exposition([family])) == read(generate_latest(Together()))  # type: ignore[arg-type,unused-ignore]


# What is counted.


@pytest.mark.parametrize(
    ("outcome", "failure", "started", "code", "withdrawn", "result"),
    [
        (Outcome.SENT, FailureClass.UNKNOWN, 5, "", False, "sent"),
        (Outcome.IN_DOUBT, FailureClass.UNKNOWN, 5, "", False, "in_doubt"),
        (Outcome.IN_DOUBT, FailureClass.UNKNOWN, 5, "CMS 500", False, "in_doubt"),
        (Outcome.NOT_SENT, FailureClass.CONGESTION, 5, "CMS 42", False, "refused_congestion"),
        (Outcome.NOT_SENT, FailureClass.REJECTED, 5, "CMS 28", False, "refused_rejected"),
        (Outcome.NOT_SENT, FailureClass.NUMBER, 5, "CMS 1", False, "refused_number"),
        (Outcome.NOT_SENT, FailureClass.DEVICE, 5, "", False, "no_answer"),
        (Outcome.NOT_SENT, FailureClass.DEVICE, None, "", False, "not_written"),
        (Outcome.NOT_SENT, FailureClass.DEVICE, 5, "", True, "withdrawn"),
        (Outcome.NOT_SENT, FailureClass.DEVICE, None, "", True, "withdrawn"),
    ],
)
def test_what_came_of_an_attempt_is_one_word(
    outcome: Outcome, failure: FailureClass, started: int | None, code: str, withdrawn: bool, result: str
) -> None:
    with prepared("sim1"):
        metrics.attempt("sim1", outcome, failure, started_ms=started, finished_ms=2505, code=code, withdrawn=withdrawn)
        found = Scraped(metrics.exposition().decode())
        for each in metrics.RESULTS:
            assert found.get("gatewayd_attempts_total", channel="sim1", result=each) == (each == result)
        timed = started is not None and not withdrawn
        assert found.get("gatewayd_submit_duration_seconds_count", channel="sim1") == timed
        assert found.get("gatewayd_submit_duration_seconds_sum", channel="sim1") == (2.5 if timed else 0)


def test_a_channel_begins_at_zero_and_is_forgotten_after_a_reload() -> None:
    with prepared("old", "kept", endpoints=("webhook:crm",)):
        metrics.line_idle("kept", 0.5)
        before = Scraped(metrics.exposition().decode())
        assert before.get("gatewayd_attempts_total", channel="old", result="sent") == 0
        assert before.get("gatewayd_deliveries_total", endpoint="webhook:crm", result="dead") == 0
        assert before.get("gatewayd_http_requests_total", method="POST", path="/SendSMS", status="500") == 0
        metrics.prepare(["kept", "new"])
        after = Scraped(metrics.exposition().decode())
        assert not [labels for _, labels in after.samples if ("channel", "old") in labels]
        assert not [labels for _, labels in after.samples if ("endpoint", "webhook:crm") in labels]
        assert after.get("gatewayd_line_idle_seconds_count", channel="kept") == 1, "what it counted stays"
        assert after.has("gatewayd_inbound_messages_total", channel="new", kind="undecodable")


def test_what_nobody_knows_is_other() -> None:
    """No caller, device or stranger can make a label."""
    number = "+59898344484"
    with prepared("sim1", endpoints=("webhook:crm",)):
        failed = ("gatewayd_deliveries_total", {"endpoint": "callback", "result": "failed"})
        before = Scraped(metrics.exposition().decode()).get(failed[0], **failed[1])
        metrics.attempt(number, Outcome.SENT, FailureClass.UNKNOWN, started_ms=0, finished_ms=1, code="")
        metrics.inbound(number, number, partial=True)
        metrics.inbound_duplicate(number)
        metrics.line_idle(number, 1)
        metrics.session_ended(number, parked=False, given_up=False, was_up=True)
        metrics.request(number, f"/{number}", 404, 0.1)
        metrics.delivery(f"webhook:{number}", number, 0.1)
        metrics.delivery(f"callback:http://{number}.example", "failed", 0.1)
        metrics.status_report(ReportVerdict.TRYING, matched=False, duplicate=False)
        text = metrics.exposition().decode()
        assert number not in text
        assert Scraped(text).get(failed[0], **failed[1]) == before + 1


# What is at the moment.


def channel(name: str, state: ChannelState, rssi_dbm: int | None) -> ChannelView:
    return ChannelView(ChannelStatus(name, state, 0, "said", rssi_dbm=rssi_dbm), 1, 0.0, 0.0, None, 0, 0, 0)


async def test_channels_are_shown_as_they_are(tmp_path: Path) -> None:
    async with gateway(tmp_path, metrics_networks=LOOPBACK) as gate:
        gate.operator.views = [
            channel("ready", ChannelState.READY, -71),
            channel("unregistered", ChannelState.UNREGISTERED, None),
            channel("down", ChannelState.DOWN, -71),
        ]
        found = await scraped(gate)
        for name, up in (("ready", 1), ("unregistered", 0), ("down", 0)):
            assert found.get("gatewayd_channel_up", channel=name) == up
            states = {state: found.get("gatewayd_channel_state", channel=name, state=state) for state in ChannelState}
            assert states == {state: float(state == name) for state in ChannelState}
        assert found.get("gatewayd_channel_signal_dbm", channel="ready") == -71
        assert not found.has("gatewayd_channel_signal_dbm", channel="unregistered"), "unknown is not 0"
        assert not found.has("gatewayd_channel_signal_dbm", channel="down"), "nor what it was once"
        assert found.get("gatewayd_channel_registered", channel="unregistered") == 0
        assert not found.has("gatewayd_channel_registered", channel="down")
        assert found.get("gatewayd_paused") == 0
        gate.operator.why = "paused by root"
        assert (await scraped(gate)).get("gatewayd_paused") == 1


async def test_the_certificate_s_end_is_there_once_there_is_one(tmp_path: Path) -> None:
    metrics.certificate(None)  # of whoever served one before in this process
    async with gateway(tmp_path, metrics_networks=LOOPBACK) as gate:
        name = "gatewayd_tls_certificate_expiry_timestamp_seconds"
        assert not (await scraped(gate)).has(name)
        metrics.certificate(1_900_000_000.0)
        try:
            assert (await scraped(gate)).get(name) == 1_900_000_000
        finally:
            metrics.certificate(None)


async def test_the_queue_is_shown_by_lane_without_sims_and_by_the_channels_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_metrics, "REFRESH_S", 0.01)
    later = "2199-01-01T00:00:00Z"
    messages = [
        {"to": "+59898344484", "text": "a"},
        {"to": "+59898344485", "text": "b", "not_before": later},
        {"to": "+59898344486", "text": "c", "class": "alert"},
        {"to": "+59898344487", "text": "d", "channel": "sim1"},
        {"to": "+59898344488", "text": "e", "channel": "sim2"},
    ]
    clock = SystemClock()
    begun = clock.monotonic()
    with prepared("sim1"):
        async with gateway(tmp_path, metrics_networks=LOOPBACK) as gate:
            assert (await gate.send("/api/v1/messages", json=messages)).status == 202
            found = Scraped("")

            async def counted() -> bool:
                nonlocal found
                found = await scraped(gate)
                return found.has("gatewayd_spool_depth", lane="class:alert")

            await until(counted)
            any_channel = {"lane": "class:application", "target": "any", "channel": ""}
            assert found.get("gatewayd_spool_depth", **any_channel, queue="due") == 1
            assert found.get("gatewayd_spool_depth", **any_channel, queue="later") == 1
            assert found.get("gatewayd_spool_depth", **{**any_channel, "channel": "sim1"}, queue="due") == 1
            assert found.get("gatewayd_spool_depth", **{**any_channel, "channel": "other"}, queue="due") == 1
            waited = found.get("gatewayd_spool_oldest_due_seconds", **any_channel)
            assert 0 <= waited <= clock.monotonic() - begun + 1, "the one for later does not count as waiting"
            assert found.get("gatewayd_spool_messages", state="to_process") == 5
            assert found.get("gatewayd_segments_in_doubt") == 0
            assert found.get("gatewayd_spool_writable") == 1
            assert found.get("gatewayd_spool_size_bytes") > 0
            assert found.get("gatewayd_spool_disk_free_bytes") > 0


async def test_a_scrape_waits_for_no_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting a million rows takes seconds; a scrape reads the last result, and says how old it is."""
    monkeypatch.setattr(http_metrics, "REFRESH_S", 0.01)
    monkeypatch.setattr(http_metrics, "FIRST_WAIT_S", 0.01)
    counting, go_on, asked = Reader.counts, asyncio.Event(), asyncio.Event()

    async def slow(self: Reader, *, fresh: bool = False) -> Counts:
        asked.set()
        await go_on.wait()
        return await counting(self, fresh=True)

    monkeypatch.setattr(Reader, "counts", slow)
    async with gateway(tmp_path, metrics_networks=LOOPBACK) as gate:
        first = await scraped(gate)
        await asked.wait()
        assert not first.has("gatewayd_spool_messages"), "nothing is better than something made up"
        assert first.has("gatewayd_writer_failures_total"), "all the rest is there"
        go_on.set()

        async def there() -> bool:
            return (await scraped(gate)).has("gatewayd_spool_messages")

        await until(there)
        go_on.clear()
        asked.clear()
        await asked.wait()
        before = (await scraped(gate)).get("gatewayd_spool_sample_age_seconds")

        async def older() -> bool:
            return (await scraped(gate)).get("gatewayd_spool_sample_age_seconds") > before

        await until(older)
        go_on.set()


async def test_nothing_is_counted_while_nobody_scrapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_metrics, "REFRESH_S", 0.001)
    monkeypatch.setattr(http_metrics, "ASKED_WITHIN_S", 0.0)
    counting, counts = Reader.counts, itertools.count()

    async def counted(self: Reader, *, fresh: bool = False) -> Counts:
        next(counts)
        return await counting(self, fresh=True)

    monkeypatch.setattr(Reader, "counts", counted)
    async with gateway(tmp_path, metrics_networks=LOOPBACK) as gate:
        await gate.request("GET", "/readyz")
        assert next(counts) == 0, "no scrape, no count"
        await scraped(gate)
        for _ in range(20):  # many more turns of the task than one
            await gate.request("GET", "/readyz")
        assert next(counts) == 2, "one scrape, one count"


async def test_what_waits_besides_the_lanes_on_both_engines(database_url: str) -> None:  # noqa: F811
    database = open_database(database_url)
    store = Store(database, "test", SystemClock(), Rules())
    await store.open()
    reader = Reader(database)
    try:
        empty = await reader.backlog()
        assert (empty.in_doubt, empty.endpoints) == (0, ())

        def fill(tx: Tx) -> None:
            segment = {"parts": 1, "parts_ok": 0, "tries": 1, "attempt": 1, "code": ""}
            states = [
                ("IN_DOUBT", None),
                ("IN_DOUBT", None),
                ("ABANDONED", None),
                ("SUBMITTED", 7),
                ("SUBMITTED", None),
            ]
            for seq, (state, tp_mr) in enumerate(states, 1):
                row = {"message_id": 1, "seq": seq, "state": state, "tp_mr": tp_mr, "submitted_at": 5}
                tx.add(schema.segments, segment | row)
            rows = [
                ("webhook:crm", PENDING, 300), ("webhook:crm", PENDING, 200), ("webhook:crm", DONE, 100),
                ("callback:http://a.example", DEAD, 400), ("callback:http://b.example", PENDING, 500),
            ]  # fmt: skip
            for outbox_id, (endpoint, result, at) in enumerate(rows, 1):
                told = {"outbox_id": outbox_id, "endpoint": endpoint, "url": "", "format": "", "state": result}
                tx.add(schema.deliveries, told | {"attempts": 0, "created_at": at, "next_at": at, "error": ""})

        await store.writer.run(fill)
        found = await reader.backlog()
        assert found.in_doubt == 2
        assert [(each.endpoint, each.pending, each.oldest_at, each.dead) for each in found.endpoints] == [
            ("callback:http://a.example", 0, None, 1),
            ("callback:http://b.example", 1, 500, 0),
            ("webhook:crm", 2, 300, 0),  # in order: the first one is the oldest
        ]
    finally:
        await reader.close()
        await store.close()


# Who may scrape.


async def status(gate: Gateway, **headers: str) -> int:
    async with gate.client.get(gate.url + "/metrics", headers=headers) as response:
        return response.status


async def test_who_may_scrape(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        assert await status(gate) == 401
        assert await status(gate, **bearer(READ)) == 200
        assert await status(gate, **bearer(ADMIN)) == 200
        assert await status(gate, **bearer(SEND)) == 403
        assert await status(gate, **{"X-API-Key": READ}) == 200


async def test_metrics_networks_open_the_metrics_and_nothing_else(tmp_path: Path) -> None:
    async with gateway(tmp_path, metrics_networks=LOOPBACK) as gate:
        assert await status(gate) == 200
        assert await status(gate, **bearer("gw_wrong")) == 401, "a wrong key is said to be wrong"
        assert (await scraped(gate)).get("gatewayd_http_auth_failures_total") == 1
        assert await status(gate, Origin="http://evil.example") == 401, "a browser asks for a page of somebody's"
        assert await status(gate, **{"X-Forwarded-For": "192.0.2.1"}) == 401, "it comes from elsewhere"
        for route in ROUTES:
            if route.scope is not None and route.path != "/metrics":
                path = route.path.replace("{", "").replace("}", "")
                answer = await gate.request(route.method, path, headers={"Content-Type": "application/json"})
                assert answer.status in (401, 404), f"{route.method} {route.path}"


async def test_trusted_networks_and_the_control_socket_may_scrape_too(tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    async with gateway(tmp_path, trusted_networks=LOOPBACK, control_socket=str(control)) as gate:
        assert await status(gate) == 200
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(control))) as session,
            session.get("http://gatewayd/metrics") as response,
        ):
            assert response.status == 200


# A real daemon in which much happens.

BOUNDED = {
    "class": {*(class_.value for class_ in MessageClass)},
    "event": set(metrics.MESSAGE_EVENTS),
    "result": {*metrics.RESULTS, *metrics.DELIVERY_RESULTS},
    "reason": set(metrics.SESSION_ENDS),
    "kind": set(metrics.INBOUND_KINDS),
    "fate": set(metrics.REPORT_FATES),
    "verdict": {verdict.value for verdict in ReportVerdict},
    "source": set(metrics.OPTOUT_SOURCES),
    "state": {
        *ChannelState, *metrics.OPTOUT_STATES, "none", "to_process", "processed", "blocked", "other", "failed",
        "expired", "cancelled", "in_doubt",
    },
    "queue": {"due", "later", "behind", "out"},
    "lane": {f"class:{class_.value}" for class_ in MessageClass},
    "target": {"any"},
    "channel": {"m0", "m1", "", "other"},
    "endpoint": {"callback"},
    "period": {"minute", "hour", "day", "month"},
    "method": {"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "other"},
    "path": {*(route.path for route in ROUTES), "other"},
}  # fmt: skip
FREE = {"le", "version", "python", "implementation", "major", "minor", "patchlevel", "generation"}
"""Labels whose values say something of the process."""


async def test_a_mixed_run_is_counted_and_its_labels_are_bounded(tmp_path: Path) -> None:
    config = configuration(tmp_path, [], gateway={"in_doubt": {"wait": "15m"}})
    async with simulator_process(modems=2, directory=tmp_path / "sim") as sim:
        config["channels"] = configuration(tmp_path, [sim.port(0), sim.port(1)])["channels"]
        async with daemon(tmp_path, config) as running:
            fine = [await running.send(f"+5989834448{i}", f"secret text {i}") for i in range(7, 10)]
            answers = await running.send("+59898344401", "tell me more")
            fails = await running.send("+59898344405", "fails for good")
            refused = await running.send("+59899999001", "nobody has this number")
            for idm in (*fine, answers):
                await running.until(idm, lambda found: found["delivery"] == "delivered")
            await running.send("+59898344402", "an advertisement, answered with STOP")
            found = Scraped("")

            async def stopped() -> bool:
                nonlocal found
                _, found = await of_daemon(running)
                confirmed = found.get("gatewayd_messages_total", **{"class": "system"}, event="delivered") == 1
                return confirmed and found.sum("gatewayd_inbound_messages_total", kind="text") == 2

            await until(stopped)
            assert (await running.message(await running.send("+59898344402", "again")))["state"] == 3
            await running.until(fails, lambda found: found["delivery"] == "undelivered")
            await running.until(refused, lambda found: found["state"] == 5)
            await running.post("/SendSMS", data={"destination": "nonsense 12345", "message": "x"})
            await running.get("/api/v1/messages/987654321", headers={"Authorization": "Bearer gw_98344484"})
            for path in ("/no/such/path/59898344484", "/api/v1/messages/424242"):
                async with running.session.request("PURGE", f"http://{running.address}{path}") as response:
                    await response.read()
                async with running.session.get(f"http://{running.address}{path}?to=59898344484") as response:
                    await response.read()
            await running.post("/api/v1/messages", json={"to": "+59898344484", "text": "x", "not_before": FUTURE})
            text, found = await of_daemon(running)
    assert found.get("gatewayd_messages_accepted_total", **{"class": "application"}) == 8
    assert found.get("gatewayd_messages_accepted_total", **{"class": "system"}) == 1, "the confirmation"
    assert found.get("gatewayd_optouts_total", source="keyword", state="out") == 1
    events = {"sent": 6, "delivered": 5, "undelivered": 1, "failed": 1, "blocked": 1, "in_doubt": 0, "expired": 0}
    for event, count in events.items():
        assert found.get("gatewayd_messages_total", **{"class": "application"}, event=event) == count, event
    assert found.sum("gatewayd_status_reports_total") == 7
    assert found.sum("gatewayd_status_reports_total", verdict="undelivered") == 1
    assert found.sum("gatewayd_attempts_total", result="sent") == 7
    assert found.sum("gatewayd_attempts_total", result="refused_number") == 1
    assert found.sum("gatewayd_submit_duration_seconds_count") == 8
    assert found.sum("gatewayd_channel_up") == 2
    assert found.get("gatewayd_http_auth_failures_total") == 1
    assert found.get("gatewayd_http_requests_total", method="POST", path="/SendSMS", status="200") == 8
    assert found.sum("gatewayd_http_requests_total", path="other") >= 2
    assert found.sum("gatewayd_writer_commit_duration_seconds_count") > 0
    assert found.get("gatewayd_config_last_reload_successful") == 1
    for name, labels in found.samples:
        for label, value in labels:
            assert label in FREE or label == "status" or value in BOUNDED[label], (name, label, value)
            assert label != "status" or re.fullmatch(r"[1-5]\d\d", value), value
    for secret in ("98344", "secret", "nonsense", "424242", "987654321"):
        assert secret not in text
    assert len(found.samples) < 1200, "and there are few of them: so many for two channels"


FUTURE = "2199-01-01T00:00:00Z"


async def test_line_idle_is_the_time_between_two_submissions_of_a_busy_line(tmp_path: Path) -> None:
    """DESIGN §1 promise 6: what an operator sees is what the SMS centre's side of the line saw, or less."""
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", latency_ms=20) as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0)])) as running,
    ):
        await running.operate("pause")
        body = [{"to": f"+5989{i:05}77", "text": f"{i}", "report": False} for i in range(20)]
        status, answer = await running.post("/api/v1/messages", json=body)
        assert status == 202, answer
        await running.operate("resume")
        await sim.control.wait("answered", 20, timeout_s=60)
        found = Scraped("")

        async def all_counted() -> bool:
            nonlocal found
            _, found = await of_daemon(running)
            return found.get("gatewayd_attempts_total", channel="m0", result="sent") == 20

        await until(all_counted)
        assert found.get("gatewayd_line_idle_seconds_count", channel="m0") == 19
        rows = await sim.ledger("submit")
        seen = sum(row["cmgs_at"] - row["prev_final_at"] for row in rows if row["prev_final_at"] is not None)
        assert 0 < found.get("gatewayd_line_idle_seconds_sum", channel="m0") <= seen
        assert found.get("gatewayd_submit_duration_seconds_sum", channel="m0") >= 20 * 0.02


@pytest.mark.needs("promtool", "prometheus")
async def test_promtool_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    with prepared("sim1", endpoints=("webhook:crm",)):
        metrics.certificate(1_900_000_000.0)
        try:
            async with gateway(tmp_path, metrics_networks=LOOPBACK) as gate:
                await gate.send("/api/v1/messages", json={"to": "+59898344484", "text": "x"})
                async with gate.client.get(gate.url + "/metrics") as response:
                    text = await response.text()
        finally:
            metrics.certificate(None)
    assert "gatewayd_spool_depth{" in text
    checked = partial(
        subprocess.run, ["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False
    )
    done = await asyncio.to_thread(checked)
    assert done.returncode == 0, done.stderr
    assert not done.stdout + done.stderr, "no advice either"


def test_the_documents_list_every_metric_and_no_other() -> None:
    documented = set(
        re.findall(r"`(gatewayd_\w+)`", (Path(__file__).parents[1] / "docs/metrics.md").read_text(encoding="utf-8"))
    )
    source = Path(http_metrics.__file__).read_text(encoding="utf-8")
    looked_up = set(re.findall(r'_(?:family|gauge)\(\s*"(\w+)"', source))
    looked_up |= {f"{name}_total" for name in re.findall(r'_counter\(\s*"(\w+)"', source)}
    counted = {
        family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        for family in metrics.REGISTRY.collect()
        if family.name.startswith("gatewayd_")
    }
    assert documented == counted | {f"gatewayd_{name}" for name in looked_up}
