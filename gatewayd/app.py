"""The composition root: makes one daemon of all the rooms. The one module that imports everything."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gatewayd import __version__, metrics, msglog, wiring
from gatewayd.clock import Clock, SystemClock
from gatewayd.config import Channel as ChannelConfig
from gatewayd.config import Config
from gatewayd.errors import ConfigError, SpoolError
from gatewayd.http.context import HttpContext
from gatewayd.http.routes import ROUTES, in_force
from gatewayd.http.server import Server
from gatewayd.logs import configure_logging
from gatewayd.model import SimIdentity
from gatewayd.modems.gsm import GsmChannel
from gatewayd.reload import differences, needs_restart
from gatewayd.router.channeltask import Sim
from gatewayd.router.clocktrust import ClockTrust
from gatewayd.router.dispatcher import Dispatcher
from gatewayd.router.endpoints import callback_manner, subscriptions, webhook_settings
from gatewayd.router.outbox import Outbox
from gatewayd.router.submission import Submitter
from gatewayd.service import Heart, Notifier, Watchdog, task_heart
from gatewayd.spool.events import ACCEPTED, webhook_endpoint
from gatewayd.spool.prune import Pruner
from gatewayd.spool.reader import Reader
from gatewayd.spool.store import Store
from gatewayd.spool.writer import Notices

log = logging.getLogger("gatewayd")

SWITCH_INTERVAL_S = 0.0005
"""How long a busy thread may keep the others from the interpreter. With Python's default of 5 ms the writer waits for
the event loop longer than for the disk."""

LAST_CALLS_S = 5.0
"""How long calls of webhooks that are under way may take at a stop."""

SAID_BY_SEGMENT = frozenset({ACCEPTED, "message.sent", "message.delivered"})
"""Events of messages that have a line in the log already."""


@dataclass(frozen=True, slots=True)
class _WriterHeart:
    """Alive while the writer's thread takes operations; that the database does not is another trouble."""

    store: Store
    name: str = "spool writer"

    async def beat(self) -> None:
        try:
            await self.store.writer.run(lambda tx: None, urgent=True)  # however much waits to be written
        except SpoolError as error:
            log.debug("the writer answers: %s", error)


