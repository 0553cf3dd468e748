"""The spool as the rest of the program sees it: every write, each on disk when its call returns.

Reads of the API and the console go another way: `reader.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from gatewayd import __version__, crashpoints
from gatewayd.clock import Clock
from gatewayd.errors import RequestError
from gatewayd.model import SimIdentity
from gatewayd.spool import (
    accept,
    channel_modes,
    clockmark,
    events,
    guards,
    inbound,
    operations,
    optouts,
    pins,
    quarantine,
    reports,
    restored,
    retention,
    settings,
    sims,
    starts,
    upkeep,
    usage,
    witness,
    work,
)
from gatewayd.spool.channel_modes import ChannelMode
from gatewayd.spool.engine import Database
from gatewayd.spool.filters import Filter
from gatewayd.spool.intake import Intake, PlainIntake
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.migrate import migrate
from gatewayd.spool.moves import Owner
from gatewayd.spool.orders import Means, Order
from gatewayd.spool.work import Claim, Line, Result, Rules, Taken, Want
from gatewayd.spool.writer import STEP, Notices, Tx, Writer

log = logging.getLogger("gatewayd.spool")

CLOCK_SLACK_MS = 2_000  # a wall clock is set back by less than this all the time
PAUSED = settings.PAUSED


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
        witness_file: Path | None = None,
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
        self.clock_mark = clockmark.ClockMark()  # as it was then
        self._witness_file = witness_file
        self._witness: witness.Keeper | None = None
        self.writer = Writer(
            database, on_commit=on_commit, on_rollback=self._book.forget, before_commit=self._write_events
        )

    def configure(self, rules: Rules, intake: Intake, subscriptions: Sequence[events.Subscription]) -> None:
        """Work by another configuration from the next operation on."""
        self._rules, self._intake, self._subscriptions = rules, intake, tuple(subscriptions)

    def recalled(self, message_id: int) -> str:
        """Why a message in a channel's hands must not be written any more; "": it may."""
        return self._book.recalled.get(message_id, "")

    @property
    def turns(self) -> Mapping[str, int]:
        """The port that each dial string's turn was given to last. Changes in the writer's thread."""
        return self._book.turns

    def _write_events(self, tx: Tx) -> None:
        events.write(tx, self._subscriptions, self._clock.now_ms())

    def _desk(self) -> inbound.Desk:
        return inbound.Desk(self._book, self._intake, self._owner)

    async def open(self, on_progress: Callable[[str], None] = lambda said: None) -> upkeep.Recovery:
        """Take the instance's lock, migrate the schema, begin a new epoch.

        What the last run had in its hands is in doubt from here on; of a spool that is not the newest of its kind,
        everything unsent is held, which takes 20 s for each 10⁵ messages: `on_progress` is told. Raises SpoolError.
        """
        self._database.acquire(self._owner.instance)
        crashpoints.reach("start.locked")
        try:
            self._database.check()
            await self.writer.start()  # on PostgreSQL its connection holds the lock
            await asyncio.get_running_loop().run_in_executor(None, migrate, self._database)
            crashpoints.reach("start.migrated")
            instance, pid = self._owner.instance, os.getpid()
            known = None if self._witness_file is None else await asyncio.to_thread(witness.read, self._witness_file)

            def begin(tx: Tx) -> upkeep.Recovery:
                now = self._clock.now_ms()
                self.clock_mark = clockmark.read(tx)
                if now < self.clock_mark.newest_ms:
                    clockmark.keep(tx, self.clock_mark.newest_ms)
                return upkeep.open_epoch(tx, self._book, instance, pid, __version__, now, self._rules, known)

            recovery = await self.writer.run(begin)
            crashpoints.reach("start.recovered")
            self._owner = Owner(instance, recovery.epoch)
            self.spool_id = recovery.spool_id
            if recovery.restored:
                await self._hold_all(recovery.restored, on_progress)
            if self._witness_file is not None:
                witness.warn_of_another(known, recovery.spool_id)
                self._witness = witness.Keeper(self._witness_file, instance, self.writer, self._clock)
                await self._witness.start()
        except BaseException:
            await self.writer.stop()
            self._database.release()
            raise
        return recovery

    async def _hold_all(self, reason: str, on_progress: Callable[[str], None]) -> None:
        """Hold everything unsent, in steps; the next start goes on if this one does not come to an end."""
        after: tuple[int, int] | None = (0, 0)
        count = 0
        while after is not None:
            held = await self.writer.run(partial(self._hold_step, after, reason))
            crashpoints.reach("hold.stepped")
            count, after = count + held.count, held.after
            on_progress(f"{reason}: {count} unsent messages held so far")
        crashpoints.reach("hold.done")
        await self.writer.run(lambda tx: restored.end(tx, self._clock.now_ms()))
        log.warning("%s: %d unsent messages are held, and sending is paused (docs/backup.md)", reason, count)

    def _hold_step(self, after: tuple[int, int], reason: str, tx: Tx) -> restored.Held:
        return restored.hold_step(tx, self._book, after, reason, self._owner, self._clock.now_ms())

    async def close(self) -> None:
        """Note the clean stop, commit what was handed in, let go of the lock."""
        owner = self._owner
        crashpoints.reach("stop.closing")
        try:
            if self._witness is not None:
                await self._witness.stop()
            await self.writer.run(lambda tx: upkeep.close_epoch(tx, owner, self._clock.now_ms()))
            if self._witness is not None:
                await self._witness.note()
        finally:
            await self.writer.stop()
            self._database.release()

    async def accept(
        self,
        messages: Sequence[accept.NewMessage],
        idempotency: accept.Idempotency | None = None,
        limits: usage.SegmentLimits | None = None,
        duplicates: guards.DuplicateGuard | None = None,
    ) -> accept.Accepted:
        """Keep messages, all or none but for what `duplicates` refuses. Raises RequestError (409 for a reused
        Idempotency-Key, 429 beyond a limit), SpoolError.
        """
        accepted = await self.writer.run(
            lambda tx: accept.accept(tx, self._book, messages, self._clock.now_ms(), idempotency, limits, duplicates),
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

    async def last_starts(self) -> dict[str, int]:
        """When each dialer (dialer:NAME) that keeps an interval began its last message, epoch ms."""
        return await self.writer.run(lambda tx: starts.last(tx, self._clock.now_ms()))

    async def accept_sim(self, channel: str, actor: str) -> bool:
        """Pair a channel with the SIM that is in it now; False if there is no other one in it."""
        return await self.writer.run(lambda tx: sims.accept_sim(tx, channel, actor, self._clock.now_ms()))

    async def channel_modes(self) -> dict[str, ChannelMode]:
        """What operators said of the channels that do not simply work."""
        return await self.writer.run(channel_modes.modes)

    async def set_channel_mode(self, name: str, mode: str, actor: str, reason: str) -> ChannelMode:
        """Pause, drain or resume a channel; who did is noted."""
        return await self.writer.run(
            lambda tx: channel_modes.set_mode(tx, name, mode, actor, reason, self._clock.now_ms())
        )

    async def operate(self, order: Order, wanted: Filter, channels: Collection[str]) -> operations.Begun:
        """Begin an operation on the queue: a few ids at once, else it is worked off by `operation_step`. `channels` are
        those of the configuration.
        """
        known = frozenset(channels)
        rows = 5 * min(len(wanted.ids), operations.DIRECT)
        return await self.writer.run(lambda tx: operations.begin(tx, self._means(known), order, wanted), rows=1 + rows)

    async def operation_step(self, channels: Collection[str]) -> operations.Operation | None:
        """Work off a step of the operations that are under way; None: there is none."""
        known = frozenset(channels)

        def step(tx: Tx) -> operations.Operation | None:
            stepped = operations.step(tx, self._means(known))
            if stepped is not None:
                crashpoints.reach("operation.applied")
            return stepped

        stepped = await self.writer.run(step, rows=5 * operations.STEP)
        if stepped is not None:
            crashpoints.reach("operation.stepped")
        return stepped

    async def stop_operation(self, operation_id: int, actor: str) -> bool:
        """End an operation where it is. False: it is not under way."""
        return await self.writer.run(lambda tx: operations.stop(tx, operation_id, actor, self._clock.now_ms()))

    def _means(self, channels: frozenset[str]) -> Means:
        return Means(self._book, self._owner, self._clock.now_ms(), self._rules.report_wait_ms, channels)

    async def keep_clock_mark(self, newest_ms: int) -> None:
        """Write down the newest time known, because the clock is behind it. Raises SpoolError."""
        await self.writer.run(lambda tx: clockmark.keep(tx, newest_ms))

    async def accept_clock(self, actor: str, boot: str) -> clockmark.ClockMark:
        """The clock is right: what the spool has of later times counts no more. `boot`: which start of the machine."""
        return await self.writer.run(lambda tx: clockmark.accept(tx, self._clock.now_ms(), actor, boot))

    async def setting(self, name: str) -> str | None:
        """A durable switch; None if it was never set."""
        return await self.writer.run(lambda tx: settings.setting(tx, name))

    async def release_number(self, number: str, actor: str) -> int | None:
        """Let a number out of quarantine; how many messages to it are due now, None if nothing counted against it."""

        def operation(tx: Tx) -> bool:
            return quarantine.release(tx, self._book.faults, number, actor, self._clock.now_ms())

        if not await self.writer.run(operation):
            return None
        total = 0
        while True:
            woken = await self.writer.run(lambda tx: quarantine.wake(tx, number, self._clock.now_ms()))
            total += woken
            if woken < STEP:
                return total

    async def set_setting(self, name: str, value: str, actor: str) -> None:
        """Change a durable switch; who did is noted."""
        await self.writer.run(lambda tx: settings.set_setting(tx, name, value, actor, self._clock.now_ms()))
