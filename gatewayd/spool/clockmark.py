"""The newest time in the spool, by which a clock that was set back is known; and an operator's word that it is right.

Of the last entries the newest time counts, and not only that of the last: what is written while the clock is behind
has old times. So that a restart does not forget either, the newest time is written down when the clock is found behind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import bindparam, func, select

from gatewayd.clock import iso
from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.settings import NEW_SETTING, SET, audit, setting
from gatewayd.spool.writer import Tx

NEWEST = "clock_newest"
"""Name of the setting that holds the newest time known, in epoch ms, when the clock was found behind it."""

ACCEPTED = "clock_accepted"
"""Name of the setting that says when, by whom and in which boot of the machine the clock was said to be right, and
which event of the spool was the last then."""

LOOKED_AT = 1000

_e = schema.events.c
LAST_TIMES = Statement(
    select(_e.at).where(_e.id > bindparam("after")).order_by(_e.id.desc()).limit(schema.sqltext(LOOKED_AT))
)
LAST_ID = Statement(select(func.max(_e.id)))


@dataclass(frozen=True, slots=True)
class ClockMark:
    """`newest_ms`: the newest time that counts, 0 in an empty spool.

    `accepted_ms`: what the clock read when it was last said to be right (None: never was), `accepted_by` by whom,
    `boot` in which boot of the machine ("" if that is not known).
    """

    newest_ms: int = 0
    accepted_ms: int | None = None
    accepted_by: str = ""
    boot: str = ""


def read(tx: Tx) -> ClockMark:
    """What the spool knows of the time."""
    tx.flush()
    kept = setting(tx, ACCEPTED)
    accepted = {} if kept is None else json.loads(kept)
    times = [int(at) for (at,) in tx.all(LAST_TIMES, {"after": accepted.get("event", 0)})]
    newest = max([int(setting(tx, NEWEST) or 0), accepted.get("at", 0), *times])
    return ClockMark(newest, accepted.get("at"), accepted.get("by", ""), accepted.get("boot", ""))


def keep(tx: Tx, newest_ms: int) -> None:
    """Write down the newest time known: the clock is behind it."""
    _put(tx, NEWEST, str(newest_ms))


def accept(tx: Tx, now: int, actor: str, boot: str) -> ClockMark:
    """The clock is right, says `actor`: what is newer than `now` counts no more."""
    before = read(tx)
    row = tx.one(LAST_ID, {})
    last = 0 if row is None or row[0] is None else int(row[0])
    _put(tx, ACCEPTED, json.dumps({"at": now, "event": last, "by": actor, "boot": boot}))
    keep(tx, now)
    audit(tx, actor, "accepted the clock", f"it read {iso(now)}; the newest entry was of {iso(before.newest_ms)}", now)
    return ClockMark(now, now, actor, boot)


def _put(tx: Tx, name: str, value: str) -> None:
    if tx.run(SET, {"b_name": name, "v_value": value}) == 0:
        tx.run(NEW_SETTING, {"name": name, "value": value})