class Daemon:
    """Everything that runs. `start()` raises SpoolError or ConfigError; what it began is then undone."""

    def __init__(self, config: Config, clock: Clock | None = None, notifier: Notifier | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._database = wiring.spool_of(config)
        self._store = Store(
            self._database,
            config.gateway.instance,
            self._clock,
            wiring.rules(config),
            intake=wiring.intake(config),
            subscriptions=subscriptions(webhook_settings(config.webhooks)),
            on_commit=self._committed,
            witness_file=wiring.witness_of(config, self._database),
        )
        self._pruner = Pruner(
            self._database,
            self._store.writer,
            self._clock,
            wiring.retention(config),
            clock_trusted=lambda: not self._trust.doubt(self._clock.now_ms()),
        )
        trust = config.gateway.clock
        self._trust = ClockTrust(
            self._store,
            self._clock,
            require_sync=trust.require_sync,
            wait_s=trust.wait_s,
            on_change=lambda: self._dispatcher.committed(Notices(everything=True)),
        )
        self._dispatcher = Dispatcher(self._store, self._clock, wiring.dispatch_settings(config), self._trust.doubt)
        for channel in _enabled(config).values():
            self._add_channel(channel)
        self._reader = Reader(self._database, self._clock)
        self._outbox = Outbox(self._store, self._reader, self._clock)
        self._outbox.configure(webhook_settings(config.webhooks), callback_manner(config.http.callbacks))
        self._submitter = Submitter(wiring.submission_settings(config), self._store, self._clock)
        self._keys = wiring.keys(config)
        self._draining = False
        self._context = HttpContext(
            settings=wiring.http_settings(config),
            submitter=self._submitter,
            store=self._store,
            reader=self._reader,
            control=self._dispatcher,
            keys=lambda: self._keys,
            clock=self._clock,
            instance=config.gateway.instance,
            draining=lambda: self._draining,
            on_request=metrics.request,
            outbox=self._outbox,
            trust=self._trust,
            quota_of=lambda identity, channel: wiring.quota_for(self._config, identity, channel),
        )
        self._server = Server(self._context)
        self._notifier = notifier or Notifier()
        self._watchdog = Watchdog(self._notifier, self._hearts)
        self._watching: asyncio.Task[None] | None = None
        self._trusting: asyncio.Task[None] | None = None
        self._pruning: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()
        self._show()

    @property
    def address(self) -> str:
        """Where HTTP listens: "host:port"."""
        host, port = self._server.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self) -> None:
        recovery = await self._store.open(self._notifier.starting)
        try:
            self._trust.begin(self._store.clock_mark)
            if recovery.in_doubt:
                log.warning(
                    "the last run ended with %d segments in its channels' hands; they are in doubt: %s",
                    len(recovery.in_doubt),
                    ", ".join(f"idm {message_id} segment {seq}" for message_id, seq in recovery.in_doubt[:20]),
                )
            await self._settle_pins()
            await self._dispatcher.start()
            await self._outbox.start()
            self._context.operations.start()
            await self._server.start()
            self._watching = asyncio.create_task(self._watchdog.run(), name="watchdog")
            self._trusting = asyncio.create_task(self._trust.run(), name="clock")
            self._pruner.spool_id = recovery.spool_id
            self._pruning = asyncio.create_task(self._pruner.run(), name="retention")
        except BaseException:
            await self._end(0)
            raise

    async def stop(self) -> None:
        """Refuse new work, let the channels finish what they have in hand, close everything; bounded in time."""
        self._draining = True
        drain_s = self._config.gateway.shutdown_timeout_s
        until = asyncio.get_running_loop().time() + drain_s
        self._dispatcher.claim_nothing_more()
        ours = False
        try:  # a reload that is under way drains what it removes within the same bound
            async with asyncio.timeout(drain_s + LAST_CALLS_S):
                ours = await self._reloading.acquire()
        except TimeoutError:
            log.warning("a reload is under way and does not come to an end; it is cut off")
        try:
            await self._end(max(0.0, until - asyncio.get_running_loop().time()))
        finally:
            if ours:
                self._reloading.release()

    async def reload(self, config: Config) -> list[str]:
        """Work by another configuration; returns what changed. Raises ConfigError: all stays as it was.

        A channel that is removed finishes what it has in hand; one that is changed is opened anew.
        """
        async with self._reloading:
            keys, intake = wiring.keys(config), wiring.intake(config)
            webhooks, callbacks = webhook_settings(config.webhooks), callback_manner(config.http.callbacks)
            changes = differences(self._config, config)
            later = needs_restart(self._config, config)
            before, self._config = self._config, config
            self._keys = keys
            self._store.configure(wiring.rules(config), intake, subscriptions(webhooks))
            self._pruner.configure(wiring.retention(config))
            trust = config.gateway.clock
            self._trust.configure(require_sync=trust.require_sync, wait_s=trust.wait_s)
            self._outbox.configure(webhooks, callbacks)
            self._submitter.settings = wiring.submission_settings(config)
            self._context.settings = settings = wiring.http_settings(config)
            self._context.authenticator.configure(
                settings.trusted_networks, settings.trusted_proxies, settings.host_names
            )
            if not self._server.reload_tls(settings.tls):
                changes.append("http.tls: NOT taken, see above")
            await self._change_channels(_enabled(before), _enabled(config))
            self._dispatcher.configure(wiring.dispatch_settings(config))
            self._show()
            try:
                await self._settle_pins()
            except SpoolError as error:
                log.warning("what is pinned to channels that came or went is not held or released yet: %s", error)
                changes.append("messages pinned to channels: NOT yet held or released, reload once more")
            return changes + [f"{key}: takes effect at the next start" for key in later]

    async def _change_channels(self, before: dict[str, ChannelConfig], after: dict[str, ChannelConfig]) -> None:
        drain_s = self._config.gateway.shutdown_timeout_s
        gone = [name for name, channel in before.items() if name not in after or not _same(channel, after[name])]
        await asyncio.gather(*(self._dispatcher.remove(name, drain_s) for name in gone))
        for name, channel in after.items():
            if name in gone or name not in before:
                self._add_channel(channel)
            else:
                self._dispatcher.set_pace(name, wiring.pacing(channel))

    async def _settle_pins(self) -> None:
        """Hold what is pinned to channels that are gone, and release it when they are back."""
        names = [channel.name for channel in self._config.channels]
        held = released = 0
        more = True
        while more:
            settled = await self._store.settle_pins(names)
            held, released, more = held + settled.held, released + settled.released, settled.more
        if held:
            log.warning("%d messages are held: they are pinned to channels that the configuration does not have", held)
        if released:
            log.info("%d messages are released: the channels they are pinned to are back", released)

    async def _end(self, drain_s: float) -> None:
        running = [task for task in (self._watching, self._trusting, self._pruning) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._context.operations.stop()
        await self._dispatcher.stop(drain_s)
        await self._outbox.stop(LAST_CALLS_S)
        await self._server.stop()
        await self._reader.close()
        try:
            await self._store.close()
        except SpoolError as error:
            log.warning("the clean stop could not be noted: %s", error)

    def _committed(self, notices: Notices) -> None:
        self._dispatcher.committed(notices)  # first: no wake-up is lost, whatever the rest comes to
        if notices.events or notices.everything or notices.endpoints:
            # A turn of the loop later: the channels whose claims this commit holds write to their modems before.
            asyncio.get_running_loop().call_later(0, self._tell, notices)

    def _tell(self, notices: Notices) -> None:
        """Count, log and pass on what a commit means for others than the channels."""
        metrics.observe(notices.events)
        for event in notices.events:
            if event.class_ is not None and event.type not in SAID_BY_SEGMENT and event.state is not None:
                assert event.message_id is not None
                delivery = "" if event.delivery is None else event.delivery.value
                msglog.state_changed(
                    event.type, event.message_id, event.class_, event.state, delivery, str(event.data.get("reason", ""))
                )
        if notices.events or notices.everything:
            self._context.events.notify()
        if notices.everything:
            self._outbox.look_again()
        elif notices.endpoints:
            self._outbox.notify(notices.endpoints)

    def _hearts(self) -> Sequence[Heart]:
        return [
            _WriterHeart(self._store),
            *map(task_heart, [*self._dispatcher.tasks(), *self._context.operations.tasks()]),
        ]

    def _show(self) -> None:
        """Let the metrics know what there is."""
        routes = in_force(ROUTES, wiring.kannel_path(self._config))
        metrics.prepare(
            list(_enabled(self._config)),
            [webhook_endpoint(hook.name) for hook in self._config.webhooks],
            [(route.method, route.path) for route in routes],
        )

    def _add_channel(self, channel: ChannelConfig) -> None:
        settings = wiring.gsm_settings(channel)

        def sim_of(identity: SimIdentity) -> Sim:
            current = next((other for other in self._config.channels if other.name == channel.name), channel)
            return wiring.sim(self._config, current, identity)

        self._dispatcher.add(
            channel.name, lambda: GsmChannel(settings, self._clock), pacing=wiring.pacing(channel), sims=sim_of
        )


def _enabled(config: Config) -> dict[str, ChannelConfig]:
    return {channel.name: channel for channel in config.channels if channel.enabled}


def _same(one: ChannelConfig, other: ChannelConfig) -> bool:
    """Whether a channel can go on as it is: a new pace, quota, schedule or tag needs no new session."""
    soft = {name: getattr(other, name) for name in ("pacing", "quota", "schedule", "tags")}
    return one.model_copy(update=soft) == other


async def run_daemon(
    config: Config,
    reread: Callable[[], Config] | None = None,
    on_ready: Callable[[str], None] = lambda address: None,
) -> int:
    """Run a daemon until SIGTERM or SIGINT; returns the exit status. `on_ready` gets HTTP's address.

    `reread` reads the configuration again at SIGHUP, in a thread of its own, and raises ConfigError; None: there is
    nothing to read.
    """
    configure_logging(config)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    stop = asyncio.Event()
    hangup = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    notifier = Notifier()
    daemon = Daemon(config, notifier=notifier)
    try:
        await daemon.start()
    except SpoolError as error:
        log.critical("cannot start: %s", error)
        return 1
    metrics.reloaded(True)
    gc.collect()
    gc.freeze()  # modules and models stay: looking them over again would stop the loop for 100 ms, in mid-traffic
    log.info("gatewayd %s runs as instance %s, HTTP on %s", __version__, config.gateway.instance, daemon.address)
    notifier.ready(f"HTTP on {daemon.address}")
    on_ready(daemon.address)
    reloading = asyncio.create_task(_reload_when_told(daemon, hangup, reread, notifier), name="reload")
    await stop.wait()
    notifier.stopping()
    log.info("stopping: at most %g s for what the channels have in hand", config.gateway.shutdown_timeout_s)
    await daemon.stop()
    reloading.cancel()
    await asyncio.gather(reloading, return_exceptions=True)
    log.info("stopped")
    return 0


async def _reload_when_told(
    daemon: Daemon, hangup: asyncio.Event, reread: Callable[[], Config] | None, notifier: Notifier
) -> None:
    """Reload at each SIGHUP; a configuration with faults is refused, and the old one stays."""
    while True:
        await hangup.wait()
        hangup.clear()
        if reread is None:
            log.warning("there is no configuration to read again")
            continue
        notifier.reloading()
        try:
            config = await asyncio.get_running_loop().run_in_executor(None, reread)
            changes = await daemon.reload(config)
        except ConfigError as error:
            msglog.config_refused([str(fault) for fault in error.faults])
            metrics.reloaded(False)
        except Exception:
            log.exception("the reload failed half-way: restart gatewayd to be sure of what it works by")
            metrics.reloaded(False)
        else:
            configure_logging(config)
            msglog.config_reloaded(changes)
            metrics.reloaded(True)
        notifier.ready(f"HTTP on {daemon.address}")
