"""What comes in is one message each, whole, whatever order, repetition, restart, clock or bug of ours it meets.

PDUs go through the router's `Inbound`, as a channel hands them over. DESIGN §1 promise 3, §7.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import bindparam, func, select

from gatewayd.errors import SpoolError
from gatewayd.modems.pdu import Address, Alphabet, Concat, InformationElement, UserData
from gatewayd.modems.pdu.gsm7 import ESC
from gatewayd.router import inbound as router_inbound
from gatewayd.router.inbound import Inbound
from gatewayd.router.intake import GAP, Intake, IntakeSettings
from gatewayd.spool import optouts, schema
from gatewayd.spool.accept import NewMessage
from gatewayd.spool.inbound import MAX_ASSEMBLIES, NewPart
from gatewayd.spool.intake import InboundMessage, Piece, Ruling
from gatewayd.spool.reassemble import CONTINUES_WITHIN_MS
from gatewayd.spool.writer import Tx
from tests.spool.helpers import (
    CONTACT,
    PACKS,
    START_MS,
    TIMEOUT_MS,
    FakeClock,
    LosesAnswers,
    Sim,
    Spool,
    intake,
    message,
    open_spool,
    pdu,
    pdus,
    ready_sqlite,
)

i, p, o = schema.inbound_messages.c, schema.inbound_parts.c, schema.outbox.c

THREE = "".join(f"{n:03} " for n in range(100))  # three parts in the GSM alphabet
WORDS = [THREE[at : at + 153] for at in range(0, len(THREE), 153)]
OTHER = THREE[::-1]


async def texts(spool: Spool, sender: str = CONTACT) -> list[str | None]:
    """What was handed over of a sender, in order."""
    return [row[0] for row in await spool.rows(select(i.text).where(i.originator == sender).order_by(i.id))]


async def told(spool: Spool) -> list[int]:
    """The inbound messages that applications are told of, in order."""
    statement = select(o.inbound_id).where(o.type == "inbound.received").order_by(o.id)
    return [row[0] for row in await spool.rows(statement)]


async def waiting(spool: Spool) -> int:
    """Assemblies that wait for parts."""
    a = schema.inbound_assemblies.c
    return int((await spool.rows(select(func.count()).where(a.deadline_at.is_not(None))))[0][0])


async def later(spool: Spool, ms: int = TIMEOUT_MS) -> None:
    spool.clock.ms += ms
    await spool.store.advance()


async def test_parts_in_every_order_over_listings_sessions_and_restarts_are_one_message(database_url: str) -> None:
    """Each order of three parts with either size of reference, each part in a reading and a run of its own."""
    clock = FakeClock()
    orders = list(itertools.permutations(range(3)))
    senders = [f"+5989800{bits:02}{n:02}" for bits in (8, 16) for n in range(len(orders))]
    for turn in range(3):
        async with open_spool(database_url, clock=clock, intake=intake()) as spool:
            clock.ms += TIMEOUT_MS // 4
            for n, sender in enumerate(senders):
                bits = 8 if n < len(orders) else 16
                found = pdus(THREE, sender, ref=200 if bits == 8 else 0xC0DE, bits=bits)
                await Sim(spool, name=f"run{turn}-{sender}").read(found[orders[n % len(orders)][turn]])
            await spool.store.advance()
            whole = [THREE] if turn == 2 else []
            assert [await texts(spool, sender) for sender in senders] == [whole] * len(senders)
            assert await waiting(spool) == (0 if turn == 2 else len(senders))
    async with open_spool(database_url, clock=clock, intake=intake()) as spool:
        await later(spool)
        assert await told(spool) == list(range(1, len(senders) + 1))
        rows = await spool.rows(select(i.parts, i.parts_total, i.continues, i.kind, i.recipient).distinct())
        assert rows == [(3, 3, None, "text", "")]


class World:
    """One spool on SQLite, and a loop it lives in, for all examples of a property."""

    def __init__(self, runner: asyncio.Runner, spool: Spool) -> None:
        self.runner, self.spool = runner, spool
        self._senders = itertools.count(59_800_000_000)

    def sender(self) -> str:
        """Somebody who has not written yet."""
        return f"+{next(self._senders)}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with asyncio.Runner() as runner:
        context = open_spool(ready_sqlite(tmp_path_factory.mktemp("world")), intake=intake())
        spool = runner.run(context.__aenter__())
        try:
            yield World(runner, spool)
        finally:
            runner.run(context.__aexit__(None, None, None))


GSM_TEXT = st.text(alphabet="abcñ€{[é Ω\n", min_size=150, max_size=700)
UCS2_TEXT = st.text(alphabet="aя🙂👩‍👧中", min_size=70, max_size=260)


@given(
    data=st.data(),
    text=st.one_of(GSM_TEXT, UCS2_TEXT),
    bits=st.sampled_from([8, 16]),
)
@settings(deadline=None, max_examples=60)
def test_any_order_with_any_repetitions_is_exactly_one_message(
    world: World, data: st.DataObject, text: str, bits: int
) -> None:
    """Parts in any order, each up to three times, in up to four listings: repetitions of a listing, and of others."""
    sender = world.sender()
    found = pdus(text, sender, ref=data.draw(st.integers(0, (1 << bits) - 1)), bits=bits)
    copies = data.draw(st.lists(st.sampled_from(found), max_size=6)) if len(found) > 1 else []
    order = data.draw(st.permutations(found + copies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=3)))
    listings = [order[a:b] for a, b in itertools.pairwise([0, *cuts, len(order)])]

    async def example() -> None:
        sim = Sim(world.spool, name=sender)
        for listing in listings:
            await sim.read(*listing)
        await sim.read(*found)  # and the SIM forgot that it had forgotten them
        await later(world.spool)
        assert await texts(world.spool, sender) == [text]
        assert await waiting(world.spool) == 0

    world.runner.run(example())


@given(data=st.data(), bits=st.sampled_from([8, 16]), same=st.booleans())
@settings(deadline=None, max_examples=40)
def test_interleaved_messages_with_one_reference_are_told_apart_by_their_time(
    world: World, data: st.DataObject, bits: int, same: bool
) -> None:
    """Senders with one reference for all they send, or whose references came round. Each message in its own order."""
    sender = world.sender()
    one = pdus(THREE, sender, bits=bits)
    other = pdus(THREE if same else OTHER, sender, bits=bits, at_ms=START_MS + 60_000)

    async def example() -> None:
        sim = Sim(world.spool, name=sender)
        rest = [list(one), list(other)]
        for turn in data.draw(st.permutations([0, 1] * len(one))):
            await sim.read(rest[turn].pop(0))
        await later(world.spool)
        found = await texts(world.spool, sender)
        assert sorted(map(str, found)) == sorted([THREE, THREE if same else OTHER])

    world.runner.run(example())


async def test_a_character_that_lies_across_the_border_of_two_parts(database_url: str) -> None:
    """A surrogate pair of UCS2 is one character again; an escape of the GSM alphabet is not made up of two parts."""
    smile = "🙂".encode("utf-16-be")
    async with open_spool(database_url, intake=intake()) as spool:
        halves = [UserData(Alphabet.UCS2, None, half, (Concat(9, 2, n, 8).element(),)) for n, half in
                  enumerate((b"\0a" + smile[:2], smile[2:] + b"\0b"), start=1)]  # fmt: skip
        await Sim(spool).read(*[pdu(half) for half in reversed(halves)])
        septets = [UserData(Alphabet.GSM7, None, data, (Concat(9, 2, n, 16).element(),)) for n, data in
                   enumerate((b"price 5" + bytes([ESC]), b"e"), start=1)]  # fmt: skip
        await Sim(spool, name="t").read(*[pdu(half) for half in septets])
        cut, escape = await texts(spool)
        assert cut == "a🙂b"
        assert escape is not None
        assert (escape.startswith("price 5"), escape.endswith("e")) == (True, True)
        # Half a character is stored on both engines, by itself and in a partial message.
        await Sim(spool, name="u").read(pdu(UserData(Alphabet.UCS2, None, smile[2:] + b"\0\0")))
        await Sim(spool, name="v").read(pdu(replace(halves[0], udh=(Concat(10, 2, 1, 8).element(),))))
        await later(spool)
        assert (await texts(spool))[2:] == ["\ufffd\ufffd", f"a\ufffd{GAP}"]


async def test_a_part_of_another_sim_sender_reference_total_or_day_is_not_joined(database_url: str) -> None:
    first, second, third = pdus(THREE)
    strangers = [
        pdus(THREE, "+59898000001")[1],
        pdus(THREE, ref=8)[1],
        pdus(THREE, bits=16)[1],
        pdus(THREE[:300])[1],
        pdus(THREE, at_ms=START_MS - 2 * 86_400_000)[1],
    ]
    async with open_spool(database_url, intake=intake()) as spool:
        await Sim(spool).read(first, third, *strangers)
        await Sim(spool, "m1", 2).read(second)
        assert await texts(spool) == []
        await Sim(spool, name="late").read(second)
        assert await texts(spool) == [THREE]
        await later(spool)
        assert len(await told(spool)) == 1 + len(strangers) + 1
        assert await spool.rows(select(func.sum(i.parts)).where(i.parts < i.parts_total)) == [(len(strangers) + 1,)]


async def test_what_lacks_after_the_timeout_is_handed_over_as_partial_once_and_goes_on_when_it_comes(
    database_url: str,
) -> None:
    async with open_spool(database_url, intake=intake()) as spool:
        sim = Sim(spool)
        first, second, third = pdus(THREE)
        await sim.read(second)
        assert (await spool.store.advance()).again_at == START_MS + TIMEOUT_MS
        assert any(notices.due_at == START_MS + TIMEOUT_MS for notices in spool.notices), "nobody would come in time"
        await later(spool, TIMEOUT_MS - 1)
        assert await texts(spool) == []
        spool.clock.ms += 1
        advanced = await spool.store.advance()
        (handed,) = advanced.handed_over
        assert (handed.message.text, handed.message.partial, handed.message.parts) == (GAP + WORDS[1] + GAP, True, 1)
        assert advanced.again_at is None
        await later(spool)
        await later(spool)
        await sim.read(second)
        assert await texts(spool) == [GAP + WORDS[1] + GAP]
        # The rest comes late: one more message that says which it continues, also when it comes in two goes.
        await sim.read(third)
        assert len(await told(spool)) == 1
        await later(spool)
        await sim.read(first)
        assert await texts(spool) == [GAP + WORDS[1] + GAP, GAP + WORDS[2], WORDS[0] + GAP]
        assert await spool.rows(select(i.id, i.continues, i.parts, i.parts_total).order_by(i.id)) == [
            (1, None, 1, 3), (2, 1, 1, 3), (3, 2, 1, 3),
        ]  # fmt: skip
        assert await told(spool) == [1, 2, 3]
        assert await waiting(spool) == 0
        # All there is of it repeated once more, and then another long message with the same reference.
        await sim.read(first, second, third)
        again = pdus(OTHER, at_ms=START_MS + 5000)
        await sim.read(again[2], again[0], again[1])
        await later(spool)
        assert (await texts(spool))[3:] == [OTHER]


async def test_the_late_rest_of_three_is_handed_over_as_soon_as_it_is_complete(database_url: str) -> None:
    async with open_spool(database_url, intake=intake()) as spool:
        sim = Sim(spool)
        first, second, third = pdus(THREE)
        await sim.read(first)
        await later(spool)
        await sim.read(third)
        await sim.read(second)
        assert await texts(spool) == [WORDS[0] + GAP, GAP + WORDS[1] + WORDS[2]]
        assert await spool.rows(select(i.continues).order_by(i.id)) == [(None,), (1,)]


async def test_a_week_later_the_same_reference_is_another_message_and_old_parts_never_join_it(
    database_url: str,
) -> None:
    """What is forgotten frees no id that parts on disk still name: SQLite gives the largest again."""
    async with open_spool(database_url, intake=intake()) as spool:
        sim = Sim(spool)
        await sim.read(pdus(THREE)[0])
        await later(spool)
        await later(spool, CONTINUES_WITHIN_MS + 1)
        await spool.store.advance()
        second = pdus(OTHER, at_ms=spool.clock.ms)
        await sim.read(second[1])
        await sim.read(second[2])
        assert await texts(spool) == [WORDS[0] + GAP]
        await sim.read(second[0])
        assert await texts(spool) == [WORDS[0] + GAP, OTHER]
        await later(spool, 2 * CONTINUES_WITHIN_MS)
        await spool.store.advance()
        assert len(await spool.rows(select(schema.inbound_assemblies.c.id))) == 0


@pytest.mark.parametrize("ahead_ms", [3 * 86_400_000, 400 * 86_400_000])
async def test_a_clock_that_is_set_back_makes_nobody_wait_for_as_long_as_it_was_ahead(
    sqlite_url: str, ahead_ms: int
) -> None:
    clock = FakeClock(START_MS + ahead_ms)
    async with open_spool(sqlite_url, clock=clock, intake=intake()) as spool:
        await spool.store.advance()
        first, second, third = pdus(THREE)
        await Sim(spool).read(first)
        clock.ms = START_MS
        advanced = await spool.store.advance()
        assert advanced.again_at == START_MS + TIMEOUT_MS
        await Sim(spool, name="b").read(second)
        await later(spool, TIMEOUT_MS - 1)
        assert await texts(spool) == []
        await later(spool, 1)
        assert await texts(spool) == [WORDS[0] + WORDS[1] + GAP]
        clock.ms = START_MS + ahead_ms  # and forward again: late, but of the same message by the SMS centre's clock
        await Sim(spool, name="c").read(third)
        assert await texts(spool) == (
            [WORDS[0] + WORDS[1] + GAP, GAP + WORDS[2]]
            if ahead_ms < CONTINUES_WITHIN_MS
            else [WORDS[0] + WORDS[1] + GAP]
        )


async def test_a_message_of_255_parts_and_one_of_one_part_that_says_so(database_url: str) -> None:
    long = "".join(f"{n:05} " for n in range(255 * 153 // 6))[: 254 * 153 + 1]
    async with open_spool(database_url, intake=intake()) as spool:
        found = pdus(long, bits=8)
        assert len(found) == 255
        await Sim(spool).read(*found[::-1])
        assert await texts(spool) == [long]
        single = UserData(Alphabet.GSM7, "alone", udh=(Concat(7, 1, 1, 8).element(),))
        await Sim(spool, name="one").read(pdu(single))
        nonsense = UserData(Alphabet.GSM7, "part 3 of 2", udh=(InformationElement(0, bytes([7, 2, 3])),))
        await Sim(spool, name="none").read(pdu(nonsense))
        assert (await texts(spool))[1:] == ["alone", "part 3 of 2"]
        assert await spool.rows(select(i.parts, i.parts_total).order_by(i.id)) == [(255, 255), (1, 1), (1, 1)]


async def test_one_part_that_cannot_be_decoded_is_shown_and_the_others_are_not_lost(database_url: str) -> None:
    async with open_spool(database_url, intake=intake()) as spool:
        first, second, third = pdus(THREE)
        await Sim(spool).read(first, second[: len(second) // 2], third)
        assert await spool.rows(select(i.kind, i.parts_total)) == [("undecodable", 1)]
        assert await told(spool) == []  # applications are told of what has a sender
        await later(spool)
        assert await texts(spool) == [WORDS[0] + GAP + WORDS[2]]
        assert len(await told(spool)) == 1


async def test_data_is_joined_as_octets_and_is_no_text(database_url: str) -> None:
    octets = bytes(range(256))
    parts = [UserData(Alphabet.DATA8, None, octets[a : a + 100], (Concat(1, 3, n, 8).element(),))
             for n, a in ((1, 0), (2, 100), (3, 200))]  # fmt: skip
    async with open_spool(database_url, intake=intake()) as spool:
        await Sim(spool).read(*[pdu(part) for part in parts[::-1]])
        assert await spool.rows(select(i.kind, i.text, i.data)) == [("data", None, octets)]


@pytest.mark.parametrize("text", ["nul \0 inside", "half \ud83d of a pair", "\udc00", "line\r\nbreak \x1b"])
async def test_what_a_database_cannot_store_is_stored(database_url: str, text: str) -> None:
    """As user data, as a name, and in a rule's own words."""
    async with open_spool(database_url, intake=intake()) as spool:
        part = NewPart("m0", 1, "AA", "l1", originator=f"n\0{text}", text=text, dcs=8,
                       user_data=text.encode("utf-16-be", "surrogatepass"))  # fmt: skip
        kept = await spool.store.receive(part)
        joined = replace(part, raw="AB", concat_ref=1, concat_bits=8, concat_total=2, concat_seq=1)
        await spool.store.receive(joined)
        await spool.store.receive(replace(joined, raw="AC", concat_seq=2))
        assert kept.handed_over is not None
        rows = await spool.rows(select(i.text, i.originator, i.parts).order_by(i.id))
        assert [row[2] for row in rows] == [1, 2]
        assert rows[1][0] == 2 * rows[0][0]
        assert "\0" not in "".join(rows[0][:2])


