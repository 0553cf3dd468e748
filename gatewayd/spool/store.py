"""The spool as the rest of the program sees it: every write, each on disk when its call returns.

Reads of the API and the console go another way: `reader.py`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence

from gatewayd import __version__
from gatewayd.clock import Clock
from gatewayd.errors import RequestError
from gatewayd.model import SimIdentity
from gatewayd.spool import (
    accept,
    events,
    inbound,
    optouts,
    pins,
    reports,
    retention,
    settings,
    sims,
    upkeep,
    usage,
    work,
)
from gatewayd.spool.engine import Database
from gatewayd.spool.intake import Intake, PlainIntake
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.migrate import migrate
from gatewayd.spool.moves import Owner
from gatewayd.spool.work import Claim, Line, Result, Rules, Taken, Want
from gatewayd.spool.writer import Notices, Tx, Writer

CLOCK_SLACK_MS = 2_000  # a wall clock is set back by less than this all the time
PAUSED = "paused"  # name of the switch of `gatewayd pause --all`; its value says who and why, "" is not paused


class Store:
    """One instance's hold on the spool. `open()` first, `close()` last; all calls from the event loop."""

    def __init__(
        self,
        database: Database,
        instance: str,
        clock: Clock,
        rules: Rules,
        *,
        intake: Intake | None = None,
        subscriptions: Sequence[events.Subscription] = (),
        on_commit: Callable[[Notices], None] = lambda notices: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._rules = rules
        self._intake = intake or PlainIntake()
        self._subscriptions = tuple(subscriptions)
        self._book = LaneBook()
        self._sweep = retention.Sweep()
        self._owner = Owner(instance, 0)
        self._latest = 0  # when `advance` was called last
        self.spool_id = ""  # known once it is open
        self.writer = Writer(
            database, on_commit=on_commit, on_rollback=self._book.forget, before_commit=self._write_events
        )

    def configure(self, rules: Rules, intake: Intake, subscriptions: Sequence[events.Subscription]) -> None:
        """Work by another configuration from the next operation on."""
        self._rules, self._intake, self._subscriptions = rules, intake, tuple(subscriptions)

    def is_recalled(self, message_id: int) -> bool:
        """Whether a message in a channel's hands must not be written any more: its number has opted out."""
        return message_id in self._book.recalled

    def _write_events(self, tx: Tx) -> None:
        events.write(tx, self._subscriptions, self._clock.now_ms())

    def _desk(self) -> inbound.Desk:
        return inbound.Desk(self._book, self._intake, self._owner)

    async def open(self) -> upkeep.Recovery:
        """Take the instance's lock, migrate the schema, begin a new epoch.

        What the last run had in its hands is in doubt from here on. Raises SpoolError.
        """
        self._database.acquire(self._owner.instance)
        try:
            await self.writer.start()  # on PostgreSQL its connection holds the lock
            await asyncio.get_running_loop().run_in_executor(None, migrate, self._database)
            instance, pid = self._owner.instance, os.getpid()

            def begin(tx: Tx) -> upkeep.Recovery:
                now = self._clock.now_ms()
                return upkeep.open_epoch(tx, self._book, instance, pid, __version__, now, self._rules)

            recovery = await self.writer.run(begin)
        except BaseException:
            await self.writer.stop()
            self._database.release()
            raise
        self._owner = Owner(instance, recovery.epoch)
        self.spool_id = recovery.spool_id
        return recovery

    async def close(self) -> None:
        """Note the clean stop, commit what was handed in, let go of the lock."""
        owner = self._owner
        try:
            await self.writer.run(lambda tx: upkeep.close_epoch(tx, owner, self._clock.now_ms()))
        finally:
            await self.writer.stop()
            self._database.release()

    async def accept(
        self,
        messages: Sequence[accept.NewMessage],
        idempotency: accept.Idempotency | None = None,
        limits: usage.SegmentLimits | None = None,
    ) -> accept.Accepted:
        """Keep messages, all or none. Raises RequestError (409 for a reused Idempotency-Key, 429 beyond a limit),
        SpoolError.
        """
        accepted = await self.writer.run(
            lambda tx: accept.accept(tx, self._book, messages, self._clock.now_ms(), idempotency, limits),
            rows=sum(2 + message.segments for message in messages),
        )
        if accepted.exceeded is not None:
            raise accepted.exceeded.error(self._clock.now_ms())
        if accepted.conflict:
            raise RequestError(
                "Idempotency-Key",
                "was used before with another body; a new submission needs a new key",
                status=409,
                kind="idempotency-conflict",
            )
        return accepted

    async def work(self, line: Line, result: Result | None, want: Want | None) -> Taken:
        """In one commit: what became of the last claim, and the next one. Raises SpoolError: neither happened."""

        def operation(tx: Tx) -> Taken:
            now = self._clock.now_ms()
            if result is not None:
                work.conclude(tx, self._book, result, self._owner, now, self._rules)
            if want is None:
                return Taken(None)
            return work.claim(tx, self._book, line, want, self._owner, now, self._rules)

        return await self.writer.run(operation, urgent=True)

    async def give_back(self, line: Line, holds: Claim | None) -> int:
        """Requeue what is marked as in this channel's hands but for `holds`, which it has; returns how many."""
        return await self.writer.run(
            lambda tx: upkeep.give_back(tx, self._book, line, holds, self._owner, self._clock.now_ms()), urgent=True
        )

    async def report(self, report: reports.NewReport) -> reports.Matched:
        """Keep a status report and apply it."""
        return await self.writer.run(
            lambda tx: reports.record(tx, self._book, report, self._clock.now_ms(), self._owner)
        )

    async def late_result(self, sim_id: int, ref: int | None) -> int | None:
        """A +CMGS that came after its command was given up; the id of the message it settled."""
        return await self.writer.run(
            lambda tx: reports.late_result(
                tx, self._book, sim_id, ref, self._clock.now_ms(), self._owner, self._rules.report_wait_ms
            )
        )

    async def receive(self, part: inbound.NewPart) -> inbound.Kept:
        """Keep a received TPDU; with its last part the message is handed over, and STOP honoured, in one commit."""
        return await self.writer.run(lambda tx: inbound.record(tx, self._desk(), part, self._clock.now_ms()))

    async def opt(self, said: optouts.Said, state: optouts.OptState) -> optouts.Changed:
        """Put a number on the opt-out list, or take it off, on an operator's word. What is queued to it is blocked."""
        return await self.writer.run(
            lambda tx: optouts.change(tx, self._book, said, state, self._owner, self._clock.now_ms())
        )

    async def note(self, event: events.GatewayEvent) -> None:
        """Write an event of its own, such as a channel's state."""
        await self.writer.run(lambda tx: tx.notices.events.append(event))

    async def settle_pins(self, channels: Collection[str]) -> pins.Settled:
        """Hold what is pinned to channels other than these, and release what was held because one was missing."""
        known = frozenset(channels)
        return await self.writer.run(
            lambda tx: pins.settle_pins(tx, self._book, known, self._owner, self._clock.now_ms())
        )

    async def advance(self) -> upkeep.Advanced:
        """Do what has become due; says when to come again."""

        def operation(tx: Tx) -> tuple[int, upkeep.Advanced]:
            now = self._clock.now_ms()
            if now < self._latest - CLOCK_SLACK_MS:
                upkeep.clock_went_back(tx, now)
            return now, upkeep.advance(tx, self._desk(), self._sweep, now, self._rules)

        self._latest, advanced = await self.writer.run(operation)  # noted once it is on disk, and no sooner
        return advanced

    async def see_sim(self, channel: str, identity: SimIdentity, number: str) -> sims.Pairing:
        """Note the SIM found in a channel."""
        return await self.writer.run(
            lambda tx: sims.see_sim(tx, channel, identity, number, self._clock.now_ms(), self._owner)
        )

    async def accept_sim(self, channel: str, actor: str) -> bool:
        """Pair a channel with the SIM that is in it now; False if there is no other one in it."""
        return await self.writer.run(lambda tx: sims.accept_sim(tx, channel, actor, self._clock.now_ms()))

    async def setting(self, name: str) -> str | None:
        """A durable switch; None if it was never set."""
        return await self.writer.run(lambda tx: settings.setting(tx, name))

    async def set_setting(self, name: str, value: str, actor: str) -> None:
        """Change a durable switch; who did is noted."""
        await self.writer.run(lambda tx: settings.set_setting(tx, name, value, actor, self._clock.now_ms()))
