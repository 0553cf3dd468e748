"""`gatewayd run` and `gatewayd demo`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatewayd.commands.config import EXIT_CONFIG, fault_line
from gatewayd.config import DEFAULT_PATH, Config, examine
from gatewayd.errors import ConfigError, Fault

if TYPE_CHECKING:
    from gatewayd.spool.engine import Database

log = logging.getLogger("gatewayd.config")

EXIT_CANNOT_START = 1
PRIVATE_UMASK = 0o027  # texts and numbers are in the spool's files


def run(
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration.", readable=False)
    ] = DEFAULT_PATH,
) -> None:
    """Run the daemon in the foreground.

    SIGTERM drains within a bound and stops. Exit status 2: the configuration is at fault; 1: it cannot start as things
    are (the spool is in use, the port is taken …), which may be otherwise at the next try.
    """
    from gatewayd.app import run_daemon
    from gatewayd.logs import configure_logging
    from gatewayd.wiring import spool_of

    found = examine(config)
    if found.config is None:
        for fault in found.faults:
            typer.echo(fault_line(config, fault), err=True)
        for warning in found.warnings:
            typer.echo(fault_line(config, warning, "warning"), err=True)
        raise typer.Exit(EXIT_CONFIG)
    configure_logging(found.config)
    for warning in found.warnings:
        log.warning("%s", fault_line(config, warning, "warning"))
    os.umask(os.umask(0o077) | PRIVATE_UMASK)
    try:
        missing = list(_missing(found.config, spool_of(found.config)))
        if missing:
            raise ConfigError(missing)
        status = asyncio.run(run_daemon(found.config, lambda: _reread(config)))
    except ConfigError as error:
        for fault in error.faults:
            typer.echo(fault_line(error.source or config, fault), err=True)
        raise typer.Exit(EXIT_CANNOT_START) from None
    raise typer.Exit(status)


def _reread(path: Path) -> Config:
    """The configuration as it is now. Raises ConfigError with all its faults."""
    found = examine(path)
    if found.config is None:
        raise ConfigError(found.faults, str(path))
    for warning in found.warnings:
        log.warning("%s", fault_line(path, warning, "warning"))
    return found.config


def _missing(config: Config, database: Database) -> Iterator[Fault]:
    """Folders the daemon makes files in that are not there, or not its own to write in."""
    places = [("gateway.control_socket", config.gateway.control_socket.parent)]
    if database.url.get_backend_name() == "sqlite" and database.url.database:
        places.append(("spool.url", Path(database.url.database).parent))
    for key, folder in places:
        if not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir may raise)
            yield Fault(key, f"there is no folder {folder}, or it is out of reach: make it with `mkdir -p {folder}`")
        elif os.statvfs(folder).f_flag & os.ST_RDONLY:
            yield Fault(
                key, f"the folder {folder} is on a read-only file system: see `dmesg`, then mount it read-write"
            )
        elif not os.access(folder, os.W_OK | os.X_OK):
            yield Fault(key, f"the folder {folder} is not writable for user id {os.getuid()}: give it to that user")


def demo(
    modems: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="How many emulated modems.")] = 2,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="HTTP port; another one if it is taken.")
    ] = 8080,
    latency_ms: Annotated[
        float, typer.Option(metavar="MS", min=0, help="How long the emulated network takes for a message.")
    ] = 300,
    interval: Annotated[float, typer.Option(metavar="S", min=0, help="Seconds between two messages of a modem.")] = 0,
    webhook: Annotated[str, typer.Option(metavar="URL", help="Tell this endpoint of every event.")] = "",
) -> None:
    """Run with emulated modems: nothing to configure.

    The daemon, its modems and their subscribers, in a temporary folder that is removed at the end.
    """
    from gatewayd.demo import demo as run_demo
    from gatewayd.modems.simulator.control import SimulatorError

    try:
        status = asyncio.run(
            run_demo(modems=modems, port=port, latency_ms=latency_ms, interval_s=interval, webhook=webhook)
        )
    except (ConfigError, SimulatorError, OSError) as error:
        typer.echo(f"the demo cannot run: {error}", err=True)
        raise typer.Exit(EXIT_CANNOT_START) from None
    raise typer.Exit(status)
