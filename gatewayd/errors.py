"""The exception families of gatewayd.

Each says what its catcher may do about it::

    GatewayError
    ├── ConfigError          the configuration is at fault: exit 2, nothing was started
    ├── RequestError         the caller is at fault: HTTP 4xx, nothing was kept
    ├── EncodeError          a value does not fit the wire format
    ├── DecodeError          octets are no such TPDU: keep them raw, show them
    ├── LocalProtocolError   our code misused an engine: a bug
    ├── RemoteProtocolError  the modem does not speak the protocol: give up this session
    ├── ChannelLost          the session is over; the supervisor builds another
    ├── ChannelParked        the channel needs a person (PIN, changed SIM): not tried again by itself
    ├── SubmitError          one segment was not accepted, or nobody knows
    ├── SpoolError           the spool cannot take a write now: HTTP 503, try again
    └── IllegalTransition    our code asked for a move that the life cycle does not have: a bug
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gatewayd.model import FailureClass, Outcome


class GatewayError(Exception):
    """Base of everything gatewayd raises on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a configuration: `path` is the key path, `line` counts from 1 (None if unknown)."""

    path: str
    reason: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.path or '(top level)'}: {self.reason}"


class ConfigError(GatewayError):
    """The configuration cannot be used; `faults` holds every fault found, not only the first."""

    def __init__(self, faults: list[Fault], source: str = "") -> None:
        self.faults = faults
        self.source = source
        super().__init__("\n".join(str(fault) for fault in faults))


class RequestError(GatewayError):
    """A submission or query that cannot be honoured.

    `field` names what is wrong with it ("" if it is the whole), `reason` says what would be right, `status` is the
    HTTP status to answer with, `kind` a stable slug for programs.
    """

    def __init__(self, field: str, reason: str, *, status: int = 422, kind: str = "invalid-field") -> None:
        self.field = field
        self.reason = reason
        self.status = status
        self.kind = kind
        super().__init__(f"{field}: {reason}" if field else reason)


class EncodeError(GatewayError):
    """A value that cannot be put on the wire; `path` names the field."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class DecodeError(GatewayError):
    """Octets that are not what they claim to be; `path` names the field, `offset` the octet it begins at."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        self.path = path
        self.offset = offset
        self.reason = reason
        super().__init__(f"{path} at octet {offset}: {reason}")


class LocalProtocolError(GatewayError):
    """We used a protocol engine against its rules; a bug of ours."""


class RemoteProtocolError(GatewayError):
    """The peer broke the protocol beyond repair; the session must be given up."""


class ChannelLost(GatewayError):
    """The session with the device is over. The channel object is spent; its supervisor builds another."""


class ChannelParked(GatewayError):
    """The channel needs a person (PIN, changed SIM) and must not be tried again by itself."""


class SubmitError(GatewayError):
    """A segment that was not accepted by the network, or of which nobody knows.

    `outcome` is NOT_SENT or IN_DOUBT; `failure` says what is at fault; `code` is the result code as the modem gave it
    ("CMS 38"), "" if there was none; `started_ms` is the UTC epoch of the first byte of AT+CMGS (None: nothing was
    written).
    """

    def __init__(
        self, outcome: Outcome, failure: FailureClass, text: str, *, code: str = "", started_ms: int | None = None
    ) -> None:
        self.outcome = outcome
        self.failure = failure
        self.text = text
        self.code = code
        self.started_ms = started_ms
        super().__init__(f"{code}: {text}" if code else text)


class SpoolError(GatewayError):
    """The spool could not commit (locked, disk full, I/O error). Nothing of the operation is kept."""


class IllegalTransition(GatewayError):
    """A state change that the life cycle table does not have, or whose row was not in the state expected."""
