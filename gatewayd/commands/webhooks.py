"""`gatewayd webhooks`: who is told of events, what came of it; try one out; tell events once more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gatewayd.commands.client import (
    MAX_IDM,
    ConfigOption,
    JsonLinesOption,
    JsonOption,
    SocketOption,
    ask,
    json_lines,
    page_of,
)
from gatewayd.commands.control import DaemonDown, Target, call
from gatewayd.commands.table import local, plain, show, zone

if TYPE_CHECKING:
    from gatewayd.spool.reader import Reader

app = typer.Typer(help="Webhooks and callbacks: what they were told.", invoke_without_command=True)

_STATES = ("pending", "done", "dead")
_MAX_IDS = 500  # in one request
_TEST_LIMIT_S = 150.0  # webhooks[].timeout is two minutes at most


@app.callback()
def _root(
    context: typer.Context, as_json: JsonOption = False, socket: SocketOption = None, config: ConfigOption = None
) -> None:
    """Webhooks and callbacks: what they were told, what they have still to be told. Alone: `list`."""
    if context.invoked_subcommand is None:
        listing(as_json, socket, config)


@app.command("list")
def listing(as_json: JsonOption = False, socket: SocketOption = None, config: ConfigOption = None) -> None:
    """Show the webhooks, and what waits for them."""
    found = ask(Target(socket, config), "GET", "/api/v1/webhooks")
    if as_json:
        typer.echo(json.dumps(found))
        return
    rows = [
        [
            item["name"],
            _condition(item),
            str(item["pending"]),
            local(item["oldest_at"], short=True),
            str(item["dead"]),
            ",".join(item["events"]),
            item["url"] or "",
            _last(item["last"]),
        ]
        for item in found["items"]
    ]
    show(["webhook", "state", "pending", f"since ({zone()})", "dead", "events", "url", "last call"], rows)
    callbacks = found["callbacks"]
    since = f" since {local(callbacks['oldest_at'], short=True)}" if callbacks["oldest_at"] else ""
    typer.echo(
        f"\ncallbacks: {callbacks['pending']} pending{since}, {callbacks['dead']} dead, "
        f"{callbacks['hosts']} hosts, {callbacks['failing']} of them failing"
    )


@app.command()
def log(
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", "-e", metavar="NAME", help="Only this webhook, or callback:ORIGIN."),
    ] = None,
    state: Annotated[str | None, typer.Option(metavar="STATE", help="Only pending, done or dead ones.")] = None,
    after: Annotated[
        int | None, typer.Option(metavar="ID", min=0, help="Those after this one, in order; else the newest.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many.")] = 20,
    as_json: JsonLinesOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Show deliveries, the newest last: which event, to whom, what came of it."""
    if state is not None and state not in _STATES:
        typer.echo(f"--state: {state!r} is none of {', '.join(_STATES)}", err=True)
        raise typer.Exit(2)
    order = "desc" if after is None else "asc"
    params = {"endpoint": endpoint, "state": state, "after": after, "limit": limit, "order": order}
    target = Target(socket, config)

    async def offline(reader: Reader) -> list[dict[str, Any]]:
        from gatewayd.http.webhooks import delivery
        from gatewayd.spool.deliveries import DeliveryReader
        from gatewayd.spool.events import webhook_endpoint
        from gatewayd.spool.settings import SPOOL_ID

        found = await DeliveryReader(reader).log(
            endpoint=endpoint if endpoint is None or ":" in endpoint else webhook_endpoint(endpoint),
            state=state,
            after=None if after is None else min(after, MAX_IDM),
            limit=limit,
            descending=after is None,
        )
        spool_id = await reader.setting(SPOOL_ID) or ""
        return [delivery(each, spool_id) for each in found]

    items = page_of(target, "/api/v1/webhooks/deliveries", params, offline, newest_last=after is None)
    if not items:
        _must_exist(target, endpoint)
    if as_json:
        json_lines(items)
        return
    rows = [
        [
            str(item["id"]),
            local(item["at"], short=True),
            item["type"] or "(forgotten)",
            "" if item["idm"] is None else str(item["idm"]),
            item["endpoint"].removeprefix("webhook:"),
            item["state"],
            str(item["attempts"]),
            local(item["next_at"], short=True),
            "" if item["status"] is None else str(item["status"]),
            item["error"],
        ]
        for item in items
    ]
    heads = ["id", f"event at ({zone()})", "event", "idm", "endpoint", "state", "failed", "next try", "status", "error"]
    show(heads, rows, one_line=True)


