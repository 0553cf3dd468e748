"""Spools with any number of messages, made by bulk inserts of the shape that the schema wants."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Table

from gatewayd.model import Admission, Delivery, InDoubtPolicy, MessageState, SegmentState
from gatewayd.spool import schema
from gatewayd.spool.counters import MESSAGE, OUTBOX
from gatewayd.spool.engine import open_database
from gatewayd.spool.events import ACCEPTED
from gatewayd.spool.migrate import migrate

OCTETS_PER_MESSAGE = 700  # of the file
STEP = 1_000_000  # messages in one transaction
AGE_MS = 3_600_000  # how long ago the first one was accepted
CLOSED = "closed"  # the channel that messages in closed lanes are pinned to
TEXT = "Your order has left our warehouse and will be with you tomorrow between 9 and 12"


@dataclass(frozen=True, slots=True)
class Group:
    """`count` messages spread over `lanes` lanes. `pin` is the channel they are pinned to; with several lanes a number
    is put after it.
    """

    count: int
    pin: str = ""
    lanes: int = 1
    priority: int = 0

    def pins(self) -> list[str]:
        return [self.pin] if self.lanes == 1 else [f"{self.pin}{i}" for i in range(self.lanes)]


def room_for(folder: Path, messages: int) -> None:
    """Raises OSError if the disk does not have the room that so many messages need."""
    need, free = messages * OCTETS_PER_MESSAGE, shutil.disk_usage(folder).free
    if free < 1.2 * need:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB left and {messages} messages need {1.2 * need / 1e9:.1f} GB: "
            "name another folder with --dir"
        )


def fill(path: Path, groups: Sequence[Group]) -> float:
    """Make a spool with these messages, all due, in the order of the groups; returns the seconds it took."""
    begun = time.monotonic()
    room_for(path.parent, sum(group.count for group in groups))
    migrate(open_database(f"sqlite:///{path}"))
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -200000", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        first = 1
        for group in groups:
            lane = _lanes(connection, group)
            for start in range(first, first + group.count, STEP):
                _insert(connection, group, lane, start, min(start + STEP, first + group.count))
            first += group.count
        connection.execute("UPDATE counters SET value = ? WHERE name IN (?, ?)", (first - 1, MESSAGE, OUTBOX))
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    settle(path)
    return time.monotonic() - begun


def settle(path: Path) -> None:
    """Have all of it on disk, or its way there would hold up the first commits that are measured."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _lanes(connection: sqlite3.Connection, group: Group) -> int:
    """Make the lanes of a group; the id of the first."""
    first = 0
    for pin in group.pins():
        row = connection.execute(
            "INSERT INTO lanes (key, source, target, channel, sim_id, avoid_sim_id) VALUES (?, ?, 'any', ?, 0, 0)",
            (f"class:application|any|{pin}|0|0", "class:application", pin),
        )
        first = first or int(row.lastrowid or 0)
    return first


def _insert(connection: sqlite3.Connection, group: Group, lane: int, start: int, end: int) -> None:
    """Messages `start` to `end` - 1, with what the acceptance of each leaves behind."""
    now = int(time.time() * 1000)
    at = f"{now - AGE_MS} + n % {AGE_MS // 2}"
    numbered = f"'{group.pin}' || ((n - {start}) % {group.lanes})" if group.lanes > 1 else f"'{group.pin}'"
    state = int(MessageState.TO_PROCESS)
    number = "'+5989' || (100000000 + n) || '77'"  # a subscriber who takes it and answers nothing
    lanes = f"{lane} + (n - {start}) % {group.lanes}"
    messages = {
        "id": "n", "position": "n", "priority": str(group.priority), "lane_id": lanes,
        "queue": str(schema.DUE), "due_at": at, "admission": f"'{Admission.ADMITTED.value}'", "state": str(state),
        "delivery": f"'{Delivery.NONE.value}'", "class": "'application'", "to_given": number,
        "to_number": number, "text": f"'{TEXT} ' || n", "alphabet": "'gsm7'", "segments": "1",
        "concat_ref": "n % 65536", "report": "0", "in_doubt": f"'{InDoubtPolicy.FAIL.value}'",
        "source": "'class:application'", "target": "'any'", "pin_channel": numbered, "campaign": "'bench'",
        "client_ref": "'ref-' || n", "api_key": "'bench'", "accepted_at": at, "updated_at": at,
        "optout_checked_at": at,
    }  # fmt: skip
    segments = {"message_id": "n", "seq": "1", "state": f"'{SegmentState.QUEUED.value}'"}
    events = {
        "message_id": "n", "at": at, "event": "'accepted'", "to_state": f"'{SegmentState.QUEUED.value}'",
        "actor": "'bench'",
    }  # fmt: skip
    outbox = {"id": "n", "at": at, "type": f"'{ACCEPTED}'", "message_id": "n",
              "data": f"""'{{"state":{state},"delivery":"none","reason":"","segments":1}}'"""}  # fmt: skip
    connection.execute("BEGIN")
    for table, values in (
        (schema.messages, messages), (schema.segments, segments), (schema.events, events), (schema.outbox, outbox),
    ):  # fmt: skip
        connection.execute(_bulk(table, values), {"start": start, "end": end})
    connection.execute("COMMIT")


def _bulk(table: Table, values: Mapping[str, str]) -> str:
    """INSERT … SELECT over n = :start … :end - 1. Raises AssertionError where the schema wants more than is given."""
    wanted = {
        column.name
        for column in table.columns
        if not column.nullable and column.server_default is None and not (column.primary_key and column.name == "id")
    }
    missing = wanted - values.keys()
    assert not missing, f"{table.name} has new columns that must be filled here: {sorted(missing)}"
    columns = ", ".join(f'"{name}"' for name in values)
    return (
        "WITH RECURSIVE numbers(n) AS (SELECT :start UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :end) "
        f'INSERT INTO "{table.name}" ({columns}) SELECT {", ".join(values.values())} FROM numbers'
    )