async def test_two_equal_texts_of_one_listing_are_two_and_a_later_listing_repeats_them(database_url: str) -> None:
    async with open_spool(database_url, intake=intake()) as spool:
        sim = Sim(spool)
        (ok,) = pdus("ok")
        await sim.read(ok, ok)
        assert await texts(spool) == ["ok", "ok"]
        await sim.read(ok)
        await sim.read(ok, ok)
        assert await texts(spool) == ["ok", "ok"]
        await sim.read(ok, ok, ok)
        assert await texts(spool) == ["ok", "ok", "ok"]
        duplicates = await spool.rows(select(p.duplicate_of).order_by(p.id))
        assert [row[0] for row in duplicates] == [None, None, 1, 1, 2, 1, 2, None]
        assert len(await told(spool)) == 3
        await later(spool, 8 * 86_400_000)
        await sim.read(ok)  # no SMS centre repeats for so long
        assert len(await texts(spool)) == 4


class Buggy(Intake):
    """An intake with a bug in it."""

    def __init__(self, broken: str) -> None:
        super().__init__(IntakeSettings(packs=PACKS, home_country="UY", name="ACME", reassembly_timeout_ms=TIMEOUT_MS))
        self._broken = broken

    def number(self, originator: str, ton: int | None, recipient: str) -> str:
        return self._fails("number") or super().number(originator, ton, recipient)

    def text(self, pieces: Sequence[Piece], total: int) -> str | None:
        return self._fails("text") or super().text(pieces, total)

    def judge(self, message: InboundMessage) -> Ruling:
        self._fails("judge")
        return super().judge(message)

    def _fails(self, what: str) -> str:
        if what == self._broken:
            raise RecursionError("a bug in the rules")
        return ""


