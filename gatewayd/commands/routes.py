"""`gatewayd routes`: the outbound routes, and which of them a message would take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gatewayd.commands.client import ConfigOption, JsonOption, SocketOption
from gatewayd.commands.control import DaemonDown, Target, call
from gatewayd.commands.table import plain, show

if TYPE_CHECKING:
    from gatewayd.config import Config
    from gatewayd.router.control import Serving
    from gatewayd.router.target import Target as Places

app = typer.Typer(help="Outbound routes: the table, and a test.", invoke_without_command=True)


@app.callback()
def _root(
    context: typer.Context, as_json: JsonOption = False, socket: SocketOption = None, config: ConfigOption = None
) -> None:
    """Outbound routes and dialers, in the order they are asked. With -c FILE also without a daemon."""
    if context.invoked_subcommand is not None:
        return
    target = Target(socket, config)
    try:
        found = call(target, "GET", "/api/v1/routes")
    except DaemonDown as error:
        from gatewayd.http.routing import table
        from gatewayd.wiring import router

        found = {"items": table(router(_configuration(target, error))), "next": None}
    if as_json:
        typer.echo(json.dumps(found))
        return
    rows = [
        [
            f"{item['kind']} {item['name']}" + ("" if item["enabled"] else " (disabled)"),
            _shared(item["target"], item["weights"]),
            " and ".join(item["conditions"]) or "every message",
        ]
        for item in found["items"]
    ]
    show(["rule", "goes by", "which"], rows)
    typer.echo("what none of them matches goes by any channel")


@app.command("test")
def try_out(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="Whom to.")],
    campaign: Annotated[str | None, typer.Option(metavar="NAME", help="Its campaign.")] = None,
    key: Annotated[str | None, typer.Option(metavar="NAME", help="The API key it is submitted with.")] = None,
    class_: Annotated[
        str | None, typer.Option("--class", metavar="CLASS", help="application, alert, agent or campaign.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it may go first: 2026-11-23T12:00:00Z. Default: now.")
    ] = None,
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Say which route a message would take, why the others do not, and by which channels it could go.

    Nothing is sent. With -c FILE it also works without a daemon, by what the file says.
    """
    target = Target(socket, config)
    params = {"number": number, "campaign": campaign, "key": key, "class": class_, "at": at}
    try:
        found = call(target, "GET", "/api/v1/routes/test", params=params)
    except DaemonDown as error:
        found = _by_file(_configuration(target, error), params)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(plain(f"{found['number']}, class {found['class']}: {found['explain']}"))
    if found["rules"]:
        typer.echo("")
        show(["rule", "decides", "why not"], [_row(rule) for rule in found["rules"]])
    typer.echo("")
    if not found["channels"]:
        typer.echo("no channel of the configuration can serve it")
        return
    rows = [[each["channel"], _obstacle(each)] for each in found["channels"]]
    show(["channel", "now"], rows)
    if found["paused"]:
        typer.echo("\n" + plain(f"{found['paused']}; nothing is sent until `gatewayd resume`"))


def _row(rule: dict[str, Any]) -> list[str]:
    why = "" if rule["chosen"] else rule["against"] or "one before it decides"
    return [f"{rule['kind']} {rule['name']}", "yes" if rule["chosen"] else "", why]


def _obstacle(channel: dict[str, Any]) -> str:
    if not channel["obstacle"]:
        return "can send"
    return str(channel["obstacle"])


def _shared(target: str, weights: list[int]) -> str:
    return f"{target} (by weights {':'.join(map(str, weights))})" if weights else target


def _configuration(target: Target, error: DaemonDown) -> Config:
    """The configuration to go by without a daemon. Ends the command if there is none."""
    config = target.spool_configuration()
    if config is None:
        typer.echo(f"{error}; is gatewayd running? With -c FILE its routes are read without it", err=True)
        raise typer.Exit(1)
    typer.echo(f"{error}: this is by the configuration alone", err=True)
    return config


def _by_file(config: Config, params: dict[str, str | None]) -> dict[str, Any]:
    """What the daemon would answer, but for what only it knows."""
    from gatewayd.clock import SystemClock
    from gatewayd.errors import ConfigError, RequestError
    from gatewayd.http import routing
    from gatewayd.http.schemas import epoch_ms
    from gatewayd.model import MessageClass
    from gatewayd.wiring import submission_settings

    class_, at = params["class"] or "application", params["at"]
    if class_ not in routing.CLASSES:
        typer.echo(f"class: one of {', '.join(routing.CLASSES)} is expected", err=True)
        raise typer.Exit(1)
    try:
        at_ms = SystemClock().now_ms() if at is None else epoch_ms(at)
        settings = submission_settings(config)
        number, campaign, key = params["number"] or "", params["campaign"] or "", params["key"] or ""
        asked = routing.asked_of(settings, number, MessageClass(class_), campaign, key, at_ms)
        explained = settings.router.explain(asked)
    except (RequestError, ConfigError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except ValueError as error:
        typer.echo(f"at: {error}", err=True)
        raise typer.Exit(1) from None
    return routing.verdict(asked, explained, list(_by_configuration(config, explained.places)))


def _by_configuration(config: Config, places: Places) -> Iterator[Serving]:
    """The channels that a target names. Which SIM is in which of them only the daemon knows."""
    from gatewayd.router.control import Serving
    from gatewayd.router.target import Kind

    of_sims = {tag for sim in config.sims for tag in sim.tags}
    unknown = "whether it can send only the daemon knows"
    told: set[str] = set()
    for tier in places.tiers:
        members = [
            channel
            for channel in config.channels
            if tier.kind is Kind.ANY
            or (tier.kind is Kind.CHANNEL and channel.name == tier.name)
            or (tier.kind is Kind.GROUP and tier.name in channel.tags)
        ]
        if places.ports is not None and tier.name not in of_sims:
            members = [members[port] for port in places.ports if port < len(members)]
        for channel in members:
            if channel.name not in told:
                yield Serving(channel.name, unknown if channel.enabled else "it is disabled in the configuration")
                told.add(channel.name)
        if tier.kind is Kind.GROUP and tier.name in of_sims:
            yield Serving("(any other)", f"if the SIM in it is tagged {tier.name}")
