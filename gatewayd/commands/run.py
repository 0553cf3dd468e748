"""`gatewayd run` and `gatewayd demo`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from gatewayd.commands.config import EXIT_CONFIG, fault_line
from gatewayd.config import DEFAULT_PATH, examine
from gatewayd.errors import ConfigError


def run(
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration.")] = DEFAULT_PATH,
) -> None:
    """Run the daemon in the foreground. SIGTERM drains within a bound and stops. Exit 2: a faulty configuration."""
    from gatewayd.app import run_daemon

    found = examine(config)
    for fault in found.faults:
        typer.echo(fault_line(config, fault), err=True)
    for warning in found.warnings:
        typer.echo(fault_line(config, warning, "warning"), err=True)
    if found.config is None:
        raise typer.Exit(EXIT_CONFIG)
    try:
        status = asyncio.run(run_daemon(found.config))
    except ConfigError as error:
        for fault in error.faults:
            typer.echo(fault_line(error.source or config, fault), err=True)
        raise typer.Exit(EXIT_CONFIG) from None
    raise typer.Exit(status)


def demo(
    modems: Annotated[int, typer.Option(min=1, max=64, help="How many emulated modems.")] = 2,
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port; another one if it is taken.")] = 8080,
    latency_ms: Annotated[float, typer.Option(min=0, help="How long the emulated network takes for a message.")] = 300,
    interval: Annotated[float, typer.Option(min=0, help="Seconds between two messages of a modem.")] = 0,
) -> None:
    """The daemon with emulated modems and subscribers, in a temporary folder: nothing to configure."""
    from gatewayd.demo import demo as run_demo

    raise typer.Exit(asyncio.run(run_demo(modems=modems, port=port, latency_ms=latency_ms, interval_s=interval)))
