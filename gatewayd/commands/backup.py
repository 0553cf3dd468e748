"""`gatewayd backup` and `gatewayd restore`: neither speaks to the daemon (docs/backup.md)."""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gatewayd.commands.client import JsonOption
from gatewayd.commands.config import EXIT_CONFIG, fault_line
from gatewayd.config import DEFAULT_PATH, load
from gatewayd.errors import ConfigError, GatewayError

if TYPE_CHECKING:
    from gatewayd.config import Config
    from gatewayd.spool.engine import Database

ConfigOption = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration.")]


def backup(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The file to make.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite it if it is there.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = DEFAULT_PATH,
) -> None:
    """Copy the spool to a file, while the daemon runs or not.

    The copy is checked before it gets its name. SQLite: a spool of one file. PostgreSQL: what pg_dump makes.
    """
    from gatewayd.spool.backup import back_up

    settings, database = _spool(config)
    begun = time.monotonic()
    try:
        made = back_up(
            database, target, settings.gateway.instance, time.time_ns() // 1_000_000, force=force,
            on_progress=_progress if sys.stderr.isatty() else lambda done, total: None,
        )  # fmt: skip
    except GatewayError as error:
        raise _failed(error) from None
    took_s = time.monotonic() - begun
    if as_json:
        typer.echo(json.dumps({"file": str(target), "at": made.at, "octets": made.octets, "took_s": round(took_s, 3)}))
    else:
        typer.echo(f"{target}: {_size(made.octets)} in {took_s:.1f} s, checked")


def restore(
    source: Annotated[
        Path | None, typer.Argument(metavar="[BACKUP]", help="A file that `gatewayd backup` made.", show_default=False)
    ] = None,
    mark_restored: Annotated[
        bool, typer.Option("--mark-restored", help="The spool was restored already, as by pg_restore: only mark it.")
    ] = False,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Of which moment the backup is (ISO 8601, UTC).")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = DEFAULT_PATH,
) -> None:
    """Put a backup in the spool's place; the daemon must not run.

    What is there now is moved aside, never deleted. The next start is paused, and holds all that the backup takes for
    unsent, for it may have been sent since.
    """
    from gatewayd.spool.engine import SqliteDatabase
    from gatewayd.spool.restore import mark_restored as mark
    from gatewayd.spool.restore import restore as put_back

    if mark_restored == (source is not None):
        typer.echo("either BACKUP or --mark-restored is needed, not both", err=True)
        raise typer.Exit(2)
    settings, database = _spool(config)
    instance, actor, now = settings.gateway.instance, f"{getpass.getuser()} (restore)", time.time_ns() // 1_000_000
    moment = _moment(at)
    os.umask(os.umask(0o077) | 0o027)
    try:
        if source is None:
            done = mark(database, instance, actor, now, moment)
        elif isinstance(database, SqliteDatabase):
            done = put_back(database, source, instance, actor, now, moment)
        else:
            typer.echo(
                "this spool is on PostgreSQL: restore it with pg_restore, then `gatewayd restore --mark-restored`",
                err=True,
            )
            raise typer.Exit(1)
    except GatewayError as error:
        raise _failed(error) from None
    aside = None if done.aside is None else str(done.aside)
    if as_json:
        typer.echo(json.dumps({"reason": done.reason, "before": aside}))
        return
    typer.echo(done.reason)
    if aside:
        typer.echo(f"what was there before is {aside}")
    typer.echo("the next start is paused and holds all that is unsent: look, release, then `gatewayd resume`")


def _spool(path: Path) -> tuple[Config, Database]:
    from gatewayd.wiring import spool_of

    try:
        config = load(path)
        return config, spool_of(config)
    except ConfigError as error:
        for fault in error.faults:
            typer.echo(fault_line(error.source or path, fault), err=True)
        raise typer.Exit(EXIT_CONFIG) from None


def _moment(text: str | None) -> int | None:
    """Epoch ms; a time without a zone is UTC."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        typer.echo(f"--at: a time such as 2026-11-28T10:40:00Z is expected, not {text!r}", err=True)
        raise typer.Exit(2) from None
    return int((found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp() * 1000)


def _progress(done: int, total: int) -> None:
    typer.echo(f"\r{_size(done)} of {_size(total)} ", nl=done >= total, err=True)


def _size(octets: int) -> str:
    size: Any = octets
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.1f} {unit}" if unit != "B" else f"{size} B"
        size /= 1024
    return f"{size:.1f} GiB"


def _failed(error: Exception) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(1)
