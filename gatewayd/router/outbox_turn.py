"""One turn of one endpoint: tells it what is due, in order, and keeps what came of it.

A webhook is told one event after another; one that it does not take holds up the rest until it is delivered or a dead
letter. A callback's host is told several at once, and only the events of one message are kept in order: what one
message's URL does not take holds up nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gatewayd import crashpoints, metrics, msglog
from gatewayd.clock import Clock
from gatewayd.router import signature
from gatewayd.router.calls import Caller
from gatewayd.router.endpoints import Manner
from gatewayd.router.events import body, event_id
from gatewayd.router.kannel_dlr import DlrEvent, dlr, mask_of
from gatewayd.router.recorder import Recorder
from gatewayd.router.verdicts import MAX_WAIT_S, REFUSALS, Answer, Verdict, backoff_s
from gatewayd.spool.deliveries import STEP, DeliveryReader, Pending, Told, give_up
from gatewayd.spool.events import DEAD, DONE, PENDING
from gatewayd.spool.outbox_reader import EventRecord, OutboxReader
from gatewayd.spool.writer import Writer

log = logging.getLogger("gatewayd.webhook")

PAGE = 100  # deliveries read at once
MAX_BLOCKED = 10_000  # messages of one host that wait for their next try, over which a turn looks
LOOK_S = 0.001  # for each of those, at least, between two looks at all of them
TURN_S = 10.0  # then it is another endpoint's turn
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Last:
    """What came of the last call to an endpoint, at `at` (epoch ms)."""

    at: int
    status: int | None
    error: str


@dataclass(slots=True)
class Line:
    """What is known of an endpoint while there is something to tell it.

    `failures`: in a row, of the endpoint as a whole. `refusals`: of single events, by delivery. `again`: something new
    came during its turn. `eager`: try at once what waits for its next try. `dropped`: it must not be called any more.

    `seen` is the last delivery that was looked at (0: look at all), `blocked` the groups up to there that wait for the
    next try of one of theirs, and `all_at` (monotonic) the time to look at all again: until then a new event costs no
    look at ten thousand that fail. `anew`: something before `seen` is pending again.
    """

    endpoint: str
    serial: bool
    failures: int = 0
    refusals: dict[int, int] = field(default_factory=dict)
    again: bool = False
    eager: bool = False
    dropped: bool = False
    last: Last | None = None
    seen: int = 0
    blocked: set[int] = field(default_factory=set)
    all_at: float = 0.0
    anew: bool = False

    @property
    def shown(self) -> str:
        """A webhook's name, or the origin of callbacks."""
        return self.endpoint.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Tools:
    """What every turn works with. `stopping`: begin nothing more."""

    writer: Writer
    deliveries: DeliveryReader
    events: OutboxReader
    recorder: Recorder
    clock: Clock
    spool_id: Callable[[], str]
    stopping: Callable[[], bool]
    random: random.Random


