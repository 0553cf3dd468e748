"""The command line: puts the commands together, and imports of them only what is asked for."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from gatewayd import __version__

COMMANDS = {
    "run": "run:run",
    "demo": "run:demo",
    "check-config": "config:check_config",
    "send": "client:send",
    "messages": "messages:app",
    "operations": "operations:app",
    "explain": "client:explain",
    "status": "client:status",
    "channels": "channels:app",
    "sims": "sims:sims",
    "clock": "clock:app",
    "pause": "client:pause",
    "resume": "client:resume",
    "backup": "backup:backup",
    "restore": "backup:restore",
    "apikey": "config:apikey_app",
    "config": "config:app",
    "pdu": "pdu:app",
    "optout": "optout:app",
    "numbers": "numbers:app",
    "routes": "routes:app",
    "webhooks": "webhooks:app",
    "simulate": "simulate:simulate",
}
"""Where each command is, in `gatewayd.commands`: a function or a group of more commands."""


class LazyGroup(TyperGroup):
    """Imports a command's module when it is used: the daemon's libraries take longer to load than most commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(f"gatewayd.commands.{module}"), name)
        holder = typer.Typer(rich_markup_mode=None)
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=cmd_name)
        else:
            holder.command(cmd_name)(found)
        return get_group(holder).commands[cmd_name]


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it takes "[default: x]" for markup
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gatewayd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """An on-prem SMS gateway daemon for GSM hardware.

    Exit status: 0 done; 1 refused, failed or no daemon there; 2 wrong arguments or a faulty configuration.
    """


def main() -> None:
    """The console script."""
    _open_output()
    try:
        app()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        typer.echo(f"gatewayd: {os.strerror(errno.ENOSPC)}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in the buffer has nowhere to go
        sys.exit(1)


def _open_output() -> None:
    """A closed standard output is /dev/null; what its character set does not have becomes a question mark."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
