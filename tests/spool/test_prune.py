"""Retention: what is old goes in small steps, what is deleted is archived first, what is open is never touched."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import logging
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from gatewayd.model import InDoubtPolicy, ReportVerdict
from gatewayd.router.events import body
from gatewayd.spool import prune, schema
from gatewayd.spool.archive import Archive, whole_members
from gatewayd.spool.deliveries import DeliveryReader, Told, record
from gatewayd.spool.events import DONE, Subscription
from gatewayd.spool.outbox_reader import OutboxReader
from gatewayd.spool.prune import PAGE, Pruner, RetentionPolicy
from gatewayd.spool.reader import Reader
from gatewayd.spool.reports import NewReport
from gatewayd.spool.writer import Tx
from tests.spool.helpers import START_MS, Sim, Spool, intake, message, open_spool

DAY_MS = 86_400_000
ROOT = Path(__file__).parents[2]
TABLES = ("messages", "segments", "attempts", "events", "status_reports", "inbound_messages", "inbound_parts")


def pruner(spool: Spool, content: int = 0, messages: int = 0, inbound: int = 0, folder: Path | None = None) -> Pruner:
    """One with these days of each."""
    policy = RetentionPolicy(content * DAY_MS, messages * DAY_MS, inbound * DAY_MS, folder)
    return Pruner(spool.database, spool.store.writer, spool.clock, policy, "spool-1", rest_share=0)


async def counts(spool: Spool) -> dict[str, int]:
    found = {}
    for name in TABLES:
        ((found[name],),) = await spool.rows(select(func.count()).select_from(schema.metadata.tables[name]))
    return found


def archived(folder: Path, kind: str = "messages") -> list[dict[str, Any]]:
    records = []
    for path in sorted(folder.glob(f"{kind}-*.jsonl.gz")):
        with gzip.open(path, "rt") as file:
            records += [json.loads(line) for line in file]
    return records


async def send(spool: Spool, count: int, **fields: Any) -> list[int]:
    ids = await spool.accept(*[message(f"+5989810{i:04}", **fields) for i in range(count)])
    assert await spool.claims(await spool.sim()) == list(ids)
    return list(ids)


async def test_texts_go_before_records_and_records_to_the_archive(database_url: str, tmp_path: Path) -> None:
    async with open_spool(database_url, intake=intake()) as spool:
        ids = await send(spool, 3, report=False)
        sim = Sim(spool)
        await sim.says("good day")
        await sim.read(sim_pdu := "FFFF")
        await sim.read(sim_pdu)  # seen again
        works = pruner(spool, content=2, messages=10, inbound=10, folder=tmp_path)
        assert await works.walk() == {}
        spool.clock.ms += 3 * DAY_MS
        assert await works.walk() == {"texts forgotten": 3, "inbound texts forgotten": 2, "PDUs forgotten": 3}
        assert {row[0] for row in await spool.rows(select(schema.messages.c.text))} == {""}
        dropped = select(schema.inbound_messages.c.text, schema.inbound_messages.c.text_dropped_at)
        assert await spool.rows(dropped) == [(None, spool.clock.ms)] * 2
        assert await works.walk() == {}
        spool.clock.ms += 8 * DAY_MS
        before = await counts(spool)
        done = await works.walk()
        assert done["messages deleted"] == 3
        assert done["inbound messages deleted"] == 2
        assert set((await counts(spool)).values()) == {0}
        await works.close()
    records = archived(tmp_path)
    assert [(record["spool"], record["id"], record["to_number"]) for record in records] == [
        ("spool-1", idm, f"+5989810{i:04}") for i, idm in enumerate(ids)
    ]
    for table in ("segments", "attempts", "events"):
        assert sum(len(record[table]) for record in records) == before[table], table
    assert [record["channel"] for record in archived(tmp_path, "inbound")] == ["m0", "m0"]
    assert all(record["inbound_parts"] for record in archived(tmp_path, "inbound"))
    assert {path.name for path in tmp_path.glob("*.gz")} == {
        "messages-2026-09-21.jsonl.gz", "inbound-2026-09-21.jsonl.gz",
    }  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.gz")} <= {0o640, 0o600}


async def test_what_is_open_is_never_touched(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        await spool.accept(message("+59898000001", in_doubt=InDoubtPolicy.HOLD))
        claim = await spool.claim(line)
        assert claim is not None
        await spool.accept(message("+59898000002"))
        second = await spool.claim(line, spool.doubtful(claim))
        assert second is not None, "in hand"
        await spool.accept(message("+59898000003"), message("+59898000004", channel="gone"))
        await spool.store.settle_pins(["m0"])
        before = await counts(spool)
        spool.clock.ms += 100 * DAY_MS
        works = pruner(spool, content=1, messages=7, inbound=7)
        assert await works.walk() == {}
        assert await counts(spool) == before
        assert await spool.claim(line, spool.sent(second)) is not None
        assert await works.walk() == {}, "it came to its end just now, and waits for its report"
        spool.clock.ms += 3 * DAY_MS
        await spool.store.advance()
        spool.clock.ms += 3 * DAY_MS
        assert (await works.walk()).keys() == {"texts forgotten"}, "what came to its end late is found all the same"
        await works.close()


@pytest.mark.parametrize("removed", [False, True])
async def test_what_an_application_is_still_to_be_told_of_is_kept_till_then(database_url: str, removed: bool) -> None:
    """Events are made of the records when they are told: a webhook that is down over a weekend gets the text all the
    same, and the same octets as in the tries before. One that was removed from the configuration is not waited for.
    """
    hooks = [Subscription("webhook:crm")]
    async with open_spool(database_url, intake=intake(), subscriptions=hooks) as spool:
        reader = Reader(spool.database)
        deliveries, outbox = DeliveryReader(reader), OutboxReader(reader)

        async def told() -> dict[int, bytes]:
            heads = await deliveries.heads("webhook:crm", 0, 100)
            records = await outbox.records([head.outbox_id for head in heads])
            return {id_: body(each, "s") for id_, each in records.items()}

        await send(spool, 1, report=False)
        await Sim(spool).says("good day")
        before = await told()
        assert b"good day" in b"".join(before.values())
        works = pruner(spool, content=1, messages=7, inbound=7)
        for _ in range(2):
            spool.clock.ms += 9 * DAY_MS
            assert await works.walk() == {}
            assert await told() == before
        heads = await deliveries.heads("webhook:crm", 0, 100)
        done = [Told(head.id, DONE, 1, head.next_at, spool.clock.ms, 200, "") for head in heads]
        if removed:
            spool.clock.ms += 13 * DAY_MS
        else:
            await spool.store.writer.run(lambda tx: record(tx, done))
        assert (await works.walk()).keys() == {"messages deleted", "inbound messages deleted"}
        await works.close()
        await reader.close()


async def test_an_event_about_what_was_deleted_still_says_about_what(database_url: str) -> None:
    """A dead letter that is replayed later than retention keeps its message."""
    async with open_spool(database_url, intake=intake()) as spool:
        (idm,) = await send(spool, 1, report=False)
        await Sim(spool).says("good day")
        spool.clock.ms += 8 * DAY_MS
        works = pruner(spool, messages=7, inbound=7)
        assert (await works.walk()).keys() == {"messages deleted", "inbound messages deleted"}
        await works.close()
        reader = Reader(spool.database)
        records = await OutboxReader(reader).records([1, 2, 3])
        await reader.close()
        said = [json.loads(body(records[event], "s"))["data"] for event in (1, 2, 3)]
        assert [(data.get("idm"), data.get("state")) for data in said] == [(idm, 1), (idm, 2), (None, None)]
        assert said[2] == {"id": 1}


async def test_a_late_report_of_a_pruned_message_is_kept_as_unmatched(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        await send(spool, 1, report=False)
        spool.clock.ms += 8 * DAY_MS
        works = pruner(spool, messages=7)
        assert await works.walk() == {"messages deleted": 1}
        late = NewReport("m0", 1, 1, "+59898100000", 0, ReportVerdict.DELIVERED, "", None, None, "AA", "1")
        matched = await spool.store.report(late)
        assert matched.message_id is None
        assert (await counts(spool))["status_reports"] == 1
        spool.clock.ms += 8 * DAY_MS
        assert await works.walk() == {"unmatched reports deleted": 1}
        await works.close()


async def test_it_goes_in_steps_and_claims_go_first(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in steps: what waits urgently is in the next transaction, however much there is to delete."""
    async with open_spool(database_url) as spool:
        await send(spool, 3 * PAGE + 1, report=False)
        spool.clock.ms += 8 * DAY_MS
        line = await spool.sim()
        await spool.accept(*[message(f"+5989811{i:04}") for i in range(10)])
        sizes: list[int] = []
        apply, claims = prune.apply, []

        def counted(found: Any, steps: Any, params: Any, archived: Any, tx: Tx) -> int:
            sizes.append(apply(found, steps, params, archived, tx))
            return sizes[-1]

        monkeypatch.setattr(prune, "apply", counted)
        works = pruner(spool, messages=7)
        walking = asyncio.create_task(works.walk())
        while not walking.done() and len(claims) < 10:
            claim = await spool.claim(line)
            assert claim is not None
            claims.append(len(sizes))
        assert await walking == {"messages deleted": 3 * PAGE + 1}
        assert sizes == [PAGE, PAGE, PAGE, 1]
        # The page that is under way, and one that shares the claim's transaction.
        assert all(later - earlier <= 2 for earlier, later in itertools.pairwise(claims)), claims
        await works.close()


