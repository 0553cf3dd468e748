"""Deliveries are paged, concluded, given up and replayed alike on both engines."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from sqlalchemy import select

from gatewayd.config.webhooks import EVENT_TYPES
from gatewayd.spool import deliveries, schema
from gatewayd.spool.deliveries import STEP, DeliveryReader, Told
from gatewayd.spool.events import CHANNEL, DEAD, DONE, PENDING, TYPES, GatewayEvent, Subscription
from gatewayd.spool.intake import PlainIntake
from gatewayd.spool.reader import Reader
from gatewayd.spool.work import Rules
from gatewayd.spool.writer import Tx
from tests.spool.helpers import START_MS, Spool, message, open_spool


@asynccontextmanager
async def reading(url: str, *names: str) -> AsyncIterator[tuple[Spool, DeliveryReader]]:
    async with open_spool(url) as spool:
        subscriptions = [Subscription(f"webhook:{name}") for name in names]
        spool.store.configure(Rules(), PlainIntake(), subscriptions)
        reader = Reader(spool.database, spool.clock)
        try:
            yield spool, DeliveryReader(reader)
        finally:
            await reader.close()


async def events(spool: Spool, count: int) -> None:
    def add(tx: object) -> None:
        tx.notices.events.extend(GatewayEvent(CHANNEL, channel="m0") for _ in range(count))  # type: ignore[attr-defined]

    await spool.store.writer.run(add)


async def concluded(spool: Spool, *told: Told) -> None:
    await spool.store.writer.run(lambda tx: deliveries.record(tx, told))


def told(delivery_id: int, state: int, **fields: object) -> Told:
    finished = None if state == PENDING else START_MS
    values = {"attempts": 1, "next_at": START_MS, "finished_at": finished, "status": 500, "error": "HTTP 500"}
    return Told(delivery_id, state, **{**values, **fields})  # type: ignore[arg-type]


def test_the_configuration_knows_every_event_and_no_other() -> None:
    assert set(EVENT_TYPES) == set(TYPES)


async def test_heads_are_pages_in_order_with_the_message_they_are_of(database_url: str) -> None:
    async with reading(database_url, "crm", "shop") as (spool, reader):
        url = "https://app.example.com:8443/x?y=1"
        (idm,) = await spool.accept(message(callback_url=url, callback_format="kannel:31"))
        await events(spool, 4)
        assert await reader.endpoints("") == ["callback:https://app.example.com:8443", "webhook:crm", "webhook:shop"]
        assert await reader.endpoints("webhook:crm", 1) == ["webhook:shop"]
        (callback,) = await reader.heads("callback:https://app.example.com:8443", 0, 10)
        assert (callback.outbox_id, callback.group, callback.url, callback.format) == (1, idm, url, "kannel:31")
        assert (callback.attempts, callback.created_at, callback.next_at) == (0, START_MS, START_MS)
        first = await reader.heads("webhook:crm", 0, 3)
        rest = await reader.heads("webhook:crm", first[-1].id, 3)
        assert [each.outbox_id for each in first + rest] == [1, 2, 3, 4, 5]
        assert [each.group for each in first + rest] == [idm, 0, 0, 0, 0]


async def test_what_is_concluded_is_pending_no_more_and_stays_as_it_is(database_url: str) -> None:
    async with reading(database_url, "crm") as (spool, reader):
        await events(spool, 3)
        await concluded(spool, told(1, DONE, status=204, error=""), told(2, PENDING, next_at=START_MS + 5000))
        await concluded(spool, told(3, DEAD, error="half a \ud800 pair, a \0 and much more " * 40))
        await concluded(spool, told(1, DEAD), told(99, DONE))  # too late, and of nothing
        (head,) = await reader.heads("webhook:crm", 0, 10)
        assert (head.id, head.attempts, head.next_at, head.status, head.error) == (
            2,
            1,
            START_MS + 5000,
            500,
            "HTTP 500",
        )
        log = await reader.log(descending=True)
        assert [(each.id, each.state, each.status) for each in log] == [
            (3, "dead", 500),
            (2, "pending", 500),
            (1, "done", 204),
        ]
        assert log[0].error.startswith("half a \ufffd pair, a \ufffd and")
        assert len(log[0].error) == deliveries.MAX_ERROR
        assert (log[2].type, log[2].at, log[2].finished_at, log[2].message_id) == (CHANNEL, START_MS, START_MS, None)
        assert [each.id for each in await reader.log(state="dead")] == [3]
        assert [each.id for each in await reader.log(endpoint="webhook:crm", after=1, limit=1)] == [2]
        assert await reader.log(endpoint="webhook:other") == []


async def test_giving_up_takes_the_old_ones_in_steps(database_url: str) -> None:
    async with reading(database_url, "crm", "shop") as (spool, reader):
        await events(spool, STEP + 7)
        spool.clock.ms += 1000
        await events(spool, 1)
        give_up = partial(
            deliveries.give_up, endpoint="webhook:crm", before=START_MS, error="it is down", now=START_MS + 1000
        )
        assert await spool.store.writer.run(give_up) == list(range(1, STEP + 1))
        assert await spool.store.writer.run(give_up) == list(range(STEP + 1, STEP + 8))
        assert await spool.store.writer.run(give_up) == []
        assert [each.outbox_id for each in await reader.heads("webhook:crm", 0, 10)] == [STEP + 8]
        assert len(await reader.heads("webhook:shop", 0, 1000)) == STEP + 8
        dead = await reader.log(state="dead", limit=1)
        assert (dead[0].error, dead[0].finished_at, dead[0].attempts) == ("it is down", START_MS + 1000, 0)


async def test_replays_are_by_endpoint_id_and_time_of_the_event(database_url: str) -> None:
    async with reading(database_url, "crm", "shop") as (spool, reader):
        for _ in range(3):
            await events(spool, 1)
            spool.clock.ms += 60_000
        ids = [each.id for each in await reader.log()]
        await concluded(spool, *(told(each, DEAD) for each in ids))
        crm = [each.id for each in await reader.log(endpoint="webhook:crm")]
        ended = partial(reader.ended, DEAD)
        assert [each for each, _ in await ended()] == ids
        assert await ended(endpoint="webhook:crm") == [(each, "webhook:crm") for each in crm]
        assert [each for each, _ in await ended(ids=[crm[0], crm[2], 999])] == [crm[0], crm[2]]
        since = await ended(endpoint="webhook:crm", since=START_MS + 60_000, until=START_MS + 120_000)
        assert [each for each, _ in since] == [crm[1]]
        assert [each for each, _ in await ended(endpoint="webhook:crm", after=crm[1])] == [crm[2]]
        assert await reader.ended(DONE) == []
        found = await ended(endpoint="webhook:crm", after=crm[0])
        again = partial(deliveries.replay, found=found, state=DEAD, actor="uid 0 (root)", now=spool.clock.ms)
        assert await spool.store.writer.run(again) == 2
        assert spool.notices[-1].endpoints == {"webhook:crm"}
        assert await spool.store.writer.run(again) == 0  # they are not dead any more
        heads = await reader.heads("webhook:crm", 0, 10)
        assert [(each.id, each.attempts, each.created_at, each.error) for each in heads] == [
            (each, 0, spool.clock.ms, "") for each in crm[1:]
        ]
        audit = await spool.rows(select(schema.audit.c.actor, schema.audit.c.action, schema.audit.c.detail))
        assert [tuple(row) for row in audit] == [
            ("uid 0 (root)", "webhooks.replay", f"2 deliveries, {crm[1]} to {crm[2]}")
        ]


async def test_what_is_done_is_not_looked_at(sqlite_url: str) -> None:
    """The partial index serves what is asked all the time, however long the log is."""
    query = "SELECT id FROM deliveries WHERE endpoint = 'x' AND state = 0 AND id > 5 ORDER BY id LIMIT 100"
    async with reading(sqlite_url):
        connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}"))
        connection.close()
    assert "ix_deliveries_pending" in plan
    assert "TEMP B-TREE" not in plan


async def test_there_may_be_more_endpoints_than_a_statement_can_have_values(database_url: str) -> None:
    """Whoever has an API key decides how many hosts, or ports of one, callbacks go to. PostgreSQL takes 65 535."""
    hosts = 70_000

    def fill(tx: Tx) -> None:
        row = {"outbox_id": 1, "url": "", "format": "", "state": PENDING, "attempts": 0, "next_at": 0, "error": ""}
        for number in range(hosts):
            tx.add(schema.deliveries, row | {"endpoint": f"callback:http://a.example:{number}", "created_at": number})

    async with reading(database_url) as (spool, _):
        await spool.store.writer.run(fill)
        reader = Reader(spool.database, spool.clock)
        try:
            found = await reader.backlog()
        finally:
            await reader.close()
    assert len(found.endpoints) == hosts
    assert all(each.endpoint.endswith(f":{each.oldest_at}") and each.pending == 1 for each in found.endpoints)
