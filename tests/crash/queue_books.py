"""What issue 4 promises of turns, intervals, quotas and operations, over all lives of a daemon.

By what the spool and its archive say was intended and started; it is read once nothing happens any more.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import sqlite3
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatewayd.spool.archive import whole_members
from tests.crash.books import Books, Found, Verdict, verdict

ROUNDING_MS = 2  # two moments are each cut to a whole millisecond


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try at a segment. Times in epoch ms; `event`: the id of the intent's event, which orders those of one moment
    (ids are used again once retention has deleted the newest).
    """

    idm: int
    seq: int
    event: int
    channel: str
    intent_at: int
    started_at: int | None
    outcome: str | None

    @property
    def start(self) -> int | None:
        """When AT+CMGS was written: of one that a kill cut off, when that was intended. None: it never was."""
        return self.intent_at if self.started_at is None and self.outcome == "in_doubt" else self.started_at


@dataclass(frozen=True, slots=True)
class Rules:
    """The configuration by which the daemons have worked: intervals by campaign (ms), ports of the dial string of
    `turn_of`; of each SIM, by its number, ICCID and quota.
    """

    intervals: Mapping[str, int] = field(default_factory=dict)
    turn_of: str = ""
    ports: Sequence[str] = ()
    sims: Mapping[str, tuple[str, int]] = field(default_factory=dict)


@dataclass
class History:
    """What the spool and its archive hold. `used`: segments of this month by ICCID; `channels`: (epoch ms,
    channel, state) as it was told; `passed`: (idm, channel) that a turn passed over; `operations`: states by id.
    """

    attempts: list[Attempt] = field(default_factory=list)
    passed: set[tuple[int, str]] = field(default_factory=set)
    channels: list[tuple[int, str, str]] = field(default_factory=list)
    used: dict[str, int] = field(default_factory=dict)
    operations: dict[int, str] = field(default_factory=dict)


def judge(books: Books, found: Found, history: History, rules: Rules) -> Verdict:
    """All promises."""
    result = verdict(books, found)
    campaigns = {books.answered[to]: sent.campaign for to, sent in books.submitted.items() if to in books.answered}
    begins = [
        each
        for each in sorted(history.attempts, key=lambda attempt: (attempt.intent_at, attempt.event))
        if each.seq == 1
    ]
    _turns(books, [each for each in begins if campaigns.get(each.idm) == rules.turn_of], history, rules, result)
    for campaign, interval in rules.intervals.items():
        starts = sorted(each.start for each in begins if campaigns.get(each.idm) == campaign and each.start is not None)
        for before, after in itertools.pairwise(starts):
            if after - before < interval - ROUNDING_MS:
                said = f"{campaign}: started at {before} and {after}, {after - before} ms apart instead of {interval}"
                result.fault(_life_at(books, after), "broken", said)
    _quotas(books, found, history, rules, result)
    for operation, action in books.ordered.items():
        if history.operations.get(operation) != "done":
            said = f"operation {operation} ({action}) was answered, and is {history.operations.get(operation)}"
            result.fault(0, "broken", said)
    return result


def _turns(books: Books, begins: list[Attempt], history: History, rules: Rules, result: Verdict) -> None:
    """Each begins at the port after the last one's, but for those that were not up then."""
    for before, now in itertools.pairwise(begins):
        at = rules.ports.index(before.channel) + 1
        order = [*rules.ports[at:], *rules.ports[:at]]
        for name in order[: order.index(now.channel)]:
            if (now.idm, name) not in history.passed and _is_up(books, history, name, now.intent_at):
                said = f"{now.idm} went to {now.channel} after {before.channel}, and {name} was up: {before}, {now}"
                result.fault(_life_at(books, now.intent_at), "broken", said)


def _is_up(books: Books, history: History, name: str, at: int) -> bool:
    """Whether a channel had told that it is ready, in this life of the daemon, and nothing else since."""
    begun = max((each for each in books.begun if each <= at), default=0)
    told = [state for when, channel, state in history.channels if channel == name and begun <= when <= at]
    return bool(told) and told[-1] == "ready"


