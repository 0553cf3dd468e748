"""What the dispatcher knows of one channel while it runs."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from gatewayd.model import ChannelState
from gatewayd.modems.channel import Channel
from gatewayd.modems.supervisor import Supervisor
from gatewayd.router.breaker import Breaker
from gatewayd.router.pacing import Pace
from gatewayd.router.windows import Schedule
from gatewayd.spool.events import GatewayEvent
from gatewayd.spool.quota import QuotaLeft, SimQuota, Spent
from gatewayd.spool.work import Claim, Line

MAX_UNTOLD = 100  # states of a channel that wait for the spool; the oldest is forgotten first


@dataclass(frozen=True, slots=True)
class Pacing:
    """The least time between two submissions of a channel, what chance adds, and how many may follow at once."""

    interval_s: float = 0.0
    jitter_s: float = 0.0
    burst: int = 1


@dataclass(frozen=True, slots=True)
class Sim:
    """What the configuration says of the SIM in a channel, and of the channel for it. `number` "": nobody knows it."""

    number: str = ""
    tags: frozenset[str] = frozenset()
    schedules: tuple[Schedule, ...] = ()
    quota: SimQuota = field(default_factory=SimQuota)


@dataclass(slots=True, eq=False)
class ChannelTask:
    """One channel: its supervisor and session, what it may take, and what it is doing.

    `mode` is an operator's word: paused, draining, or "". `down_since`: monotonic time since which it cannot send, None
    while it can. `spent`: the quota of its SIM that is used up; `spent_for_new`: that of recipients new to it.
    """

    name: str
    supervisor: Supervisor
    pace: Pace
    urgent: Pace
    breaker: Breaker
    number: str = ""  # of a SIM that says none
    sim_id: int = 0
    tags: frozenset[str] = frozenset()  # its own and its SIM's
    schedules: tuple[Schedule, ...] = ()  # its own and its SIM's
    quota: SimQuota = field(default_factory=SimQuota)
    spent: Spent | None = None
    spent_for_new: Spent | None = None
    left: tuple[QuotaLeft, ...] = ()
    mode: str = ""
    mode_reason: str = ""
    down_since: float | None = 0.0
    in_hand: Claim | None = None
    submitted: int = 0
    not_sent: int = 0
    doubtful: int = 0
    doubts: int = 0  # in a row, without a success between
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    alarm: asyncio.TimerHandle | None = None  # wakes it
    called: bool = False  # woken because a message became claimable
    errand: str = ""  # woken because this dialer may start its next message
    again: bool = False  # something became claimable while it was asking
    alerts_seen: int = -1  # for which version of the urgent lanes it found nothing
    leaving: bool = False  # removed by a reload: it takes nothing more
    told: ChannelState | None = None  # the state of the last event about it
    untold: deque[GatewayEvent] = field(default_factory=lambda: deque(maxlen=MAX_UNTOLD))  # not on disk yet
    telling: asyncio.Lock = field(default_factory=asyncio.Lock)
    sending: asyncio.Task[None] | None = None
    supervising: asyncio.Task[None] | None = None

    @property
    def line(self) -> Line:
        return Line(self.name, self.sim_id)

    @property
    def usable(self) -> Channel | None:
        """The session that may send now, if there is one."""
        if self.sim_id and self.supervisor.status().state is ChannelState.READY:
            return self.supervisor.current
        return None
