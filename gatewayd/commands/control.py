"""How commands reach the running daemon: its HTTP API over the control socket."""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import typer

from gatewayd.config import DEFAULT_PATH, Config, load
from gatewayd.errors import ConfigError

DEFAULT_SOCKET = Path("/run/gatewayd/control.sock")
LIMIT_S = 30


class DaemonDown(Exception):
    """Nobody answers at the control socket."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a command is to look: the options it was given."""

    socket: Path | None = None
    config: Path | None = None

    def configuration(self) -> Config | None:
        """The configuration, if there is one; its faults do not keep a command from working."""
        path = self.config or DEFAULT_PATH
        if self.config is None and not path.exists():
            return None
        try:
            return load(path)
        except ConfigError as error:
            if self.config is None:
                return None
            for fault in error.faults:
                typer.echo(f"{path}: {fault}", err=True)
            raise typer.Exit(2) from None

    def socket_path(self) -> Path:
        """--socket, $GATEWAYD_SOCKET, the configuration's, the packaged one, that of this user's demo."""
        if self.socket is not None:
            return self.socket
        if "GATEWAYD_SOCKET" in os.environ:
            return Path(os.environ["GATEWAYD_SOCKET"])
        config = self.configuration()
        path = DEFAULT_SOCKET if config is None else config.gateway.control_socket
        if self.config is None and not path.exists() and demo_socket().exists():
            return demo_socket()
        return path


def demo_socket() -> Path:
    """Where `gatewayd demo` leaves a link to its control socket."""
    return Path(tempfile.gettempdir()) / f"gatewayd-demo-{os.getuid()}" / "control.sock"


def call(target: Target, method: str, path: str, *, params: dict[str, Any] | None = None, body: Any = None) -> Any:
    """One request; returns the decoded answer.

    Raises DaemonDown if nobody listens. What the daemon refuses is printed, and ends the command with exit status 1.
    """
    status, answer = asyncio.run(_call(target.socket_path(), method, path, params, body))
    if status < 400:
        return answer
    typer.echo(_problem(answer, status), err=True)
    raise typer.Exit(1)


async def _call(socket: Path, method: str, path: str, params: dict[str, Any] | None, body: Any) -> tuple[int, Any]:
    wanted = {name: str(value) for name, value in (params or {}).items() if value is not None}
    connector = aiohttp.UnixConnector(str(socket))
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://gatewayd{path}", params=wanted, json=body) as response,
        ):
            return response.status, await response.json(content_type=None)
    except PermissionError as error:
        typer.echo(f"{socket}: permission denied: be root or in the group gatewayd", err=True)
        raise typer.Exit(1) from error
    except (aiohttp.ClientConnectorError, FileNotFoundError, ConnectionRefusedError) as error:
        if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, PermissionError):
            typer.echo(f"{socket}: permission denied: be root or in the group gatewayd", err=True)
            raise typer.Exit(1) from error
        raise DaemonDown(f"no daemon answers at {socket}") from error
    except TimeoutError:
        typer.echo(f"the daemon at {socket} did not answer within {LIMIT_S} s", err=True)
        raise typer.Exit(1) from None


def _problem(answer: Any, status: int) -> str:
    """An RFC 9457 problem in words."""
    if not isinstance(answer, dict):
        return f"refused with status {status}"
    faults = [f"{fault.get('field')}: {fault.get('reason')}" for fault in answer.get("errors", [])]
    return "; ".join(faults) or str(answer.get("detail") or answer.get("title") or f"refused with status {status}")
