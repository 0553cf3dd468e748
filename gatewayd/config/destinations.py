"""Where the gateway may call to: what a URL must look like, and which addresses are on nobody's public internet.

A URL that a caller gives us is called from inside the network the gateway stands in, so an address that only means
something there is refused unless it is allowed (server-side request forgery).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

from gatewayd.config.addresses import IpNetwork
from gatewayd.config.units import Format

MAX_URL = 2048  # characters

IpAddress = IPv4Address | IPv6Address

_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
_CGNAT = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598
# Addresses that lead to an IPv4 address: prefix, and the octet at which that begins.
_EMBEDDING = (
    (ipaddress.ip_network("::/96"), 12),  # IPv4-compatible, RFC 4291 §2.5.5.1 (deprecated)
    (ipaddress.ip_network("::ffff:0:0/96"), 12),  # IPv4-mapped, RFC 4291 §2.5.5.2
    (ipaddress.ip_network("::ffff:0:0:0/96"), 12),  # IPv4-translated, RFC 2765
    (ipaddress.ip_network("64:ff9b::/96"), 12),  # NAT64, RFC 6052
    (ipaddress.ip_network("64:ff9b:1::/48"), 12),  # NAT64 of the local network, RFC 8215
    (ipaddress.ip_network("2002::/16"), 2),  # 6to4, RFC 3056
)


@dataclass(frozen=True, slots=True)
class Reach:
    """Which addresses may be called besides the public ones.

    `private`: those of this machine and of private networks. `networks`: those in one of these, whatever they are.
    """

    private: bool = False
    networks: tuple[IpNetwork, ...] = ()

    def refusal(self, address: IpAddress) -> str:
        """Why `address` must not be called; "" if it may."""
        if any(address in network for network in self.networks):
            return ""
        kind = kind_of(address)
        if not kind or (self.private and kind in _PRIVATE):
            return ""
        return f"{address} is {kind}"


_PRIVATE = ("a loopback address", "a link-local address", "a private address")


def kind_of(address: IpAddress) -> str:
    """What keeps an address from being a public one, in words; "" if it is one.

    An address that leads to an IPv4 address (mapped, NAT64, 6to4) is what that one is.
    """
    if isinstance(address, IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return kind_of(inner)
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if isinstance(address, IPv6Address):
        if address.is_site_local or address in ipaddress.ip_network("fc00::/7"):
            return "a private address"
    elif address in _CGNAT or any(address in network for network in _RFC1918):
        return "a private address"
    return "" if address.is_global and not address.is_reserved else "a reserved address"


_RFC1918 = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if int(address) <= 1:  # :: and ::1 are themselves
        return None
    for network, octet in _EMBEDDING:
        if address in network:
            return IPv4Address(address.packed[octet : octet + 4])
    return address.teredo[1] if address.teredo is not None else None


def named_address(url: str) -> IpAddress | None:
    """The address a URL stands for without anybody's being asked; None where there is a host name to look up."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return IPv4Address("127.0.0.1")  # RFC 6761 §6.3
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def check_url(url: str) -> None:
    """Raises ValueError with what would be right if `url` is none that events can be posted to."""
    if len(url) > MAX_URL:
        raise ValueError(f"it has {len(url)} characters, at most {MAX_URL} are allowed")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("a URL has only ASCII characters and no spaces: write others as %-escapes, names as xn--…")
    expected = "http://HOST/… or https://HOST/… is expected"
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname
    except ValueError:
        raise ValueError(f"it is no URL: {expected}") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError(expected)
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ValueError("it holds a user name or password, which others would see: requests are signed instead")
    if parts.fragment or url.endswith("#"):
        raise ValueError("it has a fragment (#…), which is never sent: remove it")
    if _is_odd_address(host):
        raise ValueError("an IPv4 address is written as four decimal numbers, such as 192.0.2.1")
    if port == 0 or "%" in parts.netloc:
        raise ValueError(f"no such host or port is possible: {expected}")


def _is_odd_address(host: str) -> bool:
    """Whether a host is an IPv4 address to the C library, and none to us: 127.1, 2130706433, 0x7f.1, 0177.0.0.1.

    Such a host ends in a number, as no name does. Source: URL Standard §3.5, "ends in a number"; inet_aton(3).
    """
    last = host.rstrip(".").rpartition(".")[2]
    return ":" not in host and _NUMBER.fullmatch(last) is not None and named_address(f"//{host}") is None


@dataclass(frozen=True)
class CallUrl(Format):
    """A URL that events are posted to."""

    wording = "http://HOST/… or https://HOST/…"

    def parse(self, value: object) -> str:
        text = self.text(value)
        check_url(text)
        return str(text)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "format": "uri", "pattern": "^https?://", "maxLength": MAX_URL}
