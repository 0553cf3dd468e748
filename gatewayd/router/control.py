"""What the HTTP API and the command line may see and steer of the running gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gatewayd.model import ChannelStatus


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel as shown to people: its status and what it is doing.

    `in_hand` is the id of the message it is submitting (None: none). `next_start_in_s` is how long pacing still holds
    it (0: not at all). `interval_s` is the least time between two submissions. `sim_id` is the SIM's id in the spool, 0
    if unknown. `submitted`, `not_sent` and `doubtful` count segments since the daemon started.
    """

    status: ChannelStatus
    sim_id: int
    interval_s: float
    next_start_in_s: float
    in_hand: int | None
    submitted: int
    not_sent: int
    doubtful: int


class Control(Protocol):
    """The running gateway, as its operators steer it. `actor` says who, and is recorded."""

    def channels(self) -> list[ChannelView]: ...

    def paused(self) -> str:
        """Why nothing is sent ("paused by root at … : reason"); "" while sending is on."""
        ...

    async def pause(self, actor: str, reason: str) -> None:
        """Durable emergency stop: nothing more is submitted until `resume`, over restarts too. Raises SpoolError."""
        ...

    async def resume(self, actor: str) -> None: ...

    async def accept_sim(self, channel: str, actor: str) -> bool:
        """Pair `channel` with the SIM that is in it now. False: nothing to accept. KeyError: no such channel."""
        ...