@pytest.mark.parametrize("broken", ["number", "text", "judge"])
async def test_a_bug_in_the_rules_loses_no_message_and_disturbs_no_neighbour(database_url: str, broken: str) -> None:
    """Promise 4: also when time passes over it, and when an opt-out was all it said."""
    async with open_spool(database_url, intake=Buggy(broken)) as spool:
        sim = Sim(spool)
        await spool.store.opt(_said(), optouts.OptState.OUT)
        found = pdus(THREE)
        results = await asyncio.gather(sim.read(*found), spool.accept(message("+59898000009")), sim.says("STOP"))
        assert results[1]
        await sim.read(pdus(OTHER, ref=9)[0])
        await later(spool)
        gap = "" if broken == "text" else GAP
        assert sorted(map(str, await texts(spool))) == sorted([THREE, "STOP", OTHER[:153] + gap])
        assert await spool.rows(select(i.intent, i.kind).distinct()) == [("", "text")]
        assert await told(spool) == [1, 2, 3]
        assert await waiting(spool) == 0
        # What could not be judged reopens nothing.
        assert await spool.rows(select(schema.optouts.c.wrote_since, schema.optouts.c.state)) == [(0, "out")]


async def test_an_answer_that_cannot_be_written_does_not_undo_the_opt_out(database_url: str) -> None:
    class Talkative(Intake):
        def judge(self, message: InboundMessage) -> Ruling:
            ruling = super().judge(message)
            assert ruling.reply is not None
            bad: Any = replace(ruling.reply, class_="nonsense")
            return replace(ruling, reply=bad)

    async with open_spool(database_url, intake=Talkative(IntakeSettings(packs=PACKS, home_country="UY"))) as spool:
        await spool.accept(message(CONTACT))
        await Sim(spool).says("STOP")
        assert await spool.rows(
            select(schema.optouts.c.state, i.intent).join_from(
                schema.optouts, schema.inbound_messages, i.number == schema.optouts.c.number
            )
        ) == [("out", "opt_out")]
        assert await spool.rows(select(schema.messages.c.state)) == [(3,)]


