"""Operators' words mixed with everything else that happens, at random: nothing is lost, nothing doubled silently."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import func, select

from gatewayd.model import MessageClass, MessageState
from gatewayd.spool import schema
from gatewayd.spool.filters import Filter
from gatewayd.spool.optouts import OptState, Said, Source
from gatewayd.spool.orders import Action, Order
from tests.spool.helpers import FakeClock, open_spool
from tests.spool.test_lives import NUMBERS, World

CHANNELS = ("m0", "m1", "m2")
m, s, e = schema.messages.c, schema.segments.c, schema.events.c
NEVER = ("operation not applied", "outcome not applied", "set aside", "deadline dropped")


class Operated(World):
    """The world of `test_lives` with operators in it."""

    async def step(self) -> None:
        if self.chance.random() < 0.3:
            await self.operate()
        elif self.chance.random() < 0.01:
            await self.stop_word(self.chance.choice(list(OptState)[1:]))
        else:
            await super().step()

    async def operate(self) -> None:
        chance, spool = self.chance, self.spool
        if chance.random() < 0.5:
            await spool.store.operation_step(CHANNELS)
            return
        ids = tuple(chance.sample(sorted(self.to), k=min(len(self.to), chance.choice([1, 2, 30])))) if self.to else (1,)
        wanted = chance.choice(
            [Filter(ids=ids), Filter(ids=ids), Filter(to=chance.choice(NUMBERS)), Filter(in_doubt=True), Filter(),
             Filter(class_=MessageClass.APPLICATION), Filter(held="operator"), Filter(channel="m1")]
        )  # fmt: skip
        order = Order(
            chance.choice(list(Action)), "ana", priority=chance.randrange(10),
            channel=chance.choice(["", "m0", "gone"]),
            expires_at=chance.choice([None, spool.clock.ms + 1_000_000]), may_double=chance.random() < 0.5,
        )  # fmt: skip
        await spool.store.operate(order, wanted, chance.choice([CHANNELS, CHANNELS[:2]]))

    async def stop_word(self, state: OptState) -> None:
        number = self.chance.choice(NUMBERS)
        said = Said(number, number, "opt_out", Source.OPERATOR, "ana", evidence="e")
        await self.spool.store.opt(said, state)


async def never(world: World) -> None:
    rows = await world.spool.rows(
        select(e.message_id, e.event, e.detail).where(e.event == NEVER[0])
        .union_all(*[select(e.message_id, e.event, e.detail).where(e.event == name) for name in NEVER[1:]])
    )  # fmt: skip
    assert rows == []


async def check_rows(world: World) -> None:
    """What a message's row says agrees with its segments."""
    rows = await world.spool.rows(select(m.id, m.state, m.queue, m.held, m.wish, m.owner))
    segments: dict[int, list[str]] = {}
    for message_id, state in await world.spool.rows(select(s.message_id, s.state).order_by(s.message_id, s.seq)):
        segments.setdefault(message_id, []).append(state)
    in_hand = {claim.message_id for claim in world.held.values()}
    for message_id, state, queue, held, wish, owner in rows:
        states = segments[message_id]
        assert ("SUBMITTING" in states) == (message_id in in_hand) == (owner is not None), states
        assert (state == MessageState.TO_PROCESS) == bool({"HELD", "QUEUED", "SUBMITTING"} & set(states))
        assert bool(held) == ("HELD" in states), (states, held)
        if wish:
            assert {"SUBMITTING", "IN_DOUBT"} & set(states), (states, wish)
        if not {"SUBMITTING", "IN_DOUBT"} & set(states):
            expected: Any = {schema.KEPT} if "HELD" in states else {schema.OUT}
            if "HELD" not in states and "QUEUED" in states:
                expected = {schema.DUE, schema.LATER, schema.BEHIND}
            assert queue in expected, (states, queue)


@pytest.mark.parametrize("seed", range(10))
async def test_any_mixture_of_operations_and_outcomes_holds_the_promises(sqlite_url: str, seed: int) -> None:
    """Promises 1, 2, 4 and 5."""
    clock = FakeClock()
    world = Operated(random.Random(seed))
    for _ in range(3):
        async with open_spool(sqlite_url, clock=clock) as spool:
            await world.begin(spool)
            for number in range(150):
                await world.step()
                if number % 50 == 49:
                    await check_rows(world)
            await never(world)
    async with open_spool(sqlite_url, clock=clock) as spool:
        await world.begin(spool)
        while await spool.store.operation_step(CHANNELS) is not None:
            pass
        released = Order(Action.RELEASE, "ana")
        await spool.store.operate(Order(Action.ROUTE, "ana", target="any"), Filter(held="pin"), CHANNELS)
        await spool.store.operate(Order(Action.ROUTE, "ana", target="any"), Filter(channel="gone"), CHANNELS)
        await spool.store.operate(released, Filter(held="any"), CHANNELS)
        await spool.store.operate(Order(Action.GIVE_UP, "ana"), Filter(), CHANNELS)
        while await spool.store.operation_step(CHANNELS) is not None:
            pass
        await check_rows(world)
        await world.drain()
        await never(world)
        await check_rows(world)
        assert await spool.rows(select(m.id).where(m.state == MessageState.TO_PROCESS.value)) == [], "lost in the queue"
        assert await spool.rows(select(func.count()).select_from(schema.messages)) == [(len(world.to),)]
        again = Counter[tuple[int, int]]()
        for message_id, seq, name, detail in await spool.rows(
            select(e.message_id, e.seq, e.event, e.detail).where(e.seq > 0)
        ):
            again[message_id, seq] += name == "resend" or (name == "requeued" and "it may arrive twice" in detail)
        went = Counter((message_id, seq) for message_id, seq, _ in world.out)
        silent = {key: count for key, count in went.items() if count > 1 + again[key]}
        assert silent == {}, "sent twice, and nobody was told"
