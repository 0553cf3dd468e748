"""What a configuration refers to on this machine: looked at by `check-config`, not by `load`.

Missing devices are no faults, for a modem may be plugged in later; files with secrets that are missing, or that others
can read, are.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gatewayd.apikeys import load_keys, read_private
from gatewayd.config.models import Config, Tls
from gatewayd.config.routing_rules import warnings as routing_warnings
from gatewayd.config.webhooks import signing_key
from gatewayd.config.yaml_lines import Document
from gatewayd.config.yaml_lines import Path as KeyPath
from gatewayd.errors import ConfigError, Fault

_SHORT_SUBMIT_S = 60.0
_EXPIRY_WARNING_S = 14 * 86400.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A PEM certificate with its chain, the server's own first; its PEM key; the oldest version spoken (1.2, 1.3)."""

    cert_file: Path
    key_file: Path
    min_version: str = "1.2"


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


def read_signing_key(path: Path) -> bytes:
    """The HMAC key in a webhook's `secret_file`. Raises ConfigError as `read_secret`, or if it is no secret."""
    try:
        return signing_key(read_secret(path))
    except ValueError as error:
        raise ConfigError([Fault("", str(error))], str(path)) from None


def check_files(document: Document, config: Config) -> None:
    """Note faults of the files that the configuration names in `document`."""
    if config.http.api_keys_file is not None:
        try:
            load_keys(config.http.api_keys_file)
        except ConfigError as error:
            _file_faults(document, ("http", "api_keys_file"), error)
    if config.http.tls is not None:
        from gatewayd.config.certificates import server_context  # ssl, which most commands do not need

        try:
            server_context(tls_files(config.http.tls))
        except ConfigError as error:
            for fault in error.faults:
                document.fault(("http", "tls", fault.path), f"{error.source}: {fault.reason}")
    secrets: list[tuple[KeyPath, Path | None]] = [(("http", "callbacks"), config.http.callbacks.secret_file)]
    secrets += [(("webhooks", index), webhook.secret_file) for index, webhook in enumerate(config.webhooks)]
    for place, secret_file in secrets:
        if secret_file is not None:
            try:
                read_signing_key(secret_file)
            except ConfigError as error:
                _file_faults(document, (*place, "secret_file"), error)
    if config.spool.password_file is not None:
        try:
            read_secret(config.spool.password_file)
        except ConfigError as error:
            _file_faults(document, ("spool", "password_file"), error)
    if config.spool.url.startswith("postgresql:") and importlib.util.find_spec("psycopg") is None:
        document.fault(("spool", "url"), "needs the package psycopg: install gatewayd[postgresql]")
    _same_device(document, config)


def tls_files(tls: Tls) -> TlsFiles:
    """`http.tls` in plain values."""
    return TlsFiles(tls.cert_file, tls.key_file, str(tls.min_version.value))


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
    yield from routing_warnings(config)
    if config.http.api_keys_file is None and not config.http.trusted_networks:
        yield ("http",), "neither api_keys_file nor trusted_networks: only the control socket can submit"
    if config.http.tls is not None:
        yield from _certificate_warnings(config.http.tls)
        if config.http.insecure_http:
            yield ("http", "insecure_http"), "has no effect: http.tls is set, and nothing travels in the clear"
    for index, network in enumerate(config.http.trusted_networks):
        if network.prefixlen == 0:
            yield ("http", "trusted_networks", index), "everybody is trusted"


def _certificate_warnings(tls: Tls) -> Iterator[tuple[KeyPath, str]]:
    """An expired certificate is no fault: the modems go on, and who asks over HTTPS says what is wrong."""
    from gatewayd.config.certificates import try_out

    where: KeyPath = ("http", "tls", "cert_file")
    try:
        found = try_out(tls_files(tls))
    except ConfigError as error:
        yield from ((where, f"{error.source}: {fault.reason}") for fault in error.faults)
        return
    reason = _validity(found.not_before, found.not_after, time.time())
    if reason:
        yield where, f"{tls.cert_file}: {reason}"


def _validity(not_before: float, not_after: float, now: float) -> str:
    """What is wrong with the time of a certificate at `now` (all UTC epoch seconds); "" for nothing."""
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(not_after))
    if now >= not_after:
        return f"the certificate expired at {until}: clients refuse it, renew it and reload"
    if now < not_before:
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(not_before))
        return f"the certificate is not valid before {since}: clients refuse it (is this machine's clock right?)"
    left = not_after - now
    if left < _EXPIRY_WARNING_S:
        return f"the certificate expires in {left / 86400:.1f} days, at {until}: renew it and reload"
    return ""
