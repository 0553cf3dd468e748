"""Who keeps a channel alive: brings it up, watches its session, and builds another when it is over.

A channel object is used once. After ChannelLost it is closed and forgotten, and the next one comes after a back-off;
after ChannelParked only when a person says so. Everything that sends asks here for the channel of the moment.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

from gatewayd import metrics
from gatewayd.clock import Clock
from gatewayd.errors import ChannelLost, ChannelParked, GatewayError
from gatewayd.model import ChannelState, ChannelStatus
from gatewayd.modems.channel import AdmitSim, Channel, ChannelEvent, Sink, StateChanged
from gatewayd.msglog import Trouble

logger = logging.getLogger("gatewayd.channel")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next session, in seconds.

    `steps` after the first, second, … failure in a row, the last for all further; `jitter` is the share by which each
    varies at random, so that thirty modems on one hub do not come back in step. `device_poll_s`: how often to look for
    a device that is away (its return is acted on at once). `stable_s`: a session that lived so long ends the row.
    """

    steps: tuple[float, ...] = (1, 2, 5, 10, 30, 60)
    jitter: float = 0.2
    device_poll_s: float = 2.0
    stable_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """The wait after that many failures in a row (1, 2, …)."""
        step = self.steps[min(failures, len(self.steps)) - 1]
        return step * (1 + self.jitter * random.uniform(-1, 1))


@runtime_checkable
class Heir(Protocol):
    """A channel that has to know how the session before it ended."""

    def inherit(self, predecessor: Channel) -> None:
        """Called once, before `open`."""
        ...


@runtime_checkable
class Debtor(Protocol):
    """A channel whose device may still owe the result of a submission that was made before this session."""

    def expect_late_result(self, within_s: float) -> None:
        """Called while it is brought up: after a restart of the daemon, or a reload, no predecessor can tell."""
        ...


