"""What every kind of channel offers: a serial modem and a Dinstar port look alike.

A channel object holds one session with one device. It is used once: after any doubt its supervisor discards it and
builds another. Nothing is ever "reset" in place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from gatewayd.model import ChannelStatus, Message, Receipt, Segment, SimIdentity, StoredPdu


@dataclass(frozen=True, slots=True)
class Received:
    """A short message or status report that lies on the device or was handed over directly.

    The sink commits `pdu` to the spool and then awaits `ack()`, which deletes it from the SIM or acknowledges it: never
    before. `ack()` may raise ChannelLost; the PDU then comes again and is recognised as a redelivery.
    """

    pdu: StoredPdu
    ack: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class LateResult:
    """A +CMGS that came after its command had been given up: the segment in doubt was sent, with this TP-MR."""

    ref: int | None


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The channel's status is another one than before."""

    status: ChannelStatus


ChannelEvent = Received | LateResult | StateChanged

Sink = Callable[[ChannelEvent], Awaitable[None]]
"""Where a channel puts what happens; returns once it is dealt with (for Received: on disk and acknowledged)."""

AdmitSim = Callable[[SimIdentity], Awaitable[str]]
"""Asked in bring-up when the SIM is known: "" to go on, else the reason why this channel has to be parked."""


def always() -> bool:
    """The gate of a submission that nothing can withdraw."""
    return True


def unheard() -> None:
    """What a submission calls at its start if nobody wants to know."""


class Channel(Protocol):
    """One session with a slot that can send."""

    name: str

    def plan(self, message: Message) -> list[Segment]:
        """Cut the message into what this channel submits. Pure; raises EncodeError."""
        ...

    async def open(self, admit_sim: AdmitSim) -> None:
        """Connect and bring the device to where it can send. Raises ChannelLost or ChannelParked."""
        ...

    async def run(self, sink: Sink) -> NoReturn:
        """Receive and watch until the session ends. Raises ChannelLost."""
        ...

    async def submit(
        self, segment: Segment, gate: Callable[[], bool] = always, begun: Callable[[], None] = unheard
    ) -> Receipt:
        """Hand one segment to the network.

        `begun` is called at the start: when the first byte of AT+CMGS (or of the POST) is written.
        `gate` is asked at the last moment a submission can still be withdrawn (between AT+CMGS and the PDU); if it says
        no, nothing is sent and SubmitError(NOT_SENT) follows. Raises SubmitError, never anything else.
        """
        ...

    async def close(self) -> None:
        """Let go of the device. Never raises, never hangs; may be called more than once."""
        ...

    def status(self) -> ChannelStatus: ...
