"""Looks host names up, and lets through only addresses that may be called.

The check is of the addresses that are then connected to, for nothing is looked up in between: a name that changes what
it stands for (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from aiohttp.abc import AbstractResolver, ResolveResult

from gatewayd.config.destinations import Reach, check_url, named_address


class ForbiddenTarget(Exception):
    """The address must not be called. Not an OSError, which would be taken for trouble of the network."""


def check_target(url: str, reach: Reach) -> None:
    """Raises ForbiddenTarget if `url` is none that may be called, as far as it can be told without a look-up."""
    try:
        check_url(url)
    except ValueError as error:
        raise ForbiddenTarget(f"this URL cannot be called: {error}") from None
    address = named_address(url)
    refusal = "" if address is None else reach.refusal(address)
    if refusal:
        raise ForbiddenTarget(_sentence(refusal))


class Resolver(AbstractResolver):
    """The system's resolver, in threads of our own: names that never resolve keep nobody else waiting.

    Raises OSError if there is no such name, ForbiddenTarget if none of its addresses may be called.
    """

    def __init__(self, reach: Reach, threads: ThreadPoolExecutor) -> None:
        self._reach = reach
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        )
        allowed: list[ResolveResult] = []
        refusals: list[str] = []
        for kind, _, protocol, _, address in found:
            name = str(address[0])
            refusal = self._reach.refusal(ip_address(name.partition("%")[0]))
            if refusal:
                refusals.append(refusal)
                continue
            allowed.append(
                ResolveResult(
                    hostname=host,
                    host=name,
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        if not allowed:
            raise ForbiddenTarget(_sentence("; ".join(dict.fromkeys(refusals)) or f"{host} has no address"))
        return allowed

    async def close(self) -> None:
        """Nothing to do: the threads are the owner's."""


def _sentence(refusal: str) -> str:
    return f"not called: {refusal}, and those are not allowed (webhooks[].allow_private, http.callbacks)"