def _said(number: str = CONTACT) -> optouts.Said:
    return optouts.Said(number, number, "opt_out", optouts.Source.OPERATOR, "uid 0 (root)")


async def test_a_neighbour_that_fails_makes_nothing_happen_twice(database_url: str) -> None:
    """The batch is rolled back and replayed: one message, one confirmation, one event of each."""

    def bad(tx: Tx) -> None:
        tx.run(schema_statement(), {})

    async with open_spool(database_url, intake=intake()) as spool:
        ids = await spool.accept(message(CONTACT), message(CONTACT))
        before = spool.store.writer.stats.replays
        (stop,) = pdus("STOP")
        first, second, third = pdus(THREE, "+59898000001")
        await asyncio.gather(
            Sim(spool, name="a").read(stop),
            Sim(spool, name="b").read(first, third, second),
            *[spool.store.writer.run(bad) for _ in range(3)],
            Sim(spool, name="c").read(second),
            return_exceptions=True,
        )
        assert spool.store.writer.stats.replays > before
        assert await texts(spool) == ["STOP"]
        assert await texts(spool, "+59898000001") == [THREE]
        events = [row[0] for row in await spool.rows(select(o.type).order_by(o.id))]
        assert sorted(events) == sorted(
            ["message.accepted"] * 2 + ["message.blocked"] * 2 + ["inbound.received"] * 2
            + ["optout.changed", "message.accepted"]
        )  # fmt: skip
        assert [row[0] for row in await spool.rows(select(o.id).order_by(o.id))] == list(range(1, 9))
        messages = await spool.rows(
            select(schema.messages.c.id, schema.messages.c.state).order_by(schema.messages.c.id)
        )
        assert messages == [(ids[0], 3), (ids[1], 3), (ids[1] + 1, 1)]


