"""Many messages over a few SIMs, everything going wrong at random: the promises that hold for all of them."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select

from gatewayd.model import FailureClass, InDoubtPolicy, Outcome, ReportVerdict
from gatewayd.spool import schema
from gatewayd.spool.reports import NewReport
from gatewayd.spool.work import Claim, Line
from tests.spool.helpers import FakeClock, Spool, message, open_spool

NUMBERS = [f"+5989834448{i}" for i in range(3)]
m, s = schema.messages.c, schema.segments.c


@dataclass
class World:
    """What the channels hold, and what may have gone out: message, segment, SIM, in order."""

    chance: random.Random
    spool: Spool = field(init=False)
    lines: list[Line] = field(default_factory=list)
    held: dict[Line, Claim] = field(default_factory=dict)
    out: list[tuple[int, int, int]] = field(default_factory=list)
    policies: dict[int, InDoubtPolicy] = field(default_factory=dict)
    to: dict[int, str] = field(default_factory=dict)
    refs: int = 0

    async def begin(self, spool: Spool) -> None:
        """Another run; the last one ended with something in its channels' hands, which may have gone out."""
        self.out += [(claim.message_id, claim.segment.seq, claim.line.sim_id) for claim in self.held.values()]
        self.spool, self.held = spool, {}
        self.lines = [await spool.sim(f"m{i}") for i in range(3)]

    async def accept(self) -> None:
        now, chance = self.spool.clock.ms, self.chance
        fields: dict[str, Any] = {
            "to": chance.choice(NUMBERS), "segments": chance.choice([1, 1, 2, 3]),
            "in_doubt": chance.choice(list(InDoubtPolicy)), "priority": chance.choice([0, 0, 5]),
            "expires_at": chance.choice([None, None, now + chance.randrange(2_000_000)]),
            "not_before": chance.choice([None, None, now + chance.randrange(60_000)]),
            "channel": chance.choice(["", "", "", "m1"]),
        }  # fmt: skip
        (message_id,) = await self.spool.accept(message(**fields))
        self.policies[message_id], self.to[message_id] = fields["in_doubt"], fields["to"]

    async def turn(self, line: Line, *, smoothly: bool = False) -> bool:
        """The channel hands back what it has, and takes the next; whether there was any."""
        held, result = self.held.pop(line, None), None
        if held is not None:
            self.refs += 1
            outcome = Outcome.SENT if smoothly else self.chance.choice([Outcome.SENT, Outcome.SENT, *Outcome])
            result = {
                Outcome.SENT: lambda: self.spool.sent(held, ref=self.refs % 256),
                Outcome.IN_DOUBT: lambda: self.spool.doubtful(held),
                Outcome.NOT_SENT: lambda: self.spool.not_sent(
                    held,
                    self.chance.choice(list(FailureClass)),
                    alternatives=not held.pinned and self.chance.random() < 0.5,
                    stopped_ms=self.chance.choice([0, 0, 30_000]),
                ),
            }[outcome]()
            if outcome is not Outcome.NOT_SENT:
                self.out.append((held.message_id, held.segment.seq, line.sim_id))
        claim = await self.spool.claim(line, result)
        if claim is not None:
            self.held[line] = claim
            if claim.segment.seq == 1:  # one that is under way goes on, whatever has overtaken it while it could not
                self.check_alone(claim)
        return claim is not None or held is not None

    def check_alone(self, claim: Claim) -> None:
        """Nothing else to this number is in a channel's hands beside a message of several segments."""
        for other in self.held.values():
            if other is not claim and self.to[other.message_id] == self.to[claim.message_id]:
                assert other.segment.total == claim.segment.total == 1

    async def report(self) -> None:
        line, tp_mr = self.chance.choice(self.lines), self.refs % 256
        verdict = self.chance.choice(list(ReportVerdict))
        status = {ReportVerdict.DELIVERED: 0, ReportVerdict.TRYING: 0x20, ReportVerdict.UNDELIVERED: 0x41}[verdict]
        await self.spool.store.report(
            NewReport(line.channel, line.sim_id, tp_mr, self.chance.choice(NUMBERS), status, verdict, "", None, None,
                      f"{self.refs}-{self.chance.random()}", "l")
        )  # fmt: skip

    async def step(self) -> None:
        kind = self.chance.random()
        if kind < 0.2:
            await self.accept()
        elif kind < 0.8:
            await self.turn(self.chance.choice(self.lines))
        elif kind < 0.87:
            await self.report()
        elif kind < 0.9:
            await self.spool.store.late_result(self.chance.choice(self.lines).sim_id, self.refs % 256)
        else:
            self.spool.clock.ms += self.chance.choice([1000, 30_000, 900_000])
            await self.spool.store.advance()

    async def drain(self) -> None:
        """From here on every network takes everything; until there is nothing more to do."""
        for _ in range(200):
            busy = [await self.turn(line, smoothly=True) for line in self.lines]
            self.spool.clock.ms += 900_000
            await self.spool.store.advance()
            if not any(busy) and not await self.spool.rows(select(m.id).where(m.queue != schema.OUT)):
                return
        rows = await self.spool.rows(
            select(m.id, m.queue, m.due_at, m.waits_for, m.lane_id, m.reason).where(m.state == 1)
        )
        raise AssertionError(f"something waits for ever: {rows}")


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_everything_ends_and_nothing_goes_out_twice(sqlite_url: str, seed: int) -> None:
    chance, clock = random.Random(seed), FakeClock()
    world = World(chance)
    for _ in range(3):
        async with open_spool(sqlite_url, clock=clock) as spool:
            await world.begin(spool)
            for _ in range(150):
                await world.step()
    async with open_spool(sqlite_url, clock=clock) as spool:
        await world.begin(spool)
        await world.drain()
        waiting = await spool.rows(select(m.id).where(m.state == 1))
        for (message_id,) in waiting:
            states = {state for (state,) in await spool.rows(select(s.state).where(s.message_id == message_id))}
            assert "IN_DOUBT" in states, f"message {message_id} is stuck: {states}"
            assert world.policies[message_id] is InDoubtPolicy.HOLD
    went: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for message_id, seq, sim_id in world.out:
        went[message_id].append((seq, sim_id))
    for message_id, segments in went.items():
        if world.policies[message_id] is not InDoubtPolicy.RESEND:
            assert [seq for seq, _ in segments] == list(range(1, len(segments) + 1)), "in order, each at most once"
            assert len({sim_id for _, sim_id in segments}) == 1, "all over one SIM"
