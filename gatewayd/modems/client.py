"""The asyncio shell of the AT engine: one port, one command in flight, every wait with a time limit.

Between a final result and the next command lies no poll and no sleep: the next holder of the lock writes at once,
unless the profile asks for a guard time, a URC still owes its second line, or the dialogue has to be resynchronised.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from gatewayd import crashpoints
from gatewayd.clock import Clock
from gatewayd.errors import ChannelLost, RemoteProtocolError
from gatewayd.modems.at.commands import ATTENTION, FORMAT, PDU_MODE_QUERY, WITHDRAWAL, Command, Limit, query
from gatewayd.modems.at.engine import ESCAPE, Engine, Event, Final, Garbage, Info, Late, Prompt, State
from gatewayd.modems.at.results import OK, TIMEOUT, Kind, Result, parse_final
from gatewayd.modems.submission import Submission
from gatewayd.modems.transport import SerialTransport

PROBES = (ATTENTION, ATTENTION, FORMAT, ATTENTION, ATTENTION)
"""What is tried until anything answers; FORMAT because a modem left in ATQ1 does not answer AT."""

QUESTIONS = (PDU_MODE_QUERY, query("+CMEE"))
"""Questions whose answers nothing else can be. The second is for modems that deny the first before the PIN."""

STALE_S = 600.0
"""How long after a submission without final result one is still to be expected. Source: spec/gsm-modem.md §3."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to wait for what has no command of its own, in seconds. Source: spec/gsm-modem.md §1.

    `factor` multiplies the limits of all commands (tests make it small). `quiet_s`: silence that ends a drain, at most
    `drain_s` long; `open_quiet_s` the same after opening, where nothing is known to be under way. `settle_s`: after an
    error, before the next command that is no submission: some modems say ERROR and then OK.
    """

    factor: float = 1.0
    prompt_s: float = 10.0
    quiet_s: float = 0.5
    open_quiet_s: float = 0.1
    drain_s: float = 5.0
    probe_s: float = 0.5
    question_s: float = 3.0
    owed_s: float = 5.0
    settle_s: float = 0.02


@dataclass(frozen=True, slots=True)
class Response:
    """What a command was answered with."""

    result: Result
    lines: tuple[Info, ...] = ()

    @property
    def ok(self) -> bool:
        return self.result.ok

    @property
    def text(self) -> str:
        """The first information line without its prefix ("+CSQ: 17,99" gives "17,99"); "" if there is none."""
        if not self.lines:
            return ""
        line = self.lines[0].line
        head, colon, tail = line.partition(":")
        return tail.strip() if colon and head[:1] in "+^*#$!" and " " not in head else line


class AtClient:
    """The dialogue with one modem over one open port. Used once: after `lost` every call raises ChannelLost.

    `on_event` gets what belongs to no command (Urc, Late, Garbage), `on_lost` the reason, once, when the link is over.
    `stale_until` (monotonic, of the event loop): so long the final result of an earlier submission may still come.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        on_event: Callable[[Event], None],
        on_lost: Callable[[str], None],
        timing: Timing | None = None,
        guard_time_s: float = 0.0,
        stale_until: float = 0.0,
    ) -> None:
        self.engine = Engine()
        self.stale_until = stale_until
        self.guard_time_s = guard_time_s
        self.lenient = True  # until the modem is brought up: one that answers no question is believed after a silence
        self.answers_questions = True
        self.lost: str | None = None
        self._timing = timing or Timing()
        self._clock = clock
        self._on_event = on_event
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._transport: SerialTransport | None = None
        self._heard = asyncio.Event()
        self._heard_at = self._ended_at = self._loop.time()
        self._failed_last = False
        self._overheard: list[str] | None = None  # results that came while it is asked whose the last one was
        # of the command in flight
        self._lines: list[Info] = []
        self._final: Result | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._limit: Limit | None = None

    # -- the link --

    def attach(self, transport: SerialTransport) -> None:
        """The port is open: the first thing to call, once."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.lost is not None:
            return
        self._heard_at = self._loop.time()
        self._heard.set()
        try:
            events = self.engine.receive(data)
        except RemoteProtocolError as error:
            self.give_up(f"the modem does not speak AT: {error}")
            return
        self._dispatch(events)

    def connection_lost(self, exc: Exception | None) -> None:
        self.give_up(str(exc) if exc is not None else "the port was closed")

    def give_up(self, reason: str) -> None:
        """End the session: whoever waits gets ChannelLost. Harmless if it is over already."""
        if self.lost is not None:
            return
        self.lost = reason
        if self._transport is not None:
            self._transport.abort()
        self._resolve()
        self._heard.set()
        self._on_lost(reason)

    async def close(self) -> None:
        """Let go of the port. Bounded by the transport's own limit."""
        self.give_up("the channel was closed")
        if self._transport is not None:
            await self._transport.close()

    # -- commands --

    async def start(self) -> None:
        """Leave whatever the port was used for before, and find out that a modem listens. Raises ChannelLost.

        No Ctrl-Z here: it might send what somebody else half wrote.
        """
        async with self._lock:
            self._write(ESCAPE + b"\r")
            await self._resynchronise(self._timing.open_quiet_s)

    async def execute(self, command: Command) -> Response:
        """Send a command and wait for its final result, which is TIMEOUT if none came. Raises ChannelLost."""
        async with self._lock:
            await self._ready(command)
            self._write(self.engine.send(command))
            result = await self._outcome(command.limit.seconds * self._timing.factor, command.limit)
            return Response(result or TIMEOUT, tuple(self._lines))

    async def submit(
        self,
        command: Command,
        pdu: str,
        gate: Callable[[], bool],
        submission: Submission,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        """AT+CMGS, `begun`, prompt, `gate`, PDU, final result; `submission` says how far it came. Raises ChannelLost.

        A gate that raises counts as no; its exception comes out after the withdrawal.
        """
        async with self._lock:
            await self._ready(command)
            submission.lines = self._lines
            submission.started_ms = self._clock.now_ms()
            crashpoints.reach("modem.before_command")
            self._write(self.engine.send(command))
            begun()
            submission.result = await self._outcome(self._timing.prompt_s)
            if submission.result is not None:  # a final result instead of the prompt, or no prompt in time
                self._end_without_prompt(submission)
                return
            submission.withdrawn = True
            try:
                submission.withdrawn = not gate()
            finally:
                if submission.withdrawn:
                    await self._withdraw()
            if not submission.withdrawn:
                await self._hand_over(command, pdu, submission)

    async def _hand_over(self, command: Command, pdu: str, submission: Submission) -> None:
        """The PDU and its final result."""
        payload = self.engine.send_pdu(pdu)
        self._check_link()
        crashpoints.reach("modem.prompted")
        begun = self._loop.time()
        stale_until = self.stale_until
        self.stale_until = begun + command.limit.seconds + STALE_S  # unless a result comes now
        submission.handed_over_at = self._clock.monotonic()
        if crashpoints.is_armed("modem.inside_pdu"):
            half, payload = payload[: len(payload) // 2], payload[len(payload) // 2 :]
            self._write(half)
            crashpoints.reach("modem.inside_pdu")
        self._write(payload)
        crashpoints.reach("modem.handed_over")
        submission.result = result = await self._outcome(command.limit.seconds, command.limit)
        crashpoints.reach("modem.answered")
        if result is not None and result.kind is not Kind.TIMEOUT and begun < stale_until:
            result = await self._confirm(submission, result, begun + command.limit.seconds)
        if result is not None and result.kind is not Kind.TIMEOUT:
            self.stale_until = stale_until

    def _end_without_prompt(self, submission: Submission) -> None:
        """AT+CMGS got a final result or silence. Where that may be an earlier submission's, the prompt still comes."""
        result = submission.result
        assert result is not None
        if result.kind is Kind.TIMEOUT:
            self._write(ESCAPE)
        elif self._loop.time() < self.stale_until:
            self._dispatch(self.engine.timed_out())
            self._write(ESCAPE)
            if result.kind is Kind.CMS and result.code is not None and result.code < 300:
                submission.result = TIMEOUT  # what only the network says, of a PDU it has: not of this one

    async def _confirm(self, submission: Submission, result: Result, deadline: float) -> Result:
        """Find out whether `result` is that of an earlier submission, which came late; returns what is this one's.

        A modem answers a question after what it has under way. So if another result comes before the answer, that is
        this submission's, and the first was the earlier one's. Without an answer nobody knows: TIMEOUT.
        """
        if not self.answers_questions:
            return result
        lines = submission.lines
        submission.result, submission.lines = None, []  # should the link be lost meanwhile
        await self._settle_debt()
        self._dispatch(self.engine.timed_out())
        overheard = self._overheard = []
        try:
            self._write(self.engine.question(PDU_MODE_QUERY))
            until = max(deadline, self._loop.time() + self._timing.question_s)
            while self.engine.state is not State.IDLE and await self._hear(until):
                pass
        finally:
            self._overheard = None
        if self.engine.state is not State.IDLE:
            result, lines = TIMEOUT, []
        elif overheard:
            for info in lines:
                self._on_event(Late(info.line))
            last = overheard[-1]
            lines = [Info(last)] if last.startswith("+CMGS:") else []
            result = OK if lines else parse_final(last) or TIMEOUT
        submission.result, submission.lines = result, lines
        return result

    async def _withdraw(self) -> None:
        self._write(self.engine.cancel())
        await self._outcome(WITHDRAWAL.limit.seconds * self._timing.factor)

    def _check_link(self) -> SerialTransport:
        transport = self._transport
        if self.lost is not None or transport is None or transport.is_closing():
            raise ChannelLost(self.lost or "the port is closed")
        return transport

    def _write(self, data: bytes) -> None:
        self._check_link().write(data)

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Final):
                self._ended_at = self._loop.time()
                self._failed_last = not event.result.ok
                self._final = event.result
                self._resolve()
            elif isinstance(event, Info):
                self._lines.append(event)
                self._hurry()
            elif isinstance(event, Prompt):
                self._resolve()
            elif self._overheard is not None and _is_submit_result(event):
                self._overheard.append(event.line)
            else:
                self._on_event(event)

    def _resolve(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _outcome(self, limit_s: float, limit: Limit | None = None) -> Result | None:
        """The final result, TIMEOUT, or None for the prompt. Cancelled, it leaves a dialogue to be resynchronised.

        `limit` adds its finer time limits to `limit_s`.
        """
        self._final = None
        self._limit = limit
        now = self._loop.time()
        self._deadline = now + limit_s
        silence_s = limit.silence_s if limit is not None else None
        first = self._deadline if silence_s is None else min(self._deadline, now + silence_s * self._timing.factor)
        self._timer = self._loop.call_at(first, self._expired)
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        except asyncio.CancelledError:
            self._abandon()
            raise
        finally:
            self._timer.cancel()
            self._waiter = None
        if self.lost is not None and self._final is None:
            raise ChannelLost(self.lost)
        return self._final

    def _expired(self) -> None:
        """The limit of the command in flight is over, unless it is the limit of silence and there was none."""
        silence_s = self._limit.silence_s if self._limit is not None else None
        if silence_s is not None:
            due = min(self._deadline, self._heard_at + silence_s * self._timing.factor)
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self._expired)
                return
        self._dispatch(self.engine.timed_out())

    def _hurry(self) -> None:
        """An information line came: the final result follows soon, or was swallowed."""
        limit = self._limit
        if limit is None or limit.after_answer_s is None or self._timer is None:
            return
        due = self._loop.time() + limit.after_answer_s * self._timing.factor
        if due < self._deadline:
            self._deadline = due
            self._timer.cancel()
            self._timer = self._loop.call_at(due, self._expired)

    def _abandon(self) -> None:
        waits_for_pdu = self.engine.state is State.AWAIT_PROMPT
        self._waiter = None
        self._dispatch(self.engine.timed_out())
        if waits_for_pdu:
            with contextlib.suppress(ChannelLost):
                self._write(ESCAPE)

    # -- before a command --

    async def _ready(self, command: Command) -> None:
        """Bring the dialogue to where `command` may be written. As a rule there is nothing to wait for."""
        self._check_link()
        self._lines = []
        if self.engine.owed:
            await self._settle_debt()
        if self.guard_time_s:
            await asyncio.sleep(self._ended_at + self.guard_time_s - self._loop.time())
        if self._failed_last and not command.prompted:
            await asyncio.sleep(self._ended_at + self._timing.settle_s - self._loop.time())
        if self.engine.state is not State.IDLE:
            await self._resynchronise(self._timing.quiet_s)
            self._lines = []

    async def _settle_debt(self) -> None:
        """Wait for the line a URC announced: no command may be started before it came."""
        until = self._loop.time() + self._timing.owed_s
        while self.engine.owed:
            if not await self._hear(until):
                self._dispatch(self.engine.forgo())

    async def _hear(self, until: float) -> bool:
        """Wait until something is heard; False if nothing was by `until` (of the loop's clock)."""
        self._heard.clear()
        try:
            async with asyncio.timeout_at(until):
                await self._heard.wait()
        except TimeoutError:
            return False
        self._check_link()
        return True

    async def _resynchronise(self, quiet_s: float) -> None:
        """Drain, probe, ask what only one answer fits; source: spec/gsm-modem.md §1. Raises ChannelLost."""
        self._check_link()
        limit = self._loop.time() + self._timing.drain_s
        while await self._hear(min(limit, self._loop.time() + quiet_s)) and self._loop.time() < limit:
            pass
        for probe in PROBES:
            self._write(self.engine.probe(probe))
            if await self._until(lambda: self.engine.probed, self._timing.probe_s, quiet_s):
                break
        else:
            self.give_up("no answer to AT: not a modem's AT port, wrong baud rate, or it hangs")
            self._check_link()
        for question in QUESTIONS:
            self._write(self.engine.question(question))
            if await self._until(lambda: self.engine.state is State.IDLE, self._timing.question_s, quiet_s):
                return
        if not self.lenient:
            self.give_up("the dialogue with the modem is out of step: it answers AT but no question")
            self._check_link()
        self.engine.trust()
        self.answers_questions = False

    async def _until(self, reached: Callable[[], bool], limit_s: float, quiet_s: float) -> bool:
        """Wait for `reached`; give up after `limit_s`, or once there was a final result and then silence."""
        limit = self._loop.time() + limit_s
        while not reached():
            until = min(limit, self._loop.time() + quiet_s) if self.engine.probed else limit
            if not await self._hear(until):
                return reached()
        return True


def _is_submit_result(event: Event) -> TypeGuard[Late | Garbage]:
    """Whether it is what only AT+CMGS is answered with, when nobody waits for it."""
    return isinstance(event, Late) or (isinstance(event, Garbage) and event.line.startswith("+CMS ERROR"))
