"""Commands that speak to the running daemon: send, messages, explain, channels, pause, resume."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from gatewayd.clock import SystemClock
from gatewayd.commands.control import DaemonDown, Target, call
from gatewayd.errors import SpoolError
from gatewayd.http import views
from gatewayd.model import MessageState
from gatewayd.spool.reader import Reader

T = TypeVar("T")

PIPE_WIDTH = 240

SocketOption = Annotated[
    Path | None, typer.Option("--socket", metavar="PATH", help="The daemon's control socket [env: GATEWAYD_SOCKET].")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="The configuration, to find daemon and spool by.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]

STATES = {state: state.name.lower().replace("_", " ") for state in MessageState}

channels_app = typer.Typer(help="The channels: what they are doing.", invoke_without_command=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command("send")(send)
    app.command("messages")(messages)
    app.command("explain")(explain)
    app.add_typer(channels_app, name="channels")
    app.command("pause")(pause)
    app.command("resume")(resume)


def send(
    number: Annotated[str, typer.Argument(help="Whom to.")],
    text: Annotated[str, typer.Argument(help="What.")],
    channel: Annotated[str | None, typer.Option(help="By this channel only.")] = None,
    class_: Annotated[str | None, typer.Option("--class", help="application, alert, agent or campaign.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 9999, larger first.")] = None,
    campaign: Annotated[str | None, typer.Option(help="A label.")] = None,
    client_ref: Annotated[str | None, typer.Option(help="Your own reference.")] = None,
    not_before: Annotated[str | None, typer.Option(help="Not before this time (RFC 3339).")] = None,
    expires_at: Annotated[str | None, typer.Option(help="Not after this time (RFC 3339).")] = None,
    in_doubt: Annotated[str | None, typer.Option(help="fail, hold or resend.")] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Ask for a delivery report.")] = True,
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Put a message into the spool. Prints its idm once it is on disk."""
    body = {
        "to": number,
        "text": text,
        "channel": channel,
        "class": class_,
        "priority": priority,
        "campaign": campaign,
        "client_ref": client_ref,
        "not_before": not_before,
        "expires_at": expires_at,
        "in_doubt": in_doubt,
        "report": report,
    }
    given = {name: value for name, value in body.items() if value is not None}
    answer = _daemon(Target(socket, config), "POST", "/api/v1/messages", body=given)
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        segments = answer["segments"]
        typer.echo(f"{answer['idm']} to {answer['to']} ({segments} segment{'s' * (segments != 1)})")


