"""A spool that is not the newest of its kind: restored from a backup, or an older copy put in its place.

What it takes for unsent may have been sent since, so nothing goes out by itself: sending is paused, everything unsent
is held (`RESTORE`), and what would be sent again by its policy waits for a person. Ids that were given since are not
given again. All of it survives a crash: the mark is a setting, taken away once everything is held.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial

from sqlalchemy import bindparam, null, select, update

from gatewayd.clock import iso
from gatewayd.model import InDoubtPolicy, MessageState
from gatewayd.model import SegmentState as S
from gatewayd.spool import schema
from gatewayd.spool.counters import MESSAGE, OUTBOX, RECEIVED
from gatewayd.spool.engine import Statement
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.lifecycle import Command
from gatewayd.spool.moves import Owner, event, move, refold, segments_of, set_aside
from gatewayd.spool.settings import PAUSED, set_setting, setting
from gatewayd.spool.witness import Known
from gatewayd.spool.writer import STEP, Tx

MARK = "restored"
"""Name of the setting that marks a spool as restored; JSON with a `reason`, "" once all is held."""

RESTORE = "restore"  # value of messages.held
ACTOR = "gatewayd"
ID_GAP = 1_000_000
"""How many ids are left out after those known: what was given between backup and loss must not be given again."""

_m = schema.messages.c
_s = schema.segments.c

UNSENT = Statement(
    select(_m.id, _m.in_doubt, _m.held)
    .where(_m.state == schema.sqltext(MessageState.TO_PROCESS.value), _m.id > bindparam("after"))
    .order_by(_m.id)
    .limit(schema.sqltext(STEP))
)
TO_BE_RESENT = Statement(
    select(_m.id)
    .where(
        _m.state == schema.sqltext(MessageState.IN_DOUBT.value),
        _m.id > bindparam("after"),
        _m.in_doubt == schema.sqltext(InDoubtPolicy.RESEND.value),
    )
    .order_by(_m.id)
    .limit(schema.sqltext(STEP))
)
WAIT_FOR_A_PERSON = Statement(
    update(schema.messages)
    .where(_m.id == bindparam("b_id"))
    .values(in_doubt=schema.sqltext(InDoubtPolicy.HOLD.value), updated_at=bindparam("v_updated_at"))
)
NO_DEADLINES = Statement(
    update(schema.segments)
    .where(_s.message_id == bindparam("b_id"), _s.state == schema.sqltext(S.IN_DOUBT.value))
    .values(deadline_at=null())
)
STOP_OPERATIONS = Statement(
    update(schema.operations)
    .where(schema.operations.c.state == schema.sqltext("running"))
    .values(state=schema.sqltext("stopped"), finished_at=bindparam("v_at"))
)
RAISE_COUNTER = Statement(
    update(schema.counters)
    .where(schema.counters.c.name == bindparam("b_name"), schema.counters.c.value < bindparam("b_value"))
    .values(value=bindparam("b_value"))
)


@dataclass(frozen=True, slots=True)
class Held:
    """What a step has held; `after`: where the next one begins, None if there is nothing more."""

    count: int
    after: tuple[int, int] | None


def moment(at: int) -> str:
    """Epoch ms as people read it: "2026-11-28 10:40:00 UTC"."""
    return f"{(iso(at) or '')[:19].replace('T', ' ')} UTC"


def mark(tx: Tx, at: int | None, actor: str, now: int) -> str:
    """Mark the spool as restored from a backup of `at` (epoch ms; None: nobody knows); the reason that will be told."""
    reason = "restored from a backup" if at is None else f"restored from backup of {moment(at)}"
    set_setting(tx, MARK, json.dumps({"reason": reason}), actor, now)
    return reason


def why(tx: Tx, here: Known, witness: Known | None) -> str:
    """Why this spool is not the newest; "" if it is."""
    said = setting(tx, MARK)
    if said:
        return str(json.loads(said)["reason"])
    if witness is None or not witness.reached_beyond(here):
        return ""
    return (
        "an older copy of the spool: older than its witness file, "
        f"by which it had reached message {witness.messages} at {moment(witness.at)}"
    )


def begin(tx: Tx, reason: str, here: Known, witness: Known | None, now: int) -> None:
    """Pause all sending, mark the spool till everything is held, and leave out the ids that were given since.

    What an operator had ordered for many messages ends here: it might release them.
    """
    tx.run(STOP_OPERATIONS, {"v_at": now})
    set_setting(tx, MARK, json.dumps({"reason": reason}), ACTOR, now)
    said = f"{reason}. What was unsent in it is held, for it may have been sent since: look, release, then resume"
    paused = json.loads(setting(tx, PAUSED) or "{}")
    if paused and paused["actor"] != ACTOR:  # whoever resumes has to know that somebody wanted it paused before
        was = f": {paused['reason']}" if paused.get("reason") else ""
        said += f". In the backup it was paused by {paused['actor']} at {moment(paused['at'])}{was}"
    elif paused and paused["reason"].startswith(said):  # a crash cut this off, and it begins anew
        said = paused["reason"]
    set_setting(tx, PAUSED, json.dumps({"actor": ACTOR, "at": now, "reason": said}), ACTOR, now)
    ours = witness if witness is not None and witness.spool_id == here.spool_id else here
    for name, mine, known in (
        (MESSAGE, here.messages, ours.messages),
        (RECEIVED, here.inbound, ours.inbound),
        (OUTBOX, here.events, ours.events),
    ):
        tx.run(RAISE_COUNTER, {"b_name": name, "b_value": max(mine, known) + ID_GAP})


def hold_step(tx: Tx, book: LaneBook, after: tuple[int, int], reason: str, owner: Owner, now: int) -> Held:
    """Hold some of what is unsent. `after`: (0, 0) at first; the walk, and the id it has come to."""
    tx.flush()
    walk, last = after
    if walk == 0:
        rows = tx.all(UNSENT, {"after": last})
        for message_id, in_doubt, held in rows:
            tx.guard(
                partial(_hold, tx, book, message_id, in_doubt, held, reason, owner, now),
                partial(set_aside, tx, book, message_id, now),
            )
    else:
        rows = tx.all(TO_BE_RESENT, {"after": last})
        for (message_id,) in rows:
            _wait_for_a_person(tx, message_id, reason, now)
    if len(rows) == STEP:
        return Held(len(rows), (walk, rows[-1][0]))
    return Held(len(rows), (1, 0) if walk == 0 else None)


def end(tx: Tx, now: int) -> None:
    """Everything is held: take the mark away. Sending stays paused."""
    set_setting(tx, MARK, "", ACTOR, now)


def _hold(
    tx: Tx, book: LaneBook, message_id: int, in_doubt: str, held: str, reason: str, owner: Owner, now: int
) -> None:
    segments = segments_of(tx, message_id)
    states = {segment.state for segment in segments}
    for segment in segments:
        if segment.state is S.QUEUED:
            move(tx, segment, Command.HOLD, now, actor=ACTOR, detail=reason)
    if S.HELD in states and S.QUEUED not in states and held != RESTORE:  # or a channel that is back would release it
        event(tx, message_id, now, Command.HOLD.value, from_state=S.HELD, to_state=S.HELD, actor=ACTOR, detail=reason)
    if states & {S.QUEUED, S.HELD}:
        refold(tx, book, message_id, now, owner, reason=reason, held=RESTORE)
    if in_doubt == InDoubtPolicy.RESEND and S.IN_DOUBT in states:
        _wait_for_a_person(tx, message_id, reason, now)


def _wait_for_a_person(tx: Tx, message_id: int, reason: str, now: int) -> None:
    """Policy `resend` is taken from a message in doubt: the doubt may have been settled since."""
    if all(segment.state is not S.IN_DOUBT for segment in segments_of(tx, message_id)):
        return
    tx.run(WAIT_FOR_A_PERSON, {"b_id": message_id, "v_updated_at": now})
    tx.run(NO_DEADLINES, {"b_id": message_id})
    event(tx, message_id, now, "not sent again", actor=ACTOR, detail=f"{reason}: an operator has to settle the doubt")
