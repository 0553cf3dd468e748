"""After a STOP's commit nothing it binds begins to be sent; what it says is kept as evidence; one answer to each event.

DESIGN §1 promise 5, §3; docs/optout.md. S2-73, S2-74, S3-23, S0-44, decision 6.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from sqlalchemy import bindparam, func, select

from gatewayd.model import InDoubtPolicy, MessageClass, ReportVerdict
from gatewayd.modems.pdu import Address, Alphabet, Concat, UserData
from gatewayd.router.optout import load_packs
from gatewayd.spool import schema
from gatewayd.spool.accept import Idempotency, KeptMessage, NewMessage
from gatewayd.spool.optouts import AT_ONCE, BINDING, Binding, OptState, Said, Source, blocking, blocking_each
from gatewayd.spool.reports import NewReport
from gatewayd.spool.usage import SegmentLimits
from gatewayd.spool.work import Claim, Line
from gatewayd.spool.writer import Tx
from tests.router.test_optout import PROBABLE, SURE
from tests.spool.helpers import CONTACT, PACKS, START_MS, TIMEOUT_MS, Sim, Spool, intake, message, open_spool, pdu, pdus

m, s, h = schema.messages.c, schema.segments.c, schema.events.c
o, e = schema.optouts.c, schema.optout_events.c
OTHER = "+59898000001"
SYSTEM = MessageClass.SYSTEM


async def states(spool: Spool, ids: Sequence[int]) -> list[tuple[int, list[str]]]:
    """State and segments' states of each message."""
    found = []
    for message_id in ids:
        ((state,),) = await spool.rows(select(m.state).where(m.id == bindparam("id")), id=message_id)
        rows = await spool.rows(select(s.state).where(s.message_id == bindparam("id")).order_by(s.seq), id=message_id)
        found.append((state, [row[0] for row in rows]))
    return found


async def reason(spool: Spool, message_id: int) -> str:
    return str((await spool.rows(select(m.reason).where(m.id == bindparam("id")), id=message_id))[0][0])


async def history(spool: Spool, message_id: int) -> list[str]:
    rows = await spool.rows(select(h.event).where(h.message_id == bindparam("id")).order_by(h.id), id=message_id)
    return [row[0] for row in rows]


async def answers(spool: Spool, to: str = CONTACT) -> list[str]:
    """What the gateway itself has written to a number."""
    class_ = getattr(m, "class")
    rows = await spool.rows(
        select(m.text).where(class_ == bindparam("class_"), m.to_number == bindparam("to")).order_by(m.id),
        class_=SYSTEM.value, to=to,
    )  # fmt: skip
    return [row[0] for row in rows]


async def is_out(spool: Spool, number: str = CONTACT) -> bool:
    rows = await spool.rows(select(o.state).where(o.number == bindparam("number")), number=number)
    return rows == [("out",)]


async def claimed(spool: Spool, line: Line) -> list[int]:
    """What a channel gets when it sends all there is for it, in order."""
    return list(dict.fromkeys(await spool.claims(line)))


async def operator(spool: Spool, state: OptState, number: str = CONTACT) -> int:
    intent = "opt_out" if state is OptState.OUT else "opt_in"
    said = Said(number, number, intent, Source.OPERATOR, "uid 0 (root)", evidence="asked by telephone")
    return (await spool.store.opt(said, state)).blocked


# What opts out.


