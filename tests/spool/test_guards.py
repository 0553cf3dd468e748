"""The guard against the same text to the same number, on both engines. Issue 4 item 8."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from sqlalchemy import func, select

from gatewayd.model import MessageClass, MessageState
from gatewayd.spool import schema
from gatewayd.spool.accept import Accepted, Idempotency, KeptMessage, NewMessage
from gatewayd.spool.guards import DuplicateGuard, digest
from gatewayd.spool.usage import SegmentLimits
from tests.spool.helpers import Spool, message, open_spool

WITHIN_MS = 600_000
WARN, REFUSE = DuplicateGuard(WITHIN_MS), DuplicateGuard(WITHIN_MS, refuse=True)
OTHER = "+59898344485"


async def accept(spool: Spool, guard: DuplicateGuard | None, *messages: NewMessage, **fields: object) -> Accepted:
    return await spool.store.accept(messages or [message()], duplicates=guard, **fields)  # type: ignore[arg-type]


async def remembered(spool: Spool) -> int:
    return int((await spool.rows(select(func.count()).select_from(schema.recent_texts)))[0][0])


async def history(spool: Spool, message_id: int) -> list[tuple[str, str]]:
    columns = schema.events.c
    rows = await spool.rows(
        select(columns.event, columns.detail).where(columns.message_id == message_id).order_by(columns.id)
    )
    return [(row[0], row[1]) for row in rows]


async def test_off_nothing_is_looked_at_and_nothing_written(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        for _ in range(2):
            (kept,) = (await accept(spool, None)).kept
            assert (kept.duplicate_of, kept.warning) == (0, "")
        assert await remembered(spool) == 0


async def test_a_repetition_is_kept_and_pointed_out(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        assert (await accept(spool, WARN)).kept[0] == KeptMessage(1)
        spool.clock.ms += 32_000
        (kept,) = (await accept(spool, WARN)).kept
        said = "the same text to the same number as message 1, accepted 32 s before"
        assert kept == KeptMessage(2, duplicate_of=1, warning=said)
        assert await history(spool, 2) == [("accepted", ""), ("duplicate", said)]
        spool.clock.ms += 200_000
        (kept,) = (await accept(spool, WARN)).kept
        assert kept.warning.endswith("message 2, accepted 3 min before")  # the one that was kept last
        assert await remembered(spool) == 1


async def test_a_repetition_is_refused_until_the_time_is_over(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        await accept(spool, REFUSE)
        for _ in range(3):
            spool.clock.ms += WITHIN_MS // 3 - 1
            accepted = await accept(spool, REFUSE)
            (kept,) = accepted.kept
            assert (kept.refused, kept.state, kept.duplicate_of) == (True, MessageState.NONE, 1)
            assert "as message 1, accepted" in kept.reason
            assert accepted.ids == ()
        spool.clock.ms += 3  # refusals prolong nothing
        assert (await accept(spool, REFUSE)).ids == (2,)
        assert await spool.rows(select(schema.messages.c.id).order_by(schema.messages.c.id)) == [(1,), (2,)]


async def test_a_clock_that_is_set_back_makes_no_text_new(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        await accept(spool, REFUSE)
        spool.clock.ms -= WITHIN_MS // 2
        assert (await accept(spool, REFUSE)).kept[0].refused
        spool.clock.ms -= WITHIN_MS  # but what was accepted in a wrong future is forgotten
        assert not (await accept(spool, REFUSE)).kept[0].refused


async def test_number_and_text_both_count(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        kept = (await accept(spool, REFUSE, message(), message(OTHER), message(segments=2))).kept
        assert [each.id for each in kept] == [1, 2, 3]
    assert digest("+1", "23") != digest("+12", "3")


@pytest.mark.parametrize("class_", MessageClass)
async def test_only_what_programs_send_is_bound(sqlite_url: str, class_: MessageClass) -> None:
    async with open_spool(sqlite_url) as spool:
        kept = (await accept(spool, REFUSE, *[message(class_=class_)] * 2)).kept
        bound = class_ in {MessageClass.APPLICATION, MessageClass.CAMPAIGN}
        assert kept[1].refused == bound
        assert await remembered(spool) == bound


async def test_within_one_batch_the_first_is_kept(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        batch = [message(), message(OTHER), message(), message()]
        kept = (await accept(spool, REFUSE, *batch)).kept
        assert [(each.id, each.duplicate_of) for each in kept] == [(1, 0), (2, 0), (0, 1), (0, 1)]
        assert kept[2].reason.endswith("as message 1, accepted in the same request")
        kept = (await accept(spool, REFUSE, message(), message(segments=2), message())).kept
        assert [(each.id, each.duplicate_of) for each in kept] == [(0, 1), (3, 0), (0, 1)]
        warned = (await accept(spool, WARN, message(segments=3), message(segments=3), message(segments=3))).kept
        assert [(each.id, each.duplicate_of) for each in warned] == [(4, 0), (5, 4), (6, 5)]


async def test_what_is_refused_costs_nothing_and_what_is_over_the_limit_is_not_remembered(database_url: str) -> None:
    limits = SegmentLimits(per_hour=3)
    async with open_spool(database_url) as spool:
        mine = message(api_key="app")
        assert (await accept(spool, REFUSE, mine, mine, mine, limits=limits)).ids == (1,)
        assert (await accept(spool, REFUSE, mine, message(OTHER, 2, api_key="app"), limits=limits)).ids == (2,)
        with pytest.raises(Exception, match="3 are used"):
            await accept(spool, REFUSE, message(OTHER, 1, api_key="app"), limits=limits)
        assert (await accept(spool, REFUSE, message(OTHER, 1))).ids == (3,)


async def test_a_repeated_idempotency_key_is_no_duplicate(database_url: str) -> None:
    def answer(kept: Sequence[KeptMessage]) -> str:
        return json.dumps([[each.id, each.duplicate_of, each.reason] for each in kept])

    async with open_spool(database_url) as spool:
        await accept(spool, REFUSE)
        key = Idempotency("app", "k1", b"1" * 32, answer)
        accepted = await accept(spool, REFUSE, message(), message(OTHER), idempotency=key)
        assert [each.id for each in accepted.kept] == [0, 2]
        spool.clock.ms += 2 * WITHIN_MS  # by now it would be taken
        again = await accept(spool, REFUSE, message(), message(OTHER), idempotency=key)
        assert again.replayed == answer(accepted.kept)
        assert again.kept == ()


async def test_where_all_is_refused_the_key_stays_unused(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        await accept(spool, REFUSE)
        key = Idempotency("app", "k1", b"1" * 32, lambda kept: "x")
        assert (await accept(spool, REFUSE, idempotency=key)).kept[0].refused
        spool.clock.ms += WITHIN_MS
        assert (await accept(spool, REFUSE, idempotency=key)).ids == (2,)


async def test_of_many_at_once_exactly_one_is_kept(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        accepted = await asyncio.gather(*(accept(spool, REFUSE) for _ in range(50)))
        assert sum(len(each.ids) for each in accepted) == 1


async def test_two_instances_on_one_database_see_each_others_texts(postgres_url: str) -> None:
    async with open_spool(postgres_url, "gw1") as one, open_spool(postgres_url, "gw2") as two:
        for _ in range(5):
            one.clock.ms += WITHIN_MS
            two.clock.ms = one.clock.ms
            both = await asyncio.gather(*(accept(spool, REFUSE) for spool in (one, two) for _ in range(10)))
            assert sum(len(each.ids) for each in both) == 1
