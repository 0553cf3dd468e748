"""How commands reach the running daemon: its HTTP API over the control socket.

The standard library's client: it is there in an instant, and one request after the other is all that is needed.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import typer

from gatewayd.errors import ConfigError

if TYPE_CHECKING:
    from gatewayd.config import Config  # slow to import, and most commands can do without

DEFAULT_CONFIG = Path("/etc/gatewayd/gatewayd.yaml")  # as in gatewayd.config
DEFAULT_SOCKET = Path("/run/gatewayd/control.sock")
SOCKET_VARIABLE = "GATEWAYD_SOCKET"
LIMIT_S = 30


class DaemonDown(Exception):
    """Nobody answers at the control socket."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a command is to look: the options it was given."""

    socket: Path | None = None
    config: Path | None = None

    def configuration(self) -> Config | None:
        """The configuration, if there is one; only if it was asked for do its faults end the command."""
        if self.config is None and not os.path.exists(DEFAULT_CONFIG):  # noqa: PTH110 (Path.exists may raise)
            return None
        from gatewayd.commands.config import EXIT_CONFIG, fault_line
        from gatewayd.config import load

        path = self.config or DEFAULT_CONFIG
        try:
            return load(path)
        except ConfigError as error:
            if self.config is None:
                return None
            for fault in error.faults:
                typer.echo(fault_line(path, fault), err=True)
            raise typer.Exit(EXIT_CONFIG) from None

    def socket_path(self) -> Path:
        """--socket, the socket of --config, $GATEWAYD_SOCKET, the installed gateway's, that of this user's demo."""
        if (named := self._named_socket()) is not None:
            return named
        config = self.configuration()
        if config is not None:
            return config.gateway.control_socket
        installed = os.path.lexists(DEFAULT_CONFIG.parent) or os.path.lexists(DEFAULT_SOCKET)
        link = None if installed else demo_link()
        return link if link is not None and link.is_symlink() else DEFAULT_SOCKET

    def spool_configuration(self) -> Config | None:
        """The configuration whose spool is that of the daemon meant; None if nothing says which one that is."""
        return None if self._named_socket() is not None and self.config is None else self.configuration()

    def _named_socket(self) -> Path | None:
        if self.socket is not None:
            return self.socket
        variable = os.environ.get(SOCKET_VARIABLE)
        return Path(variable) if variable and self.config is None else None


def demo_link(*, make: bool = False) -> Path | None:
    """Where `gatewayd demo` leaves a link to its control socket; None if that folder is not safely this user's.

    Others can make folders where temporary files go: in one of theirs nothing is believed and nothing is put.
    """
    folder = Path(tempfile.gettempdir()) / f"gatewayd-demo-{os.getuid()}"
    try:
        if make:
            folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder / "control.sock" if ours else None


def call(
    target: Target,
    method: str,
    path: str,
    *,
    params: dict[str, Any] | None = None,
    body: Any = None,
    limit_s: float | None = None,
) -> Any:
    """One request; returns the decoded answer. `limit_s`: how long the daemon may say nothing (None: LIMIT_S).

    Raises DaemonDown if nobody listens. What the daemon refuses is printed, and ends the command with exit status 1.
    """
    address = target.socket_path()
    limit_s = limit_s or LIMIT_S
    wanted = urlencode({name: value for name, value in (params or {}).items() if value is not None})
    try:
        status, text = _request(address, method, f"{path}?{wanted}" if wanted else path, body, limit_s)
    except PermissionError:
        raise _failed(f"{address}: permission denied: be root or in the group gatewayd") from None
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise DaemonDown(f"no daemon answers at {address}") from None
    except TimeoutError:
        raise _failed(f"the daemon at {address} did not answer within {limit_s:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise _failed(f"{address}: {getattr(error, 'strerror', None) or error or 'no answer'}") from None
    try:
        answer = json.loads(text)
    except ValueError:
        raise _failed(f"what answers at {address} is no gatewayd") from None
    if status >= 400:
        raise _failed(_problem(answer, status))
    return answer


def _request(address: Path, method: str, path: str, body: Any, limit_s: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("gatewayd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(limit_s)
        stream.connect(str(address))
        connection.sock = stream
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        response = connection.getresponse()
        return response.status, response.read()


def _failed(reason: str) -> typer.Exit:
    typer.echo(reason, err=True)
    return typer.Exit(1)


def _problem(answer: Any, status: int) -> str:
    """An RFC 9457 problem in words."""
    if not isinstance(answer, dict):
        return f"refused with status {status}"
    faults = [f"{fault.get('field')}: {fault.get('reason')}" for fault in answer.get("errors", [])]
    return "; ".join(faults) or str(answer.get("detail") or answer.get("title") or f"refused with status {status}")