@app.command("test")
def try_out(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The webhook.")],
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Send a webhook the event webhook.test now, and say what came of it.

    Exit status 1 if it was not taken. If it was, what waits for its next try is tried at once.
    """
    path = f"/api/v1/webhooks/{quote(name, safe='')}/test"
    answer = ask(Target(socket, config), "POST", path, limit_s=_TEST_LIMIT_S)
    if as_json:
        typer.echo(json.dumps(answer))
    elif answer["ok"]:
        typer.echo(f"{answer['url']}: taken, HTTP {answer['status']} after {answer['took_ms']} ms")
    else:
        typer.echo(plain(f"{answer['url']}: {answer['error']} (after {answer['took_ms']} ms)"))
    if not answer["ok"]:
        raise typer.Exit(1)


@app.command()
def replay(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", min=1, help="Deliveries, by the ids of the log.")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", "-e", metavar="NAME", help="Only this webhook, or callback:ORIGIN."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every dead letter there is.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only events from this time on: 2026-11-23T12:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only events before this time.")] = None,
    done: Annotated[
        bool, typer.Option("--done", help="What was delivered instead of dead letters; needs ids or --since.")
    ] = False,
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Tell dead letters once more: their endpoint first gets these, then what is younger."""
    if not (ids or endpoint or since or until or everything):
        typer.echo("say which: ids, --endpoint NAME, --since TIME, or --all", err=True)
        raise typer.Exit(2)
    if len(ids or []) > _MAX_IDS:
        typer.echo(f"{len(ids or [])} ids: at most {_MAX_IDS} at once", err=True)
        raise typer.Exit(2)
    body: dict[str, Any] = {
        "ids": ids or None,
        "endpoint": endpoint if endpoint is None or ":" in endpoint else f"webhook:{endpoint}",
        "since": since,
        "until": until,
        "state": "done" if done else "dead",
    }
    count, after = 0, 0
    target = Target(socket, config)
    while after is not None:
        answer = ask(target, "POST", "/api/v1/webhooks/replay", body={**body, "after": after})
        count += answer["replayed"]
        after = answer["next"]
    if not count:
        _must_exist(target, endpoint)
    if as_json:
        typer.echo(json.dumps({"replayed": count}))
    else:
        typer.echo(f"{count} deliver{'y' if count == 1 else 'ies'} pending again")


def _must_exist(target: Target, endpoint: str | None) -> None:
    """Nothing was found: end the command if that is because nothing has this name, as far as a daemon can tell."""
    if endpoint is None or endpoint.startswith("callback:"):
        return
    name = endpoint.removeprefix("webhook:")
    try:
        names = [item["name"] for item in call(target, "GET", "/api/v1/webhooks")["items"]]
    except DaemonDown:
        return
    if name not in names:
        there_are = f"there are {', '.join(names)}" if names else "the configuration has none"
        typer.echo(f"there is no webhook {name!r}; {there_are}", err=True)
        raise typer.Exit(1)


def _condition(item: dict[str, Any]) -> str:
    if not item["configured"]:
        return "not configured"
    if not item["enabled"]:
        return "disabled"
    if item["retry_in_s"] is not None:
        return f"failing, next try in {item['retry_in_s']:.0f} s"
    return "works" if item["last"] and not item["last"]["error"] else "failing" if item["last"] else "not called yet"


def _last(last: dict[str, Any] | None) -> str:
    if last is None:
        return ""
    return f"{local(last['at'], short=True)} {last['error'] or 'HTTP ' + str(last['status'])}"