def schema_statement() -> Any:
    """A statement that fails: a key that is there already."""
    from gatewayd.spool.engine import Statement

    return Statement(schema.counters.insert().values(name="outbox", value=0))


async def test_a_commit_that_failed_and_one_whose_answer_was_lost_are_retried_into_one_message(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3: the channel tries the same PDU again, for nobody knows whether it is on disk."""
    monkeypatch.setattr(router_inbound, "RETRY_S", (0.0,))
    async with open_spool(database_url, intake=intake()) as spool:
        await spool.accept(message(CONTACT))
        loses = LosesAnswers(monkeypatch, spool.database)
        sim = Sim(spool)
        found = [*pdus(THREE), *pdus("STOP", at_ms=START_MS + 9000)]
        for raw in found:
            loses.times = 1
            await sim.read(raw)
            assert loses.times == 0
        control, failures = Tx.control, [3]

        def failing(tx: Tx, sql: str) -> None:
            if sql == "COMMIT" and failures[0]:
                failures[0] -= 1
                raise SpoolError("the disk is full")
            control(tx, sql)

        monkeypatch.setattr(Tx, "control", failing)
        await sim.read(*pdus("hello", at_ms=START_MS + 10_000))
        assert failures == [0]
        assert await texts(spool) == [THREE, "STOP", "hello"]
        assert len(set(await told(spool))) == len(await told(spool)) == 3
        statement = select(schema.optout_events.c.confirmation_id, schema.optout_events.c.blocked)
        assert len(await spool.rows(statement)) == 1
        assert await spool.rows(select(func.count()).select_from(schema.messages)) == [(2,)]
        assert [row[0] for row in await spool.rows(select(o.id).order_by(o.id))] == list(range(1, 8))


async def test_a_flood_of_first_parts_with_one_reference_costs_a_bounded_search(sqlite_url: str) -> None:
    """A sender that never ends what it begins; the message that it does end is whole all the same."""
    async with open_spool(sqlite_url, intake=intake()) as spool:
        sim = Sim(spool)
        for n in range(2 * MAX_ASSEMBLIES):
            await sim.read(pdus(f"{n:03}" + THREE, at_ms=START_MS + 1000 * n)[0])
        at_ms = START_MS + 1000 * (2 * MAX_ASSEMBLIES)
        found = pdus(OTHER, at_ms=at_ms)
        await sim.read(*found)
        assert await texts(spool) == [OTHER]
        await later(spool)
        assert len(await told(spool)) == 2 * MAX_ASSEMBLIES + 1


async def test_a_name_that_writes_has_no_number_and_our_own_number_is_its_recipient(database_url: str) -> None:
    from gatewayd.model import SimIdentity

    async with open_spool(database_url, intake=intake()) as spool:
        pairing = await spool.store.see_sim("m0", SimIdentity("8959", "748"), "+59899000001")
        sim = Sim(spool, "m0", pairing.sim_id)
        await sim.says("Your code is 1234", Address.alphanumeric("BANK"))
        await sim.says("hola", Address("098344484", 2, 1))  # as national networks write their own
        await sim.says("promo", "2020")
        rows = await spool.rows(select(i.originator, i.number, i.recipient).order_by(i.id))
        assert rows == [
            ("BANK", "", "+59899000001"), ("098344484", CONTACT, "+59899000001"), ("2020", "2020", "+59899000001"),
        ]  # fmt: skip


async def test_nothing_is_acknowledged_before_it_is_on_disk(database_url: str) -> None:
    """Promise 3, with each part of a long message and the STOP that it turns out to be."""
    from gatewayd.model import StoredPdu
    from gatewayd.modems.channel import Received

    async with open_spool(database_url, intake=intake()) as spool:
        on_disk: list[tuple[int, int]] = []
        halves = [
            UserData(Alphabet.GSM7, text, udh=(Concat(3, 2, n, 8).element(),)) for n, text in ((1, "ST"), (2, "OP"))
        ]

        async def ack() -> None:
            counts = [
                (await spool.rows(select(func.count()).select_from(table)))[0][0]
                for table in (schema.inbound_parts, schema.optout_events)
            ]
            on_disk.append((counts[0], counts[1]))

        for n, half in enumerate(halves):
            await Inbound(spool.store)("m0", 1, Received(StoredPdu(pdu(half), None, "l1", "SM", n), ack))
        assert on_disk == [(1, 0), (2, 1)]
        assert await spool.rows(select(i.intent, i.tier).where(i.id == bindparam("id")), id=1) == [("opt_out", "A")]


def test_the_answer_is_a_new_message_like_any_other() -> None:
    """The type the spool keeps is the one the intake makes."""
    handed = InboundMessage("m0", 1, "text", CONTACT, CONTACT, "", START_MS, START_MS, "STOP", None, 1, 1)
    assert isinstance(intake().judge(handed).reply, NewMessage)
