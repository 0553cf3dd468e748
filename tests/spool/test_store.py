"""The store's contract, on both engines: accept, claim, outcome, doubt, reports, time."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence

import pytest
from sqlalchemy import select

from gatewayd.errors import EncodeError, RequestError, SpoolError
from gatewayd.model import FailureClass, InDoubtPolicy, Message, ReportVerdict, Segment, SimIdentity
from gatewayd.spool import retention, schema, upkeep
from gatewayd.spool.accept import Idempotency, KeptMessage
from gatewayd.spool.inbound import NewPart
from gatewayd.spool.reports import NewReport
from gatewayd.spool.retry import RetryPolicy
from gatewayd.spool.store import PAUSED, Store
from gatewayd.spool.work import Line, Rules, Want
from gatewayd.spool.writer import Tx
from tests.spool.helpers import FakeClock, LosesAnswers, Spool, message, open_spool, want

m, s, a, e = schema.messages.c, schema.segments.c, schema.attempts.c, schema.events.c


async def state_of(spool: Spool, message_id: int) -> tuple[int, str, list[str]]:
    """Message state, delivery, and its segments' states."""
    row = (await spool.rows(select(m.state, m.delivery).where(m.id == message_id)))[0]
    segments = await spool.rows(select(s.state).where(s.message_id == message_id).order_by(s.seq))
    return row[0], row[1], [segment[0] for segment in segments]


def report(line: Line, tp_mr: int, to: str = "+59898344484", **fields: object) -> NewReport:
    values: dict[str, object] = {
        "tp_status": 0, "verdict": ReportVerdict.DELIVERED, "status_text": "received by the SME", "scts_ms": None,
        "discharged_at": None, "raw": f"0006{tp_mr:02X}{to}", "listing": "l1",
    }  # fmt: skip
    return NewReport(line.channel, line.sim_id, tp_mr, to, **{**values, **fields})  # type: ignore[arg-type]


async def test_a_message_goes_from_the_queue_to_delivered(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(client_ref="order 7"))
        assert await state_of(spool, message_id) == (1, "none", ["QUEUED"])
        claim = await spool.claim(line)
        assert claim is not None
        assert (claim.message_id, claim.segment.seq, claim.segment.total, claim.attempt) == (message_id, 1, 1, 1)
        assert await state_of(spool, message_id) == (1, "none", ["SUBMITTING"])
        assert await spool.claim(line, spool.sent(claim, ref=9)) is None
        assert await state_of(spool, message_id) == (2, "pending", ["SUBMITTED"])
        matched = await spool.store.report(report(line, 9))
        assert matched.message_id == message_id
        assert await state_of(spool, message_id) == (2, "delivered", ["DELIVERED"])
        events = await spool.rows(select(e.event).where(e.message_id == message_id).order_by(e.id))
        assert [row[0] for row in events] == ["accepted", "intent", "sent", "report: delivered"]
        attempts = await spool.rows(select(a.number, a.outcome, a.tp_mr, a.owner, a.owner_epoch))
        assert attempts == [(1, "sent", 9, "gw1", 1)]


async def test_larger_priority_first_then_entry_order(database_url: str) -> None:
    """Decision 3."""
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        ids = await spool.accept(*[message(f"+5989000000{i}", priority=p) for i, p in enumerate([0, 5, 0, 9999, 5])])
        assert await spool.claims(line) == [ids[3], ids[1], ids[4], ids[0], ids[2]]


