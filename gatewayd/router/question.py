"""What a channel asks the spool for."""

from __future__ import annotations

from gatewayd.clock import Clock
from gatewayd.modems.channel import Channel
from gatewayd.router.channeltask import ChannelTask
from gatewayd.router.eligibility import ALERT, Eligibility, Why
from gatewayd.spool.lanes import Lane
from gatewayd.spool.work import Want


class Question:
    """What a channel asks the spool for. `again_s`: when it is worth asking again (monotonic), if nothing happens
    before. `dialers`: those whose interval kept their messages back.

    The spool calls what is in `wanted` from the writer's thread.
    """

    def __init__(self, rules: Eligibility, task: ChannelTask, channel: Channel, clock: Clock, paced: bool) -> None:
        self.again_s: float | None = None
        self.dialers: set[str] = set()

        def serves(lane: Lane) -> bool:
            shut = rules.shut(task, lane, clock.now_ms(), clock.monotonic(), paced=paced)
            if shut is None:
                return True
            if shut.again_s is not None and (self.again_s is None or shut.again_s < self.again_s):
                self.again_s = shut.again_s
            if shut.why is Why.DIALER_PACE:
                self.dialers.add(shut.detail)
            return False

        self.wanted = Want(
            serves,
            channel.plan,
            quota=task.quota,
            urgent=lambda lane: lane.source == ALERT and rules.urgent(clock.monotonic()),
            sticky=rules.sticky,
            closes_at=lambda lane: rules.closes_at(task, lane, clock.now_ms()),
            turn=lambda lane: rules.my_turn(task, lane),
            took=lambda lane: rules.took(task, lane),
        )
