"""`gatewayd optout`: what the opt-out rules say. `test` needs no daemon and no configuration."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated

import typer

from gatewayd.errors import ConfigError
from gatewayd.router.optout import DEFAULT_LANGUAGES, Intent, Tier, Verdict, classify, load_packs

app = typer.Typer(help="Opt-outs: who must not be written to, and why.", no_args_is_help=True)

_MEANINGS = {
    (Tier.A, Intent.OPT_OUT): "an opt-out: honoured at once",
    (Tier.B, Intent.OPT_OUT): "probably an opt-out: handled by policy",
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