class Supervisor:
    """Owns the channel `name`: `factory` makes a fresh object for each session.

    `sink` gets the events of every session and a StateChanged for every change between them. `open_limit_s` bounds a
    bring-up as a whole, should a device answer just fast enough for each single limit. One task runs `run`.
    """

    def __init__(
        self,
        name: str,
        factory: Callable[[], Channel],
        sink: Sink,
        admit_sim: AdmitSim,
        clock: Clock,
        backoff: Backoff | None = None,
        *,
        open_limit_s: float = 300.0,
    ) -> None:
        self.name = name
        self._factory = factory
        self._sink = sink
        self._admit_sim = admit_sim
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._open_limit_s = open_limit_s
        self._channel: Channel | None = None
        self._predecessor: Channel | None = None  # closed
        self._open = False
        self._status = ChannelStatus(name, ChannelState.DOWN, clock.now_ms(), "not started")
        self._failures = 0
        self._trouble = Trouble(logger)  # what the log was told since the channel was up
        self._changed = asyncio.Event()
        self._unparked = asyncio.Event()
        self._given_up: str | None = None
        self._give_up = asyncio.Event()
        self._announced: ChannelStatus | None = None
        self._task: asyncio.Task[Any] | None = None

    # -- for those who send and show --

    @property
    def current(self) -> Channel | None:
        """The channel, while it may send."""
        channel = self._channel
        if not self._open or channel is None or self._give_up.is_set():
            return None
        return channel if channel.status().state is ChannelState.READY else None

    @property
    def session(self) -> Channel | None:
        """The channel, also while it is brought up; None between two sessions."""
        return self._channel

    async def ready(self) -> Channel:
        """Wait until a channel may send."""
        while (channel := self.current) is None:
            self._changed.clear()
            await self._changed.wait()
        return channel

    def status(self) -> ChannelStatus:
        """The live channel's status, or what is known between two sessions."""
        return self._channel.status() if self._channel is not None else self._status

    def give_up(self, reason: str) -> None:
        """Discard the session (three segments in doubt in a row, say) and build another; harmless without one."""
        if self._channel is not None and not self._give_up.is_set():
            self._given_up = reason
            self._give_up.set()

    def unpark(self) -> None:
        """A person dealt with what the channel was parked for: try again now."""
        self._unparked.set()

    # -- the life of a channel --

    async def run(self) -> NoReturn:
        """Session after session, until cancelled or stopped."""
        self._task = asyncio.current_task()
        try:
            while True:
                parked, reason = await self._session()
                if parked:
                    await self._wait_parked(reason)
                else:
                    await self._wait_down(reason)
        finally:
            self._task = None
            await self._set_status(ChannelState.STOPPED, "stopped", announce=False)

    async def stop(self) -> None:
        """End `run` and close the channel; returns when that is done."""
        task = self._task
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait({task})

    async def _session(self) -> tuple[bool, str]:
        """One channel object from its making to its closing; returns whether it is parked, and why it ended."""
        loop = asyncio.get_running_loop()
        self._give_up.clear()
        self._given_up = None
        parked = False
        opened_at: float | None = None
        channel = self._channel = self._factory()
        if self._predecessor is not None and isinstance(channel, Heir):
            channel.inherit(self._predecessor)
        try:
            await self._announce(channel.status())
            await self._unless_given_up(self._bring_up(channel), "bring-up")
            opened_at = loop.time()
            self._open = True
            self._recovered(channel)
            await self._announce(channel.status())
            await self._unless_given_up(channel.run(self._on_event), "run")
            reason = "the session ended"
        except ChannelParked as error:
            parked, reason = True, str(error)
        except GatewayError as error:
            reason = str(error) or type(error).__name__
        except Exception as error:
            logger.exception("%s: the session failed", self.name)
            reason = f"{type(error).__name__}: {error}"
        finally:
            self._open = False
            self._status = replace(channel.status(), state=ChannelState.DOWN, since_ms=self._clock.now_ms())
            await channel.close()
            self._channel = None
            self._predecessor = channel
        if opened_at is not None and loop.time() - opened_at >= self._backoff.stable_s:
            self._failures = 0
        metrics.session_ended(
            self.name, parked=parked, given_up=self._given_up is not None, was_up=opened_at is not None
        )
        return parked, reason

    async def _bring_up(self, channel: Channel) -> None:
        try:
            async with asyncio.timeout(self._open_limit_s):
                await channel.open(self._admit_sim)
        except TimeoutError:
            raise ChannelLost(f"bring-up took more than {self._open_limit_s:g} s") from None

    async def _unless_given_up(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Await `work`; raises ChannelLost as soon as the session is given up."""
        task = asyncio.create_task(work, name=f"{self.name}: {what}")
        call = asyncio.create_task(self._give_up.wait(), name=f"{self.name}: give up")
        try:
            await asyncio.wait({task, call}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ChannelLost(self._given_up or "given up")
            task.result()
        finally:
            for each in (task, call):
                each.cancel()
            await asyncio.gather(task, call, return_exceptions=True)

    async def _on_event(self, event: ChannelEvent) -> None:
        if isinstance(event, StateChanged):
            await self._announce(event.status)
        else:
            await self._sink(event)

    # -- between sessions --

    async def _wait_parked(self, reason: str) -> None:
        logger.warning("%s: parked: %s", self.name, reason)
        self._unparked.clear()
        await self._set_status(ChannelState.PARKED, reason)
        await self._unparked.wait()
        self._failures = 0

    async def _wait_down(self, reason: str) -> None:
        self._failures += 1
        delay_s = self._backoff.delay_s(self._failures)
        self._trouble.failed(reason, "%s: %s; next try in %.3g s", self.name, reason, delay_s)
        await self._set_status(ChannelState.DOWN, reason)
        await self._wait_or_device(delay_s)

    async def _wait_or_device(self, delay_s: float) -> None:
        """The back-off; where the device is not there, its return ends it early."""
        port = self._status.port
        if not _is_away(port):
            await asyncio.sleep(delay_s)
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + delay_s
        while (left_s := until - loop.time()) > 0:
            await asyncio.sleep(min(left_s, self._backoff.device_poll_s))
            if not _is_away(port):
                self._failures = 0
                return

    def _recovered(self, channel: Channel) -> None:
        status = channel.status()
        failures = self._trouble.over()
        again = " again" if self._failures else ""
        after = f" (after {failures} failures)" if failures > 1 else ""
        known = (status.port, status.model, status.state.value)
        logger.info("%s: up%s on %s: %s, %s%s", self.name, again, *known, after)

    async def _set_status(self, state: ChannelState, reason: str, *, announce: bool = True) -> None:
        self._status = replace(self._status, state=state, reason=reason, since_ms=self._clock.now_ms())
        if announce:
            await self._announce(self._status)

    async def _announce(self, status: ChannelStatus) -> None:
        """Tell the sink; that it is in trouble must not end the supervision."""
        self._changed.set()
        if status == self._announced:
            return
        self._announced = status
        try:
            await self._sink(StateChanged(status))
        except Exception as error:
            level = logging.DEBUG if isinstance(error, GatewayError) else logging.ERROR
            logger.log(level, "%s: its state is not taken: %r", self.name, error)


def _is_away(port: str) -> bool:
    """Whether `port` is a path at which there is nothing: one stat, of /dev."""
    return port.startswith("/") and not Path(port).exists()