async def test_a_claim_merges_lanes_and_looks_beyond_what_it_read_ahead(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line, other = await spool.sim("m0"), await spool.sim("m1")
        pinned = await spool.accept(*[message(f"+598901{i:05}", channel="m1", priority=1) for i in range(3)])
        free = await spool.accept(*[message(f"+598902{i:05}") for i in range(120)])
        urgent = await spool.accept(*[message(f"+598903{i:05}", priority=7) for i in range(60)])
        first = await spool.claim(line)
        assert first is not None
        assert first.message_id == urgent[0]
        late = await spool.accept(message("+59890400000", priority=9))
        rest = [first.message_id]
        claim = await spool.claim(line, spool.sent(first))
        while claim is not None:
            rest.append(claim.message_id)
            claim = await spool.claim(line, spool.sent(claim))
        assert rest == [urgent[0], *late, *urgent[1:], *free]
        assert await spool.claims(other) == list(pinned)


async def test_a_batch_is_kept_whole_or_not_at_all_and_one_bad_operation_takes_nothing_with_it(
    database_url: str,
) -> None:
    """Promise 4."""
    async with open_spool(database_url) as spool:

        def answer(kept: Sequence[KeptMessage]) -> str:
            return json.dumps([message.id for message in kept])

        key = Idempotency("app", "k1", b"1" * 32, answer)
        clash = Idempotency("app", "k1", b"2" * 32, answer)
        first = await spool.store.accept([message()], key)
        results = await asyncio.gather(
            *[spool.store.accept([message(f"+598981{i:05}"), message()]) for i in range(20)],
            spool.store.accept([message()], clash),
            *[spool.store.accept([message(f"+598982{i:05}")]) for i in range(20)],
            return_exceptions=True,
        )
        bad = [result for result in results if isinstance(result, BaseException)]
        assert len(bad) == 1
        assert isinstance(bad[0], RequestError)
        assert bad[0].status == 409
        assert len(await spool.rows(select(m.id))) == 1 + 40 + 20
        again = await spool.store.accept([message()], key)
        assert again.replayed == json.dumps(list(first.ids))
        assert len(await spool.rows(select(m.id))) == 61


async def test_concurrent_submissions_with_one_key_are_one(database_url: str) -> None:
    """Promise 1."""
    async with open_spool(database_url) as spool:
        key = Idempotency("app", "k", b"x" * 32, lambda kept: json.dumps([message.id for message in kept]))
        results = await asyncio.gather(*[spool.store.accept([message()], key) for _ in range(30)])
        ids = {result.ids[0] if result.ids else json.loads(result.replayed or "")[0] for result in results}
        assert len(ids) == 1
        assert len(await spool.rows(select(m.id))) == 1


async def test_segments_go_in_order_and_stay_with_their_sim(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line, other = await spool.sim("m0"), await spool.sim("m1")
        (long,) = await spool.accept(message("+59898344484", segments=3))
        claim = await spool.claim(line)
        assert claim is not None
        assert await spool.claim(other) is None
        await spool.store.work(line, spool.sent(claim, ref=1), None)
        assert await spool.claim(other) is None, "the first intent binds the message to its SIM"
        second = await spool.claim(line)
        assert second is not None
        assert (second.message_id, second.segment.seq) == (long, 2)
        # Refused for now: only that segment is tried again, and nothing else to that number comes between.
        await spool.store.work(line, spool.not_sent(second), None)
        await spool.accept(message("+59898344484"), message("+59891111111"))
        between = await spool.claim(other)
        assert between is not None
        assert between.segment.message.to == "+59891111111"
        assert await spool.claim(other, spool.sent(between)) is None
        spool.clock.ms += 3_600_000
        await spool.store.advance()
        again = await spool.claim(line)
        assert again is not None
        assert (again.message_id, again.segment.seq, again.attempt) == (long, 2, 2)
        third = await spool.claim(line, spool.sent(again, ref=2))
        assert third is not None
        assert third.segment.seq == 3
        assert await spool.claim(other) is None
        await spool.store.work(line, spool.sent(third, ref=3), None)
        waited = await spool.claim(other)
        assert waited is not None, "what waited behind the long message is free again"
        assert await state_of(spool, long) == (2, "pending", ["SUBMITTED"] * 3)


async def test_an_untouched_message_moves_to_another_channel(database_url: str) -> None:
    async with open_spool(database_url, retry=RetryPolicy(attempts=3, backoff_ms=(1000,))) as spool:
        line, other = await spool.sim("m0"), await spool.sim("m1")
        (message_id,) = await spool.accept()
        claim = await spool.claim(line)
        assert claim is not None
        # The channel died before a byte was written: at once, uncounted, for anybody.
        dead = spool.not_sent(claim)
        dead = type(dead)(**{**{f: getattr(dead, f) for f in dead.__slots__}, "started_at": None})
        await spool.store.work(line, dead, None)
        moved = await spool.claim(other)
        assert moved is not None
        assert moved.message_id == message_id
        # This one's network refuses it: not to this SIM again.
        refused = spool.not_sent(moved, FailureClass.REJECTED, alternatives=True)
        await spool.store.work(other, refused, None)
        assert await spool.claim(other) is None
        assert (await spool.claim(line)) is not None


@pytest.mark.parametrize("failure", FailureClass)
async def test_retries_are_bounded(database_url: str, failure: FailureClass) -> None:
    async with open_spool(database_url, retry=RetryPolicy(attempts=3, backoff_ms=(1000, 5000))) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(segments=2))
        tries = 0
        while (claim := await spool.claim(line)) is not None:
            tries += 1
            await spool.store.work(line, spool.not_sent(claim, failure), None)
            assert await spool.claim(line) is None, "not before its back-off is over"
            spool.clock.ms += 5000
            await spool.store.advance()
        assert tries == (1 if failure in {FailureClass.NUMBER, FailureClass.MESSAGE} else 3)
        assert await state_of(spool, message_id) == (5, "none", ["FAILED", "FAILED"])


async def test_what_cannot_be_encoded_fails_alone(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        bad, good = await spool.accept(message("+59890000001"), message("+59890000002"))

        def picky(message: Message) -> list[Segment]:
            if message.id == bad:
                raise EncodeError("destination", "not today")
            return [Segment(message, 1, 1)]

        taken = await spool.store.work(line, None, Want(lambda lane: True, picky))
        assert taken.claim is not None
        assert taken.claim.message_id == good
        assert (await state_of(spool, bad))[0] == 5


async def test_a_channel_that_wants_another_plan_gets_it_while_nothing_was_sent(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(segments=3))
        taken = await spool.store.work(line, None, Want(lambda lane: True, lambda message: [Segment(message, 1, 1)]))
        assert taken.claim is not None
        assert await state_of(spool, message_id) == (1, "none", ["SUBMITTING"])
        assert (await spool.rows(select(m.segments)))[0][0] == 1


async def test_a_message_for_later_waits_and_an_expired_one_never_goes(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        now = spool.clock.ms
        later, short, both = await spool.accept(
            message("+59890000001", not_before=now + 60_000),
            message("+59890000002", expires_at=now + 30_000),
            message("+59890000003", not_before=now + 60_000, expires_at=now + 90_000),
        )
        assert (await spool.store.advance()).again_at == now + 30_000
        spool.clock.ms = now + 30_000
        assert await spool.claim(line) is None, "checked at the claim, also before the clockwork comes"
        assert (await state_of(spool, short))[0] == 6
        assert (await spool.store.advance()).again_at == now + 60_000
        spool.clock.ms = now + 60_000
        await spool.store.advance()
        claim = await spool.claim(line)
        assert claim is not None
        assert claim.message_id == later
        spool.clock.ms = now + 90_000
        await spool.store.advance()
        assert (await state_of(spool, both))[0] == 6


async def test_a_restart_puts_what_was_in_hand_in_doubt_and_only_ones_own(database_url: str) -> None:
    """Promise 2."""
    clock = FakeClock()
    async with open_spool(database_url, clock=clock) as spool:
        line = await spool.sim()
        ids = await spool.accept(message("+59890000001"), message("+59890000002"), message("+59890000003"))
        first = await spool.claim(line)
        assert first is not None
        second = await spool.claim(line, spool.sent(first))
        assert second is not None
        # A row of somebody else's, as on a shared PostgreSQL.
        await spool.rows(select(m.id))
        await spool.store.writer.run(
            lambda tx: tx.control(f"UPDATE messages SET owner = 'gw2', busy = 1, queue = 0 WHERE id = {ids[2]}")
        )
        await spool.store.writer.run(
            lambda tx: tx.control(f"UPDATE segments SET state = 'SUBMITTING' WHERE message_id = {ids[2]}")
        )
    database = spool.database
    store = Store(database, "gw1", clock, Rules())
    recovery = await store.open()
    try:
        assert recovery.epoch == 2
        assert recovery.in_doubt == ((ids[1], 1),)
        spool.store = store
        assert await state_of(spool, ids[1]) == (8, "pending", ["IN_DOUBT"])
        assert (await state_of(spool, ids[2]))[2] == ["SUBMITTING"]
        outcome = await spool.rows(select(a.outcome, a.detail).where(a.message_id == ids[1]))
        assert outcome[0][0] == "in_doubt"
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("policy", "message_state", "segments"),
    [
        (InDoubtPolicy.FAIL, 8, ["ABANDONED", "FAILED"]),
        (InDoubtPolicy.HOLD, 1, ["IN_DOUBT", "QUEUED"]),
        (InDoubtPolicy.RESEND, 1, ["QUEUED", "QUEUED"]),
    ],
)
async def test_doubt_is_settled_by_the_messages_policy(
    database_url: str, policy: InDoubtPolicy, message_state: int, segments: list[str]
) -> None:
    async with open_spool(database_url, in_doubt_wait_ms=900_000) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(segments=2, in_doubt=policy))
        claim = await spool.claim(line)
        assert claim is not None
        assert await spool.claim(line, spool.doubtful(claim)) is None, "the rest waits for the doubt to be settled"
        spool.clock.ms += 899_999
        await spool.store.advance()
        assert (await state_of(spool, message_id))[2] == ["IN_DOUBT", "QUEUED"]
        spool.clock.ms += 1
        await spool.store.advance()
        assert (await state_of(spool, message_id))[::2] == (message_state, segments)


async def test_a_late_result_settles_doubt_and_the_rest_goes_on(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(segments=2))
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.work(line, spool.doubtful(claim), None)
        assert await spool.store.late_result(line.sim_id, 44) == message_id
        assert await spool.store.late_result(line.sim_id, 45) is None
        rest = await spool.claim(line)
        assert rest is not None
        assert rest.segment.seq == 2


async def test_a_report_settles_doubt_by_the_sims_next_reference_and_the_number(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        ids = await spool.accept(message("+59890000001"), message("+59890000002"), message("+59890000002"))
        first = await spool.claim(line)
        assert first is not None
        second = await spool.claim(line, spool.sent(first, ref=255))
        assert second is not None
        await spool.store.work(line, spool.doubtful(second), None)
        assert (await spool.store.report(report(line, 100, "+59890000002"))).message_id is None
        assert (await spool.store.report(report(line, 0, "+59890000009"))).message_id is None
        assert (await spool.store.report(report(line, 0, "90000002"))).message_id == ids[1]
        assert await state_of(spool, ids[1]) == (2, "delivered", ["DELIVERED"])


async def test_an_abandoned_message_is_settled_by_a_late_report(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept()
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.work(line, spool.doubtful(claim), None)
        spool.clock.ms += 900_000
        await spool.store.advance()
        assert await state_of(spool, message_id) == (8, "unknown", ["ABANDONED"])
        await spool.store.report(report(line, 3))
        assert await state_of(spool, message_id) == (2, "delivered", ["DELIVERED"])


async def test_a_report_that_overtakes_its_receipt_waits_for_it(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept()
        claim = await spool.claim(line)
        assert claim is not None
        assert (await spool.store.report(report(line, 9))).message_id is None
        await spool.store.work(line, spool.sent(claim, ref=9), None)
        assert await state_of(spool, message_id) == (2, "delivered", ["DELIVERED"])


async def test_a_report_twice_or_after_the_end_changes_nothing_and_is_kept(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept()
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.work(line, spool.sent(claim, ref=9), None)
        trying = report(line, 9, tp_status=0x20, verdict=ReportVerdict.TRYING, raw="a")
        await spool.store.report(trying)
        assert (await state_of(spool, message_id))[1] == "pending"
        await spool.store.report(report(line, 9, raw="b"))
        again = await spool.store.report(report(line, 9, raw="b", listing="l2"))
        assert again.duplicate
        failed = report(line, 9, tp_status=0x41, verdict=ReportVerdict.UNDELIVERED, raw="c")
        assert (await spool.store.report(failed)).message_id == message_id
        assert await state_of(spool, message_id) == (2, "delivered", ["DELIVERED"])
        kept = await spool.rows(select(e.event, e.to_state).where(e.seq == 1).order_by(e.id))
        assert kept[-1] == ("report: undelivered", None)


async def test_without_a_report_in_time_delivery_is_unknown(database_url: str) -> None:
    async with open_spool(database_url, report_wait_ms=1000) as spool:
        line = await spool.sim()
        asked, unasked = await spool.accept(message("+59890000001"), message("+59890000002", report=False))
        await spool.claims(line)
        spool.clock.ms += 1000
        await spool.store.advance()
        assert await state_of(spool, asked) == (2, "unknown", ["NO_REPORT"])
        assert await state_of(spool, unasked) == (2, "none", ["SUBMITTED"])


async def test_an_outcome_written_twice_counts_once(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept()
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.work(line, spool.sent(claim), None)
        await spool.store.work(line, spool.not_sent(claim), None)
        assert (await state_of(spool, message_id))[0] == 2


async def test_a_claim_nobody_got_goes_back(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept()
        claim = await spool.claim(line)
        assert claim is not None
        assert await spool.store.give_back(Line("other", 99), None) == 0
        assert await spool.store.give_back(line, claim) == 0, "what the channel holds is not given back"
        assert await spool.store.give_back(line, None) == 1
        again = await spool.claim(line)
        assert again is not None
        assert (again.message_id, again.attempt) == (message_id, 2)


async def test_inbound_is_kept_and_a_redelivery_is_recognised_by_the_reading_it_comes_in(database_url: str) -> None:
    """Promise 3; DESIGN §7."""
    async with open_spool(database_url) as spool:
        line = await spool.sim()

        def part(listing: str) -> NewPart:
            return NewPart(line.channel, line.sim_id, "07AB", listing, text="hello")

        first, twin = await spool.store.receive(part("l1")), await spool.store.receive(part("l1"))
        assert (first.duplicate_of, twin.duplicate_of) == (None, None)
        again = await spool.store.receive(part("l2"))
        assert again.duplicate_of in {first.id, twin.id}
        raw = await spool.store.receive(NewPart(line.channel, line.sim_id, "zz", "l2", error="no hex"))
        assert raw.duplicate_of is None


async def test_a_sim_is_paired_at_first_sight_and_another_one_is_a_change(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        first = await spool.store.see_sim("m0", SimIdentity("8959A", ""), "")
        known = await spool.store.see_sim("m0", SimIdentity("8959A", "748B"), "")
        assert known.sim_id == first.sim_id
        by_imsi = await spool.store.see_sim("m0", SimIdentity("", "748B"), "")
        assert (by_imsi.sim_id, by_imsi.changed) == (first.sim_id, False)
        other = await spool.store.see_sim("m0", SimIdentity("8959C", "748C"), "")
        assert other.changed
        assert other.paired.iccid == "8959A"
        assert await spool.store.accept_sim("m0", "root")
        assert not (await spool.store.see_sim("m0", SimIdentity("8959C", "748C"), "")).changed
        assert not await spool.store.accept_sim("m0", "root")


async def test_a_switch_is_durable_and_says_who(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        assert await spool.store.setting(PAUSED) is None
        await spool.store.set_setting(PAUSED, "yes", "root")
    async with open_spool(database_url) as spool:
        assert await spool.store.setting(PAUSED) == "yes"
        await spool.store.set_setting(PAUSED, "", "alice")
        rows = await spool.rows(select(schema.audit.c.actor, schema.audit.c.action).order_by(schema.audit.c.id))
        assert rows == [("root", "set paused"), ("alice", "set paused")]


async def test_one_instance_id_runs_once(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        second = Store(type(spool.database)(spool.database.url), "gw1", spool.clock, Rules())
        with pytest.raises(SpoolError, match=r"one (daemon )?at a time"):
            await second.open()
        assert await spool.accept()


async def test_a_schema_newer_than_the_code_is_refused(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        await spool.store.writer.run(lambda tx: tx.control("UPDATE alembic_version SET version_num = '9999'"))
    store = Store(type(spool.database)(spool.database.url), "gw1", spool.clock, Rules())
    with pytest.raises(SpoolError, match="9999, which is newer"):
        await store.open()


async def test_idle_channels_are_told_of_what_became_claimable(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        spool.notices.clear()
        await spool.accept(message("+59890000001"), message("+59890000002", channel="m1"))
        lanes = {lane.channel: count for notices in spool.notices for lane, count in notices.lanes.items()}
        assert lanes == {"": 1, "m1": 1}


async def test_the_writer_forgets_what_it_read_ahead_when_a_batch_is_rolled_back(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        ids = await spool.accept(*[message(f"+598901{i:05}") for i in range(3)])

        def fails(tx: object) -> None:
            raise ValueError("a bug")

        claimed, failed, accepted = await asyncio.gather(
            spool.claim(line),
            spool.store.writer.run(fails),
            spool.accept(message("+59890000009")),
            return_exceptions=True,
        )
        assert isinstance(failed, ValueError)
        assert claimed is not None
        assert not isinstance(claimed, BaseException)
        assert claimed.message_id == ids[0]
        assert not isinstance(accepted, BaseException)
        rest = await spool.claim(line, spool.sent(claimed))
        seen = []
        while rest is not None:
            seen.append(rest.message_id)
            rest = await spool.claim(line, spool.sent(rest))
        assert seen == [*ids[1:], *accepted]
        assert want(line).serves


async def test_a_claim_of_the_same_message_that_nobody_got_goes_back(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome of segment 1 and the intent of 2 share a commit of which nobody knows whether it took place."""
    async with open_spool(sqlite_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(segments=2))
        first = await spool.claim(line)
        assert first is not None
        LosesAnswers(monkeypatch, spool.database).times = 1
        with pytest.raises(SpoolError):
            await spool.claim(line, spool.sent(first))
        assert (await state_of(spool, message_id))[2] == ["SUBMITTED", "SUBMITTING"]
        assert await spool.store.give_back(line, first) == 1
        second = await spool.claim(line, spool.sent(first))
        assert second is not None
        assert (second.message_id, second.segment.seq, second.attempt) == (message_id, 2, 2)


async def test_what_counts_between_two_messages_to_a_number_is_the_channels_plan(database_url: str) -> None:
    """Accepted as one segment, and this channel makes two of it: they do not go out beside another message."""
    async with open_spool(database_url) as spool:
        line, other = await spool.sim("m0"), await spool.sim("m1")
        _, grows = await spool.accept(message(), message())

        def two(message: Message) -> list[Segment]:
            return [Segment(message, seq, 2) for seq in (1, 2)]

        wide = Want(lambda lane: lane.open_to(other.channel, other.sim_id), two)
        first = await spool.claim(line)
        assert first is not None
        assert (await spool.store.work(other, None, wide)).claim is None
        await spool.store.work(line, spool.sent(first), None)
        taken = await spool.store.work(other, None, wide)
        assert taken.claim is not None
        assert (taken.claim.message_id, taken.claim.segment.total) == (grows, 2)


async def test_a_message_under_way_whose_plan_changed_ends_and_stops_no_other(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        long, good = await spool.accept(message("+59890000001", segments=2), message("+59890000002"))
        first = await spool.claim(line)
        assert first is not None

        def one(message: Message) -> list[Segment]:
            return [Segment(message, 1, 1)]

        taken = await spool.store.work(line, spool.sent(first), Want(lambda lane: True, one))
        assert taken.claim is not None
        assert taken.claim.message_id == good
        assert await state_of(spool, long) == (5, "undelivered", ["SUBMITTED", "FAILED"])


@pytest.mark.parametrize("damage", ["UPDATE messages SET class = 'x' ", "UPDATE segments SET state = 'x' ", None])
async def test_a_malformed_message_is_kept_back_and_stops_no_other(database_url: str, damage: str | None) -> None:
    """Promise 4: one malformed row, and one that our own code cannot deal with."""
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        bad, good = await spool.accept(message("+59890000001"), message("+59890000002"))
        if damage:
            where = f"WHERE {'id' if 'messages' in damage else 'message_id'} = {bad}"
            await spool.store.writer.run(lambda tx: tx.control(damage + where))

        def buggy(message: Message) -> list[Segment]:
            if message.id == bad:
                raise ZeroDivisionError("a bug")
            return [Segment(message, 1, 1)]

        taken = await spool.store.work(line, None, Want(lambda lane: True, buggy))
        assert taken.claim is not None
        assert taken.claim.message_id == good
        assert await spool.claim(line, spool.sent(taken.claim)) is None
        reason = (await spool.rows(select(m.reason).where(m.id == bad)))[0][0]
        assert reason.startswith("kept back, it cannot be dealt with")
        assert await spool.rows(
            select(e.event).where(e.message_id == bad, (e.event == "held") | (e.event == "set aside"))
        )


async def test_a_malformed_row_does_not_stop_the_clock(database_url: str) -> None:
    async with open_spool(database_url, in_doubt_wait_ms=1000) as spool:
        line = await spool.sim()
        ids = await spool.accept(*[message(f"+5989000000{i}") for i in range(3)])
        for _ in ids:
            claim = await spool.claim(line)
            assert claim is not None
            await spool.store.work(line, spool.doubtful(claim), None)
        expires = spool.clock.ms + 1000
        bad, late = await spool.accept(message(expires_at=expires), message(expires_at=expires))
        await spool.store.writer.run(
            lambda tx: tx.control(f"UPDATE messages SET in_doubt = 'x', admission = 'x' WHERE id IN ({ids[0]}, {bad})")
        )
        await spool.store.writer.run(
            lambda tx: tx.control(f"UPDATE segments SET state = 'DELIVERED' WHERE message_id = {ids[1]}")
        )
        spool.clock.ms += 1000
        again = (await spool.store.advance()).again_at
        assert (await state_of(spool, ids[2]))[0] == 8
        assert (await state_of(spool, late))[0] == 6
        assert again is None or again > spool.clock.ms, "what cannot be dealt with does not come up again and again"


async def test_an_outcome_that_cannot_be_applied_does_not_hold_the_channel(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        bad, good = await spool.accept(message("+59890000001"), message("+59890000002"))
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.writer.run(
            lambda tx: tx.control(f"UPDATE segments SET state = 'CANCELLED' WHERE message_id = {bad}")
        )
        following = await spool.claim(line, spool.sent(claim))
        assert following is not None
        assert following.message_id == good
        events = await spool.rows(select(e.event).where(e.message_id == bad).order_by(e.id))
        assert events[-1] == ("outcome not applied",)


async def test_an_outcome_belongs_to_the_sim_it_was_sent_with(database_url: str) -> None:
    """The SIM was changed while the outcome waited for a spool that took no writes."""
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(segments=2))
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.work(Line(line.channel, 0), spool.sent(claim), None)
        assert await spool.rows(select(m.sim_id)) == [(line.sim_id,)]
        other = await spool.sim("m1")
        assert await spool.claim(other) is None, "the rest stays with the SIM that sent the first"
        rest = await spool.claim(line)
        assert rest is not None
        assert rest.message_id == message_id


async def test_a_used_key_with_another_body_disturbs_nobody(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        key = Idempotency("app", "k", b"1" * 32, lambda kept: "")
        await spool.store.accept([message()], key)
        clash = Idempotency("app", "k", b"2" * 32, lambda kept: "")
        with pytest.raises(RequestError):
            await spool.store.accept([message()], clash)
        assert spool.store.writer.stats.replays == 0


async def test_two_rows_that_turn_out_to_be_one_sim_are_no_error(database_url: str) -> None:
    """Once only its ICCID could be read, once only its IMSI."""
    async with open_spool(database_url) as spool:
        first = await spool.store.see_sim("m0", SimIdentity("8959A", ""), "")
        second = await spool.store.see_sim("m1", SimIdentity("", "748A"), "")
        assert first.sim_id != second.sim_id
        both = await spool.store.see_sim("m0", SimIdentity("8959A", "748A"), "")
        assert (both.sim_id, both.changed) == (first.sim_id, False)


async def test_a_late_result_settles_the_doubt_that_expects_it_and_no_old_one(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        ids = await spool.accept(*[message(f"+5989000000{i}", in_doubt=InDoubtPolicy.HOLD) for i in range(4)])
        claim = await spool.claim(line)
        assert claim is not None
        claim = await spool.claim(line, spool.sent(claim, ref=7))
        assert claim is not None
        claim = await spool.claim(line, spool.doubtful(claim))  # expects 8
        assert claim is not None
        claim = await spool.claim(line, spool.doubtful(claim))  # 8 or 9
        assert claim is not None
        assert await spool.store.late_result(line.sim_id, 8) == ids[1]
        assert await spool.store.late_result(line.sim_id, 9) == ids[2]
        await spool.store.work(line, spool.doubtful(claim), None)
        spool.clock.ms += 86_400_000
        assert await spool.store.late_result(line.sim_id, 10) is None


async def test_a_second_doubt_in_a_row_is_settled_by_whatever_reference_comes(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        ids = await spool.accept(*[message(f"+5989000000{i}") for i in range(3)])
        claim = await spool.claim(line)
        assert claim is not None
        for _ in range(2):
            claim = await spool.claim(line, spool.doubtful(claim) if claim.message_id > ids[0] else spool.sent(claim))
            assert claim is not None
        await spool.store.work(line, spool.doubtful(claim), None)
        assert (await spool.store.report(report(line, 9, "+59890000002"))).message_id == ids[2]
        assert (await spool.store.report(report(line, 8, "+59890000001"))).message_id == ids[1]


async def test_a_late_result_after_its_report_changes_nothing(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        ids = await spool.accept(message("+59890000001"), message("+59890000002", report=False))
        claim = await spool.claim(line)
        assert claim is not None
        claim = await spool.claim(line, spool.sent(claim, ref=7))
        assert claim is not None
        await spool.store.work(line, spool.doubtful(claim), None)
        assert (await spool.store.report(report(line, 8, "+59890000002"))).message_id == ids[1]
        assert await spool.store.late_result(line.sim_id, 8) is None
        assert await state_of(spool, ids[1]) == (2, "delivered", ["DELIVERED"])


async def test_a_late_result_without_a_report_asked_for_waits_for_none(database_url: str) -> None:
    async with open_spool(database_url, report_wait_ms=1000) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(report=False))
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.work(line, spool.doubtful(claim), None)
        await spool.store.late_result(line.sim_id, 20)
        spool.clock.ms += 1000
        await spool.store.advance()
        assert await state_of(spool, message_id) == (2, "none", ["SUBMITTED"])


async def test_a_report_after_days_finds_its_segment_however_often_the_reference_came_round(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        first, *_ = await spool.accept(*[message(f"+598900{i:05}") for i in range(120)])
        claim = await spool.claim(line)
        while claim is not None:
            spool.clock.ms += 1000
            claim = await spool.claim(line, spool.sent(claim, ref=7))
        assert (await spool.store.report(report(line, 7, "090000000"))).message_id == first


async def test_a_report_that_overtakes_its_receipt_is_not_taken_for_an_older_ones(database_url: str) -> None:
    """The number got a message with the same TP-MR hours ago, and that one has its report."""
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        old, new = await spool.accept(message(), message())
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.work(line, spool.sent(claim, ref=7), None)
        await spool.store.report(report(line, 7, scts_ms=spool.clock.ms))
        spool.clock.ms += 6 * 3_600_000
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.report(report(line, 7, scts_ms=spool.clock.ms, raw="other", listing="l2"))
        await spool.store.work(line, spool.sent(claim, ref=7), None)
        assert await state_of(spool, old) == (2, "delivered", ["DELIVERED"])
        assert await state_of(spool, new) == (2, "delivered", ["DELIVERED"])


@pytest.mark.parametrize("outcome", ["its own", "another reference", "not sent", "in doubt", "a crash"])
async def test_a_report_that_overtakes_its_receipt_settles_no_older_doubt(database_url: str, outcome: str) -> None:
    """Promise 2. A doubt about the same number fits the report too; the receipt says which of the two it is about."""
    doubt, settled = (8, "pending", ["IN_DOUBT"]), (2, "delivered", ["DELIVERED"])
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        old, new = await spool.accept(message(), message())
        claim = await spool.claim(line)
        assert claim is not None
        assert claim.message_id == old
        claim = await spool.claim(line, spool.doubtful(claim))
        assert claim is not None
        assert claim.message_id == new
        assert (await spool.store.report(report(line, 4, raw="early"))).message_id is None
        assert await state_of(spool, old) == doubt
        if outcome == "its own":
            await spool.store.work(line, spool.sent(claim, ref=4), None)
            assert (await state_of(spool, old), await state_of(spool, new)) == (doubt, settled)
        elif outcome == "another reference":
            await spool.store.work(line, spool.sent(claim, ref=5), None)
            assert (await state_of(spool, old), await state_of(spool, new)) == (settled, (2, "pending", ["SUBMITTED"]))
        elif outcome == "not sent":
            await spool.store.work(line, spool.not_sent(claim), None)
            assert (await state_of(spool, old), (await state_of(spool, new))[2]) == (settled, ["QUEUED"])
        elif outcome == "in doubt":
            await spool.store.work(line, spool.doubtful(claim), None)
            assert sorted([await state_of(spool, old), await state_of(spool, new)]) == [settled, doubt]
    if outcome == "a crash":
        async with open_spool(database_url) as spool:
            assert sorted([await state_of(spool, old), await state_of(spool, new)]) == [settled, doubt]


async def test_a_clock_that_goes_back_leaves_nothing_waiting_for_years(database_url: str) -> None:
    clock = FakeClock()
    right = clock.ms
    clock.ms += 4 * 365 * 86_400_000
    async with open_spool(database_url, clock=clock, in_doubt_wait_ms=900_000) as spool:
        line = await spool.sim()
        later, doubt = await spool.accept(message("+59890000001"), message("+59890000002"))
        scheduled, *_ = await spool.accept(message("+59890000003", not_before=clock.ms + 1000))
        claim = await spool.claim(line)
        assert claim is not None
        claim = await spool.claim(line, spool.not_sent(claim))
        assert claim is not None
        await spool.store.work(line, spool.doubtful(claim), None)
        await spool.store.advance()
        clock.ms = right
        assert (await spool.store.advance()).again_at == right + 10_000, "the first back-off"
        clock.ms += 900_000
        await spool.store.advance()
        assert (await state_of(spool, doubt))[0] == 8
        assert (await state_of(spool, doubt))[2] == ["ABANDONED"]
        claim = await spool.claim(line)
        assert claim is not None
        assert claim.message_id == later
        assert await spool.claim(line) is None
        assert (await state_of(spool, scheduled))[2] == ["QUEUED"]


async def test_a_start_with_the_clock_behind_the_spool_counts_from_now(database_url: str) -> None:
    clock = FakeClock()
    async with open_spool(database_url, clock=clock) as spool:
        line = await spool.sim()
        await spool.accept()
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.work(line, spool.not_sent(claim), None)
    clock.ms -= 365 * 86_400_000
    async with open_spool(database_url, clock=clock) as spool:
        assert (await spool.store.advance()).again_at == clock.ms + 10_000


async def test_resend_is_bounded(database_url: str) -> None:
    async with open_spool(database_url, in_doubt_wait_ms=1000, retry=RetryPolicy(attempts=3)) as spool:
        line = await spool.sim()
        (message_id,) = await spool.accept(message(in_doubt=InDoubtPolicy.RESEND))
        times = 0
        while (claim := await spool.claim(line)) is not None:
            times += 1
            await spool.store.work(line, spool.doubtful(claim), None)
            spool.clock.ms += 1000
            await spool.store.advance()
        assert times == 3
        assert (await state_of(spool, message_id))[2] == ["ABANDONED"]


async def test_old_keys_are_forgotten_a_bounded_step_at_a_time(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        for n in range(2):
            await asyncio.gather(
                *[
                    spool.store.accept([], Idempotency("app", f"{n}-{i}", b"", lambda kept: ""))
                    for i in range(upkeep.STEP)
                ]
            )
        spool.clock.ms += retention.KEY_LIFE_MS + 1
        again = Idempotency("app", "new", b"", lambda kept: "")
        await spool.store.accept([], again)
        assert (await spool.store.advance()).again_at == spool.clock.ms, "there is more"
        await spool.store.advance()
        assert (await spool.store.advance()).again_at is None
        assert await spool.rows(select(schema.idempotency.c.key)) == [("new",)]


async def test_an_inbound_message_written_again_after_a_lost_answer_is_one(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_spool(sqlite_url) as spool:
        LosesAnswers(monkeypatch, spool.database).times = 1
        part = NewPart("m0", 1, "07AB", "l1", "SM", 3, text="hello")
        with pytest.raises(SpoolError):
            await spool.store.receive(part)
        assert (await spool.store.receive(part)).duplicate_of is None
        assert len(await spool.rows(select(schema.inbound_parts.c.id))) == 1


async def test_of_equal_messages_in_a_reading_as_many_are_new_as_were_not_there_before(database_url: str) -> None:
    """DESIGN §7: two copies in one listing are two messages, also where one of them had come before."""
    async with open_spool(database_url) as spool:

        async def read(listing: str, *indexes: int) -> list[bool]:
            return [
                (await spool.store.receive(NewPart("m0", 1, "07AB", listing, "SM", index))).duplicate_of is not None
                for index in indexes
            ]

        assert await read("l1", 1) == [False]
        assert await read("l2", 1, 2) == [True, False]
        assert await read("l3", 1, 2, 3) == [True, True, False]


async def test_text_that_an_engine_cannot_keep_is_kept_without_what_it_cannot(database_url: str) -> None:
    """Promise 3: on PostgreSQL a text has no NUL. Refused, it would lie on the SIM and stop the channel for ever."""
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        part = NewPart(
            "m0", line.sim_id, "07\0AB", "l1", originator="a\0", text="a\0b\ud83d\U0001f600", user_data=b"\0"
        )
        await spool.store.receive(part)
        kept = await spool.rows(select(schema.inbound_parts.c.text, schema.inbound_parts.c.user_data))
        assert [(text, bytes(data)) for text, data in kept] == [("a\ufffdb\ufffd\U0001f600", b"\0")]
        assert (await spool.store.report(report(line, 1, "a\0", raw="\0"))).message_id is None


async def test_a_claim_asks_nothing_of_lanes_that_ran_empty(database_url: str) -> None:
    """DESIGN §4: it costs the same with two lanes and with thousands."""
    async with open_spool(database_url) as spool:
        lines = [await spool.sim(f"m{i}") for i in range(30)]
        for line in lines:
            await spool.accept(message(channel=line.channel))
        assert await spool.claim(Line("none", 99)) is None
        for line in lines[:29]:
            assert await spool.claims(line)
        filled = await spool.store.writer.run(lambda tx: [lane.channel for lane in spool.store._book.filled(tx)])
        assert set(filled) <= {"m29", ""}
        await spool.accept(message(channel="m3"))
        assert await spool.claims(lines[3]), "one that is filled again is found again"


async def test_a_number_is_free_again_when_the_message_under_way_does_not_get_on(database_url: str) -> None:
    """Its doubt is held for an operator, or its SIM is gone: what is for the same number does not wait for ever."""
    async with open_spool(database_url, in_doubt_wait_ms=900_000) as spool:
        line, other = await spool.sim("m0"), await spool.sim("m1")
        await spool.accept(message("+59890000001", segments=2, in_doubt=InDoubtPolicy.HOLD))
        await spool.accept(message("+59890000002", segments=2))
        held = await spool.claim(line)
        assert held is not None
        gone = await spool.claim(line, spool.doubtful(held))
        assert gone is not None
        await spool.store.work(line, spool.sent(gone), None)
        behind = await spool.accept(message("+59890000001"), message("+59890000002"))
        assert await spool.claim(other) is None
        due = spool.clock.ms + 900_000
        assert (await spool.store.advance()).again_at == due
        spool.clock.ms = due - 1
        await spool.store.advance()
        assert await spool.claim(other) is None
        spool.clock.ms = due
        await spool.store.advance()
        assert await spool.claims(other) == list(behind)
        rest = await spool.claim(line)
        assert rest is not None, "and when the SIM is back, the rest of the message goes on"
        assert (rest.segment.message.to, rest.segment.seq) == ("+59890000002", 2)


async def test_a_clock_that_goes_back_is_noticed_though_the_commit_that_did_is_rolled_back(database_url: str) -> None:
    """Another operation of the batch fails, so that all of it is done again."""
    clock = FakeClock()
    async with open_spool(database_url, clock=clock) as spool:
        line = await spool.sim()
        await spool.accept()
        claim = await spool.claim(line)
        assert claim is not None
        await spool.store.work(line, spool.not_sent(claim), None)
        await spool.store.advance()
        clock.ms -= 365 * 86_400_000

        def fails(tx: Tx) -> None:
            raise ZeroDivisionError("a bug")

        both_there = threading.Event()
        before = asyncio.create_task(spool.store.writer.run(lambda tx: both_there.wait(20)))
        together = asyncio.gather(spool.store.advance(), spool.store.writer.run(fails), return_exceptions=True)
        await asyncio.sleep(0)
        both_there.set()
        advanced, failed = await together
        assert await before
        assert isinstance(failed, ZeroDivisionError)
        assert isinstance(advanced, upkeep.Advanced)
        assert advanced.again_at == clock.ms + 10_000, "the first back-off, from now"
