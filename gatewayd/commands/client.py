"""Commands that speak to the running daemon: send, messages, explain, status, channels, pause, resume."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import quote

import typer

from gatewayd.commands.control import DEFAULT_CONFIG, SOCKET_VARIABLE, DaemonDown, Target, call
from gatewayd.commands.table import local, plain, show, zone

if TYPE_CHECKING:
    from gatewayd.spool.reader import Reader

T = TypeVar("T")

MAX_IDM = 2**63 - 1  # what a database can count to

SocketOption = Annotated[
    Path | None,
    typer.Option(
        "--socket", metavar="PATH", help=f"The daemon's control socket [env: {SOCKET_VARIABLE}].", readable=False
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help=f"Find daemon and spool by this [default: {DEFAULT_CONFIG}].",
        readable=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]

channels_app = typer.Typer(invoke_without_command=True)


def send(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="Whom to.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What. Put -- before one that begins with a hyphen.")],
    channel: Annotated[str | None, typer.Option(metavar="NAME", help="By this channel only.")] = None,
    class_: Annotated[
        str | None, typer.Option("--class", metavar="CLASS", help="application, alert, agent or campaign.")
    ] = None,
    priority: Annotated[int | None, typer.Option(metavar="N", help="0 to 9999, larger first.")] = None,
    campaign: Annotated[str | None, typer.Option(metavar="NAME", help="A label.")] = None,
    client_ref: Annotated[str | None, typer.Option(metavar="REF", help="Your own reference.")] = None,
    not_before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not before this time: 2026-11-23T12:00:00Z.")
    ] = None,
    expires_at: Annotated[str | None, typer.Option(metavar="TIME", help="Not after this time.")] = None,
    in_doubt: Annotated[str | None, typer.Option(metavar="POLICY", help="fail, hold or resend.")] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Ask for a delivery report.")] = True,
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Put a message into the spool; print its idm.

    It is on disk when the idm appears.
    """
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
    answer = ask(Target(socket, config), "POST", "/api/v1/messages", body=given)
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        segments = answer["segments"]
        typer.echo(f"idm {answer['idm']} to {answer['to']}, {segments} segment{'s' * (segments != 1)}")


