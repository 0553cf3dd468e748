"""GET /metrics: what gatewayd/metrics.py counted, and what is at this moment.

A scrape reads memory only. What has to be counted in the spool, where a million rows take seconds, is counted by a task
in the background while somebody scrapes; a scrape gives the last result and how old it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from gatewayd import metrics
from gatewayd.apikeys import Scope
from gatewayd.http.auth import Authenticator
from gatewayd.http.context import HttpContext
from gatewayd.http.monitoring import Probe
from gatewayd.model import ChannelState, MessageState
from gatewayd.router.control import ChannelView
from gatewayd.spool.backlog import Backlog
from gatewayd.spool.periods import PERIODS
from gatewayd.spool.quota import RECIPIENTS
from gatewayd.spool.reader import Counts, LaneDepth

log = logging.getLogger("gatewayd.http")

REFRESH_S = 5.0  # the spool is counted again this often at most; Reader.counts may make it less
ASKED_WITHIN_S = 600.0  # with no scrape for so long, nothing is counted any more
FIRST_WAIT_S = 1.0  # the first scrape waits for the first count, but not for ever
_QUEUES = ("due", "later", "behind", "out")


@dataclass(frozen=True, slots=True)
class Sample:
    """What was last found in the spool. Octets of the file and of the free disk: None where it lies elsewhere."""

    counts: Counts
    backlog: Backlog
    took_s: float
    size_octets: int | None = None
    free_octets: int | None = None


class Scrape:
    """Answers scrapes. `running` is the background task's life, to be put into the application's cleanup contexts."""

    def __init__(self, context: HttpContext, probe: Probe) -> None:
        self._context = context
        self._probe = probe
        self._asked = asyncio.Event()
        self._asked_at = float("-inf")
        self._counted = asyncio.Event()
        self._sample: Sample | None = None
        self._writable = True
        self._trouble = ""
        self._scrapers = Authenticator(context.keys, clock=context.clock)

    def admit(self, request: web.Request) -> None:
        """Let in a key with the scope read, and without a key whoever may scrape. Raises HttpProblem."""
        if "Authorization" in request.headers or "X-API-Key" in request.headers:
            self._context.authenticator.require(request, Scope.READ)
            return
        settings = self._context.settings  # as they are since the last reload
        self._scrapers.configure((*settings.metrics_networks, *settings.trusted_networks), settings.trusted_proxies)
        self._scrapers.require(request, Scope.READ)

    async def text(self) -> bytes:
        """The exposition."""
        self._asked_at = self._context.clock.monotonic()
        self._asked.set()
        if not self._counted.is_set():
            try:
                async with asyncio.timeout(FIRST_WAIT_S):
                    await self._counted.wait()
            except TimeoutError:
                pass
        return metrics.exposition(self._moment())

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        """From the application's start to its end."""
        task = asyncio.create_task(self._keep_counting(), name="metrics")
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _keep_counting(self) -> None:
        while True:
            await self._asked.wait()
            try:
                await self._refresh()
                self._trouble = ""
            except Exception as error:  # the last sample stays, and its age tells
                level = logging.DEBUG if str(error) == self._trouble else logging.WARNING
                self._trouble = str(error)
                log.log(level, "the spool cannot be counted for /metrics: %s", error)
            self._counted.set()
            if self._context.clock.monotonic() - self._asked_at > ASKED_WITHIN_S:
                self._asked.clear()
            await asyncio.sleep(REFRESH_S)

    async def _refresh(self) -> None:
        context = self._context
        self._writable = await self._probe.writable()
        begun = context.clock.monotonic()
        counts = await context.reader.counts()
        backlog = await context.reader.backlog()
        took_s = context.clock.monotonic() - begun
        size = free = None
        if context.reader.file is not None:
            size, free = await asyncio.to_thread(_disk, context.reader.file)
        self._sample = Sample(counts, backlog, took_s, size, free)

    def _moment(self) -> Iterator[Metric]:
        context = self._context
        now_ms = context.clock.now_ms()
        writer = context.store.writer
        views = context.control.channels()
        yield from _channels(views)
        yield from _quotas(views, now_ms)
        yield _gauge("paused", "Whether an operator has stopped all sending (0, 1).", bool(context.control.paused()))
        yield _gauge("spool_writable", "Whether the spool takes writes (0, 1).", self._writable and writer.healthy)
        doubt = context.clock_doubt()
        yield _gauge("clock_trusted", "Whether windows and quotas by day and month go by the clock (0, 1).", not doubt)
        yield _gauge("time_seconds", "The daemon's wall clock, as seconds since 1970 UTC.", now_ms / 1000)
        yield _counter("writer_failures", "Commits of the spool that failed as a whole.", writer.stats.failures)
        yield _counter(
            "writer_replays", "Commits that were made again step by step, because a step failed.", writer.stats.replays
        )
        failures = context.authenticator.damping.failures
        yield _counter("http_auth_failures", "HTTP requests with a key that is not known.", failures)
        expiry = metrics.certificate_expiry()
        if expiry is not None:
            yield _gauge(
                "tls_certificate_expiry_timestamp_seconds", "Until when the certificate in use is good.", expiry
            )
        if self._sample is not None:
            yield from _spool(self._sample, now_ms, self._resting())

    def _resting(self) -> Callable[[str], bool]:
        """Whether an endpoint is one that an administrator does not want called: disabled, or not configured."""
        outbox = self._context.outbox
        if outbox is None:
            return lambda endpoint: False
        called = {view.settings.endpoint for view in outbox.views() if view.settings.enabled}
        return lambda endpoint: endpoint.startswith("webhook:") and endpoint not in called


