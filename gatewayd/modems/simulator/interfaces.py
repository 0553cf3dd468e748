"""What the parts of the simulator need of each other, and the result codes they answer with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gatewayd.modems.pdu import Submit
    from gatewayd.modems.simulator.sim import SimCard

Row = dict[str, Any]
"""One line of the ledger; `docs/simulator.md` has the kinds and their fields."""

Record = Callable[[Row], None]


class Handle(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    """Monotonic time in seconds and what is to happen later: an asyncio event loop, or a test's."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Handle: ...

    def call_soon(self, callback: Callable[..., object], *args: Any) -> object: ...


class Line(Protocol):
    """The wire to the program that uses the modem."""

    def write(self, data: bytes) -> None: ...

    def unplug(self) -> None:
        """Cut the wire once what was written has been read; the program sees the device vanish."""
        ...


class Intake(Enum):
    """What a modem does with a TPDU from the network."""

    TAKEN = "taken"
    PENDING = "pending"  # taken once the program acknowledges it
    FULL = "full"  # the network keeps it until there is room
    UNREACHABLE = "unreachable"


class Network(Protocol):
    """The SMS centre as a modem sees it."""

    def submit(self, sim: SimCard, tpdu: bytes, submit: Submit, mr: int, notes: Mapping[str, Any]) -> None:
        """Hand over a TPDU; `notes` go into its ledger row. Raises AtError with the code of a refusal."""
        ...

    def pump(self, sim: SimCard) -> None:
        """The SIM may be reachable now, or have room."""
        ...

    def acknowledged(self, sim: SimCard) -> None:
        """The program acknowledged what was PENDING."""
        ...

    def unacknowledged(self, sim: SimCard) -> None:
        """It did not, and the network is to try again."""
        ...


class AtError(Exception):
    """A command that fails: `kind` "CME" or "CMS" with its code, or "" with a plain result."""

    def __init__(self, kind: str, code: int = 0, result: str = "ERROR") -> None:
        super().__init__(f"{kind} {code}" if kind else result)
        self.kind = kind
        self.code = code
        self.result = result

    def line(self, cmee: int, bare_cms: bool) -> str:
        """The final result, by the mode set with AT+CMEE. Source: 3GPP TS 27.007 §9.1, 27.005 §3.2.5."""
        if not self.kind or (cmee == 0 and not (self.kind == "CMS" and bare_cms)):
            return self.result
        if cmee == 2:
            return f"+{self.kind} ERROR: {_TEXTS.get((self.kind, self.code), self.code)}"
        return f"+{self.kind} ERROR: {self.code}"


def cme(code: int) -> AtError:
    return AtError("CME", code)


def cms(code: int) -> AtError:
    return AtError("CMS", code)


_TEXTS = {
    ("CME", 3): "operation not allowed",
    ("CME", 4): "operation not supported",
    ("CME", 10): "SIM not inserted",
    ("CME", 11): "SIM PIN required",
    ("CME", 12): "SIM PUK required",
    ("CME", 14): "SIM busy",
    ("CME", 16): "incorrect password",
    ("CME", 50): "incorrect parameters",
    ("CMS", 21): "Short message transfer rejected",
    ("CMS", 28): "Unidentified subscriber",
    ("CMS", 38): "Network out of order",
    ("CMS", 302): "operation not allowed",
    ("CMS", 303): "operation not supported",
    ("CMS", 304): "invalid PDU mode parameter",
    ("CMS", 310): "SIM not inserted",
    ("CMS", 311): "SIM PIN required",
    ("CMS", 316): "SIM PUK required",
    ("CMS", 321): "invalid memory index",
    ("CMS", 322): "memory full",
    ("CMS", 330): "SMSC address unknown",
    ("CMS", 331): "no network service",
    ("CMS", 332): "network timeout",
    ("CMS", 340): "no +CNMA acknowledgement expected",
    ("CMS", 500): "unknown error",
}
