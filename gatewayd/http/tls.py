"""TLS for the listener: a handshake of its own before each connection, and certificates that can be exchanged.

asyncio can listen with TLS by itself, but then nobody can count, bound or end the handshakes that are under way, and
its one context cannot be replaced: loading another certificate into it would leave the old one there if its key was of
another type (RSA, then ECDSA).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import cast

from gatewayd.config import TlsFiles
from gatewayd.config.certificates import server_context

log = logging.getLogger("gatewayd.http")

HANDSHAKE_TIMEOUT_S = 10.0
SHUTDOWN_TIMEOUT_S = 5.0  # how long a client may take to say goodbye
MAX_HANDSHAKES = 256  # under way at once; beyond them the oldest is given up, which is seldom one that means it


class TlsDoor:
    """What connections pass through. Raises ConfigError (paths `cert_file`, `key_file`) if the files are no good."""

    def __init__(self, files: TlsFiles, handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S) -> None:
        self.files = files
        self._context = server_context(files)
        self._timeout_s = handshake_timeout_s
        self._under_way: dict[asyncio.Task[None], None] = {}  # in order of arrival
        self._closed = False

    def reload(self, files: TlsFiles) -> None:
        """Serve new connections with other files. Raises ConfigError; then everything stays as it is."""
        self._context = server_context(files)
        self.files = files

    def protocol(self, make: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        """The protocol of a new connection: the handshake first, then the one that `make` gives."""
        return _Guest(self, make)

    async def close(self) -> None:
        """End the handshakes that are under way, and let nobody in any more."""
        self._closed = True
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def welcome(self, guest: _Guest, transport: asyncio.Transport) -> None:
        """Begin the handshake with a new connection."""
        if self._closed:
            transport.abort()
            return
        while len(self._under_way) >= MAX_HANDSHAKES:
            oldest = next(iter(self._under_way))
            del self._under_way[oldest]
            oldest.cancel()
        task = asyncio.get_running_loop().create_task(self._let_in(guest, transport), name="tls handshake")
        self._under_way[task] = None
        task.add_done_callback(lambda done: self._under_way.pop(done, None))

    async def _let_in(self, guest: _Guest, transport: asyncio.Transport) -> None:
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                guest,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._timeout_s,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            )
        except (OSError, ssl.SSLError) as error:
            log.debug("no TLS handshake with %s: %s", transport.get_extra_info("peername"), error)
            transport.abort()
        except asyncio.CancelledError:
            transport.abort()
            raise
        else:
            if secured is not None:  # None: the client left meanwhile
                guest.enter(secured)


class _Guest(asyncio.Protocol):
    """A connection until its handshake is done. Keeps what comes right behind the handshake for who is next."""

    def __init__(self, door: TlsDoor, make: Callable[[], asyncio.Protocol]) -> None:
        self._door = door
        self._make = make
        self._early: list[bytes] = []
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        stream.pause_reading()  # the handshake's octets are for the TLS layer, which is not there yet
        self._door.welcome(self, stream)

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True

    def enter(self, transport: asyncio.Transport) -> None:
        """The handshake is done: hand the connection over."""
        if self._lost or transport.is_closing():
            transport.abort()
            return
        protocol = self._make()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        for data in self._early:
            protocol.data_received(data)
        self._early.clear()
