"""What happened, counted for Prometheus. The one module with state of the module's own: a process has one registry.

Whoever sees something happen calls a function here; none of them raises, waits or does I/O. What *is* at the moment
(depths, states) is not kept here but looked up for each scrape: http/metrics.py. docs/metrics.md lists all names.

Labels have few values: channels and webhooks as configured, and words of this program. What is anything else becomes
"other"; a telephone number, an id or a text never becomes a label.

Source of the conventions: the Prometheus project's "Metric and label naming" and "Writing exporters".
"""

from __future__ import annotations

import itertools
import math
import platform
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics import MetricWrapperBase

from gatewayd import __version__
from gatewayd.model import FailureClass, MessageClass, Outcome, ReportVerdict

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"

MESSAGE_EVENTS = (
    "queued", "sent", "delivered", "undelivered", "unknown", "failed", "expired", "cancelled", "in_doubt", "blocked",
)  # fmt: skip
RESULTS = (
    "sent", "in_doubt", *(f"refused_{failure.value}" for failure in FailureClass), "no_answer", "not_written",
    "withdrawn",
)  # fmt: skip
SESSION_ENDS = ("not_up", "lost", "given_up", "parked")
INBOUND_KINDS = ("text", "data", "undecodable", OTHER)
REPORT_FATES = ("matched", "unmatched", "duplicate")
OPTOUT_SOURCES = ("keyword", "operator", "api", "import", OTHER)
OPTOUT_STATES = ("out", "in", OTHER)
DELIVERY_RESULTS = ("delivered", "failed", "dead")
CALLBACK = "callback"  # the endpoint label of all messages' own callback URLs: their hosts are not ours to bound
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLASSES = tuple(class_.value for class_ in MessageClass)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a time stamp beside every counter would double what is scraped

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)


def _counter(name: str, help_: str, *labels: str) -> Counter:
    return Counter(name, help_, labels, namespace="gatewayd", registry=REGISTRY)


def _gauge(name: str, help_: str) -> Gauge:
    return Gauge(name, help_, namespace="gatewayd", registry=REGISTRY)


def _histogram(name: str, help_: str, buckets: Sequence[float], *labels: str) -> Histogram:
    return Histogram(name, help_, labels, namespace="gatewayd", registry=REGISTRY, buckets=buckets)


_accepted = _counter("messages_accepted", "Messages taken over and on disk, to be sent.", "class")
_messages = _counter("messages", "What became of messages: changes of their state and of their delivery.", "class",
                     "event")  # fmt: skip

_attempts = _counter("attempts", "Tries at submitting a segment, by what came of them.", "channel", "result")
_submit = _histogram(
    "submit_duration_seconds",
    "From the first octet of a submission to its final result.",
    (0.05, 0.1, 0.5, 1, 2, 3, 4, 6, 10, 20, 60, 180),
    "channel",
)
_idle = _histogram(
    "line_idle_seconds",
    "Time a channel that may send stood idle between a final result and its next submission, with work there for it.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
    "channel",
)
_sessions = _counter(
    "channel_sessions_ended",
    "Sessions with a channel's device that are over: it did not come up, was lost, given up after doubts, or parked.",
    "channel",
    "reason",
)

_inbound = _counter("inbound_messages", "Short messages received, whole or as much of them as came.", "channel", "kind")
_partial = _counter("inbound_partial", "Received messages of which parts were missing after the wait.", "channel")
_duplicates = _counter("inbound_duplicates", "Received PDUs that repeat an earlier one and were set aside.", "channel")
_reports = _counter(
    "status_reports",
    "Status reports of the network; unmatched ones are of nothing known, or came before their receipt.",
    "verdict",
    "fate",
)
_optouts = _counter("optouts", "Changes of numbers' opt-out state.", "source", "state")

