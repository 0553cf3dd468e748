"""Each statement of the writer finds its rows by an index: it costs the same with ten rows and with ten million."""

from __future__ import annotations

import re
import sqlite3

import pytest

from gatewayd.spool import (
    accept,
    channel_modes,
    clockmark,
    counters,
    guards,
    inbound,
    lanes,
    migrate,
    moves,
    operations,
    optouts,
    orders,
    pins,
    prune,
    quarantine,
    queue_actions,
    quota,
    reports,
    restored,
    retention,
    senders,
    settings,
    sims,
    starts,
    turns,
    upkeep,
    usage,
    witness,
    work,
)
from gatewayd.spool.engine import Statement, open_database

MODULES = (
    accept, channel_modes, clockmark, counters, guards, inbound, lanes, moves, operations, optouts, orders, pins, prune,
    quarantine, queue_actions, quota, reports, restored, retention, senders, settings, sims, starts, turns, upkeep,
    usage, witness, work,
)  # fmt: skip
STATEMENTS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in (
        accept,
        channel_modes,
        clockmark,
        counters,
        guards,
        inbound,
        lanes,
        moves,
        operations,
        optouts,
        orders,
        pins,
        prune,
        quarantine,
        queue_actions,
        quota,
        reports,
        restored,
        retention,
        senders,
        settings,
        sims,
        starts,
        turns,
        upkeep,
        usage,
        witness,
        work,
    )
    for name, value in vars(module).items()
    if isinstance(value, Statement) and value.columns is None
}

ALLOWED = {
    "channel_modes.MODES": "SCAN channels",  # a small table
    "lanes.ALL_LANES": "SCAN lanes",  # a small table
    "starts.ALL_STARTS": "SCAN dialer_starts",  # a small table
    "turns.ALL_TURNS": "SCAN turns",  # a small table
    "operations.FIRST_RUNNING": "SCAN operations USING INDEX ix_operations_running",  # only those under way, one row
    "restored.STOP_OPERATIONS": "SCAN operations USING INDEX ix_operations_running",  # those under way, after a restore
    "quarantine.KNOWN": "SCAN number_faults USING COVERING INDEX ix_number_faults_last",  # a bounded piece
    "upkeep.NEWEST_EVENT": "SCAN events",  # backwards, one row
    # These look at all that is under way, or put off; and run at a start, after trouble, or when the clock went back.
    "pins.PINS": "SCAN lanes",
    "upkeep.BUSY_OF_ALL": "SCAN messages USING INDEX ix_messages_busy",
    "upkeep.BUSY_OF": "SCAN messages USING INDEX ix_messages_busy",
    "upkeep.ORPHANS_BEHIND": "SCAN messages USING INDEX ix_messages_behind",
    "upkeep.DELAYS_FROM_THE_FUTURE": "SCAN messages USING INDEX ix_messages_put_off",
}


BY_STATE = {"restored.UNSENT", "restored.TO_BE_RESENT"}
"""Walk through all that are in a state, a bounded step after the other."""


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_reads_or_sorts_a_table(sqlite_url: str, name: str) -> None:
    database = open_database(sqlite_url)
    migrate.migrate(database)
    sql, _ = database.compiled(STATEMENTS[name])
    connection = sqlite3.connect(database.url.database or "")
    try:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", dict.fromkeys(re.findall(r":(\w+)", sql), 1)).fetchall()
    finally:
        connection.close()
    steps = [row[3] for row in plan]
    assert steps
    assert not [step for step in steps if "TEMP B-TREE" in step]
    by_state = [step for step in steps if "ix_messages_state" in step]  # finds all that waits, a million perhaps
    assert not by_state or name in BY_STATE
    scans = [step for step in steps if step.startswith("SCAN")]
    assert scans[:1] == ([ALLOWED[name]] if name in ALLOWED else [])


def test_what_is_allowed_to_scan_still_exists() -> None:
    assert set(ALLOWED) | BY_STATE <= set(STATEMENTS)