async def test_what_is_seen_is_not_looked_at_again_and_again(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_spool(sqlite_url) as spool:
        await send(spool, 2 * PAGE)
        spool.clock.ms += 3 * DAY_MS
        works = pruner(spool, content=1)
        await works.walk()
        reads = 0
        read = Pruner._read

        def counted(*arguments: Any) -> Any:
            nonlocal reads
            reads += 1
            return read(*arguments)

        monkeypatch.setattr(Pruner, "_read", counted)
        spool.clock.ms += 1000
        await works.walk()
        assert reads == 3, "one look for each of the three walks"
        spool.clock.ms += prune.WHOLE_EVERY_MS
        await works.walk()
        assert reads == 3 + 5, "once a day from the beginning"
        await works.close()


async def test_an_archive_that_fails_keeps_the_records(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_spool(sqlite_url) as spool:
        await send(spool, 2, report=False)
        spool.clock.ms += 8 * DAY_MS
        works = pruner(spool, messages=7, folder=tmp_path / "none")
        assert await works.walk() == {}
        assert await works.walk() == {}
        said = [record.levelno for record in caplog.records if "the archive fails" in record.message]
        assert said.count(logging.WARNING) == 1
        assert (await counts(spool))["messages"] == 2
        (tmp_path / "none").mkdir()
        assert await works.walk() == {"messages deleted": 2}
        assert len(archived(tmp_path / "none")) == 2
        await works.close()


DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from gatewayd.spool import prune
from tests.spool.helpers import FakeClock, open_spool

async def main(url, folder, now, when):
    apply = prune.apply
    def dying(*arguments):
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        return apply(*arguments)
    prune.apply = dying
    if when == "inside":
        write = prune.Archive._append.__globals__["_write_all"]
        def half(file, data):
            write(file, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        prune.Archive._append.__globals__["_write_all"] = half
    async with open_spool(url, clock=FakeClock(now)) as spool:
        policy = prune.RetentionPolicy(0, 1000, 0, Path(folder))
        await prune.Pruner(spool.database, spool.store.writer, spool.clock, policy, "s", rest_share=0).walk()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
"""


async def test_a_kill_between_archive_and_delete_leaves_no_hole(sqlite_url: str, tmp_path: Path) -> None:
    async with open_spool(sqlite_url) as spool:
        ids = await send(spool, PAGE + 5, report=False)
    now = START_MS + 8 * DAY_MS
    for when in ("before", "inside", "before", "never"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DYING, sqlite_url, str(tmp_path), str(now), when, cwd=ROOT
        )
        assert await process.wait() == (0 if when == "never" else -signal.SIGKILL)
    async with open_spool(sqlite_url) as spool:
        assert (await counts(spool))["messages"] == 0
    times = Counter(record["id"] for record in archived(tmp_path))
    assert set(times) == set(ids), "every deleted one is in the files"
    assert max(times.values()) == 3, "twice more, before the kills, and recognisable by its id"


def test_a_member_that_was_cut_off_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Archive(tmp_path).append("x", [(START_MS, {"id": 1}), (START_MS + DAY_MS, {"id": 2})])
    (first, second) = sorted(tmp_path.glob("x-*"))
    whole = first.read_bytes()
    for cut in range(1, len(whole)):
        first.write_bytes(whole + whole[:cut])
        with first.open("rb", buffering=0) as file:
            assert whole_members(file) == len(whole)
    first.write_bytes(whole + b"\0" * 100)
    archive = Archive(tmp_path)
    archive.append("x", [(START_MS, {"id": 3, "octets": b"\x01\xff"})])
    archive.append("x", [(START_MS, {"id": 4})])
    assert "that a crash cut off are removed" in caplog.text
    with gzip.open(first, "rt") as lines:
        assert [json.loads(line) for line in lines] == [{"id": 1}, {"id": 3, "octets": "01ff"}, {"id": 4}]
    with gzip.open(second, "rt") as lines:
        assert [json.loads(line) for line in lines] == [{"id": 2}]


async def test_what_guards_remember_is_forgotten(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        now = spool.clock.ms

        def fill(tx: Tx) -> None:
            for i, age in enumerate((0, 100 * DAY_MS)):
                tx.add(schema.recent_texts, {"digest": bytes([i]), "message_id": i, "at": now - age})
                tx.add(schema.sim_recipients, {"sim_id": i, "number": "+1", "month_start": now - age, "intents": 1})
                for until in (None, now - 1, now + 1000):
                    fault = {"number": f"{i}{until}", "failures": 1, "sims": "", "code": "", "detail": ""}
                    tx.add(schema.number_faults, {**fault, "first_at": 0, "last_at": now - age, "until": until})

        await spool.store.writer.run(fill)
        await spool.store.advance()
        for table, left in (("recent_texts", 1), ("sim_recipients", 1), ("number_faults", 4)):
            found = await spool.rows(select(func.count()).select_from(schema.metadata.tables[table]))
            assert found == [(left,)], table
