"""The configuration as frozen models: every key, its default and its documentation in one place.

Attributes carry their unit (`interval_s`), the keys in YAML do not, for there the value does (`interval: 6s`). Code may
build a model by attribute names and numbers of seconds: `Pacing(interval_s=0)`. The field descriptions make
docs/configuration.md and the JSON Schema.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from gatewayd.config.addresses import (
    SOCKET_PATH,
    AbsolutePath,
    Country,
    DevicePath,
    Iccid,
    IpNetwork,
    Listen,
    ListenAddress,
    Network,
    PhoneNumber,
    SpoolUrl,
    TimeZone,
)
from gatewayd.config.dropins import Alertmanager, Kannel
from gatewayd.config.inbound import Inbound
from gatewayd.config.quota import Quota
from gatewayd.config.retention import Retention
from gatewayd.config.routing import Countries, Dialer, Duplicates, Prefix, Route, Urgent
from gatewayd.config.schedules import ClockTrust, Schedules
from gatewayd.config.section import Flag, Section
from gatewayd.config.units import Choice, Digits, Duration, Integer, Label, Name, Size
from gatewayd.config.webhooks import Callbacks, Webhook
from gatewayd.model import InDoubtPolicy


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How log lines are written."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"
    JOURNAL = "journal"


class ChannelType(StrEnum):
    """The kinds of channel this version drives."""

    MODEM = "modem"


class InDoubt(Section):
    """What becomes of a segment of which nobody knows whether it was sent. It is never sent again by itself."""

    policy: Annotated[
        InDoubtPolicy,
        Choice(
            InDoubtPolicy, {"resend": "resend is only ever chosen per message or API key: fail or hold is expected"}
        ),
    ] = Field(
        default=InDoubtPolicy.FAIL,
        description="`fail`: after `wait` it is given up, shown, and not sent again. `hold`: it waits for an operator.",
    )
    wait_s: Annotated[float, Duration("1ms", "7d")] = Field(
        default=900.0,
        validation_alias="wait",
        description="How long a late result or a status report may settle the doubt, with policy `fail`.",
    )


class Retries(Section):
    """What a segment is worth that the network or the modem refused for a while."""

    attempts: Annotated[int, Integer(1, 100)] = Field(default=5, description="Tries per segment, the first included.")
    backoff_s: tuple[Annotated[float, Duration("0s", "7d")], ...] = Field(
        default=(10.0, 30.0, 120.0, 600.0, 1800.0),
        validation_alias="backoff",
        min_length=1,
        max_length=100,
        description="The pause before the 2nd, 3rd, … try; the last one repeats.",
    )


class Quarantine(Section):
    """What becomes of a number that fails wherever it is tried: what is written to it waits, and delays nobody."""

    failures: Annotated[int, Integer(0, 1000)] = Field(
        default=3,
        description="So many messages to a number must fail, and none succeed, before it is in quarantine. 0: never.",
    )
    backoff_s: tuple[Annotated[float, Duration("1s", "30d")], ...] = Field(
        default=(3600.0, 21600.0, 86400.0),
        validation_alias="backoff",
        min_length=1,
        max_length=100,
        description="How long the 1st, 2nd, … quarantine lasts; the last one repeats. After each one message is tried.",
    )


class Logging(Section):
    """What goes to the journal."""

    level: Annotated[LogLevel, Choice(LogLevel, {})] = Field(
        default=LogLevel.INFO, description="The least important line shown."
    )
    format: Annotated[LogFormat, Choice(LogFormat, {})] = Field(
        default=LogFormat.AUTO,
        description="`text` or `json`: lines on standard error. `journal`: entries with fields in systemd's journal. "
        "`auto`: the journal if systemd started the daemon with its output there, else text.",
    )
    mask: Flag = Field(default=True, description="Show telephone numbers and texts only in part.")


class Gateway(Section):
    """What holds for the whole daemon."""

    instance: Annotated[str, Name()] = Field(
        default="gw1",
        description="Its name in the spool. An instance runs once; changing the name orphans what is in flight.",
    )
    home_country: Annotated[str, Country()] | None = Field(
        default=None,
        description="The country national numbers are read with (ISO 3166). Without it only `+…` numbers are accepted.",
    )
    timezone: Annotated[str, TimeZone()] = Field(
        default="UTC", description="The time zone of windows, days and what is shown."
    )
    clock: ClockTrust = ClockTrust()
    strict_numbers: Flag = Field(
        default=False, description="Accept only numbers of ranges that are in use, not every one of a possible length."
    )
    allow_premium: Flag = Field(default=False, description="Accept premium-rate numbers.")
    countries: Countries = Countries()
    deny_prefixes: tuple[Prefix, ...] = Field(
        default=(), max_length=10_000, description="Numbers that begin with one of these (E.164) are refused."
    )
    duplicates: Duplicates = Duplicates()
    urgent: Urgent = Urgent()
    turn_patience_s: Annotated[float, Duration("0s", "1h")] = Field(
        default=30.0,
        validation_alias="turn_patience",
        description="How long a dial string waits for a port that is busy or paced, before it passes it over.",
    )
    failover_after_s: Annotated[float, Duration("0s", "1d")] = Field(
        default=30.0,
        validation_alias="failover_after",
        description="How long none of a route's first place must have been able to send before the next place serves.",
    )
    max_segments: Annotated[int, Integer(1, 255)] = Field(
        default=10, description="The most segments one text may take; a longer one is refused."
    )
    in_doubt: InDoubt = InDoubt()
    report_wait_s: Annotated[float, Duration("1ms", "30d")] = Field(
        default=176400.0,
        validation_alias="report_wait",
        description="How long a status report is waited for. Best the validity given to the network and an hour.",
    )
    retry: Retries = Retries()
    retention: Retention = Retention()
    quarantine: Quarantine = Quarantine()
    shutdown_timeout_s: Annotated[float, Duration("0s", "10m")] = Field(
        default=30.0,
        validation_alias="shutdown_timeout",
        description="How long what the modems have in hand may take to finish at a stop. Keep it below the service "
        "manager's own limit (systemd: `TimeoutStopSec`, 60 s in our unit).",
    )
    control_socket: Annotated[Path, SOCKET_PATH] = Field(
        default=Path("/run/gatewayd/control.sock"),
        description="The Unix socket the command line speaks to the daemon over.",
    )
    logging: Logging = Logging()


class Spool(Section):
    """Where messages are kept."""

    url: Annotated[str, SpoolUrl()] = Field(
        description="`sqlite:////absolute/path` (four slashes), or `postgresql://USER@HOST/DATABASE`; never a password."
    )
    password_file: Annotated[Path, AbsolutePath()] | None = Field(
        default=None, description="The file that holds the PostgreSQL password. Others must not be able to read it."
    )
    witness: Annotated[Path, AbsolutePath()] | None = Field(
        default=None,
        description="The file that says how far the spool has come, so that an older copy of it is noticed: "
        "docs/backup.md. By default `FILE.witness` beside an SQLite spool, and none for PostgreSQL.",
    )


class TlsVersion(StrEnum):
    """The oldest version of TLS that is spoken."""

    V1_2 = "1.2"
    V1_3 = "1.3"


class Tls(Section):
    """HTTPS instead of HTTP on `http.listen`. The files are read again at a reload."""

    cert_file: Annotated[Path, AbsolutePath()] = Field(
        description="The certificate in PEM, the server's own first, then those that lead to the root (fullchain.pem)."
    )
    key_file: Annotated[Path, AbsolutePath()] = Field(
        description="Its key in PEM, without a passphrase. Others must not be able to read it."
    )
    min_version: Annotated[TlsVersion, Choice(TlsVersion, {})] = Field(
        default=TlsVersion.V1_2, description="Clients that only speak older versions are refused."
    )


_HOST_NAME = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"


class Http(Section):
    """The HTTP interface."""

    later = frozenset({"rate_limit"})

    listen: Annotated[Listen, ListenAddress()] = Field(
        default=Listen("127.0.0.1", 8080),
        description="Address and port; IPv6 in brackets; port 0 takes any free one.",
    )
    api_keys_file: Annotated[Path, AbsolutePath()] | None = Field(
        default=None, description="The file `gatewayd apikey new` writes to. Others must not be able to read it."
    )
    trusted_networks: tuple[Annotated[IpNetwork, Network()], ...] = Field(
        default=(),
        max_length=1000,
        description="Networks whose requests need no API key. Only the TCP peer counts.",
    )
    host_names: tuple[Annotated[str, Digits(_HOST_NAME, "a host name such as gateway.example.com")], ...] = Field(
        default=(),
        max_length=100,
        description="Names of this host by which `trusted_networks` may read without a key, besides its addresses, "
        "`localhost` and its own short name. A web page that goes by another name may not (DNS rebinding).",
    )
    trusted_proxies: tuple[Annotated[IpNetwork, Network()], ...] = Field(
        default=(),
        max_length=1000,
        description="Proxies whose `Forwarded` and `X-Forwarded-*` are believed. From anyone else such a request is "
        "never trusted without a key.",
    )
    metrics_networks: tuple[Annotated[IpNetwork, Network()], ...] = Field(
        default=(ip_network("127.0.0.0/8"), ip_network("::1/128")),
        max_length=1000,
        description="Networks whose requests for `/metrics`, and for nothing else, need no API key: where Prometheus "
        "runs. From elsewhere it needs a key with the scope read, or an address in `trusted_networks`.",
    )
    tls: Tls | None = Field(default=None, description="HTTPS instead of HTTP on `listen`. The control socket has none.")
    insecure_http: Flag = Field(
        default=False,
        description="Allow listening beyond this machine although keys and texts then travel in the clear.",
    )
    max_body_octets: Annotated[int, Size("1 KiB", "64 MiB")] = Field(
        default=1 << 20, validation_alias="max_body", description="The largest request body taken."
    )
    kannel: Kannel = Kannel()
    alertmanager: Alertmanager = Alertmanager()
    callbacks: Callbacks = Callbacks()
    access_log: Flag = Field(
        default=True, description="Log one line for each request (probes and the command line only at level `debug`)."
    )


class Sim(Section):
    """A SIM, known by `iccid` or `imsi` (one is needed, both are better)."""

    later = frozenset({"pin", "pin_file", "country"})

    iccid: Annotated[str, Iccid()] | None = Field(
        default=None, description="As printed on the SIM, without a filler F."
    )
    imsi: Annotated[str, Digits("[0-9]{6,15}", "6 to 15 digits")] | None = Field(
        default=None, description="As `AT+CIMI` shows it."
    )
    number: Annotated[str, PhoneNumber()] | None = Field(
        default=None, description="Its own telephone number, international or national of `gateway.home_country`."
    )
    label: Annotated[str, Label()] | None = Field(default=None, description="A word for people.")
    tags: tuple[Annotated[str, Name()], ...] = Field(
        default=(), max_length=100, description="Groups that the channel it is in belongs to: docs/routing.md."
    )
    schedule: Annotated[str, Name()] | None = Field(
        default=None, description="It sends only while this schedule is open, and its channel's too."
    )
    quota: Quota | None = Field(
        default=None,
        description="What it may send. Without it that of its channel holds; `quota: {}`: no limit at all.",
    )


class Pacing(Section):
    """How fast a channel may send."""

    interval_s: Annotated[float, Duration("0s", "1d")] = Field(
        default=6.0,
        validation_alias="interval",
        description="The least time between the starts of two segments. `0s`: as fast as the modem takes them.",
    )
    jitter_s: Annotated[float, Duration("0s", "1h")] = Field(
        default=0.0, validation_alias="jitter", description="Up to so much is added to it, at random."
    )
    burst: Annotated[int, Integer(1, 1000)] = Field(
        default=1, description="So many may follow each other at once after a pause."
    )


class Channel(Section):
    """A slot that can send."""

    later = frozenset({"country", "pin_file", "profile", "url", "username", "ports"})
    later_values = {"type": frozenset({"dinstar"})}

    name: Annotated[str, Name()] = Field(description="Unique. It stands in logs, metrics and the API.")
    type: Annotated[ChannelType, Choice(ChannelType, {})] = Field(description="`modem`: a GSM modem on a serial port.")
    port: Annotated[str, DevicePath()] = Field(
        description="The serial device. `/dev/serial/by-path/…` stays the same; `/dev/ttyUSB0` does not."
    )
    baudrate: Annotated[int, Integer(300, 4_000_000)] = Field(
        default=115_200, description="Of real UARTs; USB modems ignore it."
    )
    number: Annotated[str, PhoneNumber()] | None = Field(
        default=None, description="The number of a SIM in it that `sims` does not list."
    )
    smsc: Annotated[str, Digits(r"\+?[0-9]{3,20}", "a number of 3 to 20 digits (international: with +)")] | None = (
        Field(default=None, description="The SMS centre to use instead of the SIM's own.")
    )
    enabled: Flag = Field(default=True, description="`false`: the daemon does not open it.")
    tags: tuple[Annotated[str, Name()], ...] = Field(
        default=(), max_length=100, description="Groups it belongs to: docs/routing.md."
    )
    schedule: Annotated[str, Name()] | None = Field(
        default=None, description="It sends only while this schedule is open."
    )
    pacing: Pacing = Pacing()
    quota: Quota | None = Field(
        default=None, description="What a SIM in it may send for which `sims` says no other. It belongs to the SIM."
    )
    submit_timeout_s: Annotated[float, Duration("10ms", "15m")] = Field(
        default=180.0,
        validation_alias="submit_timeout",
        description="How long the final result of AT+CMGS may take. Once it is over the segment is in doubt.",
    )
    guard_time_s: Annotated[float, Duration("0s", "1m")] = Field(
        default=0.0,
        validation_alias="guard_time",
        description="The pause a slow modem needs between a result and the next command.",
    )
    poll_interval_s: Annotated[float, Duration("10ms", "1h")] = Field(
        default=30.0,
        validation_alias="poll_interval",
        description="How often registration, signal and SIM storage are looked at while nothing is sent.",
    )


class Config(Section):
    """A whole configuration."""

    later = frozenset({"campaigns", "providers", "teams", "lists"})

    gateway: Gateway = Gateway()
    spool: Spool = Field(description="Where messages are kept.")
    http: Http = Field(description="The HTTP interface.")
    sims: tuple[Sim, ...] = Field(
        default=(), description="SIMs that are known beforehand. Others are paired at first sight."
    )
    channels: tuple[Channel, ...] = Field(description="The modems.")
    schedules: Schedules = Field(
        default_factory=lambda: MappingProxyType({}),
        description="When something may happen, by names that others refer to.",
    )
    routes: tuple[Route, ...] = Field(
        default=(),
        max_length=10_000,
        description="Which messages go out where: docs/routing.md. What no route matches goes by any channel.",
    )
    dialers: tuple[Dialer, ...] = Field(default=(), max_length=10_000, description="What drains campaigns.")
    inbound: Inbound = Inbound()
    webhooks: tuple[Webhook, ...] = Field(
        default=(), max_length=100, description="Who is told of events, besides the messages' own callbacks."
    )
