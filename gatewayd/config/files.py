"""What a configuration refers to on this machine: looked at by `check-config`, not by `load`.

Missing devices are no faults, for a modem may be plugged in later; files with secrets that are missing, or that others
can read, are.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from gatewayd.apikeys import load_keys, read_private
from gatewayd.config.models import Config
from gatewayd.config.yaml_lines import Document
from gatewayd.config.yaml_lines import Path as KeyPath
from gatewayd.errors import ConfigError, Fault

_SHORT_SUBMIT_S = 60.0


def read_secret(path: Path) -> str:
    """The secret in a `*_file`: its content without the newline at the end.

    Raises ConfigError if the file cannot be read, others can read it, or it holds no text.
    """
    data = read_private(path)
    try:
        secret = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        secret = ""
    if not secret or not secret.isprintable():
        raise ConfigError([Fault("", "one line of text is expected in it")], str(path))
    return secret


def check_files(document: Document, config: Config) -> None:
    """Note faults of the files that the configuration names in `document`."""
    if config.http.api_keys_file is not None:
        try:
            load_keys(config.http.api_keys_file)
        except ConfigError as error:
            _file_faults(document, ("http", "api_keys_file"), error)
    if config.spool.password_file is not None:
        try:
            read_secret(config.spool.password_file)
        except ConfigError as error:
            _file_faults(document, ("spool", "password_file"), error)
    if config.spool.url.startswith("postgresql:") and importlib.util.find_spec("psycopg") is None:
        document.fault(("spool", "url"), "needs the package psycopg: install gatewayd[postgresql]")
    _same_device(document, config)


def _file_faults(document: Document, path: KeyPath, error: ConfigError) -> None:
    for fault in error.faults:
        place = "" if fault.line is None else f" line {fault.line}"
        what = f" {fault.path}:" if fault.path else ""
        document.fault(path, f"{error.source}{place}:{what} {fault.reason}")


def _same_device(document: Document, config: Config) -> None:
    first: dict[str, int] = {}
    for index, channel in enumerate(config.channels):
        if not os.path.exists(channel.port):  # noqa: PTH110 - Path.exists raises for some paths
            continue
        other = first.setdefault(os.path.realpath(channel.port), index)
        if other != index:
            reason = f"is the same device as channels[{other}].port: a port can have one channel"
            document.fault(("channels", index, "port"), reason)


def warnings(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """What is allowed but seldom meant, with the key path it belongs to."""
    if not config.channels:
        yield ("channels",), "no channel: messages are accepted and wait"
    for index, channel in enumerate(config.channels):
        if channel.enabled and not os.path.exists(channel.port):  # noqa: PTH110
            yield ("channels", index, "port"), f"{channel.port} is not there now"
        if channel.submit_timeout_s < _SHORT_SUBMIT_S:
            yield (
                ("channels", index, "submit_timeout"),
                "networks take up to 3 minutes at times: what is given up earlier is in doubt",
            )
    if config.http.api_keys_file is None and not config.http.trusted_networks:
        yield ("http",), "neither api_keys_file nor trusted_networks: only the control socket can submit"
    for index, network in enumerate(config.http.trusted_networks):
        if network.prefixlen == 0:
            yield ("http", "trusted_networks", index), "everybody is trusted"
