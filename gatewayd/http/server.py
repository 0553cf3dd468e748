"""The HTTP server: one application on a TCP address and on the control socket."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import socket
import stat
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from gatewayd import metrics
from gatewayd.config import TlsFiles
from gatewayd.config.certificates import try_out
from gatewayd.errors import ConfigError, Fault
from gatewayd.http.access import access, expectation, on_prepare, record_malformed, secure
from gatewayd.http.context import CONTEXT, HttpContext, HttpSettings
from gatewayd.http.metrics import SCRAPE, Scrape
from gatewayd.http.monitoring import PROBE, Probe
from gatewayd.http.problems import HttpProblem, internal_error, problems
from gatewayd.http.routes import ROUTES, in_force
from gatewayd.http.tls import TlsDoor

log = logging.getLogger("gatewayd.http")

GROUP = "gatewayd"  # of the control socket
CONTROL_CONNECTIONS = 100
_BACKLOG = 1024
_LINGER_S = 2.0  # how long the rest of a refused body is read, so that the answer arrives


def build(context: HttpContext) -> web.Application:
    """The application: every route, and problems for all that goes wrong."""
    app = web.Application(middlewares=[access, problems], client_max_size=context.settings.max_body_octets)
    app[CONTEXT] = context
    app[PROBE] = Probe(context)
    app.on_response_prepare.append(on_prepare)
    app[SCRAPE] = Scrape(context, app[PROBE])
    app.cleanup_ctx.append(app[SCRAPE].running)
    for route in in_force(ROUTES, context.settings.kannel_path):
        app.router.add_route(route.method, route.path, route.handler, expect_handler=expectation)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, route.handler)
    return app


class Server:
    """Listens from `start()` to `stop()`."""

    def __init__(self, context: HttpContext) -> None:
        self._context = context
        self._app_runner = web.AppRunner(build(context), access_log=None)
        self._runners: list[web.ServerRunner] = []
        self._control: tuple[Path, int] | None = None  # path and inode of the socket that is ours
        self._address: tuple[str, int] | None = None
        self._door: TlsDoor | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        if self._address is None:
            raise RuntimeError("the server was not started")
        return self._address

    async def start(self) -> None:
        """Listen. Raises ConfigError with what is wrong with the address, the socket or the certificate."""
        settings = self._context.settings
        if settings.tls is not None:
            self._door = _door(settings.tls, settings.handshake_timeout_s)
            _show_expiry(settings.tls)
        await self._app_runner.setup()
        try:
            if settings.control_socket:
                control = await self._runner(settings, CONTROL_CONNECTIONS)
                await web.SockSite(control, self._bind_control(Path(settings.control_socket))).start()
            public = await self._runner(settings, settings.max_connections, self._door)
            site = web.TCPSite(public, settings.host, settings.port, backlog=_BACKLOG)
            try:
                await site.start()
            except OSError as error:
                where = f"{settings.host}:{settings.port}"
                raise ConfigError(
                    [Fault("http.listen", f"cannot listen on {where}: {os.strerror(error.errno or 0)}")]
                ) from error
            host, port = public.addresses[0][:2]
            self._address = (host, port)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Take no more connections, finish what is being answered (within the shutdown timeout), close."""
        self._context.events.close()
        if self._door is not None:
            await self._door.close()
        for runner in reversed(self._runners):
            await runner.cleanup()
        self._runners.clear()
        await self._app_runner.cleanup()
        if self._control is not None:
            path, inode = self._control
            self._control = None
            try:
                if path.stat().st_ino == inode:
                    path.unlink()
            except OSError as error:
                log.debug("the control socket %s is not removed: %s", path, error)

    def reload_tls(self, files: TlsFiles | None = None) -> bool:
        """Read the certificate again, or others (`files`); connections that are there go on with what they have.

        False, and the reasons in the log, if it cannot be used: the old one then stays.
        """
        if self._door is None:
            if files is not None:
                log.error("http.tls: is set now, which takes effect at the next start: restart gatewayd")
            return files is None
        files = files or self._door.files
        try:
            self._door.reload(files)
        except ConfigError as error:
            for fault in error.faults:
                log.error("http.tls.%s: %s: %s; the old certificate stays", fault.path, error.source, fault.reason)
            return False
        _show_expiry(files)
        log.info("the TLS certificate %s is in use from now on", files.cert_file)
        return True

    async def _runner(
        self, settings: HttpSettings, max_connections: int, door: TlsDoor | None = None
    ) -> web.ServerRunner:
        server = self._app_runner.server
        assert server is not None
        guarded = _Server(
            server,
            self._context,
            max_connections,
            door,
            keepalive_timeout=settings.idle_timeout_s,
            lingering_time=_LINGER_S,
            auto_decompress=False,
            access_log=None,
        )
        runner = web.ServerRunner(guarded, shutdown_timeout=settings.shutdown_timeout_s)
        await runner.setup()
        self._runners.append(runner)
        return runner

    def _bind_control(self, path: Path) -> socket.socket:
        """A socket at `path`, mode 0660, that nobody can connect to before it has its mode."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _remove_stale(path)
            listener.bind(str(path))
            path.chmod(0o660)
            try:
                os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
            except (KeyError, PermissionError):
                log.debug("the control socket stays with its own group: no group %s, or not one of ours", GROUP)
            self._control = (path, path.stat().st_ino)
        except OSError as error:
            listener.close()
            reason = error.strerror or str(error)
            raise ConfigError([Fault("gateway.control_socket", f"cannot listen on {path}: {reason}")]) from error
        except BaseException:
            listener.close()
            raise
        return listener


def _door(files: TlsFiles, handshake_timeout_s: float) -> TlsDoor:
    try:
        return TlsDoor(files, handshake_timeout_s)
    except ConfigError as error:
        faults = [Fault(f"http.tls.{fault.path}", f"{error.source}: {fault.reason}") for fault in error.faults]
        raise ConfigError(faults) from error


def _show_expiry(files: TlsFiles) -> None:
    try:
        metrics.certificate(try_out(files).not_after)
    except ConfigError as error:  # it is loaded, so only the files have changed since
        log.debug("the certificate's expiry cannot be told: %s", error)


def _remove_stale(path: Path) -> None:
    """Remove the socket of a daemon that is gone. Raises ConfigError if it is something else, or in use."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError([Fault("gateway.control_socket", f"{path} is there and is no socket; it is left alone")])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        except BlockingIOError:
            raise ConfigError([Fault("gateway.control_socket", f"{path} is in use by another daemon")]) from None
        else:
            raise ConfigError([Fault("gateway.control_socket", f"{path} is in use by another daemon")])


