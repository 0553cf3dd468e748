"""`gatewayd clock`: what the machine's clock reads, whether it is believed, and saying that it is right."""

from __future__ import annotations

import json
from typing import Any

import typer

from gatewayd.commands.client import ConfigOption, JsonOption, SocketOption, ask
from gatewayd.commands.control import Target
from gatewayd.commands.table import local, plain, zone

app = typer.Typer(invoke_without_command=True)


@app.callback()
def clock(
    context: typer.Context, as_json: JsonOption = False, socket: SocketOption = None, config: ConfigOption = None
) -> None:
    """Show the machine's clock and whether it is believed; say that it is right."""
    if context.invoked_subcommand is not None:
        return
    found = ask(Target(socket, config), "GET", "/api/v1/clock")
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"clock: {_moment(found['at'])}, {_synchronised(found)}")
    typer.echo(f"newest time in the spool: {_moment(found['newest']) or 'none'}")
    if found["accepted_at"] is not None:
        typer.echo(plain(f"said to be right by {found['accepted_by']}, when it read {_moment(found['accepted_at'])}"))
    typer.echo(plain(f"NOT trusted: {found['doubt']}" if found["doubt"] else "trusted"))


@app.command("accept")
def clock_accept(socket: SocketOption = None, config: ConfigOption = None) -> None:
    """Say that the clock is right; look at it first.

    What waits because of a doubt goes on. Times in the spool that are later than the clock count no more.
    """
    found = ask(Target(socket, config), "POST", "/api/v1/clock/accept")
    typer.echo(f"the clock is trusted as it is: {_moment(found['at'])}")


def _moment(moment: str | None) -> str:
    """With the date, also if it is of today: it may be the wrong one."""
    return f"{local(moment, dated=True)} {zone()}" if moment else ""


def _synchronised(found: dict[str, Any]) -> str:
    words = {True: "set by a time service", False: "set by NO time service", None: "nobody knows whether it was set"}
    return words[found["synchronised"]]