def _quotas(books: Books, found: Found, history: History, rules: Rules, result: Verdict) -> None:
    """A SIM has sent no more than its limit, and what is counted is what went out or may have."""
    out = Counter(row["from"] for row in found.ledger if row["kind"] == "submit")
    for number, (iccid, limit) in rules.sims.items():
        used = history.used.get(iccid, 0)
        if not out[number] <= used <= limit:
            result.fault(0, "broken", f"{number} has sent {out[number]} of {limit} segments, and {used} are counted")
    counted = sum(1 for each in history.attempts if each.outcome in {"sent", "in_doubt", None})
    if sum(history.used.values()) != counted:
        said = f"{sum(history.used.values())} segments are counted; {counted} went out, or may have"
        result.fault(0, "broken", said)


def _life_at(books: Books, at: int) -> int:
    return max(0, bisect_right(books.begun, at) - 1)


# What there is to read.


@contextlib.contextmanager
def reading(url: str) -> Iterator[Callable[[str], list[Any]]]:
    """What gives the rows of a query on the spool at `url`. Raises LookupError for a file or table that is missing."""
    if url.startswith("sqlite:"):
        missing: type[Exception] = sqlite3.OperationalError
        path = Path(url.removeprefix("sqlite:///"))
        if not path.exists():
            raise LookupError(f"there is no {path}")
        connection: Any = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    else:
        import psycopg

        missing = psycopg.errors.UndefinedTable
        connection = psycopg.connect(url, autocommit=True)

    def rows(sql: str) -> list[Any]:
        try:
            return list(connection.execute(sql).fetchall())
        except missing as error:
            raise LookupError(str(error)) from None

    with contextlib.closing(connection):
        yield rows


def read(spool: str, archive: Path) -> History:
    """What a spool (its URL) that nobody writes to and its archive hold."""
    history = History()
    old = archived(archive)
    with reading(spool) as rows:
        there = {row[0] for row in rows("SELECT id FROM messages")}
        attempts = rows("SELECT message_id, seq, number, channel, intent_at, started_at, outcome FROM attempts")
        events = rows("SELECT id, message_id, seq, channel, event FROM events")
        told = rows("SELECT at, channel, data FROM outbox WHERE type = 'channel.state' ORDER BY id")
        history.used = dict(
            rows("SELECT sims.iccid, month_used FROM sim_usage JOIN sims ON sims.id = sim_usage.sim_id")
        )
        history.operations = dict(rows("SELECT id, state FROM operations"))
    for idm, record in old.items():
        if idm not in there:
            attempts += [(idm, *(each[name] for name in _ATTEMPT)) for each in record["attempts"]]
            events += [(each["id"], idm, *(each[name] for name in _EVENT)) for each in record["events"]]
    history.channels = [(at, channel, json.loads(data)["state"]) for at, channel, data in told]
    history.passed = {(idm, channel) for _, idm, _, channel, event in events if event == "turn passed over"}
    intents = sorted((idm, seq, id_) for id_, idm, seq, _, event in events if event == "intent")
    attempts.sort(key=lambda row: row[:3])
    history.attempts = [
        Attempt(idm, seq, event, channel, intent_at, started_at, outcome)
        for (idm, seq, event), (_, _, _, channel, intent_at, started_at, outcome) in zip(intents, attempts, strict=True)
    ]
    return history


_ATTEMPT = ("seq", "number", "channel", "intent_at", "started_at", "outcome")
_EVENT = ("seq", "channel", "event")


def archived(folder: Path) -> dict[int, dict[str, Any]]:
    """The messages in an archive, by idm. One may be there twice, alike; a member that a kill cut off is left out."""
    found: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.glob("messages-*.jsonl.gz")):
        with path.open("rb") as file:
            end = whole_members(file)
            file.seek(0)
            content = file.read(end)
        for line in gzip.GzipFile(fileobj=io.BytesIO(content)):
            record = json.loads(line)
            record |= {"idm": record["id"], "to": record["to_number"]}
            if found.setdefault(record["id"], record) != record:
                raise AssertionError(f"archived twice, and differently: {record}, {found[record['id']]}")
    return found