class Turn:
    """Used once. `url` is a webhook's ("" for callbacks, which have their own)."""

    def __init__(self, line: Line, url: str, manner: Manner, caller: Caller, tools: Tools, parallel: int) -> None:
        self._line = line
        self._url = url
        self._manner = manner
        self._caller = caller
        self._tools = tools
        self._parallel = 1 if line.serial else parallel
        self._begun = tools.clock.monotonic()
        self._eager, line.eager = line.eager, False
        self._records: dict[int, EventRecord] = {}
        goes_on = line.seen > 0 and not (self._eager or line.anew) and self._begun < line.all_at
        self._after = line.seen if goes_on else 0
        self._all_at = line.all_at if goes_on else math.inf
        self._blocked: set[int] = line.blocked if goes_on else set()
        line.anew, line.seen, line.blocked = False, 0, set()  # until it is known how far this turn comes
        self._next_at: int | None = None  # the earliest next try of what this turn found blocked
        self._down: list[Answer] = []  # of this round
        self._answered = False
        self._overdue = ""
        self._keeping: list[asyncio.Future[None]] = []

    async def run(self) -> float | None:
        """Tell what there is. Returns the seconds until the line's next turn: 0 for at once, None if nothing is left.

        Raises SpoolError.
        """
        line = self._line
        after = self._after
        while len(self._blocked) <= MAX_BLOCKED:
            line.again = False
            page = await self._tools.deliveries.heads(line.endpoint, after, PAGE)
            groups = self._due(page)
            probing = line.failures > 0 and bool(groups)
            if probing:
                groups = [[min((group[0] for group in groups), key=lambda each: (each.attempts, each.id))]]
            if groups:
                await self._round(groups)
                if self._down and not self._answered:
                    return await self._cool_down()
            if line.dropped or self._tools.stopping() or self._is_long():
                return 0.0
            if groups and (probing or self._down):
                continue  # the page again, for what of it was not tried
            after = page[-1].id if page else after
            if (line.serial and self._blocked) or not (len(page) == PAGE or line.again):
                break
        return self._rest(after)

    def _rest(self, seen: int) -> float | None:
        """Nothing more can be told now: seconds until the next try, None if nothing is left."""
        line, wait_s = self._line, self._wait_s()
        if line.serial:
            return wait_s
        now = self._tools.clock.monotonic()
        if wait_s is not None:
            # Bounded, for the wall clock that the next tries go by may have jumped.
            wait_s = min(max(wait_s, len(self._blocked) * LOOK_S), MAX_WAIT_S)
            self._all_at = min(self._all_at, now + wait_s)
        line.seen, line.blocked, line.all_at = seen, self._blocked, self._all_at
        return None if self._all_at == math.inf else max(0.001, self._all_at - now)

    def _due(self, page: Sequence[Pending]) -> list[list[Pending]]:
        """What of a page can be told now, by group, in order."""
        now = self._tools.clock.now_ms()
        groups: dict[int, list[Pending]] = {}
        for each in page:
            group = self._group(each)
            if group in self._blocked:
                continue
            if each.next_at > now and not self._eager:
                self._block(group, each.next_at)
            else:
                groups.setdefault(group, []).append(each)
        return list(groups.values())

    def _group(self, pending: Pending) -> int:
        return 0 if self._line.serial else pending.group

    def _block(self, group: int, next_at: int) -> None:
        self._blocked.add(group)
        self._next_at = next_at if self._next_at is None else min(self._next_at, next_at)

    async def _round(self, groups: list[list[Pending]]) -> None:
        """Tell all of these, several groups at once, until one finds that the endpoint is down."""
        self._down, self._answered = [], False
        self._records = await self._tools.events.records([each.outbox_id for group in groups for each in group])
        waiting = deque(groups)

        async def tell() -> None:
            while waiting and not self._is_over():
                await self._tell_group(waiting.popleft())

        async with asyncio.TaskGroup() as tasks:
            for number in range(min(self._parallel, len(waiting))):
                tasks.create_task(tell(), name=f"outbox {self._line.shown} {number}")
        keeping, self._keeping = self._keeping, []
        await asyncio.gather(*keeping)
        crashpoints.reach("outbox.recorded")
        if self._answered:
            self._line.failures = 0
        elif self._down:
            self._line.failures += 1

    def _is_over(self) -> bool:
        return bool(self._down) or self._line.dropped or self._tools.stopping() or self._is_long()

    def _is_long(self) -> bool:
        return self._tools.clock.monotonic() - self._begun > TURN_S

    async def _tell_group(self, group: Sequence[Pending]) -> None:
        for each in group:
            if self._is_over():
                break
            told = await self._tell(each)
            self._keeping.append(self._tools.recorder.keep(told))
            if told.state == PENDING:
                self._block(self._group(each), told.next_at)
                break

    async def _tell(self, pending: Pending) -> Told:
        record = self._records.get(pending.outbox_id)
        if record is None:
            return self._dead(pending, Answer(Verdict.FORBIDDEN, error="the event is not kept any more"))
        try:
            request = self._request(pending, record)
        except Exception as error:  # one that cannot be put into words stops no others
            log.exception("event %d cannot be told to %s", record.id, self._line.shown)
            return self._dead(pending, Answer(Verdict.FORBIDDEN, error=f"it cannot be put into words: {error!r}"))
        if request is None:
            return self._done(pending, None)
        method, url, headers, content = request
        crashpoints.reach("outbox.before_call")
        try:
            answer = await self._caller.call(method, url, headers, content, self._manner.timeout_s)
        except Exception as error:  # nothing we know of; it stops no others either
            log.exception("calling %s failed in a way that nobody foresaw", self._line.shown)
            answer = Answer(Verdict.LATER, error=repr(error))
        crashpoints.reach("outbox.called")
        self._line.last = Last(self._tools.clock.now_ms(), answer.status, answer.error)
        return self._conclude(pending, answer)

    def _request(self, pending: Pending, record: EventRecord) -> tuple[str, str, dict[str, str], bytes | None] | None:
        """Method, URL, headers and body; None if the endpoint does not want to know of it."""
        tools = self._tools
        name = event_id(tools.spool_id(), record.id)
        now_s = tools.clock.now_ms() // 1000
        if not pending.format:
            content = body(record, tools.spool_id())
            headers = {"Content-Type": JSON, **signature.headers(self._manner.key, name, now_s, content)}
            return "POST", self._url or pending.url, headers, content
        mask = mask_of(pending.format)
        if mask is None:
            raise ValueError(f"format {pending.format!r} is not known")
        reason = str(record.data.get("reason", ""))
        event = DlrEvent(record.type, pending.group, record.at, channel=record.channel or "", reply=reason)
        url = dlr(pending.url, mask, event)
        return None if url is None else ("GET", url, signature.headers(self._manner.key, name, now_s, b""), None)

    # What came of it.

    def _conclude(self, pending: Pending, answer: Answer) -> Told:
        line, verdict = self._line, answer.verdict
        failures = pending.attempts + 1
        if verdict is Verdict.DELIVERED:
            self._answered = True
            return self._done(pending, answer)
        if verdict is Verdict.FORBIDDEN:
            return self._dead(pending, answer)
        if verdict is Verdict.REFUSED:
            self._answered = True
            failures = line.refusals[pending.id] = line.refusals.get(pending.id, 0) + 1
            if failures >= REFUSALS:
                return self._dead(pending, answer)
        else:
            if verdict is Verdict.DOWN or line.serial:
                self._down.append(answer)
            else:
                self._answered = True
            if line.serial:
                failures = max(failures, line.failures + 1)
            if self._tools.clock.now_ms() - pending.created_at >= self._manner.give_up_ms:
                self._overdue = answer.error
                return self._dead(pending, answer)
        return self._later(pending, answer, backoff_s(failures, self._tools.random.random(), answer.retry_after_s))

    def _done(self, pending: Pending, answer: Answer | None) -> Told:
        line = self._line
        line.refusals.pop(pending.id, None)
        if answer is not None:
            msglog.webhook_delivered(line.shown, self._name(pending), pending.attempts + 1)
            metrics.delivery(line.endpoint, "delivered", answer.took_s)
        now = self._tools.clock.now_ms()
        return Told(pending.id, DONE, pending.attempts, now, now, None if answer is None else answer.status, "")

    def _later(self, pending: Pending, answer: Answer, wait_s: float) -> Told:
        attempts = pending.attempts + 1
        msglog.webhook_failed(self._line.shown, self._name(pending), answer.error, attempts, wait_s)
        metrics.delivery(self._line.endpoint, "failed", answer.took_s)
        next_at = self._tools.clock.now_ms() + int(wait_s * 1000)
        return Told(pending.id, PENDING, attempts, next_at, None, answer.status, answer.error)

    def _dead(self, pending: Pending, answer: Answer) -> Told:
        line = self._line
        line.refusals.pop(pending.id, None)
        attempts = pending.attempts + 1
        msglog.webhook_dead(line.shown, self._name(pending), attempts, answer.error)
        metrics.delivery(line.endpoint, "dead", answer.took_s if answer.took_s else None)
        now = self._tools.clock.now_ms()
        return Told(pending.id, DEAD, attempts, now, now, answer.status, answer.error)

    def _name(self, pending: Pending) -> str:
        return event_id(self._tools.spool_id(), pending.outbox_id)

    async def _cool_down(self) -> float:
        """The endpoint is down: how long it is left alone. What is too old besides becomes dead letters at once."""
        if self._overdue:
            await self._give_up()
        if self._line.serial and self._next_at is not None:
            return self._wait_s() or 0.0
        asked = max((answer.retry_after_s or 0.0 for answer in self._down), default=0.0)
        return backoff_s(self._line.failures, self._tools.random.random(), asked)

    async def _give_up(self) -> None:
        line, tools = self._line, self._tools
        now = tools.clock.now_ms()
        before = now - self._manner.give_up_ms
        reason = f"not tried any more, for the endpoint has failed all the time: {self._overdue}"
        while True:
            ids = await tools.writer.run(lambda tx: give_up(tx, line.endpoint, before, reason, now), rows=STEP)
            if ids:
                first, last = (event_id(tools.spool_id(), each) for each in (ids[0], ids[-1]))
                msglog.webhook_dead(line.shown, f"{first}…{last} ({len(ids)} events)", 0, reason)
            for _ in ids:
                metrics.delivery(line.endpoint, "dead")
            if len(ids) < STEP:
                return

    def _wait_s(self) -> float | None:
        if self._next_at is None:
            return None
        return max(0.0, (self._next_at - self._tools.clock.now_ms()) / 1000)
