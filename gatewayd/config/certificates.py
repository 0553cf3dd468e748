"""The certificate and key of the HTTP listener: loaded and tried, before anybody depends on them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatewayd.apikeys import read_private
from gatewayd.config.files import TlsFiles
from gatewayd.errors import ConfigError, Fault

_MAX_OCTETS = 1 << 20
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_X509_V_FLAG_NO_CHECK_TIME = 0x200000  # x509_vfy.h; the ssl module has no name for it
_TRIAL_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Certificate:
    """What clients will see. Times are UTC epoch seconds; `names` are the DNS names and addresses it is for."""

    not_before: float
    not_after: float
    names: tuple[str, ...]


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that serves with these files and OpenSSL's default ciphers.

    Raises ConfigError; a fault's path is `cert_file` or `key_file`.
    """
    _check_readable(files.cert_file)
    try:
        read_private(files.key_file)
    except ConfigError as error:
        raise ConfigError([Fault("key_file", f.reason) for f in error.faults], str(files.key_file)) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[files.min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION  # or a client could make us repeat the expensive part for ever
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.cert_file, files.key_file, password=_no_password)
    except _Encrypted:
        raise _fault("key_file", files.key_file, "has a passphrase, which a daemon cannot type: remove it") from None
    except (ssl.SSLError, OSError, ValueError) as error:
        raise _why(files, error) from error
    return context


def try_out(files: TlsFiles) -> Certificate:
    """Load the files and shake hands with them, in memory. Raises ConfigError as `server_context` does."""
    context = server_context(files)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    try:
        # The certificate itself is what is trusted here, whoever signed it and whenever.
        client.load_verify_locations(files.cert_file)
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        client.verify_flags = ssl.VerifyFlags(client.verify_flags | _X509_V_FLAG_NO_CHECK_TIME)
        shown = _shake_hands(context, client)
    except (ssl.SSLError, OSError) as error:
        reason = f"no client would take it: {_said(error)}"
        raise _fault("cert_file", files.cert_file, reason) from error
    names = tuple(str(value) for kind, value in shown.get("subjectAltName", ()) if kind in ("DNS", "IP Address"))
    return Certificate(ssl.cert_time_to_seconds(shown["notBefore"]), ssl.cert_time_to_seconds(shown["notAfter"]), names)


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """The server's certificate as a client sees it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(_TRIAL_ROUNDS):
        waiting = 0
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
        if not waiting:
            break
    return dict(ends[0].getpeercert() or {})


class _Encrypted(Exception):
    """OpenSSL asks for a passphrase; without a callback it would ask on the terminal."""


def _no_password() -> str:
    raise _Encrypted


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_OCTETS + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _fault("cert_file", path, f"cannot be read: {reason}") from error
    if len(data) > _MAX_OCTETS:
        raise _fault("cert_file", path, f"is larger than {_MAX_OCTETS} octets")
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise _fault("cert_file", path, "holds no PEM certificate (-----BEGIN CERTIFICATE-----)")


def _why(files: TlsFiles, error: Exception) -> ConfigError:
    reason = getattr(error, "reason", None)
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        what = f"is not the key of the first certificate in {files.cert_file}: the server's own must come first there"
        return _fault("key_file", files.key_file, what)
    if b"PRIVATE KEY-----" not in read_private(files.key_file):
        return _fault("key_file", files.key_file, "holds no PEM private key (-----BEGIN PRIVATE KEY-----)")
    where = _culprit(files)
    path = files.key_file if where == "key_file" else files.cert_file
    return _fault(where, path, f"cannot be used: {_said(error)}")


def _culprit(files: TlsFiles) -> str:
    """Which of the two files OpenSSL does not understand: it says only that one of them is bad."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(files.cert_file)
    except (ssl.SSLError, OSError, ValueError):
        return "cert_file"
    return "key_file"


def _said(error: Exception) -> str:
    """OpenSSL's reason in words."""
    reason = getattr(error, "verify_message", None) or getattr(error, "reason", None)
    return str(reason or error).lower().replace("_", " ")


def _fault(key: str, path: Path, reason: str) -> ConfigError:
    return ConfigError([Fault(key, reason)], str(path))
