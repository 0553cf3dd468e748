"""`gatewayd operations`: what was done to messages in the queue, and what is under way."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from gatewayd.commands.client import ConfigOption, JsonLinesOption, JsonOption, SocketOption, ask, json_lines
from gatewayd.commands.control import Target
from gatewayd.commands.messages import operation_line
from gatewayd.commands.table import local, plain, show, zone

app = typer.Typer(invoke_without_command=True)

IDS_SHOWN = 10  # of up to a thousand


@app.callback()
def operations(
    context: typer.Context,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many.")] = 20,
    as_json: JsonLinesOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the newest operations on the queue, the newest last; stop one that is under way."""
    if context.invoked_subcommand is not None:
        return
    items = ask(Target(socket, config), "GET", f"/api/v1/operations?limit={limit}")["items"][::-1]
    if as_json:
        json_lines(items)
        return
    rows = [
        [
            str(item["id"]),
            local(item["at"], short=True),
            item["action"],
            item["state"] if item["state"] != "running" else f"running, {item['progress']:.0%}",
            str(item["matched"]),
            str(item["changed"]),
            item["actor"],
            " ".join(filter(None, [_said({**item["filter"], **item["value"]}), item["reason"]])),
        ]
        for item in items
    ]
    show(["id", f"at ({zone()})", "action", "state", "matched", "changed", "by", "which, and why"], rows)


@app.command("show")
def show_one(
    operation_id: Annotated[int, typer.Argument(metavar="ID", min=1, help="The operation.")],
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Show one operation, and how far it has come."""
    found = ask(Target(socket, config), "GET", f"/api/v1/operations/{operation_id}")
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(operation_line(found))
    meant = _said({**found["filter"], **found["value"]})
    why = f" ({found['reason']})" if found["reason"] else ""
    typer.echo(plain(f"{found['action']} by {found['actor']} at {local(found['at'])} {zone()}: {meant}{why}"))


@app.command("stop")
def stop(
    operation_id: Annotated[int, typer.Argument(metavar="ID", min=1, help="The operation.")],
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """End an operation where it is; what it has done stays done."""
    ask(Target(socket, config), "POST", f"/api/v1/operations/{operation_id}/stop")
    found = ask(Target(socket, config), "GET", f"/api/v1/operations/{operation_id}")
    typer.echo(operation_line(found))


def _said(values: dict[str, Any]) -> str:
    said = []
    for name, value in values.items():
        shown = value
        if isinstance(value, list):
            more = f" and {len(value) - IDS_SHOWN} more" if len(value) > IDS_SHOWN else ""
            shown = ", ".join(map(str, value[:IDS_SHOWN])) + more
        said.append(name if value is True else f"{name}={shown}")
    return " ".join(said)