@pytest.mark.parametrize("language", [pack.language for pack in PACKS])
async def test_every_sure_text_of_each_language_opts_out_and_no_probable_one(sqlite_url: str, language: str) -> None:
    """S2-74. Through the PDU and the whole path; tier B and C are kept with their verdict, and change nothing."""
    packs = load_packs([language])
    sure = [text for text in SURE[language].replace("\n", "|").split("|") if text]
    probable = [text.strip() for text in PROBABLE[language].splitlines() if text.strip()]
    none = ["please stop by at 5", "non-stop", "STOP 12345", "hola, qué tal", "the end is near", "?"]
    async with open_spool(sqlite_url, intake=intake(packs=packs)) as spool:
        expected = []
        for n, text in enumerate([*sure, *probable, *none]):
            number = f"+598980{n:05}"
            (idm,) = await spool.accept(message(number))
            await Sim(spool, name=number).says(text.replace("\0", ""), number)
            expected.append((text, n < len(sure), 3 if n < len(sure) else 1))
            ((state,),) = await spool.rows(select(m.state).where(m.id == bindparam("id")), id=idm)
            assert (text, await is_out(spool, number), state) == expected[-1]
        i = schema.inbound_messages.c
        tiers = [row[0] for row in await spool.rows(select(i.tier).order_by(i.id))]
        assert tiers == ["A"] * len(sure) + ["B"] * len(probable) + ["C"] * len(none)
        versions = await spool.rows(select(e.version, e.language, e.tier, e.actor).distinct())
        assert {row[1:] for row in versions} == {(language, "A", "keyword")}


async def test_a_stop_in_two_parts_counts_when_it_is_whole_and_a_part_of_one_does_not(database_url: str) -> None:
    halves = [UserData(Alphabet.GSM7, text, udh=(Concat(3, 2, n, 8).element(),)) for n, text in ((1, "ST"), (2, "OP"))]
    async with open_spool(database_url, intake=intake()) as spool:
        sim = Sim(spool)
        await sim.read(pdu(halves[1]))
        assert not await is_out(spool)
        await sim.read(pdu(halves[0]))
        assert await is_out(spool)
        whole = UserData(Alphabet.GSM7, "STOP", udh=(Concat(4, 2, 1, 8).element(),))
        await sim.read(pdu(whole, OTHER))  # "STOP" and something that is lost: who knows what
        spool.clock.ms += TIMEOUT_MS
        await spool.store.advance()
        assert not await is_out(spool, OTHER)
        i = schema.inbound_messages.c
        assert await spool.rows(select(i.intent, i.tier).where(i.number == OTHER)) == [("opt_out", "B")]


# What it blocks.


async def test_everything_to_the_number_is_blocked_in_the_same_transaction_and_nothing_else(database_url: str) -> None:
    """S2-73. Queued, later, held, behind another, the rest of what is partly sent; others are left as they are."""
    async with open_spool(database_url, intake=intake()) as spool:
        line = await spool.sim()
        (partly,) = await spool.accept(message(segments=3, priority=9))
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.work(line, spool.sent(claim, ref=200), None)
        behind, queued, later, held = await spool.accept(
            message(segments=2, priority=10), message(), message(not_before=START_MS + 10**6), message(channel="gone")
        )
        await spool.store.settle_pins(["m0"])
        assert await spool.claim(await spool.sim("m1")) is None
        places = await spool.rows(select(m.queue).where(m.id >= bindparam("id")).order_by(m.id), id=behind)
        assert [row[0] for row in places] == [schema.BEHIND, schema.BEHIND, schema.LATER, schema.KEPT]
        other = await spool.accept(message(OTHER), message(OTHER, not_before=START_MS + 10**6))
        system, short = await spool.accept(message(class_=SYSTEM, not_before=START_MS + 10**7), message("2020"))
        commits = spool.store.writer.stats.commits
        await Sim(spool).says("Stop.")
        assert spool.store.writer.stats.commits == commits + 1
        assert await states(spool, [partly, behind, queued, later, held]) == [
            (3, ["SUBMITTED", "BLOCKED", "BLOCKED"]), (3, ["BLOCKED", "BLOCKED"]),
            (3, ["BLOCKED"]), (3, ["BLOCKED"]), (3, ["BLOCKED"]),
        ]  # fmt: skip
        assert await states(spool, [*other, system, short]) == [(1, ["QUEUED"])] * 4
        for message_id in (partly, behind, queued, later, held):
            assert (await reason(spool, message_id)).startswith("the number wrote STOP at 2026-")
            assert (await history(spool, message_id))[-1] == "blocked"
        # Nothing of it is ever claimed: the answer and the others are.
        confirmation = (await spool.rows(select(func.max(m.id))))[0][0]
        assert await claimed(spool, line) == [confirmation, other[0], short]
        spool.clock.ms += 10**8
        await spool.store.advance()
        await spool.store.settle_pins(["m0", "gone"])
        assert sorted(await claimed(spool, line)) == sorted([other[1], system])
        # A report of what had gone out before is taken; the message stays blocked, and says why.
        report = NewReport("m0", line.sim_id, 200, CONTACT, 0, ReportVerdict.DELIVERED, "", None, None, "AA", "l9")
        assert (await spool.store.report(report)).message_id == partly
        assert await states(spool, [partly]) == [(3, ["DELIVERED", "BLOCKED", "BLOCKED"])]
        assert "wrote STOP" in await reason(spool, partly)


