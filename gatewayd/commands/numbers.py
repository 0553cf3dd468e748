"""`gatewayd numbers`: which of them fail wherever they are tried."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gatewayd.commands.client import (
    ConfigOption,
    JsonLinesOption,
    JsonOption,
    SocketOption,
    ask,
    json_lines,
    page_of,
)
from gatewayd.commands.control import Target
from gatewayd.commands.table import local, show, zone

if TYPE_CHECKING:
    from gatewayd.spool.reader import Reader

app = typer.Typer(help="Numbers that fail wherever they are tried.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Numbers that fail wherever they are tried."""


@app.command("quarantined")
def quarantined(
    after: Annotated[str, typer.Option(metavar="NUMBER", help="Those after this one.")] = "",
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many.")] = 20,
    as_json: JsonLinesOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the numbers in quarantine: until when what is written to them waits, and what they failed with."""

    async def offline(reader: Reader) -> list[dict[str, Any]]:
        from gatewayd.http.quarantine import shown
        from gatewayd.spool.quarantine_reader import QuarantineReader

        return [shown(view) for view in await QuarantineReader(reader).page(after=after, limit=limit)]

    params = {"after": after or None, "limit": limit}
    items = page_of(Target(socket, config), "/api/v1/quarantine", params, offline, newest_last=False)
    if as_json:
        json_lines(items)
        return
    rows = [
        [
            item["number"],
            str(item["failures"]),
            local(item["first_at"], short=True),
            str(item["sims"]),
            f"{item['code']} {item['detail']}".strip(),
            local(item["until"], short=True),
            "" if item["probe_idm"] is None else str(item["probe_idm"]),
        ]
        for item in items
    ]
    show(["number", "failures", f"since ({zone()})", "SIMs", "the last", "waits until", "tried now"], rows)


@app.command()
def release(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="Who may be written to again.")],
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Let a number out of quarantine, and forget its failures; what waits for it is due at once."""
    answer = ask(Target(socket, config), "DELETE", f"/api/v1/quarantine/{quote(number, safe='')}")
    if as_json:
        typer.echo(json.dumps(answer))
        return
    count = answer["messages"]
    typer.echo(f"{answer['number']} is out of quarantine; {count} message{'s' * (count != 1)} to it due now")
