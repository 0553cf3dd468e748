"""What is pinned to a channel that the configuration does not have is held, and released exactly when it is back."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, select, update

from gatewayd.spool import schema, upkeep
from gatewayd.spool.engine import Statement
from tests.spool.helpers import START_MS, Sim, Spool, intake, message, open_spool

m, s, h = schema.messages.c, schema.segments.c, schema.events.c


async def segments(spool: Spool, ids: Sequence[int]) -> list[str]:
    """The states of all segments of these messages."""
    found: list[str] = []
    for message_id in ids:
        rows = await spool.rows(select(s.state).where(s.message_id == bindparam("id")).order_by(s.seq), id=message_id)
        found += [row[0] for row in rows]
    return found


async def settle(spool: Spool, *channels: str) -> tuple[int, int]:
    """Settle until nothing is left to do; how many were held and released."""
    held = released = 0
    while True:
        settled = await spool.store.settle_pins(channels)
        held, released = held + settled.held, released + settled.released
        if not settled.more:
            return held, released


async def test_held_and_released_exactly(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim("m0")
        free, here, there, later = await spool.accept(
            message(), message(channel="m0"), message(channel="m1", segments=2),
            message(channel="m1", not_before=START_MS + 60_000),
        )  # fmt: skip
        assert await settle(spool, "m0", "m1") == (0, 0)
        assert await settle(spool, "m0") == (2, 0)
        assert await settle(spool, "m0") == (0, 0), "once"
        assert await segments(spool, [free, here, there, later]) == ["QUEUED", "QUEUED", "HELD", "HELD", "HELD"]
        ((state, reason),) = await spool.rows(select(m.state, m.reason).where(m.id == bindparam("id")), id=there)
        assert (state, reason) == (1, "held: the configuration has no channel m1, which it is pinned to")
        spool.clock.ms += 120_000
        await spool.store.advance()
        assert await spool.claims(line) == [free, here]
        other = await spool.sim("m1")
        assert await spool.claims(other) == []
        assert await settle(spool, "m0", "m1") == (0, 2)
        assert await settle(spool, "m0", "m1") == (0, 0)
        rows = await spool.rows(select(m.reason).where(m.pin_channel == "m1").distinct())
        assert rows == [("",)]
        assert await spool.claims(other) == [there, there, later]
        said = await spool.rows(select(h.event).where(h.message_id == bindparam("id")).order_by(h.id), id=later)
        assert [row[0] for row in said] == ["accepted", "held", "released", "intent", "sent"]
        outbox = schema.outbox.c
        types = await spool.rows(select(outbox.type).where(outbox.message_id == bindparam("id")), id=later)
        assert [row[0] for row in types] == ["message.accepted", "message.sent"], "applications hear of no holding"


async def test_what_is_in_hand_and_what_was_kept_back_for_another_reason_is_left_alone(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim("m1")
        in_hand, partly, broken = await spool.accept(
            message(channel="m1"), message(channel="m1", segments=2), message(channel="m1")
        )
        claim = await spool.claim(line)
        assert claim is not None
        bad = Statement(
            update(schema.messages).where(m.id == schema.sqltext(broken)).values(reason="set aside", queue=0)
        )
        await spool.store.writer.run(lambda tx: tx.run(bad, {}))
        assert await settle(spool) == (1, 0)
        assert await segments(spool, [in_hand, partly, broken]) == ["SUBMITTING", "HELD", "HELD", "QUEUED"]
        await spool.store.work(line, spool.sent(claim), None)
        assert await segments(spool, [in_hand]) == ["SUBMITTED"]
        assert await settle(spool, "m1") == (0, 1)
        assert await segments(spool, [partly, broken]) == ["QUEUED", "QUEUED", "QUEUED"]
        assert await spool.claims(line) == [partly, partly]


async def test_the_rest_of_what_is_partly_sent_is_held_and_goes_on_where_it_was(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim("m1")
        (idm,) = await spool.accept(message(channel="m1", segments=3))
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.work(line, spool.sent(claim), None)
        assert await settle(spool) == (1, 0)
        assert await segments(spool, [idm]) == ["SUBMITTED", "HELD", "HELD"]
        assert await spool.claims(line) == []
        assert await settle(spool, "m1") == (0, 1)
        assert await spool.claims(line) == [idm, idm]


async def test_a_stop_while_it_is_held_is_final_and_time_that_passed_is_noticed(database_url: str) -> None:
    async with open_spool(database_url, intake=intake(confirm=False)) as spool:
        line = await spool.sim("m1")
        stopped, expired = await spool.accept(
            message(channel="m1"), message("+59898000001", channel="m1", expires_at=START_MS + 60_000)
        )
        assert await settle(spool) == (2, 0)
        await Sim(spool).says("STOP")
        spool.clock.ms += 120_000
        await spool.store.advance()
        assert await segments(spool, [stopped, expired]) == ["BLOCKED", "EXPIRED"]
        assert await settle(spool, "m1") == (0, 0)
        assert await spool.claims(line) == []


async def test_thousands_are_settled_in_steps_and_one_broken_row_stops_none(database_url: str) -> None:
    """Promise 4: a start settles the pins, so what fails here would keep the daemon from starting."""
    async with open_spool(database_url) as spool:
        count = 2 * upkeep.STEP + 7
        ids = await spool.accept(*[message(f"+5989{n:07}", channel="m1") for n in range(count)])
        broken = Statement(update(schema.segments).where(s.message_id == schema.sqltext(ids[3])).values(state="?"))
        await spool.store.writer.run(lambda tx: tx.run(broken, {}))
        held = Statement(select(s.message_id).where(s.state == "HELD"))
        assert (await spool.store.settle_pins([])).more
        assert len(await spool.store.writer.run(lambda tx: tx.all(held, {}))) == upkeep.STEP - 1
        await settle(spool)
        assert len(await spool.store.writer.run(lambda tx: tx.all(held, {}))) == count - 1
        ((reason,),) = await spool.rows(select(m.reason).where(m.id == bindparam("id")), id=ids[3])
        assert reason.startswith("kept back, it cannot be dealt with")
        await settle(spool, "m1")
        assert await spool.store.writer.run(lambda tx: tx.all(held, {})) == []