def messages(
    state: Annotated[str | None, typer.Option(help="Only this state: a number or a name.")] = None,
    client_ref: Annotated[str | None, typer.Option(help="Only this reference of yours.")] = None,
    after: Annotated[int | None, typer.Option(help="Those after this idm, in order; else the newest.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Show messages, the newest last."""
    order = "desc" if after is None else "asc"
    params = {"state": state, "client_ref": client_ref, "after": after, "limit": limit, "order": order}

    async def offline(reader: Reader) -> list[dict[str, Any]]:
        found = await reader.messages(
            after=after, limit=limit, state=_state(state), client_ref=client_ref, descending=after is None
        )
        return [views.message(message) for message in found]

    target = Target(socket, config)
    try:
        items = call(target, "GET", "/api/v1/messages", params=params)["items"]
    except DaemonDown as error:
        items = _offline(target, error, offline)
    if after is None:
        items.reverse()
    if as_json:
        for item in items:
            typer.echo(json.dumps(item))
        return
    table = _table("idm", "to", "state", "delivery", "segments", "channel", "accepted", "text")
    for item in items:
        table.add_row(
            str(item["idm"]),
            item["to"],
            _state_name(item["state"]),
            item["delivery"],
            str(item["segment_count"]),
            item["channel"] or "",
            _local(item["accepted_at"]),
            _short(item["text"]),
        )
    _console().print(table)


def explain(
    idm: Annotated[int, typer.Argument(help="The message.")],
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Say why a message is where it is, and show its history."""

    async def offline(reader: Reader) -> dict[str, Any] | None:
        detail = await reader.message(idm)
        return None if detail is None else views.detail(detail, None, "", SystemClock().now_ms())

    target = Target(socket, config)
    try:
        found = call(target, "GET", f"/api/v1/messages/{idm}")
    except DaemonDown as error:
        found = _offline(target, error, offline)
    if found is None:
        typer.echo(f"there is no message {idm}", err=True)
        raise typer.Exit(1)
    if as_json:
        typer.echo(json.dumps(found))
        return
    console = _console()
    state = f"state {found['state']} ({_state_name(found['state'])}), delivery {found['delivery']}"
    console.print(f"[bold]{idm}[/bold] to {_plain(found['to'])}: {_plain(found['explain'])}", soft_wrap=True)
    console.print(state + "\n")
    table = _table("when", "segment", "event", "channel", "by", "detail")
    for event in found["events"]:
        segment = "" if event["seq"] is None else str(event["seq"])
        cells = [event["event"], event["channel"] or "", event["actor"], event["detail"]]
        table.add_row(_local(event["at"]), segment, *map(_plain, cells))
    console.print(table)


@channels_app.callback()
def channels(
    context: typer.Context, as_json: JsonOption = False, socket: SocketOption = None, config: ConfigOption = None
) -> None:
    """Show the channels."""
    if context.invoked_subcommand is not None:
        return
    items = _daemon(Target(socket, config), "GET", "/api/v1/channels")["items"]
    if as_json:
        for item in items:
            typer.echo(json.dumps(item))
        return
    table = _table("channel", "state", "since", "number", "operator", "signal", "sent", "in hand", "why")
    for item in items:
        rssi = "" if item["rssi_dbm"] is None else f"{item['rssi_dbm']} dBm"
        in_hand = "" if item["in_hand"] is None else str(item["in_hand"])
        cells = [item["name"], item["state"], _local(item["since"]), item["number"], item["operator"], rssi]
        table.add_row(*map(_plain, cells), str(item["submitted"]), in_hand, _plain(item["reason"]))
    _console().print(table)


@channels_app.command("accept")
def channels_accept(
    name: Annotated[str, typer.Argument(help="The channel.")],
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Accept the SIM that is in a channel now, and go on with it."""
    _daemon(Target(socket, config), "POST", f"/api/v1/channels/{name}/accept")
    typer.echo(f"{name}: the SIM that is in it now is accepted")


def pause(
    everything: Annotated[
        bool, typer.Option("--all", help="Everything: the one thing that can be paused yet.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for those who come after you.")] = "",
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Emergency stop: nothing more is sent until `resume`, also after a restart. What comes is still accepted."""
    if not everything:
        typer.echo("say --all: pausing one channel or campaign is not in this version", err=True)
        raise typer.Exit(2)
    _daemon(Target(socket, config), "POST", "/api/v1/pause", body={"reason": reason})
    typer.echo("paused: nothing is sent until `gatewayd resume`")


def resume(socket: SocketOption = None, config: ConfigOption = None) -> None:
    """Send again after `pause --all`."""
    _daemon(Target(socket, config), "POST", "/api/v1/resume")
    typer.echo("sending again")


def _daemon(target: Target, method: str, path: str, body: Any = None) -> Any:
    """A request that only a running daemon can answer."""
    try:
        return call(target, method, path, body=body)
    except DaemonDown as error:
        typer.echo(f"{error}; is gatewayd running?", err=True)
        raise typer.Exit(1) from None


def _offline(target: Target, error: DaemonDown, read: Callable[[Reader], Awaitable[T]]) -> T:
    """Read the spool itself, and say so."""
    from gatewayd.app import spool_of

    config = target.configuration()
    if config is None:
        typer.echo(f"{error}; with -c FILE the spool is read without it", err=True)
        raise typer.Exit(1)
    typer.echo(f"{error}: this is read from the spool", err=True)

    async def main() -> T:
        reader = Reader(spool_of(config))
        try:
            return await read(reader)
        finally:
            await reader.close()

    try:
        return asyncio.run(main())
    except SpoolError as trouble:
        typer.echo(str(trouble), err=True)
        raise typer.Exit(1) from None


def _state(word: str | None) -> MessageState | None:
    if word is None:
        return None
    for state, name in STATES.items():
        if word.lower().replace("_", " ") in {name, str(state.value)}:
            return state
    typer.echo(f"--state: {word!r} is none of {', '.join(f'{s.value} {n}' for s, n in STATES.items())}", err=True)
    raise typer.Exit(2)


def _state_name(state: int) -> str:
    return STATES[MessageState(state)]


def _table(*columns: str) -> Table:
    """A table whose last column takes what room there is; the others are never broken."""
    table = Table(box=None, pad_edge=False)
    for name in columns[:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    return table


def _console() -> Console:
    """Standard output; wide where it is no terminal, so that a line stays a line."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def _local(moment: str | None) -> str:
    """A time of the API in the reader's own zone, to the second; the day only if it is not today."""
    if moment is None:
        return ""
    local = datetime.fromisoformat(moment).astimezone()
    return local.strftime("%H:%M:%S" if local.date() == datetime.now(local.tzinfo).date() else "%Y-%m-%d %H:%M:%S")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return _plain(line if len(line) <= 40 else line[:39] + "…")


def _plain(text: str) -> str:
    """Text from outside, without what a terminal or rich would obey."""
    return "".join(c if c.isprintable() else "�" for c in text).replace("[", r"\[")