def explain(
    idm: Annotated[int, typer.Argument(metavar="IDM", min=1, help="The message.")],
    inbound: Annotated[
        bool, typer.Option("--inbound", help="It is the id of one that came in: show that and its raw PDUs.")
    ] = False,
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Say why a message is where it is, and its history."""
    if inbound:
        from gatewayd.commands.inbound import show_one

        show_one(Target(socket, config), idm, as_json=as_json)
        return

    async def offline(reader: Reader) -> dict[str, Any] | None:
        from gatewayd.clock import SystemClock
        from gatewayd.http import views

        detail = await reader.message(idm) if idm <= MAX_IDM else None
        return None if detail is None else views.detail(detail, None, "", SystemClock().now_ms())

    target = Target(socket, config)
    try:
        found = call(target, "GET", f"/api/v1/messages/{idm}")
    except DaemonDown as error:
        found = from_spool(target, error, offline)
    if found is None:
        typer.echo(f"there is no message {idm} (older than retention?)", err=True)
        raise typer.Exit(1)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(plain(f"{idm} to {found['to']}: {found['explain']}"))
    typer.echo(f"state {found['state']} ({_words(found['state_name'])}), delivery {found['delivery']}\n")
    rows = [
        [
            local(event["at"]),
            "" if event["seq"] is None else str(event["seq"]),
            event["event"],
            event["channel"] or "",
            event["actor"],
            event["detail"],
        ]
        for event in found["events"]
    ]
    show([f"when ({zone()})", "segment", "event", "channel", "by", "detail"], rows)
    if found["history_cut"]:
        typer.echo("… and more than is shown here")


def status(as_json: JsonOption = False, socket: SocketOption = None, config: ConfigOption = None) -> None:
    """Show whether it is paused, works, and has much to do."""
    found = ask(Target(socket, config), "GET", "/api/v1/status")
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(
        f"gatewayd {found['version']}, instance {found['instance']}, since {local(found['started_at'])} {zone()}"
    )
    typer.echo(plain(_sending(found)))
    typer.echo(f"channels: {found['channels']['ready']} of {found['channels']['total']} ready")
    typer.echo("spool: takes writes" if found["spool_writable"] else "spool: takes NO writes; the log says why")
    if found["clock_doubt"]:
        typer.echo(plain(f"clock: NOT trusted: {found['clock_doubt']}"))
    counted = [f"{number} {_words(name)}" for name, number in found["messages"].items() if number]
    typer.echo(f"messages: {', '.join(counted) or 'none'}")


@channels_app.callback()
def channels(
    context: typer.Context, as_json: JsonLinesOption = False, socket: SocketOption = None, config: ConfigOption = None
) -> None:
    """Show the modems; accept a changed SIM."""
    if context.invoked_subcommand is not None:
        return
    target = Target(socket, config)
    items = ask(target, "GET", "/api/v1/channels")["items"]
    if as_json:
        json_lines(items)
        return
    rows = [
        [
            item["name"],
            ", ".join(filter(None, [item["state"], item["mode"]])),
            local(item["since"], short=True),
            item["number"],
            item["operator"],
            "" if item["rssi_dbm"] is None else f"{item['rssi_dbm']} dBm",
            str(item["submitted"]),
            "" if item["in_hand"] is None else str(item["in_hand"]),
            "; ".join(filter(None, [item["mode_reason"], item["reason"]])),
        ]
        for item in items
    ]
    heads = ["channel", "state", f"since ({zone()})", "number", "operator", "signal", "sent", "in hand", "why"]
    show(heads, rows)
    gateway = ask(target, "GET", "/api/v1/status")
    if gateway["paused"]:
        typer.echo("\n" + plain(_sending(gateway)))


@channels_app.command("accept")
def channels_accept(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The channel.")],
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Accept the SIM that is in a channel now, and go on with it."""
    ask(Target(socket, config), "POST", f"/api/v1/channels/{quote(name, safe='')}/accept")
    typer.echo(f"{name}: the SIM that is in it now is accepted")


def pause(
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for those who come after you.")] = "",
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Emergency stop: send nothing until `resume`.

    It holds over restarts. What comes is still accepted, and waits.
    """
    if not everything:
        others = "`gatewayd channels pause NAME` for one channel, `gatewayd messages hold` for messages"
        typer.echo(f"say --all; {others}", err=True)
        raise typer.Exit(2)
    ask(Target(socket, config), "POST", "/api/v1/pause", body={"reason": reason})
    typer.echo("paused: nothing is sent until `gatewayd resume`")


def resume(socket: SocketOption = None, config: ConfigOption = None) -> None:
    """Send again after `pause --all`."""
    ask(Target(socket, config), "POST", "/api/v1/resume")
    typer.echo("sending again")


def ask(target: Target, method: str, path: str, body: Any = None, limit_s: float | None = None) -> Any:
    """A request that only a running daemon can answer. `limit_s` as in `call`."""
    try:
        return call(target, method, path, body=body, limit_s=limit_s)
    except DaemonDown as error:
        typer.echo(f"{error}; is gatewayd running?", err=True)
        raise typer.Exit(1) from None


def from_spool(target: Target, error: DaemonDown, read: Callable[[Reader], Awaitable[T]]) -> T:
    """Read the spool itself, and say so."""
    config = target.spool_configuration()
    if config is None:
        typer.echo(f"{error}; is gatewayd running? With -c FILE its spool is read without it", err=True)
        raise typer.Exit(1)
    typer.echo(f"{error}: this is read from the spool", err=True)
    import asyncio

    from gatewayd.errors import ConfigError, SpoolError
    from gatewayd.spool.reader import Reader
    from gatewayd.wiring import spool_of

    async def main() -> T:
        reader = Reader(spool_of(config))
        try:
            return await read(reader)
        finally:
            await reader.close()

    try:
        return asyncio.run(main())
    except (SpoolError, ConfigError) as trouble:
        typer.echo(str(trouble), err=True)
        raise typer.Exit(1) from None


def page_of(
    target: Target,
    path: str,
    params: dict[str, Any],
    offline: Callable[[Reader], Awaitable[list[dict[str, Any]]]],
    *,
    newest_last: bool,
) -> list[dict[str, Any]]:
    """A page of a list: of the daemon, or read by `offline` from the spool when there is none. `newest_last`: it comes
    newest first, and is to be read downwards.
    """
    try:
        items: list[dict[str, Any]] = call(target, "GET", path, params=params)["items"]
    except DaemonDown as error:
        items = from_spool(target, error, offline)
    return items[::-1] if newest_last else items


def json_lines(items: list[dict[str, Any]]) -> None:
    """Print each on a line of its own."""
    for item in items:
        typer.echo(json.dumps(item))


def _sending(gateway: dict[str, Any]) -> str:
    return f"{gateway['paused']}; nothing is sent until `gatewayd resume`" if gateway["paused"] else "not paused"


def _words(name: str) -> str:
    return name.replace("_", " ")
