"""Who is woken when: idle channels, as messages become claimable, dialers may start again, and times come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gatewayd.clock import Clock
from gatewayd.router.channeltask import ChannelTask
from gatewayd.router.eligibility import ALERT, Eligibility, Shut, Why, of_dialer
from gatewayd.router.routes import SOURCE_OF_DIALER
from gatewayd.spool.lanes import Lane
from gatewayd.spool.work import Claim


class Wakes:
    """The channels of one daemon that wait for work. All of it in the event loop.

    `idle`: those that found nothing, in the order they became idle. `asking`: those that wait for the spool's answer.
    `version` grows whenever what is open to whom may have changed, `alerts` also with every urgent message that becomes
    claimable.
    """

    def __init__(self, channels: Mapping[str, ChannelTask], rules: Eligibility, clock: Clock) -> None:
        self._channels = channels
        self._rules = rules
        self._clock = clock
        self.idle: dict[ChannelTask, None] = {}
        self.asking: set[ChannelTask] = set()
        self.version = 0
        self.alerts = 0
        self._dialers: dict[str, asyncio.TimerHandle] = {}  # when each may start again

    def claimable(self, lanes: Mapping[Lane, int]) -> None:
        """So many messages became claimable in each lane."""
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic()
        for lane, count in lanes.items():
            if lane.source == ALERT:
                self.alerts += 1
                for task in self._channels.values():  # also those that keep their pace
                    task.wake.set()
            for task in self.asking:  # whether they saw it is not known
                shut = self._rules.shut(task, lane, now_ms, now_s)
                task.again = task.again or shut is None
                self.heed(task, shut)
            for task in list(self.idle):
                if count == 0:
                    break
                shut = self._rules.shut(task, lane, now_ms, now_s)
                if shut is None:
                    task.called = True
                    self.wake(task)
                    count -= 1
                self.heed(task, shut)

    def heed(self, task: ChannelTask, shut: Shut | None) -> None:
        """See to it that a lane that is closed to a channel is looked at again when it may be open."""
        if shut is not None and shut.again_s is not None:
            self.at(task, shut.again_s)
        if shut is not None and shut.why is Why.DIALER_PACE:
            self.await_dialer(shut.detail)

    def wake(self, task: ChannelTask) -> None:
        self.idle.pop(task, None)
        task.wake.set()

    def at(self, task: ChannelTask, at_s: float) -> None:
        """Wake a channel at a monotonic time, if nothing does before."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, at_s - self._clock.monotonic())
        if task.alarm is None or task.alarm.cancelled() or not loop.time() < task.alarm.when() <= when:
            if task.alarm is not None:
                task.alarm.cancel()
            task.alarm = loop.call_at(when, self.wake, task)

    def look_again(self) -> None:
        """What is open to whom may be another matter now: everybody asks again."""
        self.version += 1
        self.alerts += 1
        self.everybody()

    def await_dialer(self, name: str) -> None:
        """Look for a dialer's next message when it may start it."""
        loop = asyncio.get_running_loop()
        when = loop.time() + self._rules.paced_s(name, self._clock.monotonic())
        timer = self._dialers.get(name)
        if timer is None or not loop.time() < timer.when() <= when:
            if timer is not None:
                timer.cancel()
            self._dialers[name] = loop.call_at(when, self.dialer_free, name)

    def dialer_free(self, name: str) -> None:
        """A dialer may start its next message: one idle channel is to look for it, the likeliest one. If it finds none,
        all the others look (`run_errand`): which of them it may go to is known to the spool.
        """
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic()
        self.version += 1
        idle = list(self.idle)
        open_to = (task for task in idle if self._rules.shut(task, of_dialer(name), now_ms, now_s) is None)
        task = next(open_to, idle[0] if idle else None)
        if task is not None:
            task.called, task.errand = True, name
            self.wake(task)

    def run_errand(self, task: ChannelTask, claim: Claim | None) -> None:
        """Of a channel that looked for a dialer's message: `claim` is what it found."""
        name, task.errand = task.errand, ""
        if name and (claim is None or claim.lane.source != SOURCE_OF_DIALER + name):
            for other in list(self.idle):
                self.wake(other)

    def everybody(self) -> None:
        for task in self._channels.values():
            self.wake(task)

    def pass_on(self, task: ChannelTask) -> None:
        """Let the other idle channels look for the message this one was woken for and cannot take.

        All of them: which of them it may go to is known to the spool.
        """
        if task.called:
            task.called, task.errand = False, ""
            for other in list(self.idle):
                self.wake(other)
