"""How the router takes part in keeping what comes in: what it is shown of a message, and what it says of it.

An intake is pure, and called inside the transaction that keeps the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gatewayd.spool.accept import NewMessage

TEXT, DATA, UNDECODABLE = "text", "data", "undecodable"
"""Kinds of inbound messages."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a text is joined of. `data` is septets, one an octet, or octets, without header."""

    seq: int
    dcs: int
    text: str | None
    data: bytes


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """A message as handed over. `number` is `originator` as E.164 or short code, "" if it is neither.

    `parts` of `parts_total` are there; `continues` is the message that was handed over without them. `text` None: data,
    or undecodable (`error` says why).
    """

    channel: str
    sim_id: int
    kind: str
    originator: str
    number: str
    recipient: str
    sent_at: int | None
    received_at: int
    text: str | None
    data: bytes | None
    parts: int
    parts_total: int
    continues: int | None = None
    error: str | None = None

    @property
    def partial(self) -> bool:
        return self.parts < self.parts_total or self.continues is not None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a message means. `acts`: its intent (opt_out, opt_in, help) is honoured; `reply` is then the answer."""

    intent: str = ""
    tier: str = ""
    rule: str = ""
    language: str = ""
    version: str = ""
    acts: bool = False
    reply: NewMessage | None = None


class Intake(Protocol):
    """The router's part: pure."""

    @property
    def reassembly_timeout_ms(self) -> int:
        """How long the parts of a message wait for the rest."""
        ...

    def number(self, originator: str, ton: int | None, recipient: str) -> str:
        """The address of a sender as E.164 or short code; "" if it is neither. `recipient`: the SIM's own number."""
        ...

    def text(self, pieces: Sequence[Piece], total: int) -> str | None:
        """The text of a message from the parts there are; None for data."""
        ...

    def judge(self, message: InboundMessage) -> Ruling: ...


class PlainIntake:
    """Joins texts, and understands none of them."""

    reassembly_timeout_ms = 3_600_000

    def number(self, originator: str, ton: int | None, recipient: str) -> str:
        return originator if originator.startswith("+") else ""

    def text(self, pieces: Sequence[Piece], total: int) -> str | None:
        return None if any(piece.text is None for piece in pieces) else "".join(piece.text or "" for piece in pieces)

    def judge(self, message: InboundMessage) -> Ruling:
        return Ruling()


class CautiousIntake(PlainIntake):
    """As much of an intake as does not fail, and no verdict: for what its rules failed on."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def number(self, originator: str, ton: int | None, recipient: str) -> str:
        try:
            return self._intake.number(originator, ton, recipient)
        except Exception:
            return super().number(originator, ton, recipient)

    def text(self, pieces: Sequence[Piece], total: int) -> str | None:
        try:
            return self._intake.text(pieces, total)
        except Exception:
            return super().text(pieces, total)
