"""Events, inbound messages and opt-outs are read as they were written, on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from sqlalchemy import bindparam, delete, update

from gatewayd.model import MessageClass, MessageState
from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.events import CHANNEL, INBOUND, OPTOUT, GatewayEvent, Subscription
from gatewayd.spool.inbound import NewPart
from gatewayd.spool.inbound_reader import InboundReader
from gatewayd.spool.optout_reader import OptOutReader
from gatewayd.spool.optouts import OptState, Said, Source
from gatewayd.spool.outbox_reader import EventRecord, OutboxReader
from gatewayd.spool.reader import Reader
from tests.spool.helpers import START_MS, Spool, message, open_spool

NUMBER = "+59898344484"


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[tuple[Spool, Reader]]:
    async with open_spool(url) as spool:
        reader = Reader(spool.database, spool.clock)
        try:
            yield spool, reader
        finally:
            await reader.close()


def part(raw: str = "AA", text: str | None = "hello", **fields: object) -> NewPart:
    values = {"listing": "l1", "storage": "SM", "storage_index": 1, "originator": NUMBER, "sent_at": START_MS, "dcs": 0}
    return NewPart("m0", 1, raw, text=text, user_data=b"", **{**values, **fields})  # type: ignore[arg-type]


def said(number: str = NUMBER, **fields: object) -> Said:
    return Said(number, number, "opt_out", Source.OPERATOR, "uid 0 (root)", **fields)  # type: ignore[arg-type]


async def everything(outbox: OutboxReader) -> list[EventRecord]:
    return list((await outbox.after(0, 1000)).records)


async def test_a_life_in_events(database_url: str) -> None:
    async with reading(database_url) as (spool, reader):
        line = await spool.sim()
        outbox = OutboxReader(reader)
        assert (await outbox.newest(), await outbox.oldest()) == (0, 1)
        (idm,) = await spool.accept(message(campaign="c1", client_ref="r1", class_=MessageClass.ALERT))
        spool.clock.ms += 1000
        claim = await spool.claim(line)
        assert claim is not None
        await spool.claim(line, spool.sent(claim))
        accepted, sent = await everything(outbox)
        assert (accepted.id, accepted.type, accepted.at, accepted.channel) == (1, "message.accepted", START_MS, None)
        assert (sent.id, sent.type, sent.at, sent.channel) == (2, "message.sent", START_MS + 1000, "m0")
        assert sent.data["state"] == MessageState.PROCESSED
        facts = sent.message
        assert facts is not None
        assert facts == accepted.message
        assert (facts.id, facts.to, facts.class_, facts.campaign) == (idm, NUMBER, MessageClass.ALERT, "c1")
        assert (facts.client_ref, facts.accepted_at) == ("r1", START_MS)
        assert (sent.inbound, sent.optout) == (None, None)
        assert (await outbox.newest(), await outbox.oldest()) == (2, 1)
        assert await outbox.records([2, 77]) == {2: sent}
        assert await outbox.records([]) == {}


async def test_events_of_all_kinds_have_what_they_are_about(database_url: str) -> None:
    async with reading(database_url) as (spool, reader):
        await spool.store.receive(part())
        await spool.accept(message())
        changed = await spool.store.opt(said(evidence="a letter"), OptState.OUT)
        await spool.store.note(GatewayEvent(CHANNEL, channel="m0", data={"state": "ready", "reason": ""}))
        found = await everything(OutboxReader(reader))
        assert [each.type for each in found] == [
            INBOUND, "message.accepted", "message.blocked", OPTOUT, CHANNEL,
        ]  # fmt: skip
        inbound, _, blocked, optout, channel = found
        assert inbound.inbound is not None
        assert (inbound.inbound.id, inbound.inbound.text, inbound.inbound.number) == (1, "hello", NUMBER)
        assert "opt-out list" in blocked.data["reason"]
        assert optout.optout is not None
        assert (optout.optout.id, optout.optout.number, optout.optout.scope) == (changed.event_id, NUMBER, "global")
        assert optout.data == {"state": "out", "prior_state": "none", "blocked": 1, "source": "operator"}
        assert (channel.channel, channel.data["state"]) == ("m0", "ready")


async def test_pages_have_every_event_once(database_url: str) -> None:
    async with reading(database_url) as (spool, reader):
        outbox = OutboxReader(reader)
        await spool.accept(*(message(to=f"+5989834{n:04}") for n in range(7)))
        await spool.store.note(GatewayEvent(CHANNEL, channel="m0", data={"state": "ready", "reason": ""}))
        seen, after, more = [], 0, True
        while more:
            page = await outbox.after(after, 3)
            assert page.newest == 8
            seen += [record.id for record in page.records]
            after, more = page.last, page.more
        assert seen == list(range(1, 9))
        only = await outbox.after(0, 3, Subscription("", ("channel.*",)).wants)
        assert [record.id for record in only.records] == [8]
        assert (only.last, only.more, only.gap) == (8, False, None)
        nothing = await outbox.after(8, 3)
        assert (nothing.records, nothing.last, nothing.more, nothing.gap) == ((), 8, False, None)


async def test_what_is_forgotten_is_a_gap(database_url: str) -> None:
    async with reading(database_url) as (spool, reader):
        outbox = OutboxReader(reader)
        await spool.accept(*(message(to=f"+5989834{n:04}") for n in range(9)))

        async def forget(*ids: int) -> None:
            statement = Statement(delete(schema.outbox).where(schema.outbox.c.id.in_([schema.sqltext(i) for i in ids])))
            await spool.store.writer.run(lambda tx: tx.run(statement, {}))

        await forget(1, 2, 3, 6)
        assert (await outbox.oldest(), await outbox.newest()) == (4, 9)
        first = await outbox.after(1, 100)
        assert ([record.id for record in first.records], first.last, first.gap) == ([4, 5], 5, (2, 3))
        second = await outbox.after(first.last, 100)
        assert ([record.id for record in second.records], second.gap) == ([7, 8, 9], (6, 6))
        assert (await outbox.after(3, 1)).gap is None
        await forget(4, 5, 7, 8, 9)
        last = await outbox.after(5, 100)
        assert (last.records, last.last, last.gap, last.more) == ((), 9, (6, 9), False)
        assert (await outbox.oldest(), await outbox.newest()) == (10, 9)


async def test_an_event_of_a_message_that_is_gone_is_still_there(database_url: str) -> None:
    async with reading(database_url) as (spool, reader):
        (idm,) = await spool.accept(message())
        statement = Statement(delete(schema.messages).where(schema.messages.c.id == schema.sqltext(idm)))
        await spool.store.writer.run(lambda tx: tx.run(statement, {}))
        (record,) = await everything(OutboxReader(reader))
        assert (record.type, record.message) == ("message.accepted", None)


async def test_inbound_messages_page_by_page(database_url: str) -> None:
    async with reading(database_url) as (spool, reader):
        inbound = InboundReader(reader)
        for number in range(5):
            sender = NUMBER if number % 2 == 0 else "+59898000001"
            await spool.store.receive(part(raw=f"A{number}", text=f"text {number}", originator=sender))
        assert [view.id for view in await inbound.inbound()] == [1, 2, 3, 4, 5]
        assert [view.id for view in await inbound.inbound(descending=True, limit=2)] == [5, 4]
        assert [view.id for view in await inbound.inbound(descending=True, after=4, limit=2)] == [3, 2]
        assert [view.id for view in await inbound.inbound(after=1, number=NUMBER)] == [3, 5]
        assert await inbound.inbound(number="+1") == []


async def test_an_inbound_message_with_its_pdus_and_where_they_were_seen_again(database_url: str) -> None:
    async with reading(database_url) as (spool, reader):
        inbound = InboundReader(reader)
        await spool.sim()
        concat = {"concat_ref": 7, "concat_bits": 8, "concat_total": 2}
        second = part(raw="B2", text="world", concat_seq=2, **concat)
        await spool.store.receive(second)
        assert await inbound.inbound() == []
        await spool.store.receive(replace(second, listing="l2"))
        kept = await spool.store.receive(part(raw="B1", text="hello ", storage_index=2, concat_seq=1, **concat))
        assert kept.handed_over is not None
        await spool.store.receive(replace(second, listing="l3", storage_index=9))
        found = await inbound.one(kept.handed_over.id)
        assert found is not None
        assert (found.message.text, found.message.parts, found.message.parts_total) == ("hello world", 2, 2)
        assert not found.message.partial
        assert [(each.raw, each.concat_seq) for each in found.parts] == [("B1", 1), ("B2", 2)]
        assert found.parts[0].duplicates == ()
        assert [(again.listing, again.storage_index) for again in found.parts[1].duplicates] == [("l2", 1), ("l3", 9)]
        assert await inbound.one(99) is None


async def test_what_cannot_be_decoded_and_what_is_no_text(database_url: str) -> None:
    async with reading(database_url) as (spool, reader):
        inbound = InboundReader(reader)
        await spool.store.receive(NewPart("m0", 1, "ZZ", "l1", error="no hex at octet 1"))
        found = await inbound.one(1)
        assert found is not None
        assert (found.message.kind, found.message.error, found.message.text) == (
            "undecodable",
            "no hex at octet 1",
            None,
        )
        assert [each.raw for each in found.parts] == ["ZZ"]
        octets = {"kind": bindparam("v_kind"), "data": bindparam("v_data")}
        to_data = Statement(update(schema.inbound_messages).values(octets))
        await spool.store.writer.run(lambda tx: tx.run(to_data, {"v_kind": "data", "v_data": b"\x00\xff"}))
        (view,) = await inbound.inbound()
        assert (view.kind, view.data) == ("data", b"\x00\xff")


async def test_the_list_by_number_and_newest_first(database_url: str) -> None:
    async with reading(database_url) as (spool, reader):
        optouts = OptOutReader(reader)
        numbers = [f"+5989800000{n}" for n in (3, 1, 2)]
        for number in numbers:
            await spool.store.opt(said(number), OptState.OUT)
        spool.clock.ms += 1000
        await spool.store.opt(said("7373"), OptState.OUT)
        await spool.store.opt(said("+59898000009"), OptState.IN)
        by_number = [view.number for view in await optouts.by_number(OptState.OUT)]
        assert sorted(by_number) == sorted([*numbers, "7373"])
        assert [view.number for view in await optouts.by_number(OptState.OUT, after=by_number[1])] == by_number[2:]
        assert [view.number for view in await optouts.by_number(OptState.IN)] == ["+59898000009"]
        seen: list[str] = []
        before: tuple[int, str] | None = None
        while page := await optouts.newest(OptState.OUT, before=before, limit=1):
            seen.append(page[0].number)
            before = (page[0].since, page[0].number)
        assert seen == ["7373", "+59898000003", "+59898000002", "+59898000001"], "of one moment by number, downwards"


async def test_a_number_with_its_evidence(database_url: str) -> None:
    async with reading(database_url) as (spool, reader):
        optouts = OptOutReader(reader)
        nothing = await optouts.one(NUMBER)
        assert (nothing.state, nothing.scopes, nothing.events) == (OptState.NONE, (), ())
        await spool.accept(message(), message())
        await spool.store.opt(said(evidence="asked by telephone"), OptState.OUT)
        await spool.store.opt(replace(said(evidence="form 7"), intent="opt_in", source=Source.API), OptState.IN)
        await spool.store.opt(said(evidence="again"), OptState.OUT)
        found = await optouts.one(NUMBER)
        assert found.state is OptState.OUT
        assert [(each.prior_state, each.state, each.evidence) for each in found.events] == [
            (OptState.NONE, OptState.OUT, "asked by telephone"),
            (OptState.OUT, OptState.IN, "form 7"),
            (OptState.IN, OptState.OUT, "again"),
        ]
        assert [each.blocked for each in found.events] == [2, 0, 0]
        (scope,) = found.scopes
        assert scope.event_id == found.events[-1].id
        assert set(scope.blocks) == set(MessageClass) - {MessageClass.SYSTEM}
        assert not found.history_cut
