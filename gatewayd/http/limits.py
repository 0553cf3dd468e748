"""Bounds on what callers may do: messages per second of a key, and damping of those who have no key."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from gatewayd.apikeys import KeyRing, Rate
from gatewayd.clock import Clock
from gatewayd.http.problems import HttpProblem

log = logging.getLogger("gatewayd.http")

_ROUNDING = 1e-9  # of a message: what floating point may lose on the way

FAILURES = 10  # this many within the window begin an episode
WINDOW_S = 60.0
FIRST_DELAY_S = 15.0
MAX_DELAY_S = 300.0
REMEMBERED_S = 600.0  # an episode that follows another within this time begins where that one ended
MAX_PEERS = 10_000
_SWEEP_S = 1.0  # at most so often it is looked whose episode is over


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimiter:
    """A token bucket for each key with a rate; `keys` gives the keys as they are now.

    The bucket holds one second's worth (one message at least). An array that is larger than a full bucket is taken from
    a full one all the same, whose debt the next request then waits for: so every array passes in time, and over time
    no more than the rate does.
    """

    def __init__(self, keys: Callable[[], KeyRing], clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, name: str, messages: int) -> None:
        """Charge a key, all of it or nothing. Raises HttpProblem (429), with when it is worth trying again."""
        rate = self._rate(name)
        if rate is None or messages <= 0:
            return
        bucket = self._filled(name, rate)
        missing = min(float(messages), rate.burst) - bucket.tokens
        if missing > _ROUNDING:
            wait_s = max(1, math.ceil(missing / rate.per_s - _ROUNDING))
            detail = (
                f"this API key may send {rate.messages} messages per {'second' if rate.unit == 's' else 'minute'}; "
                f"nothing was kept, try again in {wait_s} s"
            )
            raise HttpProblem(429, "rate-limited", detail, headers={"Retry-After": str(wait_s)})
        bucket.tokens -= messages

    def give_back(self, name: str, messages: int) -> None:
        """What was charged was not kept after all."""
        bucket = self._buckets.get(name)
        if bucket is not None:
            bucket.tokens += messages

    def _rate(self, name: str) -> Rate | None:
        key = self._keys().named(name)
        return None if key is None else key.rate

    def _filled(self, name: str, rate: Rate) -> _Bucket:
        now = self._clock.monotonic()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(rate.burst, now)
        bucket.tokens = min(rate.burst, bucket.tokens + (now - bucket.at) * rate.per_s)
        bucket.at = now
        return bucket


@dataclass(slots=True)
class _Peer:
    """One address. `times` of its last failures; `until`: it is in an episode that ends then."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES - 1))
    until: float | None = None
    delay_s: float = 0.0
    ended: float = -math.inf
    refused: int = 0


class Damping:
    """Counts failed credentials by address and says from when on an address is only told to wait.

    It protects the log and the processor, not the keys, which nobody guesses; so a good key always passes, and this is
    not asked about it. Memory is bounded: beyond MAX_PEERS the address that failed longest ago is forgotten.
    `failures` and `refused` count since the start, for the metrics.
    """

    def __init__(self, clock: Clock) -> None:
        self.failures = 0
        self.refused = 0
        self._clock = clock
        self._peers: OrderedDict[str, _Peer] = OrderedDict()
        self._damped: dict[str, _Peer] = {}
        self._look_at = math.inf

    def failed(self, address: IPv4Address | IPv6Address | None) -> float | None:
        """Count a failure; the seconds this address has to wait, None where it may be told what was wrong."""
        now = self._clock.monotonic()
        self.settle(now)
        self.failures += 1
        name = peer_name(address)
        peer = self._peers.get(name)
        if peer is None:
            peer = self._add(name)
        self._peers.move_to_end(name)
        if peer.until is not None:
            peer.delay_s = min(MAX_DELAY_S, peer.delay_s * 2)
            peer.until = max(peer.until, now + peer.delay_s)
            peer.refused += 1
            self.refused += 1
            log.debug("another failed API key from %s", name)
            return peer.until - now
        if len(peer.times) < FAILURES - 1 or now - peer.times[0] >= WINDOW_S:
            peer.times.append(now)
            return None
        return self._begin(name, peer, now)

    def settle(self, now: float | None = None) -> None:
        """End the episodes whose time is over."""
        if self._look_at == math.inf:
            return
        now = self._clock.monotonic() if now is None else now
        if now < self._look_at:
            return
        for name, peer in list(self._damped.items()):
            if peer.until is not None and peer.until <= now:
                self._end(name, peer)
        earliest = min((peer.until or now for peer in self._damped.values()), default=math.inf)
        self._look_at = max(earliest, now + _SWEEP_S)

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._peers)

    def _add(self, name: str) -> _Peer:
        while len(self._peers) >= MAX_PEERS:
            oldest, forgotten = self._peers.popitem(last=False)
            if self._damped.pop(oldest, None) is not None:
                log.debug("%s is forgotten, %d further failures were refused", oldest, forgotten.refused)
        peer = self._peers[name] = _Peer()
        return peer

    def _begin(self, name: str, peer: _Peer, now: float) -> float:
        again = now - peer.ended < REMEMBERED_S
        peer.delay_s = min(MAX_DELAY_S, peer.delay_s * 2) if again else FIRST_DELAY_S
        peer.until = now + peer.delay_s
        peer.times.clear()
        peer.refused = 1
        self.refused += 1
        self._damped[name] = peer
        self._look_at = min(self._look_at, peer.until)
        log.warning(
            "%d requests with a bad API key within a minute from %s: it is answered 429 for a while (good keys pass)",
            FAILURES,
            name,
        )
        return peer.delay_s

    def _end(self, name: str, peer: _Peer) -> None:
        log.info("bad API keys from %s have ceased for now, %d requests were refused", name, peer.refused)
        peer.ended, peer.until = peer.until or 0.0, None
        del self._damped[name]


def peer_name(address: IPv4Address | IPv6Address | None) -> str:
    """Who counts as one: an IPv4 address, or the /64 an IPv6 host can choose its addresses from."""
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return "an unknown address" if address is None else str(address)
