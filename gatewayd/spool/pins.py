"""Messages that are pinned to a channel: held while the configuration does not have it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sqlalchemy import bindparam, select

from gatewayd.model import SegmentState as S
from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.lifecycle import Command
from gatewayd.spool.moves import Owner, move, refold, segments_of, set_aside
from gatewayd.spool.writer import STEP, Tx

_m = schema.messages.c
PIN = "pin"  # value of messages.held

_of_pin = (schema.PINNED, _m.pin_channel == bindparam("channel"))
PINS = Statement(select(schema.lanes.c.channel).where(schema.lanes.c.channel != schema.sqltext("")))
TO_HOLD = Statement(
    select(_m.id)
    .where(*_of_pin, _m.queue > schema.sqltext(schema.OUT), _m.queue < schema.sqltext(schema.KEPT))
    .order_by(_m.id)
    .limit(schema.sqltext(STEP))
)
TO_RELEASE = Statement(
    select(_m.id)
    .where(*_of_pin, _m.queue == schema.sqltext(schema.KEPT), _m.held == schema.sqltext(PIN))
    .order_by(_m.id)
    .limit(schema.sqltext(STEP))
)


@dataclass(frozen=True, slots=True)
class Settled:
    """How many messages were held and released; `more`: it was a step of it, so ask again."""

    held: int = 0
    released: int = 0
    more: bool = False


def settle_pins(tx: Tx, book: LaneBook, channels: frozenset[str], owner: Owner, now: int) -> Settled:
    """Hold what is pinned to channels that the configuration does not have; release what was held for a channel that
    is back. A bounded step of it.
    """
    tx.flush()
    held = released = 0
    more = False
    for channel in sorted({row[0] for row in tx.all(PINS, {})}):
        reason = f"held: the configuration has no channel {channel}, which it is pinned to"
        if channel in channels:
            rows = tx.all(TO_RELEASE, {"channel": channel})
            released += len(rows)
            command, source, said, left = Command.RELEASE, S.HELD, f"channel {channel} is back", ""
        else:
            rows = tx.all(TO_HOLD, {"channel": channel})
            held += len(rows)
            command, source, said, left = Command.HOLD, S.QUEUED, reason, reason
        more = more or len(rows) == STEP
        for (message_id,) in rows:
            tx.guard(
                partial(_settle, tx, book, message_id, source, command, said, left, now, owner),
                partial(set_aside, tx, book, message_id, now),
            )
    return Settled(held, released, more)


def _settle(
    tx: Tx, book: LaneBook, message_id: int, source: S, command: Command, said: str, left: str, now: int, owner: Owner
) -> None:
    for segment in segments_of(tx, message_id):
        if segment.state is source:
            move(tx, segment, command, now, detail=said)
    refold(tx, book, message_id, now, owner, reason=left, held=PIN if command is Command.HOLD else None)