SCRAPE = web.AppKey("scrape", Scrape)


async def exposition(request: web.Request) -> web.Response:
    """All metrics, in the text format of Prometheus."""
    scrape = request.app[SCRAPE]
    scrape.admit(request)
    body = await scrape.text()
    return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE, "Cache-Control": "no-store"})


def _channels(views: Sequence[ChannelView]) -> Iterable[Metric]:
    up = _family("channel_up", "Whether the channel may send (0, 1).", "channel")
    state = _family("channel_state", "1 for the state the channel is in, 0 for the others.", "channel", "state")
    registered = _family(
        "channel_registered", "Whether the SIM is registered in its network (0, 1); absent while unknown.", "channel"
    )
    signal = _family("channel_signal_dbm", "Received signal strength in dBm; absent while unknown.", "channel")
    for view in views:
        status = view.status
        name = status.name
        up.add_metric([name], status.state is ChannelState.READY)
        for each in ChannelState:
            state.add_metric([name, each.value], status.state is each)
        if status.state in (ChannelState.READY, ChannelState.UNREGISTERED):
            registered.add_metric([name], status.state is ChannelState.READY)
        if status.rssi_dbm is not None and status.state is not ChannelState.DOWN:
            signal.add_metric([name], status.rssi_dbm)
    return (up, state, registered, signal)


def _quotas(views: Sequence[ChannelView], now_ms: int) -> Iterable[Metric]:
    limits = _family(
        "sim_quota_segments", "Segments the channel's SIM may send in this period; +Inf: no limit.", "channel", "period"
    )
    left = _family(
        "sim_quota_left_segments", "Segments it may still send in this period; +Inf: no limit.", "channel", "period"
    )
    most = _family(
        "sim_quota_recipients", "Distinct numbers the channel's SIM may write to in its month; +Inf: no limit.",
        "channel",
    )  # fmt: skip
    new = _family(
        "sim_quota_left_recipients", "New numbers it may still write to in its month; +Inf: no limit.", "channel"
    )
    for view in views:
        name = view.status.name
        quotas = {quota.period: (quota.limit, quota.left_at(now_ms)) for quota in view.quota}
        for period in PERIODS:
            limit, remaining = quotas.get(period, (None, None))
            limits.add_metric([name, period], _or_infinite(limit))
            left.add_metric([name, period], _or_infinite(remaining))
        limit, remaining = quotas.get(RECIPIENTS, (None, None))
        most.add_metric([name], _or_infinite(limit))
        new.add_metric([name], _or_infinite(remaining))
    return (limits, left, most, new)


def _or_infinite(limit: int | None) -> float:
    return float("inf") if limit is None else limit


