"""The composition root: makes one daemon of all the rooms. The one module that imports everything."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable

from gatewayd import __version__, msglog
from gatewayd.apikeys import KeyRing, load_keys
from gatewayd.clock import Clock, SystemClock
from gatewayd.config import Channel as ChannelConfig
from gatewayd.config import Config, read_secret
from gatewayd.errors import SpoolError
from gatewayd.http.context import HttpContext, HttpSettings
from gatewayd.http.server import Server
from gatewayd.model import SimIdentity
from gatewayd.modems.gsm import GsmChannel, GsmSettings
from gatewayd.router.dispatcher import Dispatcher
from gatewayd.router.submission import SubmissionSettings, Submitter
from gatewayd.spool.engine import Database, open_database
from gatewayd.spool.reader import Reader
from gatewayd.spool.retry import RetryPolicy
from gatewayd.spool.store import Store
from gatewayd.spool.work import Rules
from gatewayd.spool.writer import Notices

log = logging.getLogger("gatewayd")

SWITCH_INTERVAL_S = 0.0005
"""How long a busy thread may keep the others from the interpreter. With Python's default of 5 ms the writer waits for
the event loop longer than for the disk."""


class Daemon:
    """Everything that runs. `start()` raises SpoolError or ConfigError; what it began is then undone."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self._config = config
        clock = clock or SystemClock()
        self._database = spool_of(config)
        self._store = Store(self._database, config.gateway.instance, clock, _rules(config), on_commit=self._committed)
        self._dispatcher = Dispatcher(self._store, clock)
        channels = [channel for channel in config.channels if channel.enabled]
        for channel in channels:
            self._add_channel(channel, clock)
        self._reader = Reader(self._database, clock)
        submitter = Submitter(_submission_settings(config), self._store, clock)
        keys = _keys(config)
        self._draining = False
        self._server = Server(
            HttpContext(
                settings=_http_settings(config),
                submitter=submitter,
                store=self._store,
                reader=self._reader,
                control=self._dispatcher,
                keys=lambda: keys,
                clock=clock,
                instance=config.gateway.instance,
                draining=lambda: self._draining,
            )
        )
        self._drain = config.gateway.shutdown_timeout_s

    @property
    def address(self) -> str:
        """Where HTTP listens: "host:port"."""
        host, port = self._server.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self) -> None:
        recovery = await self._store.open()
        try:
            if recovery.in_doubt:
                log.warning(
                    "the last run ended with %d segments in its channels' hands; they are in doubt: %s",
                    len(recovery.in_doubt),
                    ", ".join(f"idm {message_id} segment {seq}" for message_id, seq in recovery.in_doubt[:20]),
                )
            await self._dispatcher.start()
            await self._server.start()
        except BaseException:
            await self._end(0)
            raise

    async def stop(self) -> None:
        """Refuse new work, let the channels finish what they have in hand, close everything; bounded in time."""
        self._draining = True
        await self._end(self._drain)

    async def _end(self, drain_s: float) -> None:
        await self._dispatcher.stop(drain_s)
        await self._server.stop()
        await self._reader.close()
        try:
            await self._store.close()
        except SpoolError as error:
            log.warning("the clean stop could not be noted: %s", error)

    def _committed(self, notices: Notices) -> None:
        self._dispatcher.committed(notices)

    def _add_channel(self, channel: ChannelConfig, clock: Clock) -> None:
        settings = GsmSettings(
            name=channel.name,
            port=channel.port,
            baudrate=channel.baudrate,
            number=channel.number or "",
            smsc=channel.smsc or "",
            submit_timeout_s=channel.submit_timeout_s,
            guard_time_s=channel.guard_time_s,
            poll_interval_s=channel.poll_interval_s,
        )

        def number_of(identity: SimIdentity) -> str:
            for sim in self._config.sims:
                if (sim.iccid and sim.iccid == identity.iccid) or (sim.imsi and sim.imsi == identity.imsi):
                    return sim.number or ""
            return channel.number or ""

        self._dispatcher.add(
            channel.name,
            lambda: GsmChannel(settings, clock),
            interval_s=channel.pacing.interval_s,
            numbers=number_of,
        )


async def run_daemon(config: Config, on_ready: Callable[[str], None] = lambda address: None) -> int:
    """Run a daemon until SIGTERM or SIGINT; returns the exit status. `on_ready` gets HTTP's address."""
    configure_logging(config)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(
        signal.SIGHUP, lambda: log.warning("reloading is not in this version: restart to use a changed configuration")
    )
    daemon = Daemon(config)
    try:
        await daemon.start()
    except SpoolError as error:
        log.critical("cannot start: %s", error)
        return 1
    log.info("gatewayd %s runs as instance %s, HTTP on %s", __version__, config.gateway.instance, daemon.address)
    on_ready(daemon.address)
    await stop.wait()
    log.info("stopping: at most %g s for what the channels have in hand", config.gateway.shutdown_timeout_s)
    await daemon.stop()
    log.info("stopped")
    return 0


def configure_logging(config: Config) -> None:
    """Log to standard error; under systemd with its priorities and without a time, which the journal has."""
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=config.gateway.logging.level.value.upper(), force=True)
    for chatty in ("alembic", "aiosqlite", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    msglog.configure(mask=config.gateway.logging.mask)


class _JournalFormatter(logging.Formatter):
    """Puts the priority in front of each line, as sd-daemon(3) has it."""

    _PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))

    def format(self, record: logging.LogRecord) -> str:
        priority = next(value for level, value in self._PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def spool_of(config: Config) -> Database:
    """The database a configuration names. Raises ConfigError if the file of its password cannot be read."""
    file = config.spool.password_file
    return open_database(config.spool.url, None if file is None else read_secret(file))


def _rules(config: Config) -> Rules:
    gateway = config.gateway
    return Rules(
        retry=RetryPolicy(gateway.retry.attempts, tuple(int(step * 1000) for step in gateway.retry.backoff_s)),
        in_doubt_wait_ms=int(gateway.in_doubt.wait_s * 1000),
        report_wait_ms=int(gateway.report_wait_s * 1000),
    )


def _keys(config: Config) -> KeyRing:
    path = config.http.api_keys_file
    return KeyRing() if path is None else load_keys(path)


def _submission_settings(config: Config) -> SubmissionSettings:
    gateway = config.gateway
    return SubmissionSettings(
        home_country=gateway.home_country or "",
        strict_numbers=gateway.strict_numbers,
        allow_premium=gateway.allow_premium,
        max_segments=gateway.max_segments,
        channels=frozenset(channel.name for channel in config.channels if channel.enabled),
        default_in_doubt=gateway.in_doubt.policy,
    )


def _http_settings(config: Config) -> HttpSettings:
    http = config.http
    return HttpSettings(
        host=http.listen.host,
        port=http.listen.port,
        control_socket=str(config.gateway.control_socket),
        trusted_networks=http.trusted_networks,
        trusted_proxies=http.trusted_proxies,
        max_body_octets=http.max_body_octets,
    )