class _Server(web.Server):
    """Makes the protocol of each connection; beyond `max_connections` one that says no. With a `door`: behind it."""

    def __init__(
        self,
        server: web.Server,
        context: HttpContext,
        max_connections: int,
        door: TlsDoor | None,
        **options: Any,
    ) -> None:
        super().__init__(server.request_handler, request_factory=server.request_factory, **options)
        self.context = context
        self._max_connections = max_connections
        self._door = door
        self._options = options

    def __call__(self) -> web.RequestHandler:
        if self._door is not None:
            # asyncio asks for any protocol; aiohttp's signature promises its own.
            return cast(web.RequestHandler, self._door.protocol(self._made))
        return self._made()

    def _made(self) -> web.RequestHandler:
        kind = _Protocol if len(self.connections) < self._max_connections else _Refusal
        return kind(self, loop=asyncio.get_running_loop(), **self._options)


class _Protocol(web.RequestHandler):
    """aiohttp's, but for how it answers what is no HTTP: a problem, and no traceback in the log."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            log.error("a request failed outside its handler", exc_info=exc)
            problem = internal_error()
        else:
            first, _, _ = (message or "").partition("\n")  # what follows shows what was sent, which may be a secret
            log.debug("no HTTP from %s: %s", request.remote, first)
            problem = HttpProblem(status, "malformed-request", "this is no HTTP request that can be understood")
        if request.writer.output_size > 0:
            raise ConnectionError("a part of another answer is sent already")
        if isinstance(self._manager, _Server):
            record_malformed(self._manager.context, request.remote or "", problem.status)
        response = problem.response()
        secure(response.headers, request.secure)
        response.force_close()
        return response


class _Refusal(_Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.close()
        stream = cast(asyncio.Transport, transport)
        stream.write(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nCache-Control: no-store\r\n"
            b"X-Content-Type-Options: nosniff\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        stream.close()
