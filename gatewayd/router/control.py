"""What the HTTP API and the command line may see and steer of the running gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gatewayd.model import ChannelStatus
from gatewayd.spool.lanes import Lane
from gatewayd.spool.quota import QuotaLeft


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel as shown to people: its status and what it is doing.

    `in_hand` is the id of the message it is submitting (None: none). `next_start_in_s` is how long pacing still holds
    it (0: not at all). `interval_s` is the least time between two submissions. `sim_id` is the SIM's id in the spool, 0
    if unknown. `submitted`, `not_sent` and `doubtful` count segments since the daemon started. `quota` is what its SIM
    has used of each period, as the last intent left it (empty: not known). `mode` is what an operator said (paused,
    draining, "": it works), `mode_reason` who, when and why.
    """

    status: ChannelStatus
    sim_id: int
    interval_s: float
    next_start_in_s: float
    in_hand: int | None
    submitted: int
    not_sent: int
    doubtful: int
    quota: tuple[QuotaLeft, ...] = ()
    mode: str = ""
    mode_reason: str = ""


@dataclass(frozen=True, slots=True)
class Serving:
    """A channel that can serve a message, now or at some time. `obstacle` says what keeps it from that; "": nothing.

    `until_ms`: when that ends by the wall clock (epoch ms), where it is known. `busy`: it is only a matter of its turn.
    """

    channel: str
    obstacle: str
    until_ms: int | None = None
    busy: bool = False


class Control(Protocol):
    """The running gateway, as its operators steer it. `actor` says who, and is recorded."""

    def channels(self) -> list[ChannelView]: ...

    def serving(self, lane: Lane) -> list[Serving]:
        """The channels that serve a lane, and what keeps each of them from it now."""
        ...

    async def set_channel_mode(self, name: str, mode: str, actor: str, reason: str) -> None:
        """Pause, drain or resume (mode "") a channel, durably. KeyError: no such channel. Raises SpoolError."""
        ...

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
