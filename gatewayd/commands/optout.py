"""`gatewayd optout`: who must not be written to, and why. `test` needs no daemon and no configuration."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gatewayd.commands.client import (
    ConfigOption,
    JsonLinesOption,
    JsonOption,
    SocketOption,
    ask,
    from_spool,
    json_lines,
    page_of,
)
from gatewayd.commands.control import DaemonDown, Target, call
from gatewayd.commands.table import local, plain, show, zone
from gatewayd.errors import ConfigError
from gatewayd.router.optout import DEFAULT_LANGUAGES, Intent, Tier, Verdict, classify, load_packs

if TYPE_CHECKING:
    from gatewayd.spool.reader import Reader

app = typer.Typer(help="Opt-outs: who must not be written to, and why.", no_args_is_help=True)

_MEANINGS = {
    (Tier.A, Intent.OPT_OUT): "an opt-out: honoured at once",
    (Tier.B, Intent.OPT_OUT): "probably an opt-out: shown, for a person to decide",
    (Tier.C, Intent.OPT_IN): "no opt-out: asks for messages again",
    (Tier.C, Intent.HELP): "no opt-out: asks for help",
    (Tier.C, Intent.NONE): "no opt-out",
}
_INDENT = 12


@app.callback()
def _root() -> None:
    """Opt-outs: who must not be written to, and why."""


@app.command("test")
def judge(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What somebody wrote; - reads it from standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on one line.")] = False,
    languages: Annotated[
        list[str] | None,
        typer.Option("--language", "-l", help="Only this language pack; can be given again. Default: all, in order."),
    ] = None,
) -> None:
    """Say what a text is: A an opt-out, B probably one, C none, and by which rule.

    Exit status 0 whatever the verdict, 2 if there is no such language pack.
    """
    try:
        packs = load_packs(languages or DEFAULT_LANGUAGES)
    except ConfigError as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(2) from None
    given = sys.stdin.buffer.read().decode("utf-8", "replace") if text == "-" else text
    verdict = classify(given, packs)
    typer.echo(json.dumps(dataclasses.asdict(verdict)) if as_json else _rendered(verdict))


@app.command()
def add(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="Who must not be written to.")],
    evidence: Annotated[str, typer.Option(metavar="TEXT", help="Why: who asked for it, and where that is.")] = "",
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Put a number on the opt-out list; what is queued to it is blocked at once."""
    body = {"number": number, "evidence": evidence}
    answer = ask(Target(socket, config), "POST", "/api/v1/optouts", body=body)
    if as_json:
        typer.echo(json.dumps(answer))
    elif answer["changed"]:
        typer.echo(f"{answer['number']} is on the opt-out list; {_blocked(answer)}")
    else:
        more = f"; {_blocked(answer)}" if answer["blocked"] else ""
        typer.echo(f"{answer['number']} was on the opt-out list already{more or ': nothing changed'}")


@app.command()
def remove(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="Who wants messages again.")],
    evidence: Annotated[str, typer.Option(metavar="TEXT", help="What that rests on; kept for good.")],
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Take a number off the opt-out list. Without evidence nobody's STOP is undone."""
    path = f"/api/v1/optouts/{quote(number, safe='')}/remove"
    answer = ask(Target(socket, config), "POST", path, body={"evidence": evidence})
    if as_json:
        typer.echo(json.dumps(answer))
    elif answer["changed"]:
        typer.echo(f"{answer['number']} is off the opt-out list; what was blocked stays blocked")
    else:
        typer.echo(f"{answer['number']} is not on the opt-out list: nothing changed")


