"""A number that fails wherever it is tried waits, and delays nobody. On both engines."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from gatewayd.model import FailureClass
from gatewayd.spool import quarantine, retention, schema
from gatewayd.spool.quarantine import MAX_KNOWN, PROBE_MS, QuarantineBook, QuarantinePolicy
from gatewayd.spool.quarantine_reader import QuarantineReader
from gatewayd.spool.reader import Reader
from gatewayd.spool.retry import RetryPolicy
from gatewayd.spool.work import Claim, Line
from gatewayd.spool.writer import Tx
from tests.spool.helpers import START_MS, Sim, Spool, intake, message, open_spool

BAD, GOOD = "+59890000001", "+59890000002"
HOUR, DAY = 3_600_000, 86_400_000
NOBODY = {"code": "CMS 1", "detail": "unassigned number"}
m = schema.messages.c


async def refuse(spool: Spool, line: Line, claim: Claim, failure: FailureClass = FailureClass.NUMBER) -> None:
    await spool.store.work(line, spool.not_sent(claim, failure, **NOBODY), None)


async def taken(spool: Spool, line: Line, to: str = BAD) -> Claim:
    claim = await spool.claim(line)
    assert claim is not None
    assert claim.segment.message.to == to
    return claim


async def into_quarantine(spool: Spool, line: Line, waiting: int = 0) -> list[int]:
    """Three messages fail of their number; the ids of the others to it."""
    ids = await spool.accept(*(message(BAD) for _ in range(3 + waiting)))
    for _ in range(3):
        await refuse(spool, line, await taken(spool, line))
    return list(ids[3:])


async def waits(spool: Spool, message_id: int) -> tuple[int, int, str]:
    ((queue, due_at, reason),) = await spool.rows(select(m.queue, m.due_at, m.reason).where(m.id == message_id))
    return queue, due_at - spool.clock.ms, reason


async def faults(spool: Spool) -> list[Any]:
    f = schema.number_faults.c
    return await spool.rows(select(f.number, f.failures, f.sims, f.until, f.probe))


async def pass_time(spool: Spool, ms: int) -> None:
    """And let what has become due be done, over as many steps as that takes."""
    spool.clock.ms += ms
    while (await spool.store.advance()).again_at == spool.clock.ms:
        pass


async def test_a_bad_number_never_delays_another(database_url: str) -> None:
    """Promise 4: 1000 messages to a number that nobody has stand before 10 good ones."""
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        await spool.accept(*(message(BAD) for _ in range(1000)))
        good = list(await spool.accept(*(message(f"+5989100000{n}") for n in range(10))))
        sent, tries, asked = [], 0, 0
        while len(sent) < len(good):
            asked += 1
            claim = await spool.claim(line)
            if claim is None:
                continue  # the search was cut short: a channel asks again at once
            if claim.segment.message.to == BAD:
                tries += 1
                await refuse(spool, line, claim)
            else:
                sent.append(claim.message_id)
                await spool.store.work(line, spool.sent(claim), None)
        assert (sent, tries) == (good, 3), "three tries at the bad number, and not one second of waiting"
        assert asked <= 30, "nor many transactions: what waits is looked at once"
        assert await spool.claim(line) is None
        rows = await spool.rows(select(m.queue, m.due_at).where(m.to_number == BAD, m.state == 1))
        assert set(map(tuple, rows)) == {(schema.LATER, spool.clock.ms + HOUR)}
        assert len(rows) == 997


async def test_after_each_quarantine_one_message_is_tried_and_the_next_lasts_longer(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line, other = await spool.sim("m0"), await spool.sim("m1")
        first, *_ = await into_quarantine(spool, line, waiting=20)
        assert await spool.claim(line) is None
        queue, wait, reason = await waits(spool, first)
        assert (queue, wait) == (schema.LATER, HOUR)
        assert reason == (
            "its number is in quarantine until 2026-09-21T15:13:20.000Z: 3 messages to it failed since "
            "2026-09-21T14:13:20.000Z, on 1 SIM, the last with CMS 1 unassigned number "
            "(gatewayd numbers release +59890000001)"
        )
        for length in (HOUR, 6 * HOUR, DAY, DAY):
            await pass_time(spool, length - 1)
            assert await spool.claim(line) is None
            await pass_time(spool, 1)
            probe = await taken(spool, line)
            assert await spool.claim(other) is None, "one is tried, and no other"
            ((_, _, _, _, tried),) = await faults(spool)
            assert tried == probe.message_id
            await refuse(spool, line, probe)
            await pass_time(spool, PROBE_MS)  # who waited for the probe's outcome waits on
            assert await spool.claim(line) is None
            await pass_time(spool, -PROBE_MS)
        ((_, failures, sims, _, _),) = await faults(spool)
        assert (failures, sims) == (7, "1")


async def test_success_lets_all_of_it_out(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line, other = await spool.sim("m0"), await spool.sim("m1")
        rest = await into_quarantine(spool, line, waiting=5)
        assert await spool.claim(line) is None
        await pass_time(spool, HOUR)
        probe = await taken(spool, line)
        assert await spool.claim(other) is None
        assert await spool.claim(line, spool.sent(probe)) is None
        assert await faults(spool) == []
        await pass_time(spool, 0)
        assert await spool.claims(line) == [id_ for id_ in rest if id_ != probe.message_id]


async def test_what_the_contact_asked_to_wait_is_not_woken(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (waiting,) = await into_quarantine(spool, line, waiting=1)
        (planned,) = await spool.accept(message(BAD, not_before=spool.clock.ms + DAY))
        assert await spool.claim(line) is None
        assert await spool.store.release_number(BAD, "ana") == 1
        await pass_time(spool, 0)
        assert await spool.claims(line) == [waiting]
        assert (await waits(spool, planned))[:2] == (schema.LATER, DAY)
        audit = schema.audit.c
        assert await spool.rows(select(audit.actor, audit.action, audit.detail)) == [
            ("ana", "released a number from quarantine", BAD)
        ]
        assert await spool.store.release_number(BAD, "ana") is None


async def test_a_probe_of_which_nothing_is_heard_keeps_the_others_for_a_while_only(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line, other = await spool.sim("m0"), await spool.sim("m1")
        await into_quarantine(spool, line, waiting=2)
        assert await spool.claim(line) is None
        await pass_time(spool, HOUR)
        probe = await taken(spool, line)  # it is in a modem's hands, and stays there
        assert await spool.claim(other) is None
        await pass_time(spool, PROBE_MS)
        second = await taken(spool, other)
        assert second.message_id != probe.message_id


async def test_a_probe_that_fails_for_another_reason_is_tried_again_as_the_probe(database_url: str) -> None:
    async with open_spool(database_url, retry=RetryPolicy(5, (1000,))) as spool:
        line = await spool.sim()
        await into_quarantine(spool, line, waiting=2)
        assert await spool.claim(line) is None
        await pass_time(spool, HOUR)
        probe = await taken(spool, line)
        await refuse(spool, line, probe, FailureClass.NETWORK)
        await pass_time(spool, 1000)
        again = await taken(spool, line)
        assert again.message_id == probe.message_id
        await spool.store.work(line, spool.sent(again), None)
        assert await faults(spool) == []


async def test_what_is_on_its_way_already_makes_it_no_longer(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        lines = [await spool.sim(f"m{n}") for n in range(5)]
        await spool.accept(*(message(BAD) for _ in range(5)))
        claims = [await taken(spool, line) for line in lines]
        for line, claim in zip(lines, claims, strict=True):
            await refuse(spool, line, claim)
        ((_, failures, sims, until, _),) = await faults(spool)
        assert (failures, sims, until) == (3, "1,2,3", spool.clock.ms + HOUR)


@pytest.mark.parametrize("failure", FailureClass)
async def test_only_what_may_be_the_numbers_fault_counts_against_it(database_url: str, failure: FailureClass) -> None:
    async with open_spool(database_url, retry=RetryPolicy(2, (0,))) as spool:
        line = await spool.sim()
        await spool.accept(*(message(BAD) for _ in range(4)))
        while (claim := await spool.claim(line)) is not None:
            await refuse(spool, line, claim, failure)
            await pass_time(spool, 0)
        blamed = {F.NUMBER, F.UNREACHABLE, F.REJECTED, F.NETWORK}
        assert [row[1] for row in await faults(spool)] == ([3] if failure in blamed else [])


F = FailureClass


async def test_a_stopped_channel_puts_no_number_in_quarantine(database_url: str) -> None:
    async with open_spool(database_url, retry=RetryPolicy(1, (0,))) as spool:
        line = await spool.sim()
        await spool.accept(*(message(BAD) for _ in range(5)))
        for _ in range(5):
            claim = await taken(spool, line)
            await spool.store.work(line, spool.not_sent(claim, F.NETWORK, stopped_ms=30_000), None)
        assert await faults(spool) == []
        assert await spool.claim(line) is None, "they wait for the channel"
        await pass_time(spool, 30_000)
        assert len(await spool.claims(line)) == 5, "and none is lost"


async def test_a_message_that_is_under_way_goes_on(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line, other = await spool.sim("m0"), await spool.sim("m1")
        (long,) = await spool.accept(message(BAD, segments=2))
        first = await taken(spool, line)
        await spool.store.work(line, spool.sent(first), None)

        def spoil(tx: Tx) -> None:
            book = QuarantineBook()
            for n in range(3):
                quarantine.failed(
                    tx, book, BAD, 1000 + n, other.sim_id, "CMS 1", "", spool.clock.ms, QuarantinePolicy()
                )

        await spool.store.writer.run(spoil)
        second = await taken(spool, line)
        assert (second.message_id, second.segment.seq) == (long, 2)


async def test_it_can_be_switched_off(database_url: str) -> None:
    async with open_spool(database_url, quarantine=QuarantinePolicy(failures=0)) as spool:
        line = await spool.sim()
        ids = await spool.accept(*(message(BAD) for _ in range(10)))
        for _ in ids:
            await refuse(spool, line, await taken(spool, line))
        assert await faults(spool) == []


async def test_a_restart_and_a_rollback_forget_nothing(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        (waiting,) = await into_quarantine(spool, line, waiting=1)
        with pytest.raises(ZeroDivisionError):
            await spool.store.writer.run(lambda tx: 1 / 0)
        assert await spool.claim(line) is None
        clock = spool.clock
    async with open_spool(database_url, clock=clock) as spool:
        (late,) = await spool.accept(message(BAD))
        assert await spool.claim(line) is None
        assert [(await waits(spool, id_))[:2] for id_ in (waiting, late)] == [(schema.LATER, HOUR)] * 2


async def test_a_quarantine_of_a_clock_that_was_ahead_is_over(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        spool.clock.ms += 365 * DAY
        await into_quarantine(spool, line)
        spool.clock.ms -= 365 * DAY
        (next_,) = await spool.accept(message(BAD))
        assert (await taken(spool, line)).message_id == next_


async def test_the_book_asks_about_known_numbers_only(sqlite_url: str) -> None:
    async with open_spool(sqlite_url) as spool:
        book, policy = QuarantineBook(), QuarantinePolicy()

        def fill(tx: Tx) -> list[bool]:
            found = []
            for n in range(MAX_KNOWN + 1):
                number = f"+{10_000_000_000 + n}"
                found.append(book.knows(tx, number))
                quarantine.failed(tx, book, number, n, 1, "CMS 1", "", START_MS, policy)
                if n in {0, MAX_KNOWN - 1}:
                    found += [book.knows(tx, number), book.knows(tx, GOOD)]
            found.append(book.knows(tx, GOOD))
            book.forget()
            return [*found, book.knows(tx, GOOD), quarantine.cleared(tx, book, GOOD, START_MS)]

        found = await spool.store.writer.run(fill)
        assert found.count(True) == 4, "two known ones; and from one too many on, all may be"
        assert found[-3:] == [True, True, False]


async def test_old_faults_are_forgotten(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        await spool.accept(message(BAD))
        await refuse(spool, line, await taken(spool, line))
        await pass_time(spool, retention.FAULT_LIFE_MS)
        assert len(await faults(spool)) == 1
        await pass_time(spool, 1)
        assert await faults(spool) == []


async def test_who_writes_takes_messages(database_url: str) -> None:
    async with open_spool(database_url, intake=intake()) as spool:
        line = await spool.sim()
        (waiting,) = await into_quarantine(spool, line, waiting=1)
        assert await spool.claim(line) is None
        await Sim(spool).says("hello, this is my new SIM", BAD)
        assert await faults(spool) == []
        await pass_time(spool, 0)
        assert (await taken(spool, line)).message_id == waiting


async def test_the_list(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        await into_quarantine(spool, line)
        await spool.accept(message(GOOD))
        await refuse(spool, line, await taken(spool, line, GOOD))  # once is no quarantine
        reader = Reader(spool.database)
        try:
            (view,) = await QuarantineReader(reader).page()
            assert (view.number, view.failures, view.sims, view.code) == (BAD, 3, (line.sim_id,), "CMS 1")
            assert (view.first_at, view.until, view.probe) == (spool.clock.ms, spool.clock.ms + HOUR, None)
            assert await QuarantineReader(reader).page(after=BAD) == []
        finally:
            await reader.close()
