"""`gatewayd channels pause|drain|resume`: what a channel may take. The list itself is in `client.py`."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from gatewayd.commands.client import ConfigOption, SocketOption, ask
from gatewayd.commands.client import channels_app as app
from gatewayd.commands.control import Target
from gatewayd.commands.table import plain

__all__ = ["app"]

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The channel.")]
_Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for those who come after you.")]


@app.command("pause")
def channels_pause(name: _Name, reason: _Reason = "", socket: SocketOption = None, config: ConfigOption = None) -> None:
    """Let a channel take nothing more until `resume`, over restarts too. What it has in hand is finished."""
    _set(Target(socket, config), name, "pause", reason)


@app.command("drain")
def channels_drain(name: _Name, reason: _Reason = "", socket: SocketOption = None, config: ConfigOption = None) -> None:
    """Let a channel finish the messages begun on its SIM, and take no others: before its SIM is taken out."""
    _set(Target(socket, config), name, "drain", reason)


@app.command("resume")
def channels_resume(
    name: _Name, reason: _Reason = "", socket: SocketOption = None, config: ConfigOption = None
) -> None:
    """Let a channel work again."""
    _set(Target(socket, config), name, "resume", reason)


def _set(target: Target, name: str, word: str, reason: str) -> None:
    answer = ask(target, "POST", f"/api/v1/channels/{quote(name, safe='')}/{word}", body={"reason": reason})
    typer.echo(plain(f"{name}: {answer['mode_reason'] or 'works'}"))