@app.command("list")
def list_(
    by_number: Annotated[
        bool, typer.Option("--by-number", help="In the order of the numbers, from the first on; else the newest.")
    ] = False,
    after: Annotated[str | None, typer.Option(metavar="NUMBER", help="By number, those after this one.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many.")] = 20,
    state: Annotated[str, typer.Option(metavar="STATE", help="out, or in: who asked for messages again.")] = "out",
    as_json: JsonLinesOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Show who is on the opt-out list, the newest last."""
    newest = after is None and not by_number
    if state not in {"out", "in"}:
        typer.echo(f"--state: {state!r} is none of out, in", err=True)
        raise typer.Exit(2)

    async def offline(reader: Reader) -> list[dict[str, Any]]:
        from gatewayd.http.optouts import shown
        from gatewayd.spool.optout_reader import OptOutReader
        from gatewayd.spool.optouts import OptState

        optouts = OptOutReader(reader)
        if newest:
            found = await optouts.newest(OptState(state), limit=limit)
        else:
            found = await optouts.by_number(OptState(state), after=after or "", limit=limit)
        return [shown(view) for view in found]

    params = {"after": after, "limit": limit, "state": state, "order": "newest" if newest else "number"}
    items = page_of(Target(socket, config), "/api/v1/optouts", params, offline, newest_last=newest)
    if as_json:
        json_lines(items)
        return
    rows = [
        [
            item["number"],
            item["state"],
            local(item["since"], short=True),
            item["source"],
            str(item["event"]),
            ", ".join(item["blocks"]) or "nothing",
        ]
        for item in items
    ]
    show(["number", "state", f"since ({zone()})", "by", "evidence", "not sent to it"], rows)


@app.command("show")
def show_number(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="The number.")],
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Show a number's state, and all the evidence there is."""

    async def offline(reader: Reader) -> dict[str, Any]:
        from gatewayd.commands.inbound import normalised
        from gatewayd.http.optouts import detail
        from gatewayd.spool.optout_reader import OptOutReader

        optouts = OptOutReader(reader)
        found = await optouts.one(number)  # an address as it was received, perhaps a word
        return detail(found if found.events else await optouts.one(normalised(target, number)))

    target = Target(socket, config)
    try:
        found = call(target, "GET", f"/api/v1/optouts/{quote(number, safe='')}")
    except DaemonDown as error:
        found = from_spool(target, error, offline)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(plain(f"{found['number']}: {_said(found)}"))
    if not found["events"]:
        return
    rows = [
        [
            str(event["id"]),
            local(event["at"]),
            event["intent"].replace("_", " "),
            f"{event['prior_state']} → {event['state']}",
            event["source"] if event["source"] == event["actor"] else f"{event['source']}: {event['actor']}",
            str(event["blocked"] or ""),
            " ".join((event["text"] if event["text"] is not None else event["evidence"]).split()),
        ]
        for event in found["events"]
    ]
    typer.echo()
    show(["id", f"when ({zone()})", "meant", "state", "by", "blocked", "text or evidence"], rows)
    if found["history_cut"]:
        typer.echo("there is more evidence, of before")


def _blocked(answer: dict[str, Any]) -> str:
    blocked, in_hand = answer["blocked"], answer["in_hand"]
    if not blocked:
        return "nothing was queued to it"
    said = f"{blocked} queued message{'s' if blocked != 1 else ''} to it blocked"
    if in_hand:
        said += f" ({in_hand} of them in a channel's hands: called back where nothing was written yet)"
    return said


def _said(found: dict[str, Any]) -> str:
    if found["state"] == "none":
        return "never opted out" if not found["events"] else "not on the opt-out list"
    if found["state"] == "in":
        return "not on the opt-out list: asked for messages again"
    blocks = ", ".join(class_ for scope in found["scopes"] for class_ in scope["blocks"])
    return f"opted out; not sent to it: {blocks}"


def _rendered(verdict: Verdict) -> str:
    """Fields one a line; those that say nothing are left out."""
    fields = {
        "tier": f"{verdict.tier}  {_MEANINGS[verdict.tier, verdict.intent]}",
        "intent": verdict.intent,
        "rule": verdict.rule,
        "language": verdict.language,
        "normalised": verdict.normalised,
        "version": verdict.version,
    }
    return "\n".join(f"{name:<{_INDENT}}{value}" for name, value in fields.items() if value)
