"""A serial GSM modem as a channel: open, run, submit, close.

One object is one session. `open` brings the modem up (bringup.py), `run` is the only task that reads (inbox.py) and
watches, `submit` may be called beside it; the port's FIFO lock (client.py) puts their commands in order, one by one.
Source: spec/gsm-modem.md (sheet) §1 to §6.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from gatewayd.clock import Clock
from gatewayd.errors import ChannelLost, ChannelParked, GatewayError, LocalProtocolError, SubmitError
from gatewayd.model import ChannelState, ChannelStatus, FailureClass, Message, Outcome, Receipt, Segment, StoredPdu
from gatewayd.modems.at import commands
from gatewayd.modems.at.answers import notifies, number, registered, rssi_dbm, submit_ref
from gatewayd.modems.at.engine import Event, Garbage, Late, State, Urc
from gatewayd.modems.at.profiles import BOOT_TAIL, BOOTED, STORE_FULL
from gatewayd.modems.at.results import Kind, Result
from gatewayd.modems.bringup import NETWORKS, BringUp, Equipment, Patience, read_operator, read_registration
from gatewayd.modems.channel import (
    AdmitSim,
    Channel,
    ChannelEvent,
    LateResult,
    Received,
    Sink,
    StateChanged,
    always,
    unheard,
)
from gatewayd.modems.client import AtClient, Timing
from gatewayd.modems.inbox import Inbox
from gatewayd.modems.pdu import plan
from gatewayd.modems.submission import Submission
from gatewayd.modems.transport import open_serial
from gatewayd.msglog import Trouble, masked_line

logger = logging.getLogger("gatewayd.channel")

NEVER = float("inf")
RELIST_S = 1.0  # sheet §4: a memory may be announced before it can be listed
RETRY_SINK_S = 5.0
LAST_WORDS_S = 5.0  # at the end of a session, for what the sink has not taken yet
MAX_DIRECT = 1000  # messages handed over directly that the sink does not take
CNMI_EVERY = 5  # health checks: some modems turn notifications off by themselves


@dataclass(frozen=True, slots=True)
class GsmSettings:
    """What one modem is to do. Times in seconds.

    `smsc`: the SMS centre to write to the SIM if it has another ("" leaves it). `submit_timeout_s` counts from the PDU.
    `guard_time_s`: pause after each final result (0 for USB). `poll_interval_s`: a listing without being called for.
    `search_interval_s`: between looks at the registration while there is none. `networks`: registration queries.
    `roaming`: whether a roaming modem may send. `direct`: +CMT with acknowledgement instead of storing; only for modems
    with a broken store. `validity`: whether a validity period may be asked for (CMS 198 and 199 say no).
    """

    name: str
    port: str
    baudrate: int = 115200
    number: str = ""
    smsc: str = ""
    submit_timeout_s: float = 180.0
    guard_time_s: float = 0.0
    poll_interval_s: float = 30.0
    health_interval_s: float = 60.0
    search_interval_s: float = 5.0
    open_timeout_s: float = 10.0
    networks: tuple[str, ...] = NETWORKS
    roaming: bool = True
    direct: bool = False
    validity: bool = True
    timing: Timing = field(default_factory=Timing)
    patience: Patience = field(default_factory=Patience)


class GsmChannel:
    """One session with one serial modem; implements Channel."""

    def __init__(self, settings: GsmSettings, clock: Clock) -> None:
        self.name = settings.name
        self.garbage = 0  # lines that belonged to nothing
        self._settings = settings
        self._clock = clock
        self._client: AtClient | None = None
        self._equipment = Equipment()
        self._inbox: Inbox | None = None
        self._state = ChannelState.STARTING
        self._reason = ""
        self._since_ms = clock.now_ms()
        self._rssi_dbm: int | None = None
        self._up = False
        self._restarted = ""  # what the modem said when it restarted during bring-up
        self._doubts = self._settled = 0  # how often the settings became doubtful, and up to which they were checked
        self._full = Trouble(logger)
        self._session = uuid.uuid4().hex
        self._readings = 0
        self._submissions: set[asyncio.Task[Receipt]] = set()
        self._stale_until = 0.0  # of the sessions before: see AtClient
        self._outbox: deque[ChannelEvent] = deque()
        self._outbox_lock = asyncio.Lock()
        self._posted = asyncio.Event()
        self._over = False
        self._announced: ChannelStatus | None = None
        self._wake = asyncio.Event()
        self._called = False  # the modem said that a message came
        self._check_now = False
        self._checks = 0

    def plan(self, message: Message) -> list[Segment]:
        return plan(message, submit_validity=self._settings.validity)

    def status(self) -> ChannelStatus:
        found = self._equipment
        return ChannelStatus(
            name=self.name,
            state=self._state,
            since_ms=self._since_ms,
            reason=self._reason,
            sim=found.sim,
            number=self._settings.number,
            operator=found.operator,
            rssi_dbm=self._rssi_dbm,
            imei=found.imei,
            model=" ".join(part for part in (found.manufacturer, found.model) if part),
            port=self._settings.port,
        )

    # -- the session --

    def inherit(self, predecessor: Channel) -> None:
        """Take over what the session before leaves behind: results that may still come."""
        if isinstance(predecessor, GsmChannel):
            client = predecessor._client
            self._stale_until = client.stale_until if client is not None else predecessor._stale_until

    def expect_late_result(self, within_s: float) -> None:
        """For so long a submission's result is confirmed by a question: see AtClient."""
        if self._client is not None:
            until = asyncio.get_running_loop().time() + within_s
            self._client.stale_until = max(self._client.stale_until, until)

    async def open(self, admit_sim: AdmitSim) -> None:
        if self._client is not None:
            raise LocalProtocolError(f"{self.name}: a channel is opened once")
        settings = self._settings
        client = self._client = AtClient(
            clock=self._clock,
            on_event=self._on_event,
            on_lost=self._on_lost,
            timing=settings.timing,
            guard_time_s=settings.guard_time_s,
            stale_until=self._stale_until,
        )
        bring_up = BringUp(
            client,
            self.name,
            smsc=settings.smsc,
            networks=settings.networks,
            direct=settings.direct,
            patience=settings.patience,
        )
        self._equipment = bring_up.equipment  # already shown while it fills
        try:
            transport = await open_serial(
                settings.port, baudrate=settings.baudrate, protocol=client, open_timeout_s=settings.open_timeout_s
            )
            client.attach(transport)
            await bring_up.run(admit_sim)
            await self._read_signal(client)
            if self._restarted:
                raise ChannelLost(f"the modem restarted during bring-up ({self._restarted})")
        except BaseException as error:
            reason = str(error) or type(error).__name__
            client.give_up(reason)
            parked = isinstance(error, ChannelParked)
            self._set_state(ChannelState.PARKED if parked else ChannelState.DOWN, reason)
            await client.close()
            raise
        self._inbox = Inbox(client, self._equipment, self.name, self._next_listing)
        self._up = True
        self._judge_registration()

    async def close(self) -> None:
        self._set_state(ChannelState.STOPPED, "closed")
        if self._client is not None:
            await self._client.close()

    async def run(self, sink: Sink) -> NoReturn:
        client, inbox = self._client, self._inbox
        if client is None or inbox is None:
            raise LocalProtocolError(f"{self.name}: run before open")
        passing_on = asyncio.create_task(self._pass_on(sink), name=f"{self.name}: pass on")
        try:
            await self._watch(client, inbox, sink)
        finally:  # what was handed over directly lies nowhere else
            self._over = True
            if self._outbox:
                self._posted.set()
                await asyncio.wait({passing_on}, timeout=LAST_WORDS_S)
            passing_on.cancel()

    async def _pass_on(self, sink: Sink) -> None:
        """Hand over what comes directly, also while a submission keeps everything else waiting for the port."""
        while not self._over:
            await self._posted.wait()
            self._posted.clear()
            with contextlib.suppress(ChannelLost):
                await self._empty_outbox(sink)  # what the sink refuses is offered again by `_watch`

    async def _watch(self, client: AtClient, inbox: Inbox, sink: Sink) -> NoReturn:
        now = asyncio.get_running_loop().time
        next_poll, next_check = now(), now() + self._check_interval()
        relist_at = earliest = 0.0
        while True:
            self._wake.clear()
            retry_at = NEVER if await self._empty_outbox(sink) else now() + RETRY_SINK_S
            if client.lost is not None:
                raise ChannelLost(client.lost)
            if now() >= min(next_poll, relist_at or NEVER, earliest if self._called else NEVER):
                called, self._called = self._called, False
                found = await inbox.read_all(lambda pdu: self._deliver_stored(sink, inbox, pdu))
                next_poll = now() + self._settings.poll_interval_s
                # Called, and nothing there: once more, shortly after; and no sooner, however often it is called.
                vain = called and not found
                earliest = now() + RELIST_S if vain else 0.0
                relist_at = earliest if not relist_at else 0.0
            if self._check_now or now() >= next_check:
                self._check_now = False
                await self._check(client)
                next_check = now() + self._check_interval()
            elif self._doubts != self._settled:
                await self._verify(client)
            call_at = earliest if self._called else NEVER
            await self._rest(min(next_poll, next_check, relist_at or NEVER, call_at, retry_at))

    async def _rest(self, until: float) -> None:
        """Wait for something to do. What came since the last look has set the event already."""
        if self._client is not None and self._client.lost is None and self._announced == self.status():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wake.wait()

    def _set_state(self, state: ChannelState, reason: str = "") -> None:
        if self._state is ChannelState.STOPPED:
            return
        if state is not self._state:
            self._since_ms = self._clock.now_ms()
        self._state, self._reason = state, reason
        self._wake.set()

    def _on_lost(self, reason: str) -> None:
        self._set_state(ChannelState.DOWN, reason)

    # -- sending --

    async def submit(
        self, segment: Segment, gate: Callable[[], bool] = always, begun: Callable[[], None] = unheard
    ) -> Receipt:
        client = self._client
        if client is None or client.lost is not None or self._state is not ChannelState.READY:
            reason = self._reason or self._state.value
            raise SubmitError(Outcome.NOT_SENT, FailureClass.DEVICE, f"the channel is not ready: {reason}")
        submission = Submission()
        task = asyncio.create_task(self._submit(client, segment, gate, begun, submission), name=f"{self.name}: submit")
        self._submissions.add(task)
        task.add_done_callback(self._submissions.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # Once the PDU is handed over it goes its way; what comes of it is reported as a late result.
            task.add_done_callback(self._report_late)
            if not submission.handed_over:
                task.cancel()
            raise

    def _report_late(self, task: asyncio.Task[Receipt]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._post(LateResult(task.result().ref))

    async def _submit(
        self,
        client: AtClient,
        segment: Segment,
        gate: Callable[[], bool],
        begun: Callable[[], None],
        submission: Submission,
    ) -> Receipt:
        command = commands.submit(len(segment.tpdu), self._settings.submit_timeout_s)
        try:
            if self._doubts != self._settled:
                await self._verify(client)
            await client.submit(command, "00" + segment.tpdu.hex().upper(), gate, submission, begun)
        except ChannelLost as error:
            submission.lost = str(error)
        except Exception as error:
            logger.exception("%s: a submission failed", self.name)
            submission.lost = f"{type(error).__name__}: {error}"
        finished_ms = self._clock.now_ms()
        try:
            return submission.conclude(
                now_s=self._clock.monotonic(), finished_ms=finished_ms, vendor=self._equipment.profile.codes
            )
        except SubmitError as error:
            self._consider(client, error, submission.result)
            raise

    def _consider(self, client: AtClient, error: SubmitError, result: Result | None) -> None:
        """What a failed submission says of the session."""
        if result is None:
            return
        if result.kind is Kind.TIMEOUT and error.outcome is Outcome.IN_DOUBT:
            client.give_up(f"no final result within {self._settings.submit_timeout_s:g} s after a PDU")
        elif result.kind is Kind.TIMEOUT:
            self._check_now = True  # resynchronises, or finds that nobody is there
            self._wake.set()
        elif result.is_(Kind.CMS, 303, 304, 305):
            self._doubt_settings()

    def _doubt_settings(self) -> None:
        self._doubts += 1
        self._wake.set()

    # -- what the modem says unasked --

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Urc):
            self._on_urc(event.line, event.body)
        elif isinstance(event, Late):
            self._post(LateResult(submit_ref(event.line)))
        elif isinstance(event, Garbage):
            self.garbage += 1
            logger.debug("%s: a line that belongs to nothing: %s", self.name, masked_line(event.line))

    def _on_urc(self, line: str, body: str) -> None:
        head, _, tail = line.partition(":")
        if head in ("+CMTI", "+CDSI"):  # only ever a wake-up: index and memory are often wrong
            self._called = True
            self._wake.set()
        elif head in ("+CMT", "+CDS"):
            self._receive_directly(tail, body)
        elif head in self._equipment.registration:
            stat = number(tail.split(",")[0])
            if stat is not None:
                self._equipment.registration[head] = stat
                self._judge_registration()
        elif line.startswith(STORE_FULL):
            self._full.failed(None, "%s: the modem's message store is full (%s)", self.name, line)
            self._called = True
            self._wake.set()
        else:
            self._on_boot(line, head)

    def _on_boot(self, line: str, head: str) -> None:
        client = self._client
        if client is None:
            return
        if not self._up:
            # Noise of the boot before the bring-up is none of ours; +CFUN: 1 may be the answer to switching on.
            if line.startswith(BOOTED) and head != "+CFUN" and client.engine.state is not State.RESYNC:
                self._restarted = line
        elif line.startswith(BOOTED):
            client.give_up(f"the modem restarted by itself ({line}): look at its power supply")
        elif head == "+CPIN" and line[6:].strip() not in ("READY", "SIM PIN2", "SIM PUK2"):
            client.give_up(f"the SIM is gone ({line})")
        elif line.startswith(BOOT_TAIL):
            self._doubt_settings()

    def _receive_directly(self, header: str, body: str) -> None:
        length = number(header.rpartition(",")[2])
        waiting = sum(isinstance(event, Received) for event in self._outbox)
        if waiting >= MAX_DIRECT:
            logger.error("%s: a message is dropped: %d wait for the spool", self.name, waiting)
            return
        self._post(Received(StoredPdu(body, length, self._next_listing()), self._acknowledge))

    async def _acknowledge(self) -> None:
        if self._equipment.acknowledge and self._client is not None:
            await self._client.execute(commands.ACKNOWLEDGE)

    def _post(self, event: ChannelEvent) -> None:
        self._outbox.append(event)
        self._posted.set()
        self._wake.set()

    def _next_listing(self) -> str:
        self._readings += 1
        return f"{self._session}-{self._readings}"

    # -- to the sink --

    async def _empty_outbox(self, sink: Sink) -> bool:
        """Hand over what waits, and the status if it changed; False if the sink did not take all of it."""
        async with self._outbox_lock:
            while self._outbox:
                if not await self._deliver(sink, self._outbox[0]):
                    return False
                self._outbox.popleft()
            status = self.status()
            if status != self._announced:
                self._announced = status
                return await self._deliver(sink, StateChanged(status))
            return True

    async def _deliver_stored(self, sink: Sink, inbox: Inbox, pdu: StoredPdu) -> None:
        await self._empty_outbox(sink)
        index = pdu.index
        assert index is not None
        self._full.recovered("%s: the modem's message store is being emptied", self.name)
        await self._deliver(sink, Received(pdu, lambda: inbox.delete(pdu.storage, index, pdu.raw)))

    async def _deliver(self, sink: Sink, event: ChannelEvent) -> bool:
        """Whether the sink took it. What it refuses stays where it is: on the SIM, or in the outbox."""
        try:
            await sink(event)
        except ChannelLost:
            if self._client is None or self._client.lost is None:
                raise
            return True  # on disk, and only the acknowledgement failed: it comes again and is recognised
        except GatewayError as error:
            logger.warning("%s: %s is not taken: %s", self.name, type(event).__name__, error)
            return False
        return True

    # -- health --

    def _check_interval(self) -> float:
        ready = self._state is ChannelState.READY
        interval_s = self._settings.health_interval_s
        return interval_s if ready else min(interval_s, self._settings.search_interval_s)

    async def _check(self, client: AtClient) -> None:
        """Signal, registration and whether the settings still hold."""
        await self._verify(client)
        await self._read_signal(client)
        for network in tuple(self._equipment.registration):
            stat = await read_registration(client, network)
            if stat is not None:
                self._equipment.registration[network] = stat
        self._judge_registration()
        if self._state is ChannelState.READY and not self._equipment.operator:
            self._equipment.operator = await read_operator(client)
        self._checks += 1
        if self._checks % CNMI_EVERY == 0 and self._equipment.cnmi:
            response = await client.execute(commands.NOTIFICATION_QUERY)
            if response.ok and not notifies(response.text, self._equipment.cnmi):
                logger.warning("%s: the modem had turned its notifications off", self.name)
                await client.execute(commands.setting(f"AT+CNMI={self._equipment.cnmi}"))

    async def _verify(self, client: AtClient) -> None:
        """In text mode AT+CMGS=20 would address the number 20: a modem that forgot its settings is given up."""
        doubts = self._doubts
        response = await client.execute(commands.PDU_MODE_QUERY)
        forgot = response.ok and response.text not in ("", "0")
        if doubts != self._settled and not forgot and self._equipment.cnmi:  # PDU mode is the default of some
            response = await client.execute(commands.NOTIFICATION_QUERY)
            forgot = response.ok and not notifies(response.text, self._equipment.cnmi)
        self._settled = doubts
        if forgot:
            client.give_up("the modem forgot its settings: it restarted by itself")
            raise ChannelLost(client.lost or "")

    async def _read_signal(self, client: AtClient) -> None:
        response = await client.execute(commands.SIGNAL)
        if response.ok:
            self._rssi_dbm = rssi_dbm(response.text)

    def _judge_registration(self) -> None:
        if not self._up or self._state in (ChannelState.DOWN, ChannelState.STOPPED):
            return
        reason = registered(self._equipment.registration, roaming=self._settings.roaming)
        if reason and self._equipment.registration:
            self._set_state(ChannelState.UNREGISTERED, reason)
        else:  # a modem without any registration query shows what it can by sending
            self._set_state(ChannelState.READY)
