"""The dispatcher: each channel pulls work when it may send.

One task per channel asks the spool for the best message it may take, submits it, and hands the outcome back together
with its next question: one commit between two submissions, and nothing else. Work is pulled, so a slow channel never
holds what a fast one could send; wake-ups are events, never a poll.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from gatewayd import metrics, msglog
from gatewayd.clock import Clock, iso
from gatewayd.errors import ChannelLost, SpoolError, SubmitError
from gatewayd.model import ChannelState, ChannelStatus, Outcome, SimIdentity
from gatewayd.modems.channel import Channel, ChannelEvent, LateResult, Received, StateChanged
from gatewayd.modems.supervisor import Debtor, Supervisor
from gatewayd.router.control import ChannelView
from gatewayd.router.inbound import RETRY_S, Inbound, persistently, told
from gatewayd.router.pacing import Pace, start_moment
from gatewayd.spool.events import CHANNEL, GatewayEvent
from gatewayd.spool.lanes import Lane
from gatewayd.spool.store import PAUSED, Store
from gatewayd.spool.work import Claim, Line, Result, Want
from gatewayd.spool.writer import Notices

log = logging.getLogger("gatewayd.dispatcher")

TIME_RETRY_MS = 1000  # after a failure
DOUBTS_IN_A_ROW = 3  # without a success between: the channel takes no more work in this session
MAX_UNTOLD = 100  # states of a channel that wait for the spool; the oldest is forgotten first
CLOCK_CHECK_S = 30.0  # the wall clock may jump: what is due by it is looked at again this often at the latest


@dataclass(slots=True, eq=False)
class ChannelTask:
    """What the dispatcher knows of one channel."""

    name: str
    supervisor: Supervisor
    pace: Pace
    number: str = ""  # of a SIM that says none
    sim_id: int = 0
    in_hand: Claim | None = None
    submitted: int = 0
    not_sent: int = 0
    doubtful: int = 0
    doubts: int = 0  # in a row, without a success between
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    called: bool = False  # woken because a message became claimable
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


class Dispatcher:
    """Runs the channels of one daemon. Implements `router.control.Control`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._inbound = Inbound(store)
        self._channels: dict[str, ChannelTask] = {}
        self._idle: dict[ChannelTask, None] = {}  # in the order they became idle
        self._version = 0  # grows with every message that becomes claimable
        self._paused = ""
        self._pauses = 0  # how often it was paused
        self._stopping = False
        self._unsaid: list[Result] = []  # outcomes that removed channels could not put on disk
        self._clockwork: asyncio.Task[None] | None = None
        self._next_due: int | None = None
        self._due = asyncio.Event()

    def add(
        self,
        name: str,
        factory: Callable[[], Channel],
        *,
        interval_s: float,
        numbers: Callable[[SimIdentity], str],
        make_supervisor: Callable[..., Supervisor] = Supervisor,
    ) -> None:
        """Add a channel; it begins with `start()`, or at once after that. `numbers` gives the number of a SIM, "" if
        nobody knows it.
        """

        async def sink(event: ChannelEvent) -> None:
            await self._happened(task, event)

        async def admit_sim(identity: SimIdentity) -> str:
            return await self._admit_sim(task, identity, numbers(identity))

        supervisor = make_supervisor(name, factory, sink, admit_sim, self._clock)
        task = ChannelTask(name, supervisor, Pace(interval_s))
        self._channels[name] = task
        if self._clockwork is not None:
            self._run(task)

    def set_pace(self, name: str, interval_s: float) -> None:
        """Change the least time between two submissions of a channel."""
        task = self._channels[name]
        task.pace.interval_s = interval_s
        self._wake(task)

    async def remove(self, name: str, timeout_s: float) -> None:
        """Let a channel finish what it has in hand, at most `timeout_s`, then close and forget it."""
        task = self._channels[name]
        task.leaving = True
        self._wake(task)
        await self._end([task], timeout_s)
        await self._tell_state(task, replace(task.supervisor.status(), reason="removed or changed by a reload"))
        del self._channels[name]

    async def start(self) -> None:
        """Begin to bring the channels up and to send. Raises SpoolError."""
        self._paused = _pause_sentence(await self._store.setting(PAUSED))
        if self._paused:
            log.warning("nothing is sent: %s (gatewayd resume)", self._paused)
        self._clockwork = asyncio.create_task(self._keep_time(), name="clockwork")
        self._clockwork.add_done_callback(_report_death)
        for task in self._channels.values():
            self._run(task)

    def _run(self, task: ChannelTask) -> None:
        task.supervising = asyncio.create_task(task.supervisor.run(), name=f"supervisor {task.name}")
        task.sending = asyncio.create_task(self._send(task), name=f"dispatcher {task.name}")
        for running in (task.supervising, task.sending):
            running.add_done_callback(_report_death)

    def claim_nothing_more(self) -> None:
        """The first part of `stop`, for while a reload is still under way."""
        self._stopping = True
        self._wake_all()

    async def stop(self, timeout_s: float) -> None:
        """Claim nothing more, wait for what is in hand, at most `timeout_s`; the rest is in doubt. Then close the
        channels.
        """
        self.claim_nothing_more()
        await self._end(list(self._channels.values()), timeout_s)
        if self._clockwork is not None:
            self._clockwork.cancel()
            await asyncio.gather(self._clockwork, return_exceptions=True)

    async def _end(self, tasks: list[ChannelTask], timeout_s: float) -> None:
        sends = [task.sending for task in tasks if task.sending is not None]
        if sends:
            _, late = await asyncio.wait(sends, timeout=timeout_s)
            for sending in late:
                sending.cancel()
            await asyncio.gather(*sends, return_exceptions=True)
        await asyncio.gather(*(task.supervisor.stop() for task in tasks))
        supervisors = [task.supervising for task in tasks if task.supervising is not None]
        for supervising in supervisors:
            supervising.cancel()
        await asyncio.gather(*supervisors, return_exceptions=True)

    def tasks(self) -> list[asyncio.Task[None]]:
        """What must never end by itself while the daemon runs."""
        running = [self._clockwork]
        for task in self._channels.values():
            running += [] if task.leaving else [task.sending, task.supervising]
        return [task for task in running if task is not None]

    # What the spool says after each commit.

    def committed(self, notices: Notices) -> None:
        """Wake whom a commit concerns: as many idle channels as messages became claimable."""
        if notices.due_at is not None and (self._next_due is None or notices.due_at < self._next_due):
            self._next_due = notices.due_at
            self._due.set()
        if notices.everything:
            self._version += 1
            self._next_due = self._clock.now_ms()
            self._due.set()
            self._wake_all()
            return
        if not notices.lanes:
            return
        self._version += 1
        for lane, count in notices.lanes.items():
            for task in list(self._idle):
                if count == 0:
                    break
                if lane.open_to(task.name, task.sim_id):
                    task.called = True
                    self._wake(task)
                    count -= 1

    def _wake(self, task: ChannelTask) -> None:
        self._idle.pop(task, None)
        task.wake.set()

    def _wake_all(self) -> None:
        for task in self._channels.values():
            self._wake(task)

    # One channel.

    async def _send(self, task: ChannelTask) -> None:
        """Ask, submit, hand the outcome back with the next question; for ever."""
        result: Result | None = None
        ended: float | None = None  # of the submission whose outcome is handed back now
        failures = 0
        try:
            while not ((self._stopping or task.leaving) and result is None and not failures):
                wait_s = task.pace.wait_s(self._clock.monotonic())
                ending = self._stopping or task.leaving
                channel = None if ending or self._paused or wait_s > 0 else task.usable
                if channel is None and result is None and not failures:
                    self._pass_on(task)
                    await self._until_it_may(task, wait_s)
                    continue
                version = self._version
                try:
                    if failures:  # of a commit that may have taken place: a claim that nobody got
                        await self._say_unsaid()  # or what a removed channel submitted would be taken for one
                        await self._store.give_back(task.line, result.claim if result else None)
                    taken = await self._store.work(task.line, result, self._want(task, channel))
                except Exception as error:  # whatever it is, the channel's next message may be another matter
                    if not isinstance(error, SpoolError):
                        log.exception("channel %s gets no work", task.name)
                    await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                    failures += 1
                    continue
                failures = 0
                result = None
                since, ended = ended, None
                task.called = task.called and channel is None
                if taken.claim is not None and channel is not None:
                    task.in_hand = taken.claim
                    if since is not None:
                        metrics.line_idle(task.name, self._clock.monotonic() - since)
                    result = await self._submit(task, channel, taken.claim)
                    ended = self._clock.monotonic()
                    task.in_hand = None
                    _count(task.name, result)
                elif channel is not None and not taken.more and version == self._version:
                    self._idle[task] = None
                    await task.wake.wait()
                task.wake.clear()
        except asyncio.CancelledError:
            await self._let_go(task, result)
            raise
        finally:
            self._idle.pop(task, None)
            self._pass_on(task)

    def _pass_on(self, task: ChannelTask) -> None:
        """Let the other idle channels look for the message this one was woken for and cannot take.

        All of them: which of them it may go to is known to the spool.
        """
        if task.called:
            task.called = False
            for other in list(self._idle):
                self._wake(other)

    async def _until_it_may(self, task: ChannelTask, wait_s: float) -> None:
        """Wait until the channel's pace allows, or something about it changes."""
        try:
            async with asyncio.timeout(wait_s if wait_s > 0 else None):
                await task.wake.wait()
        except TimeoutError:
            pass
        task.wake.clear()

    def _want(self, task: ChannelTask, channel: Channel | None) -> Want | None:
        if channel is None:
            return None
        name, sim_id = task.name, task.sim_id

        def serves(lane: Lane) -> bool:
            return lane.open_to(name, sim_id)

        return Want(serves, channel.plan)

    async def _submit(self, task: ChannelTask, channel: Channel, claim: Claim) -> Result:
        """Submit one segment and say what became of it; whatever happens, there is an outcome."""
        withdrawn = ""

        def gate() -> bool:
            nonlocal withdrawn
            withdrawn = self._withdrawn_because(task, message_id)
            return not withdrawn

        called = self._clock.monotonic()
        segment = claim.segment
        message_id, seq, total = segment.message.id, segment.seq, segment.total
        try:
            receipt = await channel.submit(segment, gate)
        except SubmitError as error:
            finished_ms = self._clock.now_ms()
            if error.started_ms is not None:
                self._started(task, error.started_ms, finished_ms, called)
            if error.outcome is Outcome.IN_DOUBT:
                self._doubted(task)
                msglog.in_doubt(message_id, seq, task.name, str(error))
            elif withdrawn:
                msglog.withdrawn(message_id, seq, task.name, withdrawn)
            else:
                task.not_sent += 1
                msglog.not_sent(message_id, seq, total, task.name, error.code, error.text)
            return Result(
                claim,
                error.outcome,
                error.started_ms,
                finished_ms,
                retry=error.retry,
                code=error.code,
                detail=withdrawn or error.text,
                withdrawn=bool(withdrawn) and error.outcome is Outcome.NOT_SENT,
                alternatives=not claim.pinned and self._others(task),
                lost=not error.code and task.supervisor.current is not channel,
            )
        except (Exception, asyncio.CancelledError) as error:  # a bug of ours; bytes may have left
            current = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and current is not None and current.cancelling():
                raise
            log.exception("channel %s failed while it had message %d in its hands", task.name, message_id)
            now = self._clock.now_ms()
            self._started(task, now, now, called)
            self._doubted(task)
            return Result(claim, Outcome.IN_DOUBT, now, now, detail=f"internal error: {error!r}")
        self._started(task, receipt.started_ms, receipt.finished_ms, called)
        task.submitted += 1
        task.doubts = 0
        took_ms = receipt.finished_ms - receipt.started_ms
        msglog.submitted(message_id, seq, total, task.name, receipt.ref, took_ms)
        return Result(claim, Outcome.SENT, receipt.started_ms, receipt.finished_ms, ref=receipt.ref)

    def _started(self, task: ChannelTask, started_ms: int, finished_ms: int, called: float) -> None:
        task.pace.started(start_moment(started_ms, finished_ms, called, self._clock.monotonic()))

    def _doubted(self, task: ChannelTask) -> None:
        """Count a segment in doubt. Several in a row, and the session is at fault: another one is to be built.

        The row goes on over sessions until something is sent, and the supervisor's back-off makes each come later.
        """
        task.doubtful += 1
        task.doubts += 1
        if task.doubts >= DOUBTS_IN_A_ROW:
            log.warning("channel %s: %d segments in doubt in a row; it is restarted", task.name, task.doubts)
            task.supervisor.give_up(f"{task.doubts} segments in doubt in a row")

    def _others(self, task: ChannelTask) -> bool:
        """Whether a message that this channel's SIM must not send could go over another one now."""
        return any(other.usable and other.sim_id != task.sim_id for other in self._channels.values())

    def _withdrawn_because(self, task: ChannelTask, message_id: int) -> str:
        """Why a submission is called back before its PDU is written; "" if it is not."""
        if self._store.is_recalled(message_id):
            why = "its number has opted out"
        elif self._paused:
            why = self._paused
        elif self._stopping:
            why = "the daemon stops"
        elif task.leaving:
            why = f"channel {task.name} is being removed or changed"
        else:
            return ""
        return f"called back before it was sent: {why}"

    async def _let_go(self, task: ChannelTask, result: Result | None) -> None:
        """Nobody waits for the channel any longer: what is still in hand is in doubt."""
        if result is None and task.in_hand is not None:
            now = self._clock.now_ms()
            who = f"channel {task.name} was removed or changed" if task.leaving else "the daemon stopped"
            detail = f"{who} while it was being submitted"
            result = Result(task.in_hand, Outcome.IN_DOUBT, now, now, detail=detail)
            task.in_hand = None
        if result is not None:
            try:
                await self._store.work(task.line, result, None)
            except SpoolError as error:
                log.warning("the outcome of message %d is not on disk: %s", result.claim.message_id, error)
                self._unsaid.append(result)  # if the daemon stops as well, the next start finds it in hand: in doubt
                self._due.set()
                return
        try:
            await self._store.give_back(task.line, None)  # a claim that came too late to be submitted
        except SpoolError as error:
            log.warning("channel %s: %s", task.name, error)

    async def _say_unsaid(self) -> None:
        """Write what removed channels could not write. To write it twice changes nothing. Raises SpoolError."""
        while self._unsaid:
            result = self._unsaid[0]
            await self._store.work(result.claim.line, result, None)
            if result in self._unsaid:
                self._unsaid.remove(result)

    # What the channels say.

    async def _happened(self, task: ChannelTask, event: ChannelEvent) -> None:
        if isinstance(event, Received):
            await self._inbound(task.name, task.sim_id, event)
        elif isinstance(event, LateResult):
            settled = await persistently(lambda: self._store.late_result(task.sim_id, event.ref))
            msglog.late_result(settled, task.name, event.ref)
        elif isinstance(event, StateChanged):
            self._wake(task)
            await self._tell_state(task, event.status)

    async def _tell_state(self, task: ChannelTask, status: ChannelStatus) -> None:
        """Make an event of a channel's new state. Each try of a channel that stays down is no new state."""
        state = status.state
        if state in (task.told, ChannelState.STARTING):
            return
        was = None if task.told is None else task.told.value
        data = {"state": state.value, "was": was, "reason": status.reason}
        task.told = state
        task.untold.append(GatewayEvent(CHANNEL, channel=task.name, data=data))
        try:
            await self._tell_untold(task)
        except SpoolError as error:
            log.debug("the state of channel %s is not told yet: %s", task.name, error)
            self._due.set()

    async def _tell_untold(self, task: ChannelTask) -> None:
        """Write the events about a channel that wait for it, in their order. Raises SpoolError."""
        async with task.telling:
            while task.untold:
                event = task.untold.popleft()  # who is cancelled from here on has written it
                try:
                    await self._store.note(event)
                except SpoolError:
                    task.untold.appendleft(event)
                    raise

    async def _admit_sim(self, task: ChannelTask, identity: SimIdentity, number: str) -> str:
        """Pair the SIM with the channel; a sentence if it is not the one the channel is paired with."""
        try:
            pairing = await self._store.see_sim(task.name, identity, number)
        except SpoolError as error:
            raise ChannelLost(f"the SIM cannot be looked up: {error}") from error
        task.sim_id = 0 if pairing.changed else pairing.sim_id
        if pairing.last_submit_at is not None:  # the network counts over our restarts
            age_s = max(0.0, (self._clock.now_ms() - pairing.last_submit_at) / 1000)
            task.pace.started(self._clock.monotonic() - age_s)
        owes_s = (pairing.owes_until - self._clock.now_ms()) / 1000
        session = task.supervisor.session
        if owes_s > 0 and isinstance(session, Debtor):
            session.expect_late_result(owes_s)
        if pairing.changed:
            return (
                f"the SIM was changed: {_sim_name(identity)} instead of {_sim_name(pairing.paired)}; "
                f"gatewayd channels accept {task.name}"
            )
        return ""

    # Time.

    async def _keep_time(self) -> None:
        """Let the spool do what becomes due, when it becomes due."""
        while True:
            self._next_due = None  # what is committed from here on lowers it
            try:
                advanced = await self._store.advance()
                due = advanced.again_at
                for handed_over in advanced.handed_over:
                    told(handed_over)
                await self._catch_up()
            except Exception as error:
                if not isinstance(error, SpoolError):
                    log.exception("what has become due is not done")
                due = self._clock.now_ms() + TIME_RETRY_MS
            if due is not None and (self._next_due is None or due < self._next_due):
                self._next_due = due
            self._due.clear()
            wait_s = CLOCK_CHECK_S
            if self._next_due is not None:
                wait_s = min(wait_s, max(0.0, (self._next_due - self._clock.now_ms()) / 1000))
            try:
                async with asyncio.timeout(wait_s):
                    await self._due.wait()
            except TimeoutError:
                pass

    async def _catch_up(self) -> None:
        """Write what waits since the spool took no writes. Raises SpoolError."""
        await self._say_unsaid()
        for task in list(self._channels.values()):
            if task.untold:
                await self._tell_untold(task)

    # What operators see and steer (router.control.Control).

    def channels(self) -> list[ChannelView]:
        now = self._clock.monotonic()
        return [
            ChannelView(
                task.supervisor.status(),
                task.sim_id,
                task.pace.interval_s,
                task.pace.wait_s(now),
                task.in_hand.message_id if task.in_hand is not None else None,
                task.submitted,
                task.not_sent,
                task.doubtful,
            )
            for task in self._channels.values()
        ]

    def paused(self) -> str:
        return self._paused

    async def pause(self, actor: str, reason: str) -> None:
        value = json.dumps({"actor": actor, "at": self._clock.now_ms(), "reason": reason})
        self._pauses += 1
        before, self._paused = self._paused, _pause_sentence(value)  # at once: what has not left yet stays
        try:
            await self._store.set_setting(PAUSED, value, actor)
        except SpoolError:
            self._paused = before
            self._wake_all()
            raise
        log.warning("nothing is sent: %s", self._paused)

    async def resume(self, actor: str) -> None:
        pauses = self._pauses
        await self._store.set_setting(PAUSED, "", actor)
        if pauses != self._pauses:  # paused meanwhile: that is on disk after this, and holds
            return
        if self._paused:
            log.info("sending again: resumed by %s", actor)
        self._paused = ""
        self._wake_all()

    async def accept_sim(self, channel: str, actor: str) -> bool:
        task = self._channels[channel]
        if not await self._store.accept_sim(channel, actor):
            return False
        task.supervisor.unpark()
        return True


def _pause_sentence(value: str | None) -> str:
    """The stored switch as a sentence; "" if sending is on."""
    if not value:
        return ""
    said = json.loads(value)
    reason = f": {said['reason']}" if said.get("reason") else ""
    return f"paused by {said['actor']} at {iso(said['at'])}{reason}"


def _count(channel: str, result: Result) -> None:
    metrics.attempt(
        channel,
        result.outcome,
        result.retry,
        started_ms=result.started_at,
        finished_ms=result.finished_at,
        code=result.code,
        withdrawn=result.withdrawn,
    )


def _sim_name(identity: SimIdentity) -> str:
    return f"ICCID {identity.iccid}" if identity.iccid else f"IMSI {identity.imsi}"


def _report_death(task: asyncio.Task[None]) -> None:
    """A task of ours that ends by itself is a bug: say so loudly."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("task %s died", task.get_name(), exc_info=error)
