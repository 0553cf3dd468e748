"""What the handlers work with, handed in by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from gatewayd.apikeys import KeyRing
from gatewayd.clock import Clock
from gatewayd.config import TlsFiles
from gatewayd.http.auth import Authenticator, IpNetwork
from gatewayd.http.eventhub import EventHub
from gatewayd.http.limits import RateLimiter
from gatewayd.model import SimIdentity
from gatewayd.router.alerts import AlertGroup
from gatewayd.router.clocktrust import ClockTrust
from gatewayd.router.control import Control
from gatewayd.router.operations import Operations
from gatewayd.router.outbox import Outbox
from gatewayd.router.submission import Submitter
from gatewayd.spool.quota import SimQuota
from gatewayd.spool.reader import Reader
from gatewayd.spool.store import Store


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where to listen and what to take.

    `port` 0 takes any free one; `control_socket` "" opens none; `tls` None: without TLS;
    `kannel_path` "": Kannel's sendsms is not served.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    control_socket: str = ""
    trusted_networks: tuple[IpNetwork, ...] = ()
    trusted_proxies: tuple[IpNetwork, ...] = ()
    metrics_networks: tuple[IpNetwork, ...] = ()
    host_names: tuple[str, ...] = ()
    max_body_octets: int = 1 << 20
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0  # also for a request whose headers never end
    shutdown_timeout_s: float = 5.0
    max_connections: int = 1000
    tls: TlsFiles | None = None
    handshake_timeout_s: float = 10.0
    access_log: bool = True
    kannel_path: str = ""
    alert_groups: tuple[AlertGroup, ...] = ()


@dataclass(slots=True)
class HttpContext:
    """`keys` gives the API keys as they are now, so that a reload needs nothing here; `draining`: about to stop.

    `on_request` is told of each request that was answered: method, path template, status, seconds. `events` wakes the
    streams of events. `quota_of` is asked for the quota of a SIM in a channel ("": in none).
    """

    settings: HttpSettings
    submitter: Submitter
    store: Store
    reader: Reader
    control: Control
    keys: Callable[[], KeyRing]
    clock: Clock
    instance: str
    draining: Callable[[], bool] = lambda: False
    started_ms: int = 0
    on_request: Callable[[str, str, int, float], None] = lambda method, template, status, took_s: None
    events: EventHub = field(default_factory=EventHub)
    outbox: Outbox | None = None
    trust: ClockTrust | None = None
    quota_of: Callable[[SimIdentity, str], SimQuota] = lambda identity, channel: SimQuota()
    operations: Operations = field(init=False)
    authenticator: Authenticator = field(init=False)
    rates: RateLimiter = field(init=False)

    def __post_init__(self) -> None:
        self.started_ms = self.started_ms or self.clock.now_ms()
        settings = self.settings
        self.authenticator = Authenticator(
            self.keys, settings.trusted_networks, settings.trusted_proxies, self.clock, settings.host_names
        )
        self.rates = RateLimiter(self.keys, self.clock)
        self.operations = Operations(self.store, lambda: self.submitter.settings.channels)

    def clock_doubt(self) -> str:
        """Why the machine's clock is not believed; "" if it is."""
        return "" if self.trust is None else self.trust.doubt(self.clock.now_ms())


CONTEXT = web.AppKey("context", HttpContext)
