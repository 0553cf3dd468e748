"""Who is asking: the peer's uid on the control socket, an API key, or an address in a trusted network."""

from __future__ import annotations

import base64
import binascii
import math
import pwd
import socket
import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import web

from gatewayd.apikeys import ApiKey, KeyRing, Scope
from gatewayd.clock import Clock, SystemClock
from gatewayd.http.limits import Damping
from gatewayd.http.problems import HttpProblem
from gatewayd.model import InDoubtPolicy
from gatewayd.router.submission import Caller
from gatewayd.spool.usage import SegmentLimits

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

CHALLENGE = 'Bearer realm="gatewayd", Basic realm="gatewayd", charset="UTF-8"'
TRUSTED_SCOPES = frozenset({Scope.SEND, Scope.READ})  # who steers the gateway has a name
_PEER_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what they may do. `local`: over the control socket."""

    caller: Caller
    scopes: frozenset[Scope]
    local: bool = False

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


PRINCIPAL = web.RequestKey("principal", Principal)
"""Who asks, once `Authenticator.require` knows; for the access log."""


class Authenticator:
    """Tells who sends a request. `keys` gives the keys as they are now. `damping` counts those who have none.

    `host_names`: by which names of ours a trusted network may read without a key, besides addresses, localhost and the
    machine's own name; None: by any.
    """

    def __init__(
        self,
        keys: Callable[[], KeyRing],
        trusted_networks: Sequence[IpNetwork] = (),
        trusted_proxies: Sequence[IpNetwork] = (),
        clock: Clock | None = None,
        host_names: Collection[str] | None = None,
    ) -> None:
        self._keys = keys
        self.configure(trusted_networks, trusted_proxies, host_names)
        self.damping = Damping(clock or SystemClock())

    def configure(
        self,
        trusted_networks: Sequence[IpNetwork],
        trusted_proxies: Sequence[IpNetwork],
        host_names: Collection[str] | None = None,
    ) -> None:
        """Trust others from now on."""
        self._networks, self._proxies = tuple(trusted_networks), tuple(trusted_proxies)
        own = {"localhost", socket.gethostname().lower()}
        self._names = None if host_names is None else own | {name.lower().rstrip(".") for name in host_names}

    def require(self, request: web.Request, scope: Scope) -> Principal:
        """Who asks. Raises HttpProblem: 401 if nobody knows (429 if it was tried too often), 403 if they may not."""
        self.damping.settle()
        principal = self._principal(request)
        request[PRINCIPAL] = principal
        if not principal.allows(scope):
            raise HttpProblem(403, "forbidden", f"{principal.caller.name} has not the scope {scope.value!r}")
        return principal

    def _principal(self, request: web.Request) -> Principal:
        transport = request.transport
        peer = None if transport is None else transport.get_extra_info("socket")
        if peer is not None and peer.family == socket.AF_UNIX:
            return _local(peer)
        try:
            secret = _secret(request)
            if secret is not None:
                key = self._keys().find(secret)
                if key is None:
                    raise _unauthenticated("the API key is not known")
                return _of_key(key)
        except HttpProblem as problem:
            raise self._failed(request, problem) from None
        if self._networks and peer is not None and "Origin" not in request.headers:
            # With an Origin it is a web page that asks, through the browser of somebody who is trusted.
            client = self.client(request)
            if client is not None and _within(client, self._networks):
                self._check_host(request)
                return Principal(Caller(f"host {client}"), TRUSTED_SCOPES)
        raise _unauthenticated("an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY")

    def _check_host(self, request: web.Request) -> None:
        """A web page can make its own name stand for our address, and then read us through the browser of somebody who
        is trusted (DNS rebinding): what it asks for still has its name in it. Sending tells its Origin anyway.
        """
        if self._names is None or request.method not in {"GET", "HEAD"}:
            return
        host = request.headers.get("Host", "")
        name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.rpartition(":")[0] or host
        if not name or name.lower().rstrip(".") in self._names or _address(host) is not None:
            return
        raise _unauthenticated(
            f"by the name {name[:64]!r} an API key is needed; without one use an address, or list it in http.host_names"
        )

    def _failed(self, request: web.Request, problem: HttpProblem) -> HttpProblem:
        """What credentials that are no good are answered: what is wrong with them, or to wait."""
        wait_s = self.damping.failed(self.client(request) or _address(request.remote or ""))
        if wait_s is None:
            return problem
        detail = f"too many bad API keys came from this address; a good one is taken at any time ({problem.detail})"
        return HttpProblem(429, "too-many-failures", detail, headers={"Retry-After": str(math.ceil(wait_s))})

    def client(self, request: web.Request) -> IpAddress | None:
        """The address that counts for trust; None if it cannot be told for sure.

        It is the TCP peer's. Only what a trusted proxy forwards counts as coming from somewhere else, and of what it
        says only the part that no client can have written.
        """
        peer = _address(request.remote or "")
        names = {name.lower() for name in request.headers}
        marks = {name for name in names if name.startswith("x-forwarded-") or name in {"forwarded", "x-real-ip"}}
        if peer is None or not marks:
            return peer
        if not _within(peer, self._proxies) or "x-forwarded-for" not in marks or "forwarded" in marks:
            return None
        hops = [hop.strip() for value in request.headers.getall("X-Forwarded-For") for hop in value.split(",")]
        client: IpAddress | None = None
        for hop in reversed(hops):
            client = _address(hop)
            if client is None or not _within(client, self._proxies):
                break
        return client


def _local(peer: socket.socket) -> Principal:
    """Whoever may open the control socket may do all; the kernel says who it is."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, uid, _ = _PEER_CREDENTIALS.unpack(credentials)
    name = _user(uid)
    return Principal(Caller(name, may_resend=True), frozenset(Scope), local=True)


@lru_cache(maxsize=1000)  # a look-up may go over the network
def _user(uid: int) -> str:
    try:
        return f"uid {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"uid {uid}"


def _of_key(key: ApiKey) -> Principal:
    in_doubt = InDoubtPolicy.RESEND if key.in_doubt_resend else None
    limits = SegmentLimits(key.segments_per_hour, key.segments_per_day) if key.limits() else None
    caller = Caller(key.name, may_resend=key.in_doubt_resend, in_doubt=in_doubt, limits=limits)
    return Principal(caller, key.scopes)


def _secret(request: web.Request) -> str | None:
    """The key as sent: Bearer, the password of Basic (for senders that know nothing else), or X-API-Key."""
    authorization = request.headers.get("Authorization")
    if authorization is None:
        return request.headers.get("X-API-Key")
    scheme, _, credentials = authorization.strip().partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer" and credentials:
        return credentials
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(credentials, validate=True).decode()
        except (binascii.Error, ValueError):
            raise _unauthenticated("the Authorization header is no Basic credentials") from None
        return decoded.partition(":")[2]
    raise _unauthenticated("the Authorization header is neither Bearer nor Basic")


def _unauthenticated(detail: str) -> HttpProblem:
    return HttpProblem(401, "unauthenticated", detail, headers={"WWW-Authenticate": CHALLENGE})


def _address(text: str) -> IpAddress | None:
    """An address, perhaps with a port ("10.0.0.1:80", "[::1]:80"); None if it is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _within(address: IpAddress, networks: Sequence[IpNetwork]) -> bool:
    return any(address in network for network in networks)