def _spool(sample: Sample, now_ms: int, resting: Callable[[str], bool]) -> Iterable[Metric]:
    counts, backlog = sample.counts, sample.backlog
    states = _family("spool_messages", "Messages in the spool, by state.", "state")
    for message_state, count in counts.states.items():
        states.add_metric([MessageState(message_state).name.lower()], count)
    yield states
    yield from _depths(counts.lanes, now_ms)
    yield _gauge("segments_in_doubt", "Segments of which nobody knows yet whether they were sent.", backlog.in_doubt)
    yield from _outbox(backlog, now_ms, resting)
    yield _gauge(
        "spool_sample_age_seconds", "How long ago the spool's messages were counted.", (now_ms - counts.at) / 1000
    )
    yield _gauge("spool_sample_duration_seconds", "How long counting took.", sample.took_s)
    if sample.size_octets is not None:
        yield _gauge("spool_size_bytes", "Size of the spool's file and its write-ahead log.", sample.size_octets)
    if sample.free_octets is not None:
        yield _gauge("spool_disk_free_bytes", "What the disk has left where the spool lies.", sample.free_octets)


def _depths(lanes: Sequence[LaneDepth], now_ms: int) -> Iterable[Metric]:
    """By source, target and pinned channel; SIMs are left out, for there may be any number."""
    depths: dict[tuple[str, str, str], dict[str, int]] = {}
    since: dict[tuple[str, str, str], int] = {}
    for lane in lanes:
        key = (lane.source, lane.target, metrics.channel_label(lane.channel) if lane.channel else "")
        found = depths.setdefault(key, dict.fromkeys(_QUEUES, 0))
        for queue in _QUEUES:
            found[queue] += getattr(lane, queue)
        if lane.due_since is not None:
            since[key] = min(lane.due_since, since.get(key, lane.due_since))
    labels = ("lane", "target", "channel")
    depth = _family(
        "spool_depth", "Messages to be sent: due, for later, behind another one to the same number, or out (in hand or "
        "in doubt).", *labels, "queue",
    )  # fmt: skip
    oldest = _family("spool_oldest_due_seconds", "How long the message that is due for longest has waited.", *labels)
    for key, by_queue in depths.items():
        for queue, count in by_queue.items():
            depth.add_metric([*key, queue], count)
        oldest.add_metric(key, max(0, now_ms - since[key]) / 1000 if key in since else 0)
    return (depth, oldest)


def _outbox(backlog: Backlog, now_ms: int, resting: Callable[[str], bool]) -> Iterable[Metric]:
    """What nobody is to be told now is not late, or its alert would never end."""
    pending: dict[str, int] = dict.fromkeys(metrics.endpoint_labels(), 0)
    dead = dict(pending)
    since: dict[str, int] = {}
    for each in backlog.endpoints:
        label = metrics.endpoint_label(each.endpoint)
        pending[label] = pending.get(label, 0) + each.pending
        dead[label] = dead.get(label, 0) + each.dead
        if each.oldest_at is not None and not resting(each.endpoint):
            since[label] = min(each.oldest_at, since.get(label, each.oldest_at))
    backlogs = _family("outbox_backlog", "Events an endpoint has still to be told.", "endpoint")
    oldest = _family("outbox_oldest_seconds", "How long the oldest of them has waited.", "endpoint")
    letters = _family("outbox_dead_letters", "Events an endpoint was never told, and will not be.", "endpoint")
    for label in pending:
        backlogs.add_metric([label], pending[label])
        oldest.add_metric([label], max(0, now_ms - since[label]) / 1000 if label in since else 0)
        letters.add_metric([label], dead[label])
    return (backlogs, oldest, letters)


def _disk(file: Path) -> tuple[int | None, int | None]:
    """Size of the spool and free octets; None where it cannot be told."""
    try:
        size = sum(path.stat().st_size for path in (file, file.with_name(file.name + "-wal")) if path.exists())
        disk = os.statvfs(file.parent)
    except OSError as error:
        log.debug("the spool's disk cannot be looked at: %s", error)
        return None, None
    return size, disk.f_bavail * disk.f_frsize


def _family(name: str, help_: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gatewayd_{name}", help_, labels=labels)


def _gauge(name: str, help_: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gatewayd_{name}", help_, value=value)


def _counter(name: str, help_: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"gatewayd_{name}", help_, value=value)
