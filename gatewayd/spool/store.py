"""The spool as the rest of the program sees it: every write, each on disk when its call returns.

Reads of the API and the console go another way: `reader.py`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

from gatewayd import __version__
from gatewayd.clock import Clock
from gatewayd.errors import RequestError
from gatewayd.model import SimIdentity
from gatewayd.spool import accept, inbound, reports, upkeep, work
from gatewayd.spool.engine import Database
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
        on_commit: Callable[[Notices], None] = lambda notices: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._rules = rules
        self._book = LaneBook()
        self._owner = Owner(instance, 0)
        self._latest = 0  # when `advance` was called last
        self.writer = Writer(database, on_commit=on_commit, on_rollback=self._book.forget)

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
        self, messages: Sequence[accept.NewMessage], idempotency: accept.Idempotency | None = None
    ) -> accept.Accepted:
        """Keep messages, all or none. Raises RequestError (409) on a reused Idempotency-Key, SpoolError."""
        accepted = await self.writer.run(
            lambda tx: accept.accept(tx, self._book, messages, self._clock.now_ms(), idempotency),
            rows=sum(2 + message.segments for message in messages),
        )
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
        """Keep a received TPDU."""
        return await self.writer.run(lambda tx: inbound.record(tx, part, self._clock.now_ms()))

    async def advance(self) -> int | None:
        """Do what has become due; returns when to come again (epoch ms), None for never."""

        def operation(tx: Tx) -> int | None:
            now = self._clock.now_ms()
            if now < self._latest - CLOCK_SLACK_MS:
                upkeep.clock_went_back(tx, now)
            self._latest = now
            return upkeep.advance(tx, self._book, now, self._owner, self._rules)

        return await self.writer.run(operation)

    async def see_sim(self, channel: str, identity: SimIdentity, number: str) -> upkeep.Pairing:
        """Note the SIM found in a channel."""
        return await self.writer.run(
            lambda tx: upkeep.see_sim(tx, channel, identity, number, self._clock.now_ms(), self._owner)
        )

    async def accept_sim(self, channel: str, actor: str) -> bool:
        """Pair a channel with the SIM that is in it now; False if there is no other one in it."""
        return await self.writer.run(lambda tx: upkeep.accept_sim(tx, channel, actor, self._clock.now_ms()))

    async def setting(self, name: str) -> str | None:
        """A durable switch; None if it was never set."""
        return await self.writer.run(lambda tx: upkeep.setting(tx, name))

    async def set_setting(self, name: str, value: str, actor: str) -> None:
        """Change a durable switch; who did is noted."""
        await self.writer.run(lambda tx: upkeep.set_setting(tx, name, value, actor, self._clock.now_ms()))
