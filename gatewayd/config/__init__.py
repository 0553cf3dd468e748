"""The configuration: one YAML file, frozen models.

`load` and `parse` give a `Config` or raise ConfigError with every fault; `check` and `examine` also look at the files
the configuration names. Code that only needs values imports the models from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gatewayd.config.addresses import Listen
from gatewayd.config.files import TlsFiles, check_files, read_secret, read_signing_key, tls_files, warnings
from gatewayd.config.models import (
    Channel,
    ChannelType,
    Config,
    Gateway,
    Http,
    InDoubt,
    Logging,
    LogLevel,
    Pacing,
    Retries,
    Sim,
    Spool,
    Tls,
    TlsVersion,
)
from gatewayd.config.shape import json_schema as _json_schema
from gatewayd.config.shape import manual as _manual
from gatewayd.config.tree import build, sorted_faults
from gatewayd.config.webhooks import Callbacks, Webhook
from gatewayd.config.yaml_lines import MAX_OCTETS, Document, key_path, read_document
from gatewayd.errors import ConfigError, Fault

__all__ = [
    "DEFAULT_PATH",
    "Callbacks",
    "Channel",
    "ChannelType",
    "Config",
    "Examination",
    "Gateway",
    "Http",
    "InDoubt",
    "Listen",
    "LogLevel",
    "Logging",
    "Pacing",
    "Retries",
    "Sim",
    "Spool",
    "Tls",
    "TlsFiles",
    "TlsVersion",
    "Webhook",
    "check",
    "examine",
    "json_schema",
    "load",
    "manual",
    "parse",
    "read_secret",
    "read_signing_key",
    "tls_files",
]

DEFAULT_PATH = Path("/etc/gatewayd/gatewayd.yaml")


def load(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError with all its faults, sorted by line; `source` is the path.

    The files it names (keys, passwords, devices) are not looked at: see `check`.
    """
    document = _read(path)
    config = build(document)
    if config is None:
        raise ConfigError(document.faults, str(path))
    return config


def parse(source: str | bytes, name: str = "") -> Config:
    """Read a configuration from memory, as `load` does; `name` becomes the error's `source`."""
    document = read_document(source)
    config = build(document)
    if config is None:
        raise ConfigError(document.faults, name)
    return config


@dataclass(frozen=True, slots=True)
class Examination:
    """What `examine` found. `config` is None if there are faults; warnings do not keep the daemon from starting."""

    config: Config | None
    faults: list[Fault]
    warnings: list[Fault]


def examine(path: Path) -> Examination:
    """Check a configuration file and the files it names; never raises."""
    document = _read(path)
    config = build(document)
    if config is None:
        return Examination(None, document.faults, [])
    check_files(document, config)
    found = [Fault(key_path(where), reason, document.line(where)) for where, reason in warnings(config)]
    faults = sorted_faults(document.faults)
    return Examination(None if faults else config, faults, sorted_faults(found))


def check(path: Path) -> list[Fault]:
    """Every fault of a configuration file and of the files it names, sorted by line; empty if it is fine."""
    return examine(path).faults


def json_schema() -> dict[str, object]:
    """The JSON Schema of the file, for editors."""
    return _json_schema(Config)


def manual() -> str:
    """The generated part of docs/configuration.md, in Markdown."""
    return _manual(Config)


def _read(path: Path) -> Document:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_OCTETS + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        document = Document()
        document.fault((), f"cannot be read: {reason}")
        return document
    return read_document(data)
