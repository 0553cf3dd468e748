"""The dispatcher: each channel pulls work when it may send.

One task per channel asks the spool for the best message it may take, submits it, and hands the outcome back together
with its next question: one commit between two submissions, and nothing else. Work is pulled, so a slow channel never
holds what a fast one could send; wake-ups are events, never a poll.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from gatewayd import crashpoints, metrics, msglog
from gatewayd.clock import Clock, iso
from gatewayd.errors import ChannelLost, SpoolError, SubmitError
from gatewayd.model import ChannelState, ChannelStatus, Outcome, SimIdentity
from gatewayd.modems.channel import Channel, ChannelEvent, LateResult, Received, StateChanged
from gatewayd.modems.supervisor import Debtor, Supervisor
from gatewayd.router.breaker import Breaker
from gatewayd.router.channeltask import ChannelTask, Pacing, Sim
from gatewayd.router.control import ChannelView, Serving
from gatewayd.router.eligibility import ALERT, DispatchSettings, Eligibility
from gatewayd.router.inbound import RETRY_S, Inbound, persistently, told
from gatewayd.router.obstacles import obstacle
from gatewayd.router.pacing import Pace, start_moment
from gatewayd.router.question import Question
from gatewayd.router.routes import SOURCE_OF_DIALER
from gatewayd.router.wakes import Wakes
from gatewayd.spool.channel_modes import PAUSED as MODE_PAUSED
from gatewayd.spool.events import CHANNEL, GatewayEvent
from gatewayd.spool.lanes import Lane
from gatewayd.spool.store import PAUSED, Store
from gatewayd.spool.work import Claim, Result, Taken
from gatewayd.spool.writer import Notices

log = logging.getLogger("gatewayd.dispatcher")

TIME_RETRY_MS = 1000  # after a failure
DOUBTS_IN_A_ROW = 3  # without a success between: the channel takes no more work in this session
CLOCK_CHECK_S = 30.0  # the wall clock may jump: what is due by it is looked at again this often at the latest
CLOCK_JUMP_S = 1.0  # by so much it is no drift


class Dispatcher:
    """Runs the channels of one daemon. Implements `router.control.Control`.

    `doubt` says at an epoch ms why the clock cannot be trusted; "" if it can.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: DispatchSettings | None = None,
        doubt: Callable[[int], str] = lambda now_ms: "",
    ) -> None:
        self._store = store
        self._clock = clock
        self._inbound = Inbound(store)
        self._channels: dict[str, ChannelTask] = {}
        self._rules = Eligibility(settings or DispatchSettings(), self._channels, store.turns, clock, doubt)
        self._sims: dict[str, tuple[SimIdentity, Callable[[SimIdentity], Sim]]] = {}  # what is in which channel
        self._wakes = Wakes(self._channels, self._rules, clock)
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
        pacing: Pacing,
        sims: Callable[[SimIdentity], Sim] = lambda identity: Sim(),
        make_supervisor: Callable[..., Supervisor] = Supervisor,
    ) -> None:
        """Add a channel; it begins with `start()`, or at once after that. `sims` says what is to be known of a SIM."""

        async def sink(event: ChannelEvent) -> None:
            await self._happened(task, event)

        async def admit_sim(identity: SimIdentity) -> str:
            self._sims[name] = (identity, sims)
            self._know(task, sims(identity))
            return await self._admit_sim(task, identity, task.number)

        supervisor = make_supervisor(name, factory, sink, admit_sim, self._clock)
        pace = Pace(pacing.interval_s, pacing.jitter_s, pacing.burst, random.random)
        task = ChannelTask(name, supervisor, pace, Pace(self._rules.settings.urgent.interval_s), Breaker())
        task.down_since = self._clock.monotonic()
        self._know(task, sims(SimIdentity()))
        self._channels[name] = task
        if self._clockwork is not None:
            self._run(task)

    def set_pace(self, name: str, pacing: Pacing) -> None:
        """Change the least time between two submissions of a channel."""
        task = self._channels[name]
        task.pace.become(pacing.interval_s, pacing.jitter_s, pacing.burst)
        self._wakes.wake(task)

    def configure(self, settings: DispatchSettings) -> None:
        """Work by other dialers, windows, quotas and tags from now on."""
        self._rules.configure(settings)
        for name, task in self._channels.items():
            task.urgent.become(settings.urgent.interval_s)
            task.spent = task.spent_for_new = None  # to be found out anew
            if name in self._sims:
                identity, sims = self._sims[name]
                self._know(task, sims(identity))
        self._wakes.look_again()

    def _know(self, task: ChannelTask, sim: Sim) -> None:
        task.number, task.tags, task.schedules, task.quota = sim.number, sim.tags, sim.schedules, sim.quota

    async def remove(self, name: str, timeout_s: float) -> None:
        """Let a channel finish what it has in hand, at most `timeout_s`, then close and forget it."""
        task = self._channels[name]
        task.leaving = True
        self._wakes.wake(task)
        await self._end([task], timeout_s)
        await self._tell_state(task, replace(task.supervisor.status(), reason="removed or changed by a reload"))
        del self._channels[name]
        self._sims.pop(name, None)
        self._wakes.look_again()

    async def start(self) -> None:
        """Begin to bring the channels up and to send. Raises SpoolError."""
        self._paused = _pause_sentence(await self._store.setting(PAUSED))
        if self._paused:
            log.warning("nothing is sent: %s (gatewayd resume)", self._paused)
        for name, mode in (await self._store.channel_modes()).items():
            if name in self._channels:
                self._channels[name].mode, self._channels[name].mode_reason = mode.mode, mode.sentence
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic()
        for source, started_at in (await self._store.last_starts()).items():
            self._rules.resume(source, now_s - max(0, now_ms - started_at) / 1000)
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
        self._wakes.everybody()

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
            self._next_due = self._clock.now_ms()
            self._due.set()
            self._wakes.look_again()
            return
        self._wakes.claimable(notices.lanes)

    # One channel.

    async def _send(self, task: ChannelTask) -> None:
        """Ask, submit, hand the outcome back with the next question; for ever."""
        result: Result | None = None
        ended: float | None = None  # of the submission whose outcome is handed back now
        failures = 0
        try:
            while not ((self._stopping or task.leaving) and result is None and not failures):
                wait_s, paced = self._must_wait(task)
                ending = self._stopping or task.leaving
                channel = None if ending or self._paused or wait_s > 0 else task.usable
                if channel is None and result is None and not failures:
                    self._wakes.pass_on(task)
                    await self._until_it_may(task, wait_s)
                    continue
                version, alerts = self._wakes.version, self._wakes.alerts
                want = self._want(task, channel, paced)
                task.again = False
                self._wakes.asking.add(task)
                try:
                    if failures:  # of a commit that may have taken place: a claim that nobody got
                        await self._say_unsaid()  # or what a removed channel submitted would be taken for one
                        await self._store.give_back(task.line, result.claim if result else None)
                    taken = await self._store.work(task.line, result, None if want is None else want.wanted)
                except Exception as error:  # whatever it is, the channel's next message may be another matter
                    if not isinstance(error, SpoolError):
                        log.exception("channel %s gets no work", task.name)
                    await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                    failures += 1
                    continue
                finally:
                    self._wakes.asking.discard(task)
                failures = 0
                result = None
                self._learn(task, taken)
                since, ended = ended, None
                if channel is not None:
                    task.called = False
                    self._wakes.run_errand(task, taken.claim)
                if taken.claim is not None and channel is not None:
                    task.in_hand = taken.claim
                    if since is not None:
                        metrics.line_idle(task.name, self._clock.monotonic() - since)
                    crashpoints.reach("dispatcher.claimed")
                    result = await self._submit(task, channel, taken.claim)
                    crashpoints.reach("dispatcher.submitted")
                    ended = self._clock.monotonic()
                    task.in_hand = None
                    asyncio.get_running_loop().call_soon(_count, task.name, result)
                elif channel is not None and not taken.more:
                    assert want is not None
                    task.alerts_seen = alerts
                    if paced or task.spent is not None or task.again or version != self._wakes.version:
                        continue  # to wait for its time, or to ask again
                    self._wakes.idle[task] = None
                    if want.again_s is not None:
                        self._wakes.at(task, want.again_s)
                    for name in want.dialers:
                        self._wakes.await_dialer(name)
                    await task.wake.wait()
                    self._wakes.idle.pop(task, None)  # woken before it was idle, it is still there
                task.wake.clear()
        except asyncio.CancelledError:
            await self._let_go(task, result)
            raise
        finally:
            self._wakes.idle.pop(task, None)
            if task.alarm is not None:
                task.alarm.cancel()
            self._free_dialers(task)
            self._wakes.pass_on(task)

    def _must_wait(self, task: ChannelTask) -> tuple[float, bool]:
        """How long (seconds) until the channel may ask for work, and whether only for what is urgent."""
        now_s = self._clock.monotonic()
        stopped_s = task.breaker.wait_s(now_s)
        if task.mode == MODE_PAUSED:
            return float("inf"), False
        if task.spent is not None:
            left_s = (task.spent.until_ms - self._clock.now_ms()) / 1000
            if left_s > 0:
                return max(left_s, stopped_s), False
            task.spent = None
            self._wakes.look_again()
        pace_s = task.pace.wait_s(now_s)
        if pace_s > 0 and task.alerts_seen != self._wakes.alerts and self._rules.urgent(now_s):
            return max(task.urgent.wait_s(now_s), stopped_s), True
        return max(pace_s, stopped_s), False

    def _learn(self, task: ChannelTask, taken: Taken) -> None:
        """What a claim said of the SIM's quota; and a start that did not come to be is let go."""
        if taken.spent is not None:
            if task.spent is None:
                spent = taken.spent
                msglog.quota_spent(task.name, spent.period, spent.limit, iso(spent.until_ms) or "")
            task.spent = taken.spent
            self._wakes.look_again()
        if taken.left:
            task.left = taken.left
        if taken.spent_for_new is not None:
            known, task.spent_for_new = task.spent_for_new, taken.spent_for_new
            if known is None or known.until_ms != task.spent_for_new.until_ms:
                self._wakes.look_again()  # others are to stand in for it
        claim = taken.claim
        self._free_dialers(task, claim.lane.source.removeprefix(SOURCE_OF_DIALER) if claim and claim.begins else "")

    def _free_dialers(self, task: ChannelTask, but: str = "") -> None:
        for name in self._rules.let_go(task, but):
            self._wakes.dialer_free(name)

    async def _until_it_may(self, task: ChannelTask, wait_s: float) -> None:
        """Wait until the channel's pace allows, or something about it changes."""
        try:
            async with asyncio.timeout(wait_s if 0 < wait_s < float("inf") else None):
                await task.wake.wait()
        except TimeoutError:
            pass
        task.wake.clear()

    def _want(self, task: ChannelTask, channel: Channel | None, paced: bool) -> Question | None:
        return None if channel is None else Question(self._rules, task, channel, self._clock, paced)

    async def _submit(self, task: ChannelTask, channel: Channel, claim: Claim) -> Result:
        """Submit one segment and say what became of it; whatever happens, there is an outcome."""
        withdrawn = ""

        def gate() -> bool:
            nonlocal withdrawn
            withdrawn = self._withdrawn_because(task, claim)
            return not withdrawn

        def begun() -> None:
            self._begun(task, claim)

        called = self._clock.monotonic()
        segment = claim.segment
        message_id, seq, total = segment.message.id, segment.seq, segment.total
        try:
            receipt = await channel.submit(segment, gate, begun)
        except SubmitError as error:
            finished_ms = self._clock.now_ms()
            if error.started_ms is not None:
                self._started(task, claim, error.started_ms, finished_ms, called)
            stopped_s = 0.0 if withdrawn else self._failed(task, claim, error)
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
                failure=error.failure,
                code=error.code,
                detail=withdrawn or error.text,
                withdrawn=bool(withdrawn) and error.outcome is Outcome.NOT_SENT,
                alternatives=not claim.pinned and self._rules.alternatives(task, claim.lane),
                lost=not error.code and task.supervisor.current is not channel,
                stopped_ms=int(stopped_s * 1000),
            )
        except (Exception, asyncio.CancelledError) as error:  # a bug of ours; bytes may have left
            current = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and current is not None and current.cancelling():
                raise
            log.exception("channel %s failed while it had message %d in its hands", task.name, message_id)
            now = self._clock.now_ms()
            self._started(task, claim, now, now, called)
            self._doubted(task)
            return Result(claim, Outcome.IN_DOUBT, now, now, detail=f"internal error: {error!r}")
        self._started(task, claim, receipt.started_ms, receipt.finished_ms, called)
        task.breaker.succeeded(self._clock.monotonic())
        task.submitted += 1
        task.doubts = 0
        took_ms = receipt.finished_ms - receipt.started_ms
        say = partial(msglog.submitted, message_id, seq, total, task.name, receipt.ref, took_ms)
        asyncio.get_running_loop().call_soon(say)  # once the outcome is on its way to the spool: the line must not wait
        sticky = self._rules.sticky(claim.lane)
        return Result(claim, Outcome.SENT, receipt.started_ms, receipt.finished_ms, ref=receipt.ref, sticky=sticky)

    def _begun(self, task: ChannelTask, claim: Claim) -> None:
        """The first byte of a submission is written."""
        now_s = self._clock.monotonic()
        if claim.lane.source == ALERT:
            self._rules.alert_started(now_s)
        if not claim.begins:
            return
        free_at = self._rules.started(task, claim.lane, now_s)
        if free_at is not None:
            name = claim.lane.source.removeprefix(SOURCE_OF_DIALER)
            self._wakes.await_dialer(name)

    def _started(self, task: ChannelTask, claim: Claim, started_ms: int, finished_ms: int, called: float) -> None:
        moment = start_moment(started_ms, finished_ms, called, self._clock.monotonic())
        task.pace.started(moment)
        task.urgent.started(moment)

    def _failed(self, task: ChannelTask, claim: Claim, error: SubmitError) -> float:
        """Note a failure of the channel; returns how long (seconds) the channel is stopped because of such ones."""
        now_s = self._clock.monotonic()
        before_s = task.breaker.stopped_s(now_s)
        stopped_s = task.breaker.failed(error.failure, error.code, claim.segment.message.to, now_s)
        if stopped_s > 0 and not before_s:
            msglog.channel_stopped(task.name, task.breaker.reason(now_s, self._shown))
            self._wakes.look_again()
        return stopped_s

    def _shown(self, at_s: float) -> str:
        """A monotonic moment as people read it."""
        at_ms = self._clock.now_ms() + int((at_s - self._clock.monotonic()) * 1000)
        return f"{(iso(at_ms) or '')[:19].replace('T', ' ')} UTC"

    def _doubted(self, task: ChannelTask) -> None:
        """Count a segment in doubt. Several in a row, and the session is at fault: another one is to be built.

        The row goes on over sessions until something is sent, and the supervisor's back-off makes each come later.
        """
        task.doubtful += 1
        task.doubts += 1
        if task.doubts >= DOUBTS_IN_A_ROW:
            log.warning("channel %s: %d segments in doubt in a row; it is restarted", task.name, task.doubts)
            task.supervisor.give_up(f"{task.doubts} segments in doubt in a row")

    def _withdrawn_because(self, task: ChannelTask, claim: Claim) -> str:
        """Why a submission is called back before its PDU is written; "" if it is not."""
        if recalled := self._store.recalled(claim.message_id):
            why = recalled
        elif closed := self._rules.closed_now(task, claim.lane, self._clock.now_ms()):
            why = f"schedule {closed} has closed"
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
            is_up = event.status.state is ChannelState.READY
            if is_up is not (task.down_since is None):
                task.down_since = None if is_up else self._clock.monotonic()
                self._wakes.look_again()  # for others too: they may have to stand in for it, or not any more
            self._wakes.wake(task)
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
        if task.sim_id not in {0, pairing.sim_id}:  # what was learnt of the other SIM
            task.breaker.release()
            task.spent = task.spent_for_new = None
            task.left = ()
        task.sim_id = 0 if pairing.changed else pairing.sim_id
        if pairing.last_submit_at is not None:  # the network counts over our restarts
            age_s = max(0.0, (self._clock.now_ms() - pairing.last_submit_at) / 1000)
            for pace in (task.pace, task.urgent):
                pace.resume(self._clock.monotonic() - age_s)
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
        offset_s = self._clock.now_ms() / 1000 - self._clock.monotonic()
        while True:
            is_s = self._clock.now_ms() / 1000 - self._clock.monotonic()
            if abs(is_s - offset_s) > CLOCK_JUMP_S:
                self._wakes.look_again()  # windows are open or closed by another time now
            offset_s = is_s
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
                mode=task.mode,
                mode_reason=task.mode_reason,
                quota=task.left,
            )
            for task in self._channels.values()
        ]

    def serving(self, lane: Lane) -> list[Serving]:
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic()
        urgent = lane.source == ALERT and self._rules.urgent(now_s)
        found = []
        for task in self._channels.values():
            if self._rules.reaches(task, lane):
                shut = self._rules.shut(task, lane, now_ms, now_s, looks=True)
                found.append(obstacle(task, shut, now_ms, now_s, self._shown, urgent=urgent))
        return found

    async def set_channel_mode(self, name: str, mode: str, actor: str, reason: str) -> None:
        task = self._channels[name]
        kept = await self._store.set_channel_mode(name, mode, actor, reason)
        task.mode, task.mode_reason = kept.mode, kept.sentence
        self._wakes.look_again()

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
            self._wakes.everybody()
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
        self._wakes.everybody()

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
    at = (iso(said["at"]) or "")[:19].replace("T", " ")
    return f"paused by {said['actor']} at {at} UTC{reason}"


def _count(channel: str, result: Result) -> None:
    metrics.attempt(
        channel,
        result.outcome,
        result.failure,
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