async def _in_hand(spool: Spool, segments: int = 2) -> tuple[Claim, int]:
    line = await spool.sim()
    (idm,) = await spool.accept(message(segments=segments))
    claim = await spool.claim(line)
    assert claim is not None
    return claim, idm


async def test_what_a_channel_has_in_hand_is_recalled_before_the_commit_is_visible(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 5: whoever passes the gate after the commit is stopped; whoever passed it before has begun to write."""
    async with open_spool(database_url, intake=intake()) as spool:
        claim, idm = await _in_hand(spool)
        order: list[str] = []
        control = Tx.control

        def watched(tx: Tx, sql: str) -> None:
            if sql == "COMMIT":
                order.append(f"commit, recalled: {bool(spool.store.recalled(idm))}")
            control(tx, sql)

        monkeypatch.setattr(Tx, "control", watched)
        let = bool(spool.store.recalled(idm))
        stop = asyncio.ensure_future(Sim(spool).says("STOP"))
        loop = asyncio.get_running_loop()

        def turn() -> None:
            if not order:
                order.append("turn") if spool.store.recalled(idm) else loop.call_soon(turn)

        loop.call_soon(turn)
        await stop
        assert not let
        assert order[-1] == "commit, recalled: True"
        await spool.store.work(claim.line, spool.not_sent(claim, withdrawn=True, code=""), None)
        assert await states(spool, [idm]) == [(3, ["BLOCKED", "BLOCKED"])]
        assert not spool.store.recalled(idm)
        assert (await spool.rows(select(e.blocked, e.in_hand))) == [(1, 1)]


async def test_what_was_written_before_is_not_recalled_and_says_so(database_url: str) -> None:
    async with open_spool(database_url, intake=intake()) as spool:
        claim, idm = await _in_hand(spool)
        await Sim(spool).says("STOP")
        assert await states(spool, [idm]) == [(1, ["SUBMITTING", "BLOCKED"])]
        await spool.store.work(claim.line, spool.sent(claim), None)
        assert await states(spool, [idm]) == [(3, ["SUBMITTED", "BLOCKED"])]
        assert "opted out" in await history(spool, idm)
        assert "wrote STOP" in await reason(spool, idm)
        single, whole = await _in_hand_of(spool, OTHER)
        await Sim(spool, name="b").says("STOP", OTHER)
        await spool.store.work(single.line, spool.sent(single, ref=8), None)
        assert await states(spool, [whole]) == [(2, ["SUBMITTED"])], "sent is sent"
        assert "opted out" in await history(spool, whole)


async def _in_hand_of(spool: Spool, number: str) -> tuple[Claim, int]:
    line = await spool.sim("m1")
    (idm,) = await spool.accept(message(number, channel="m1"))
    claim = await spool.claim(line)
    assert claim is not None
    assert claim.message_id == idm
    return claim, idm


@pytest.mark.parametrize("policy", [InDoubtPolicy.RESEND, InDoubtPolicy.FAIL])
async def test_what_is_in_doubt_is_never_sent_again_after_a_stop(database_url: str, policy: InDoubtPolicy) -> None:
    async with open_spool(database_url, intake=intake(confirm=False)) as spool:
        line = await spool.sim()
        one, two = await spool.accept(message(in_doubt=policy), message(in_doubt=policy, segments=2, priority=-1))
        for _ in (one, two):
            claim = await spool.claim(line)
            assert claim is not None
            await spool.store.work(line, spool.doubtful(claim), None)
        await Sim(spool).says("STOP")
        assert await states(spool, [one, two]) == [(8, ["IN_DOUBT"]), (8, ["IN_DOUBT", "BLOCKED"])]
        spool.clock.ms += 900_001
        await spool.store.advance()
        assert await claimed(spool, line) == []
        ended = "BLOCKED" if policy is InDoubtPolicy.RESEND else "ABANDONED"
        state = 3 if policy is InDoubtPolicy.RESEND else 8
        assert await states(spool, [one, two]) == [(state, [ended]), (state, [ended, "BLOCKED"])]


@pytest.mark.parametrize("way", ["withdrawn", "busy", "in doubt", "never got it", "restart"])
async def test_a_start_while_a_part_is_in_hand_sends_no_half_of_a_text(database_url: str, way: str) -> None:
    """STOP blocks the parts that follow; START brings none of them back, so the first must not go out alone."""
    async with open_spool(database_url, intake=intake(confirm=False)) as spool:
        line = await spool.sim()
        (idm,) = await spool.accept(message(segments=2, in_doubt=InDoubtPolicy.RESEND))
        claim = await spool.claim(line)
        assert claim is not None
        sim = Sim(spool)
        await sim.says("STOP")
        spool.clock.ms += 1000
        await sim.says("START")
        assert not await is_out(spool)
        if way == "never got it":
            await spool.store.give_back(line, None)
        elif way != "restart":
            result = {
                "withdrawn": spool.not_sent(claim, withdrawn=True),
                "busy": spool.not_sent(claim),
                "in doubt": spool.doubtful(claim),
            }[way]
            await spool.store.work(line, result, None)
    async with open_spool(database_url, clock=spool.clock, intake=intake(confirm=False)) as spool:
        spool.clock.ms += 900_001
        await spool.store.advance()
        assert await claimed(spool, line) == []
        assert await states(spool, [idm]) == [(3, ["BLOCKED", "BLOCKED"])]
        assert "opt-out" in await reason(spool, idm)


# Acceptance.


async def test_a_submission_after_a_stop_is_kept_as_blocked_and_its_repetition_says_the_same(database_url: str) -> None:
    def answer(kept: Sequence[KeptMessage]) -> str:
        return json.dumps([(each.id, each.state, each.reason) for each in kept])

    async with open_spool(database_url, intake=intake(confirm=False)) as spool:
        line = await spool.sim()
        await Sim(spool).says("STOP")
        limits = SegmentLimits(per_hour=5, per_day=5)
        batch = [message(OTHER, 3, api_key="app"), message(CONTACT, 4, api_key="app"), message(OTHER, 2, api_key="app")]
        key = Idempotency("app", "k1", b"1" * 32, answer)
        accepted = await spool.store.accept(batch, key, limits)
        assert [each.state for each in accepted.kept] == [1, 3, 1]
        assert "wrote STOP" in accepted.kept[1].reason
        assert accepted.kept[0].reason == ""
        assert await spool.rows(select(schema.key_usage.c.segments).distinct()) == [(5,)], "blocked costs nothing"
        assert (await spool.store.accept([message(CONTACT, 9, api_key="app")], None, limits)).kept[0].state == 3
        spool.clock.ms += 1000
        await Sim(spool, name="b").says("START")
        again = await spool.store.accept(batch, key, limits)
        assert again.replayed == answer(accepted.kept)
        assert await states(spool, accepted.ids) == [(1, ["QUEUED"] * 3), (3, ["BLOCKED"] * 4), (1, ["QUEUED"] * 2)]
        assert await history(spool, accepted.ids[1]) == ["accepted", "blocked"]
        assert set(await claimed(spool, line)) == {accepted.ids[0], accepted.ids[2]}


async def test_a_submission_in_the_same_batch_as_the_stop_is_blocked_whichever_comes_first(database_url: str) -> None:
    async with open_spool(database_url, intake=intake(confirm=False)) as spool:
        line = await spool.sim()
        accepting = [asyncio.ensure_future(spool.accept(message())) for _ in range(5)]
        stop = asyncio.ensure_future(Sim(spool).says("STOP"))
        await asyncio.sleep(0)
        accepting += [asyncio.ensure_future(spool.accept(message())) for _ in range(5)]
        ids = [row[0] for row in await asyncio.gather(*accepting)]
        await stop
        assert await states(spool, ids) == [(3, ["BLOCKED"])] * 10
        assert await claimed(spool, line) == []


# Classes.

ALWAYS = {MessageClass.CAMPAIGN, MessageClass.APPLICATION, MessageClass.ALERT}


def test_the_table_of_classes_is_the_one_decided() -> None:
    assert {class_ for class_, binding in BINDING.items() if binding is Binding.ALWAYS} == ALWAYS
    assert BINDING[MessageClass.AGENT] is Binding.UNTIL_WRITES
    assert BINDING[SYSTEM] is Binding.NEVER
    assert set(BINDING) == set(MessageClass)


async def _bound(spool: Spool) -> set[MessageClass]:
    kept = await spool.store.accept([message(class_=class_) for class_ in MessageClass])
    return {class_ for class_, each in zip(MessageClass, kept.kept, strict=True) if each.state == 3}


async def test_who_is_bound_and_what_lets_agents_answer_again(database_url: str) -> None:
    """Decision 6: a later text reopens one-to-one replies only; what is STOP, probably STOP, HELP or noise does not."""
    closed = ALWAYS | {MessageClass.AGENT}
    half = UserData(Alphabet.GSM7, "HELP", udh=(Concat(4, 2, 1, 8).element(),))
    async with open_spool(database_url, intake=intake()) as spool:
        sim = Sim(spool)
        await sim.says("hello")
        assert await _bound(spool) == set()
        spool.clock.ms += 1000
        await sim.says("STOP")
        assert await _bound(spool) == closed
        for text in ("STOP", "HELP", "stop texting me", "wrong number"):
            spool.clock.ms += 1000
            await sim.says(text)
            assert await _bound(spool) == closed, text
        await sim.read("00FF", pdu(half, at_ms=spool.clock.ms), *pdus("hello", OTHER))
        spool.clock.ms += TIMEOUT_MS
        await spool.store.advance()
        assert await _bound(spool) == closed, "no part of HELP, nothing undecodable, nobody else"
        await sim.read(*pdus("before", at_ms=START_MS))
        assert await _bound(spool) == closed, "what was written before the STOP and found after it"
        await sim.says("are you there?")
        assert await _bound(spool) == ALWAYS
        # A second STOP binds agents again, and blocks what they had queued.
        (reply,) = await spool.accept(message(class_=MessageClass.AGENT))
        spool.clock.ms += 1000
        await sim.says("stop")
        assert await _bound(spool) == closed
        assert await states(spool, [reply]) == [(3, ["BLOCKED"])]
        await sim.read(*pdus("a word from before", at_ms=spool.clock.ms - 1000))
        assert await _bound(spool) == closed
        spool.clock.ms += 1000
        await sim.says("START")
        assert await _bound(spool) == set()


async def test_an_operators_word_opens_and_closes_and_is_evidence(database_url: str) -> None:
    """S0-44: by keyword or by hand, and which of them stays visible."""
    async with open_spool(database_url, intake=intake()) as spool:
        ids = await spool.accept(message(), message(), message(OTHER))
        assert await operator(spool, OptState.OUT) == 2
        assert await states(spool, ids) == [(3, ["BLOCKED"]), (3, ["BLOCKED"]), (1, ["QUEUED"])]
        assert "was put on the opt-out list (operator)" in await reason(spool, ids[0])
        assert await operator(spool, OptState.OUT) == 0
        await Sim(spool).says("STOP")
        assert await answers(spool) == [], "it had been out"
        await operator(spool, OptState.IN)
        await operator(spool, OptState.IN)
        assert await _bound(spool) == set()
        rows = await spool.rows(select(e.prior_state, e.state, e.source, e.actor, e.evidence).order_by(e.id))
        assert rows == [
            ("none", "out", "operator", "uid 0 (root)", "asked by telephone"),
            ("out", "out", "operator", "uid 0 (root)", "asked by telephone"),
            ("out", "out", "keyword", "keyword", ""),
            ("out", "in", "operator", "uid 0 (root)", "asked by telephone"),
            ("in", "in", "operator", "uid 0 (root)", "asked by telephone"),
        ]
        outbox = schema.outbox.c
        changes = await spool.rows(select(outbox.data).where(outbox.type == "optout.changed").order_by(outbox.id))
        assert [json.loads(row[0])["state"] for row in changes] == ["out", "in"]


# Answers.


async def test_one_confirmation_for_each_event_and_none_for_what_changes_nothing(database_url: str) -> None:
    """S3-23. STOP twice is one; STOP START STOP are two and one of the return; START alone is none."""
    out, back = (f"ACME: {PACKS[0].reply(name)}" for name in ("opt_out", "opt_in"))
    async with open_spool(database_url, intake=intake()) as spool:
        sim = Sim(spool)
        expected: list[str] = []
        for text, answer in [
            ("START", []), ("STOP", [out]), ("STOP", []), ("STOP ALL", []), ("START", [back]), ("START", []),
            ("unstop", []), ("stop", [out]),
        ]:  # fmt: skip
            await sim.says(text)
            expected += answer
            assert await answers(spool) == expected, text
            spool.clock.ms += 1000
        rows = await spool.rows(select(e.intent, e.prior_state, e.state, e.confirmation_id).order_by(e.id))
        assert [row[:3] for row in rows] == [
            ("opt_in", "none", "in"), ("opt_out", "in", "out"), ("opt_out", "out", "out"), ("opt_out", "out", "out"),
            ("opt_in", "out", "in"), ("opt_in", "in", "in"), ("opt_in", "in", "in"), ("opt_out", "in", "out"),
        ]  # fmt: skip
        assert [row[3] for row in rows] == [None, 1, None, None, 2, None, None, 3]


async def test_the_confirmation_bypasses_the_opt_out_on_the_same_sim_and_does_not_come_late(database_url: str) -> None:
    async with open_spool(database_url, intake=intake()) as spool:
        line, other = await spool.sim("m0"), await spool.sim("m1")
        await Sim(spool, "m1", other.sim_id).says("Arrêt svp")
        class_ = getattr(m, "class")
        columns = select(m.id, class_, m.pin_channel, m.expires_at, m.api_key, m.segments, m.text)
        ((idm, kind, pin, expires_at, key, segments, text),) = await spool.rows(columns)
        assert (kind, pin, expires_at, key, segments) == ("system", "m1", START_MS + 3_600_000, "gateway", 1)
        assert text == "ACME: " + next(pack for pack in PACKS if pack.language == "fr").reply("opt_out")
        assert await spool.claim(line) is None
        assert await claimed(spool, other) == [idm]
        await Sim(spool, "m1", other.sim_id, name="b").says("STOP", OTHER)
        spool.clock.ms += 3_600_000
        await spool.store.advance()
        assert await claimed(spool, other) == []
        assert await states(spool, [idm + 1]) == [(6, ["EXPIRED"])]


async def test_nobody_is_answered_who_must_not_be(database_url: str) -> None:
    """Short codes, names, countries that want none, and none at all if it is switched off: the opt-out holds anyway."""
    excluded, included = "+33612345678", "+4915112345678"
    async with open_spool(database_url, intake=intake(no_confirm_countries=frozenset({"FR"}))) as spool:
        sim = Sim(spool)
        for sender in ("2020", Address.alphanumeric("BANK"), excluded, included):
            await sim.says("STOP", sender)
        to = [row[0] for row in await spool.rows(select(m.to_number))]
        assert to == [included]
        numbers = [row[0] for row in await spool.rows(select(o.number).where(o.state == "out"))]
        assert sorted(numbers) == sorted(["2020", "BANK", excluded, included])
        (blocked,) = (await spool.store.accept([message("2020")])).kept
        assert blocked.state == 3
        spool.store.configure(spool.store._rules, intake(confirm=False), ())
        await sim.says("STOP")
        assert await is_out(spool)
        assert await answers(spool) == []


async def test_help_is_answered_also_to_those_who_are_out_and_at_most_three_times_an_hour(database_url: str) -> None:
    async with open_spool(database_url, intake=intake()) as spool:
        line = await spool.sim()
        sim = Sim(spool)
        await sim.says("STOP")
        for n in range(5):
            spool.clock.ms += 1000
            await sim.says("Help!")
            assert len(await answers(spool)) == 1 + min(n + 1, 3)
        await sim.says("help", OTHER)
        assert await answers(spool, OTHER) == ["ACME: Contact: help@acme.example. Write STOP to get no more messages."]
        spool.clock.ms += 3_600_000
        await sim.says("HELP")
        assert len(await answers(spool)) == 5
        assert await is_out(spool), "HELP changes nothing"
        assert len(await spool.rows(select(e.id).where(e.intent == "help"))) == 7
        assert await claimed(spool, line) != []
        spool.store.configure(spool.store._rules, intake(name=""), ())
        await sim.says("HELP", "+59898000009")
        assert await answers(spool, "+59898000009") == []


# Evidence and identity.


async def test_the_evidence_is_complete_and_nothing_of_it_is_ever_changed(database_url: str) -> None:
    """spec/opt-out.md §6."""
    async with open_spool(database_url, intake=intake()) as spool:
        await spool.accept(message(), message())
        spool.clock.ms += 5000
        await Sim(spool).says("Baja, por favor", Address("098344484", 2, 1), at_ms=START_MS + 2000)
        columns = [column for column in schema.optout_events.columns if column.name != "id"]
        (row,) = await spool.rows(select(*columns))
        found = dict(zip([column.name for column in columns], row, strict=True))
        assert found == {
            "at": START_MS + 5000, "number": CONTACT, "number_received": "098344484", "scope": "global",
            "intent": "opt_out", "source": "keyword", "actor": "keyword", "prior_state": "none", "state": "out",
            "text": "Baja, por favor", "tier": "A", "rule": "keyword and filler: baja", "language": "es",
            "version": found["version"], "channel": "m0", "inbound_id": 1, "sent_at": START_MS + 2000,
            "confirmation_id": 3, "blocked": 2, "in_hand": 0, "evidence": "",
        }  # fmt: skip
        assert str(found["version"]).startswith("es-")
        checked = await spool.rows(select(m.optout_checked_at))
        assert all(row[0] is not None for row in checked)
        before = await spool.rows(select(schema.optout_events).order_by(e.id))
        for text in ("STOP", "hola", "START", "help", "STOP"):
            spool.clock.ms += 1000
            await Sim(spool, name=text + str(spool.clock.ms)).says(text)
        await operator(spool, OptState.IN)
        spool.clock.ms += 10 * 365 * 86_400_000
        await spool.store.advance()
        rows = await spool.rows(select(schema.optout_events).order_by(e.id))
        assert rows[:1] == before
        assert len(rows) == 6


@pytest.mark.parametrize(
    "sender",
    [CONTACT, Address("59898344484", 1, 1), Address("098344484", 2, 1), Address("98344484", 2, 1),
     Address("0059898344484", 0, 1), Address("098344484", 0, 1), Address("59898344484", 0, 1)],
    ids=str,
)  # fmt: skip
async def test_a_number_is_one_however_networks_spell_it(sqlite_url: str, sender: str | Address) -> None:
    async with open_spool(sqlite_url, intake=intake()) as spool:
        (idm,) = await spool.accept(message(CONTACT))
        await Sim(spool).says("STOP", sender)
        assert await states(spool, [idm]) == [(3, ["BLOCKED"])]
        assert await spool.rows(select(o.number)) == [(CONTACT,)]
        assert len(await answers(spool)) == 1


@pytest.mark.parametrize("order", [("STOP", "START"), ("START", "STOP")])
async def test_the_later_word_counts_in_whatever_order_the_sim_gives_them_out(
    database_url: str, order: tuple[str, str]
) -> None:
    """Written START, then STOP, while the gateway was down; a freed place of the SIM has the STOP first."""
    written = {"START": START_MS - 60_000, "STOP": START_MS - 30_000}
    async with open_spool(database_url, intake=intake()) as spool:
        await Sim(spool).read(*[raw for text in order for raw in pdus(text, at_ms=written[text])])
        assert await is_out(spool)
        spool.clock.ms += 1000
        await Sim(spool, name="b").says("START")
        assert not await is_out(spool)
        assert len(await spool.rows(select(e.id))) == 3


async def test_an_sms_centre_whose_clock_is_years_ahead_keeps_nobody_out_for_years(database_url: str) -> None:
    async with open_spool(database_url, intake=intake()) as spool:
        await Sim(spool).says("STOP", at_ms=START_MS + 3 * 365 * 86_400_000)
        spool.clock.ms += 60_000
        await Sim(spool, name="b").says("START")
        assert not await is_out(spool)


async def test_one_message_whose_rows_are_broken_does_not_keep_the_others_from_being_blocked(database_url: str) -> None:
    """Promise 4 within promise 5."""
    from sqlalchemy import update

    from gatewayd.spool.engine import Statement

    async with open_spool(database_url, intake=intake()) as spool:
        line = await spool.sim()
        ids = await spool.accept(message(), message(), message())
        broken = Statement(
            update(schema.segments).where(s.message_id == schema.sqltext(ids[1])).values(state="NONSENSE")
        )
        await spool.store.writer.run(lambda tx: tx.run(broken, {}))
        await Sim(spool).says("STOP")
        assert await is_out(spool)
        assert await states(spool, [ids[0], ids[2]]) == [(3, ["BLOCKED"])] * 2
        assert (await reason(spool, ids[1])).startswith("kept back, it cannot be dealt with")
        assert not set(await claimed(spool, line)) & set(ids)
        assert len(await answers(spool)) == 1


async def test_a_broken_message_in_a_channels_hands_is_called_back_all_the_same(database_url: str) -> None:
    """Promise 5 within promise 4: it cannot be blocked, for its rows are broken, and its PDU must not be written."""
    from sqlalchemy import update

    from gatewayd.spool.engine import Statement

    async with open_spool(database_url, intake=intake()) as spool:
        line = await spool.sim()
        await spool.accept(message(segments=2))
        claim = await spool.claim(line)
        assert claim is not None
        broken = Statement(update(schema.segments).where(s.seq == schema.sqltext(2)).values(state="NONSENSE"))
        await spool.store.writer.run(lambda tx: tx.run(broken, {}))
        await Sim(spool).says("STOP")
        assert spool.store.recalled(claim.message_id)


def test_the_messages_here_are_of_the_class_a_submitter_gets_by_default() -> None:
    assert NewMessage("x", "x", "x", "gsm7", 1).class_ is MessageClass.APPLICATION


async def test_many_numbers_are_looked_up_as_one_is(database_url: str) -> None:
    """A batch of a thousand asks a few questions, and gets the answers that a thousand would get."""
    numbers = [f"+5989800{n:05}" for n in range(2 * AT_ONCE + 7)]
    async with open_spool(database_url) as spool:
        for number in numbers[::3]:
            await spool.store.opt(Said(number, number, "opt_out", Source.API, "test"), OptState.OUT)
        classes = list(MessageClass)
        wanted = [(number, classes[n % len(classes)]) for n, number in enumerate([*numbers, *numbers[:5]])]

        def both(tx: Tx) -> tuple[list[object], list[object]]:
            return list(blocking_each(tx, wanted)), [blocking(tx, number, class_) for number, class_ in wanted]

        at_once, one_by_one = await spool.store.writer.run(both)
        assert at_once == one_by_one
        assert any(at_once)
        assert not all(at_once)
