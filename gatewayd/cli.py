"""The command line: puts the groups of commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from gatewayd import __version__
from gatewayd.commands import client, pdu, run, simulate
from gatewayd.commands import config as configuration

app = typer.Typer(
    help="An on-prem SMS gateway daemon for GSM hardware.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gatewayd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """An on-prem SMS gateway daemon for GSM hardware."""


app.command("run")(run.run)
app.command("demo")(run.demo)
app.command("check-config")(configuration.check_config)
app.command("simulate")(simulate.simulate)
client.register(app)
app.add_typer(pdu.app, name="pdu")
app.add_typer(configuration.apikey_app, name="apikey")
app.add_typer(configuration.app, name="config")


def main() -> None:
    """The console script."""
    app()