_deliveries = _counter("deliveries", "Tries at telling an endpoint of an event.", "endpoint", "result")
_delivery_time = _histogram(
    "delivery_duration_seconds",
    "From calling an endpoint to the end of its answer.",
    (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    "endpoint",
)

_batch = _histogram(
    "writer_batch_operations", "Operations in one commit of the spool.", (1, 2, 5, 10, 25, 50, 100, 250, 1000)
)
_commit = _histogram(
    "writer_commit_duration_seconds",
    "From the begin to the end of one commit of the spool.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)

_requests = _counter("http_requests", "HTTP requests answered.", "method", "path", "status")
_request_time = _histogram(
    "http_request_duration_seconds",
    "From the head of an HTTP request to the end of its answer.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
    "method",
    "path",
)

_reload_good = _gauge("config_last_reload_successful", "Whether the last reading of the configuration was good (0, 1).")
_reload_time = _gauge("config_last_reload_success_timestamp_seconds", "When the configuration in use was read.")
_build = Info("build", "What runs.", namespace="gatewayd", registry=REGISTRY)
_build.info({"version": __version__, "python": platform.python_version()})

_channels: frozenset[str] = frozenset()
_endpoints: frozenset[str] = frozenset()
_paths: frozenset[str] = frozenset()
_not_after: float | None = None


class Event(Protocol):
    """What of a committed event is counted; see spool/events.py."""

    @property
    def type(self) -> str: ...
    @property
    def class_(self) -> MessageClass | None: ...
    @property
    def data(self) -> Mapping[str, Any]: ...


# What there is, told at the start and after a reload.


def prepare(
    channels: Collection[str], endpoints: Collection[str] = (), routes: Collection[tuple[str, str]] = ()
) -> None:
    """Say which channels, webhooks (as "webhook:NAME") and HTTP routes (method, path template) there are.

    What alerts go by begins at 0, so that the first event is an increase. What is no longer there is forgotten.
    """
    global _channels, _endpoints, _paths
    for name in _channels - set(channels):
        for metric, others in _of_channels():
            for labels in others:
                metric.remove(name, *labels)
    for name in _endpoints - set(endpoints):
        for result in DELIVERY_RESULTS:
            _deliveries.remove(name, result)
        _delivery_time.remove(name)
    _channels, _endpoints = frozenset(channels), frozenset(endpoints)
    _paths = frozenset(path for _, path in routes)
    for method, path in routes:
        _requests.labels(method, path, "500")
    for name in sorted(_channels):
        for metric, others in _of_channels():
            for labels in others:
                metric.labels(name, *labels)
    for name in endpoint_labels():
        for result in DELIVERY_RESULTS:
            _deliveries.labels(name, result)
        _delivery_time.labels(name)


def reloaded(good: bool) -> None:
    """The configuration was read: at the start, and at each reload. `good` False: it was refused, the old one stays."""
    _reload_good.set(good)
    if good:
        _reload_time.set(time.time())


def certificate(not_after: float | None) -> None:
    """The certificate that HTTPS serves now is good until then (epoch seconds); None: there is none."""
    global _not_after
    _not_after = not_after


def certificate_expiry() -> float | None:
    """What `certificate` was told last."""
    return _not_after


def _of_channels() -> tuple[tuple[MetricWrapperBase, list[tuple[str, ...]]], ...]:
    """The metrics that each channel has, with the values of their further labels."""
    return (
        (_attempts, [(result,) for result in RESULTS]),
        (_submit, [()]),
        (_idle, [()]),
        (_sessions, [(reason,) for reason in SESSION_ENDS]),
        (_inbound, [(kind,) for kind in INBOUND_KINDS]),
        (_partial, [()]),
        (_duplicates, [()]),
    )


# What happens.


def observe(events: Iterable[Event]) -> None:
    """Count what a commit made true."""
    for event in events:
        kind, _, what = event.type.partition(".")
        if kind == "message":
            class_ = OTHER if event.class_ is None else event.class_.value
            if what == "accepted":
                _accepted.labels(class_).inc()
            else:
                _messages.labels(class_, _one_of(what, MESSAGE_EVENTS)).inc()
        elif event.type == "optout.changed":
            source, state = event.data.get("source"), event.data.get("state")
            _optouts.labels(_one_of(source, OPTOUT_SOURCES), _one_of(state, OPTOUT_STATES)).inc()


def attempt(
    channel: str,
    outcome: Outcome,
    failure: FailureClass,
    *,
    started_ms: int | None,
    finished_ms: int,
    code: str,
    withdrawn: bool = False,
) -> None:
    """A try at a segment is over. `started_ms` None: nothing was written; `code` "": there was no answer."""
    if outcome is Outcome.SENT:
        result = "sent"
    elif outcome is Outcome.IN_DOUBT:
        result = "in_doubt"
    elif withdrawn:
        result = "withdrawn"
    elif started_ms is None:
        result = "not_written"
    else:
        result = f"refused_{failure.value}" if code else "no_answer"
    channel = _one_of(channel, _channels)
    _attempts.labels(channel, result).inc()
    if started_ms is not None and not withdrawn:
        _submit.labels(channel).observe(max(0, finished_ms - started_ms) / 1000)


def line_idle(channel: str, idle_s: float) -> None:
    """A channel had work again this long after its last final result, and might have sent all the time."""
    _idle.labels(_one_of(channel, _channels)).observe(idle_s)


def session_ended(channel: str, *, parked: bool, given_up: bool, was_up: bool) -> None:
    """A session with a channel's device is over."""
    reason = "parked" if parked else "given_up" if given_up else "lost" if was_up else "not_up"
    _sessions.labels(_one_of(channel, _channels), reason).inc()


def inbound(channel: str, kind: str, *, partial: bool) -> None:
    """A received message was handed over. `kind`: text, data or undecodable. `partial`: without all its parts."""
    channel = _one_of(channel, _channels)
    _inbound.labels(channel, _one_of(kind, INBOUND_KINDS)).inc()
    if partial:
        _partial.labels(channel).inc()


def inbound_duplicate(channel: str) -> None:
    """A received PDU repeats an earlier one."""
    _duplicates.labels(_one_of(channel, _channels)).inc()


def status_report(verdict: ReportVerdict, *, matched: bool, duplicate: bool) -> None:
    """A status report came. `matched`: the segment it is about is known."""
    _reports.labels(verdict.value, "duplicate" if duplicate else "matched" if matched else "unmatched").inc()


def delivery(endpoint: str, result: str, took_s: float | None = None) -> None:
    """An endpoint was told, or not. `result`: delivered; failed (it is tried again); dead (it is not)."""
    endpoint = endpoint_label(endpoint)
    _deliveries.labels(endpoint, _one_of(result, DELIVERY_RESULTS)).inc()
    if took_s is not None:
        _delivery_time.labels(endpoint).observe(took_s)


def endpoint_label(endpoint: str) -> str:
    """The label of an endpoint of the outbox: its own for a configured webhook, one for all callbacks."""
    return CALLBACK if endpoint.startswith("callback:") else _one_of(endpoint, _endpoints)


def endpoint_labels() -> tuple[str, ...]:
    """The labels of all endpoints there are."""
    return (*sorted(_endpoints), CALLBACK)


def channel_label(channel: str) -> str:
    """The label of a channel: OTHER for one that is not in the configuration any more."""
    return _one_of(channel, _channels)


def commit(operations: int, took_s: float) -> None:
    """The spool committed a batch. Called in the writer's thread."""
    _batch.observe(operations)
    _commit.observe(took_s)


STREAMS = frozenset({"/api/v1/events"})
"""Answers that last as long as somebody listens: no durations of requests."""


def request(method: str, path: str, status: int, took_s: float) -> None:
    """An HTTP request was answered. `path` is the template of its route; whatever is none counts as OTHER."""
    method, path = _one_of(method, _METHODS), _one_of(path, _paths)
    _requests.labels(method, path, str(status)).inc()
    if path not in STREAMS:
        _request_time.labels(method, path).observe(took_s)


def _one_of(value: object, known: Collection[str]) -> str:
    return value if isinstance(value, str) and value in known else OTHER


# What is scraped.


def exposition(moment: Iterable[Metric] = ()) -> bytes:
    """Everything in the text format (CONTENT_TYPE), `moment` being what was looked up for this scrape.

    The client library can do it, in twice the time: with 64 channels there are some 4000 lines, and they are made in
    the event loop. What stands left of a value never changes, so it is kept.
    """
    lines: list[str] = []
    for metric in itertools.chain(REGISTRY.collect(), moment):
        name = metric.name + _SUFFIXES.get(metric.type, "")
        kind = "gauge" if metric.type == "info" else metric.type
        lines.append(f"# HELP {name} {_escaped(metric.documentation)}\n# TYPE {name} {kind}\n")
        for sample in metric.samples:
            key = (sample.name, *sample.labels.values())
            head = _heads.get(key)
            if head is None:
                head = _heads[key] = _head(sample.name, sample.labels)
            value = float(sample.value)
            text = repr(value) if math.isfinite(value) else _NOT_FINITE[repr(value)]
            lines.append(f"{head} {text}\n")
    return "".join(lines).encode()


_SUFFIXES = {"counter": "_total", "info": "_info"}
_NOT_FINITE = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}
_heads: dict[tuple[str, ...], str] = {}


def _head(name: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return name
    pairs = ",".join(f'{label}="{_escaped(value, quote=True)}"' for label, value in labels.items())
    return f"{name}{{{pairs}}}"


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text


def _begin_at_zero() -> None:
    for class_ in _CLASSES:
        _accepted.labels(class_)
        for event in MESSAGE_EVENTS:
            _messages.labels(class_, event)
    for verdict in ReportVerdict:
        for fate in REPORT_FATES:
            _reports.labels(verdict.value, fate)
    for source in OPTOUT_SOURCES:
        for state in OPTOUT_STATES:
            _optouts.labels(source, state)
    prepare(())
    reloaded(True)


_begin_at_zero()
