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

from gatewayd.errors import ConfigError, Fault
from gatewayd.http.context import CONTEXT, HttpContext, HttpSettings
from gatewayd.http.monitoring import PROBE, Probe
from gatewayd.http.problems import HttpProblem, internal_error, problems
from gatewayd.http.routes import ROUTES

log = logging.getLogger("gatewayd.http")

GROUP = "gatewayd"  # of the control socket
CONTROL_CONNECTIONS = 100
_BACKLOG = 1024
_LINGER_S = 2.0  # how long the rest of a refused body is read, so that the answer arrives


def build(context: HttpContext) -> web.Application:
    """The application: every route, and problems for all that goes wrong."""
    app = web.Application(middlewares=[problems], client_max_size=context.settings.max_body_octets)
    app[CONTEXT] = context
    app[PROBE] = Probe(context)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, route.handler)
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

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        if self._address is None:
            raise RuntimeError("the server was not started")
        return self._address

    async def start(self) -> None:
        """Listen. Raises ConfigError with what is wrong with the address or the socket."""
        settings = self._context.settings
        await self._app_runner.setup()
        try:
            if settings.control_socket:
                control = await self._runner(settings, CONTROL_CONNECTIONS)
                await web.SockSite(control, self._bind_control(Path(settings.control_socket))).start()
            public = await self._runner(settings, settings.max_connections)
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

    async def _runner(self, settings: HttpSettings, max_connections: int) -> web.ServerRunner:
        server = self._app_runner.server
        assert server is not None
        guarded = _Server(
            server,
            max_connections,
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
    """Makes the protocol of each connection; beyond `max_connections` one that says no."""

    def __init__(self, server: web.Server, max_connections: int, **options: Any) -> None:
        super().__init__(server.request_handler, request_factory=server.request_factory, **options)
        self._max_connections = max_connections
        self._options = options

    def __call__(self) -> web.RequestHandler:
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
            log.debug("no HTTP from %s: %s", request.remote, message)
            problem = HttpProblem(status, "malformed-request", "this is no HTTP request that can be understood")
        if request.writer.output_size > 0:
            raise ConnectionError("a part of another answer is sent already")
        response = problem.response()
        response.force_close()
        return response


class _Refusal(_Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.close()
        stream = cast(asyncio.Transport, transport)
        stream.write(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        stream.close()
