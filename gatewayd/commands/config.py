"""`gatewayd check-config`, `gatewayd config schema|docs` and `gatewayd apikey new|list|revoke`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gatewayd.apikeys import Scope, add_key, load_keys, new_key, remove_key
from gatewayd.config import DEFAULT_PATH, Config, examine, json_schema, load, manual
from gatewayd.errors import ConfigError, Fault

EXIT_CONFIG = 2  # the unit's RestartPreventExitStatus
MARKER = "<!-- From here on made by `gatewayd config docs`; do not edit. -->\n"

app = typer.Typer(help="The configuration's JSON Schema and manual.", no_args_is_help=True)
apikey_app = typer.Typer(help="API keys of the HTTP interface.", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help=f"The configuration [default: {DEFAULT_PATH}].")
]
FileOption = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="The key file, instead of the one a configuration names.")
]


def fault_line(source: Path | str, fault: Fault, kind: str = "") -> str:
    """One fault as `FILE:LINE: key.path: reason`, the way editors and compilers understand."""
    place = f"{source}:{fault.line}" if fault.line is not None else f"{source}"
    return ": ".join(filter(None, (place, kind, fault.path, fault.reason)))


def summary(config: Config) -> str:
    """A configuration in one line."""
    counts = [_count(len(config.channels), "channel")]
    off = sum(not channel.enabled for channel in config.channels)
    if off:
        counts[0] += f" ({off} disabled)"
    if config.sims:
        counts.append(_count(len(config.sims), "SIM"))
    kind = "PostgreSQL" if config.spool.url.startswith("postgresql:") else "SQLite"
    protocol = "HTTP" if config.http.tls is None else "HTTPS"
    return f"{', '.join(counts)}, spool on {kind}, {protocol} on {config.http.listen}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def check_config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The configuration to check.")] = DEFAULT_PATH,
) -> None:
    """Check a configuration and the files it names: exit 0, or 2 with a line for each fault.

    Warnings do not change the exit status.
    """
    found = examine(file)
    for fault in found.faults:
        typer.echo(fault_line(file, fault))
    for warning in found.warnings:
        typer.echo(fault_line(file, warning, "warning"), err=True)
    if found.config is None:
        raise typer.Exit(EXIT_CONFIG)
    typer.echo(f"ok: {summary(found.config)}")


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    typer.echo(schema_text(), nl=False)


def schema_text() -> str:
    """The content of config/gatewayd.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


@app.command("docs")
def docs(
    into: Annotated[
        Path | None, typer.Option("--into", metavar="FILE", help="Replace the generated part of this file instead.")
    ] = None,
) -> None:
    """Print the reference of all configuration keys, in Markdown."""
    if into is None:
        typer.echo(manual(), nl=False)
        return
    head, marker, _ = into.read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        typer.echo(f"{into} has no line {MARKER.strip()}", err=True)
        raise typer.Exit(1)
    into.write_text(f"{head}{MARKER}\n{manual()}", encoding="utf-8")


@apikey_app.command("new")
def apikey_new(
    name: Annotated[str, typer.Argument(help="Whom the key is for.")],
    scope: Annotated[list[Scope] | None, typer.Option("--scope", help="What it may do [default: send].")] = None,
    in_doubt_resend: Annotated[
        bool, typer.Option("--in-doubt-resend", help="Send again what is in doubt, at the risk of doubles.")
    ] = False,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="N/s|N/min", help="The most messages per second or minute.")
    ] = None,
    segments_per_hour: Annotated[
        int | None, typer.Option("--segments-per-hour", metavar="N", help="The most segments in an hour.")
    ] = None,
    segments_per_day: Annotated[
        int | None, typer.Option("--segments-per-day", metavar="N", help="The most segments in a day (UTC).")
    ] = None,
    config: ConfigOption = None,
    file: FileOption = None,
) -> None:
    """Make a key and print its secret, this once. It counts from the daemon's next start or reload."""
    path = _key_file(config, file)
    try:
        secret, record = new_key(
            name,
            scope or [Scope.SEND],
            in_doubt_resend=in_doubt_resend,
            rate=rate,
            segments_per_hour=segments_per_hour,
            segments_per_day=segments_per_day,
        )
        add_key(path, record)
    except (ConfigError, OSError) as error:
        raise _refused(path, error) from None
    typer.echo(secret)
    typer.echo(f"Key {name} is in {path}. Its secret is shown this once; reload gatewayd (SIGHUP) to use it.", err=True)


@apikey_app.command("list")
def apikey_list(
    config: ConfigOption = None,
    file: FileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show the keys, without their secrets."""
    path = _key_file(config, file)
    try:
        keys = list(load_keys(path))
    except ConfigError as error:
        raise _refused(path, error) from None
    for key in keys:
        scopes = [scope.value for scope in Scope if scope in key.scopes]
        created = key.created.strftime("%Y-%m-%dT%H:%M:%SZ")
        if as_json:
            record = {
                "name": key.name,
                "scopes": scopes,
                "created": created,
                "in_doubt_resend": key.in_doubt_resend,
                "rate": None if key.rate is None else str(key.rate),
                "segments_per_hour": key.segments_per_hour,
                "segments_per_day": key.segments_per_day,
            }
            typer.echo(json.dumps(record))
        else:
            notes = ["resends in doubt"] if key.in_doubt_resend else []
            notes += [f"{word}={value}" for word, value in key.limits().items()]
            typer.echo("  ".join([f"{key.name:<32}", f"{','.join(scopes):<15}", created, *notes]))


@apikey_app.command("revoke")
def apikey_revoke(
    name: Annotated[str, typer.Argument(help="The key's name.")],
    config: ConfigOption = None,
    file: FileOption = None,
) -> None:
    """Remove a key. It is refused once the daemon is reloaded (SIGHUP)."""
    path = _key_file(config, file)
    try:
        remove_key(path, name)
    except (ConfigError, OSError) as error:
        raise _refused(path, error) from None
    typer.echo(f"Key {name} is removed from {path}; it is good until you reload gatewayd (SIGHUP).", err=True)


def _key_file(config: Path | None, file: Path | None) -> Path:
    """The key file meant by the options."""
    if file is not None:
        return file
    source = config or DEFAULT_PATH
    try:
        path = load(source).http.api_keys_file
    except ConfigError as error:
        raise _refused(source, error) from None
    if path is None:
        typer.echo(f"{source}: http.api_keys_file: is not set; set it, or say --file FILE", err=True)
        raise typer.Exit(EXIT_CONFIG)
    return path


def _refused(path: Path, error: ConfigError | OSError) -> typer.Exit:
    if isinstance(error, OSError):
        typer.echo(f"{path}: {error.strerror or error}", err=True)
        return typer.Exit(1)
    for fault in error.faults:
        typer.echo(fault_line(path, fault), err=True)
    return typer.Exit(EXIT_CONFIG)
