"""The hot path: the outcome of one segment and the intent of the next in one commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy import bindparam, delete, select, update

from gatewayd.errors import EncodeError
from gatewayd.model import FailureClass, InDoubtPolicy, Message, MessageClass, Outcome, Segment
from gatewayd.model import SegmentState as S
from gatewayd.spool import optouts, quarantine, quota, reports, schema, senders, starts, turns
from gatewayd.spool.accept import add_segment
from gatewayd.spool.engine import Statement, set_to
from gatewayd.spool.lanes import Lane, LaneBook
from gatewayd.spool.lifecycle import Command
from gatewayd.spool.moves import Owner, SegmentRow, event, move, refold, segments_of, set_aside
from gatewayd.spool.quarantine import QuarantinePolicy
from gatewayd.spool.quota import QuotaLeft, SimQuota, Spent
from gatewayd.spool.retry import Action, RetryPolicy, decide
from gatewayd.spool.writer import Tx

PREFER = "prefer:"  # begins a target that a SIM goes before: prefer:ID:TARGET
SHORT = frozenset({"minute", "hour"})  # periods of a quota for which a message waits at its place
MAX_CANDIDATES = 100  # looked at in one transaction, so that it stays short whatever lies at the heads


@dataclass(frozen=True, slots=True)
class Line:
    """A channel that asks: its name and the SIM in it (its id in the spool)."""

    channel: str
    sim_id: int


def _never(lane: Lane) -> None:
    return None


def _nameless(lane: Lane) -> str:
    return ""


@dataclass(slots=True)
class Want:
    """What a channel may take. `serves` decides lane by lane; `plan` is the channel's.

    `urgent` lanes go before all others. `sticky`: later messages to a number are to come from the same SIM.
    `closes_at`: when the validity given to the network has to end (epoch ms), if it has to. `turn`: for a lane with a
    dial string the turn's key, this channel's port, and whom it passes over. `took` is told of a lane of which a
    message is begun, and says under which name that start is kept ("": under none). All are called in the writer's
    thread, and must not wait.
    """

    serves: Callable[[Lane], bool]
    plan: Callable[[Message], list[Segment]]
    quota: SimQuota = field(default_factory=SimQuota)
    urgent: Callable[[Lane], bool] = lambda lane: False
    sticky: Callable[[Lane], bool] = lambda lane: False
    closes_at: Callable[[Lane], int | None] = _never
    turn: Callable[[Lane], tuple[str, int, Sequence[str]] | None] = _never
    took: Callable[[Lane], str] = _nameless


@dataclass(frozen=True, slots=True)
class Claim:
    """One segment, marked SUBMITTING on disk. `attempt` numbers the try at it, from 1.

    `line` is the channel and the SIM it was marked for: they stay so, whatever SIM the channel has by the time the
    outcome is known.
    """

    segment: Segment
    line: Line
    attempt: int
    in_doubt: InDoubtPolicy
    expires_at: int | None
    lane: Lane
    begins: bool = True  # nothing of the message was handed over before
    intent_at: int = 0
    pinned: bool = False  # the submitter named the channel
    refused_before: bool = False  # by another SIM, which sent it elsewhere

    @property
    def message_id(self) -> int:
        return self.segment.message.id


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a claim. `ref`: TP-MR; `started_at`: first byte of AT+CMGS, None if nothing was written.

    `withdrawn`: not sent because we ourselves called it back (pause, shutdown): it goes back uncounted. `alternatives`:
    there are other channels it might go to. `lost`: the channel was lost with it. `stopped_ms`: for how long the
    channel is stopped because the same fails for other numbers too (0: it is not). `sticky`: later messages to the
    number are to come from the same SIM.
    """

    claim: Claim
    outcome: Outcome
    started_at: int | None
    finished_at: int
    ref: int | None = None
    failure: FailureClass = FailureClass.UNKNOWN
    code: str = ""
    detail: str = ""
    withdrawn: bool = False
    alternatives: bool = False
    lost: bool = False
    stopped_ms: int = 0
    sticky: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """What a channel got. `more`: the search was cut short, so ask again. `spent`: the quota of its SIM that is used
    up. `spent_for_new`: one that has no room for a message, as for recipients new to the SIM, but may have for others.
    `left`: what is used of the SIM's limits, where it has any.
    """

    claim: Claim | None
    more: bool = False
    spent: Spent | None = None
    spent_for_new: Spent | None = None
    left: tuple[QuotaLeft, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings the outcome depends on, in milliseconds."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    in_doubt_wait_ms: int = 900_000
    report_wait_ms: int = 49 * 3_600_000
    quarantine: QuarantinePolicy = field(default_factory=QuarantinePolicy)


_m = schema.messages.c
_a = schema.attempts.c

CANDIDATE = Statement(
    select(
        getattr(_m, "class"), _m.to_number, _m.text, _m.report, _m.concat_ref, _m.in_doubt, _m.expires_at, _m.segments,
        _m.touched, _m.lane_id, _m.pin_channel, _m.avoid_sim_id,
    ).where(_m.id == bindparam("id"), _m.queue == schema.sqltext(schema.DUE))
)  # fmt: skip
BUSY = Statement(
    select(_m.id, _m.segments, _m.owner, _m.updated_at).where(
        _m.to_number == bindparam("to"), _m.busy == schema.sqltext(1), _m.id != bindparam("id")
    )
)
PUT_BEHIND = Statement(
    update(schema.messages)
    .where(_m.id == bindparam("b_id"), _m.queue == schema.sqltext(schema.DUE))
    .values(set_to("waits_for", "due_at", "updated_at") | {"queue": schema.sqltext(schema.BEHIND)})
)
TAKE = Statement(
    update(schema.messages)
    .where(_m.id == bindparam("b_id"), _m.queue == schema.sqltext(schema.DUE))
    .values(
        queue=schema.sqltext(schema.OUT), busy=schema.sqltext(1), owner=bindparam("v_owner"),
        owner_epoch=bindparam("v_epoch"), sim_id=bindparam("v_sim_id"), channel=bindparam("v_channel"),
        updated_at=bindparam("v_now"), optout_checked_at=bindparam("v_now"),
    )
)  # fmt: skip
RETARGET = Statement(update(schema.messages).where(_m.id == bindparam("b_id")).values(set_to("target")))
SET_SEGMENTS = Statement(
    update(schema.messages).where(_m.id == bindparam("b_id")).values(segments=bindparam("v_segments"))
)
DROP_SEGMENTS = Statement(
    delete(schema.segments).where(
        schema.segments.c.message_id == bindparam("id"), schema.segments.c.seq > bindparam("keep")
    )
)
ATTEMPT_DONE = Statement(
    update(schema.attempts)
    .where(
        _a.message_id == bindparam("b_message"),
        _a.seq == bindparam("b_seq"),
        _a.number == bindparam("b_number"),
        _a.outcome.is_(None),
    )
    .values(set_to("started_at", "finished_at", "outcome", "failure", "code", "detail", "tp_mr"))
)
SIM_USED = Statement(
    update(schema.sims)
    .where(schema.sims.c.id == bindparam("b_id"))
    .values(last_tp_mr=bindparam("v_mr"), last_submit_at=bindparam("v_at"))
)
SIM_REFUSED = Statement(
    update(schema.sims).where(schema.sims.c.id == bindparam("b_id")).values(last_submit_at=bindparam("v_at"))
)
LAST_MR = Statement(select(schema.sims.c.last_tp_mr).where(schema.sims.c.id == bindparam("id")))


def claim(tx: Tx, book: LaneBook, line: Line, want: Want, owner: Owner, now: int, rules: Rules) -> Taken:
    """Take the best eligible message and mark its next segment SUBMITTING.

    What is partly sent from this SIM goes first, then what is urgent; then the larger priority; of one priority the
    source that was served longest ago; then the earlier entry. The unit is the message: its segments follow one
    another, and no other message to its number comes between them.
    """
    tx.flush()
    book.quotas[line.sim_id] = want.quota
    spent = quota.spent(tx, line.sim_id, want.quota, now)
    if spent is not None:
        return Taken(None, spent=spent)
    lanes = [lane for lane in book.filled(tx) if want.serves(lane)]
    no_room: Spent | None = None
    for _ in range(MAX_CANDIDATES):
        found = _best(tx, book, lanes, want)
        if found is None:
            return Taken(None, spent_for_new=no_room)
        message_id, lane = found
        taken = tx.guard(
            partial(_try_candidate, tx, book, message_id, lane, line, want, owner, now, rules),
            partial(set_aside, tx, book, message_id, now),
        )
        if isinstance(taken, Claim):
            book.served(lane)
            left = quota.left(tx, line.sim_id, want.quota, now) if want.quota.limited else ()
            return Taken(taken, spent_for_new=no_room, left=left)
        if isinstance(taken, Spent):
            if taken.period in SHORT:  # for so long the message waits at its place
                book.stale(lane.id)
                return Taken(None, spent=taken)
            no_room = taken
            if lane.avoid_sim_id == -line.sim_id:  # such messages wait here, and it was not known yet that they must
                book.stale(lane.id)
                lanes.remove(lane)
    return Taken(None, more=True, spent_for_new=no_room)


def _best(tx: Tx, book: LaneBook, lanes: Sequence[Lane], want: Want) -> tuple[int, Lane] | None:
    """Take the best candidate from the heads of the lanes: message and lane."""
    best: tuple[int, int, int, int] | None = None
    found: tuple[int, Lane] | None = None
    for lane in lanes:
        key = book.first(tx, lane.id)
        if key is None:
            continue
        first = 0 if lane.sim_id else 1 if want.urgent(lane) else 2
        rank = (first, key[0], book.last_served(lane), key[1])
        if best is None or rank < best:
            best, found = rank, (key[2], lane)
    if found is not None:
        book.take(found[1].id)
    return found


def _try_candidate(
    tx: Tx, book: LaneBook, message_id: int, lane: Lane, line: Line, want: Want, owner: Owner, now: int, rules: Rules
) -> Claim | Spent | None:
    """Check one candidate and mark it; None if it is none (and why it is not is on disk), Spent if the SIM's quota has
    no room for it.
    """
    row = tx.one(CANDIDATE, {"id": message_id})
    if row is None or row[9] != lane.id:
        return None  # the hint was out of date
    class_, to, text, report, ref, policy, expires_at, planned, is_touched, _, pin, avoid = row
    segments = segments_of(tx, message_id)
    queued = [segment for segment in segments if segment.state is S.QUEUED]
    if expires_at is not None and expires_at <= now:
        for segment in queued:
            move(tx, segment, Command.EXPIRE, now, detail="its time had passed before it could be sent")
        refold(tx, book, message_id, now, owner, reason="expired before it could be sent")
        return None
    hit = optouts.blocking(tx, to, MessageClass(class_))
    if hit is not None:
        optouts.block(tx, book, message_id, hit, owner, now)
        return None
    if any(segment.state is S.BLOCKED for segment in segments):  # START brings back no half of a text
        _end_rest(tx, book, message_id, queued, Command.BLOCK, "an opt-out blocked other parts of it", now, owner)
        return None
    if not is_touched and _is_quarantined(tx, book, message_id, to, now, rules):
        return None
    if not is_touched and _goes_elsewhere(tx, book, message_id, to, lane, line, want, owner, now):
        return None
    ends = [end for end in (expires_at, want.closes_at(lane)) if end is not None]
    validity_s = max(1, (min(ends) - now) // 1000) if ends else None
    message = Message(message_id, to, text, MessageClass(class_), bool(report), ref, validity_s)
    try:
        plan = want.plan(message)
    except EncodeError as error:
        for segment in queued:
            move(tx, segment, Command.REFUSED, now, channel=line.channel, detail=str(error))
        refold(tx, book, message_id, now, owner, reason=f"cannot be encoded: {error}")
        return None
    if is_touched:
        if len(plan) != planned:
            said = f"partly sent in {planned} segments, not {len(plan)}"
            _end_rest(tx, book, message_id, queued, Command.GIVEN_UP, said, now, owner)
            return None
    elif _comes_between(tx, message_id, to, len(plan), now, rules):
        return None
    elif len(plan) != planned:
        queued = _replan(tx, message_id, planned, len(plan), now, line)
    spent = quota.reserve(tx, line.sim_id, want.quota, to, len(queued), now, begun=bool(is_touched))
    if spent is not None:
        if spent.period not in SHORT and lane.avoid_sim_id != -line.sim_id:
            _leave_to_others(tx, book, message_id, to, lane, line, spent, now, owner)
        return spent
    taken = _intend(tx, queued[0], plan, message, lane, line, owner, now, InDoubtPolicy(policy), expires_at)
    if taken is None:
        quota.give_back(tx, line.sim_id, want.quota, to, now)
        return None
    taken = replace(taken, pinned=bool(pin), refused_before=avoid > 0, begins=not is_touched)
    if taken.begins:
        _take_turn(tx, book, taken, want, now)
        if source := want.took(lane):
            starts.note(tx, source, message_id, now)
    return taken


def _is_quarantined(tx: Tx, book: LaneBook, message_id: int, to: str, now: int, rules: Rules) -> bool:
    """Put an untouched message off whose number fails wherever it is tried."""
    found = quarantine.quarantined(tx, book.faults, to, message_id, now, rules.quarantine)
    if found is None:
        return False
    until, reason = found
    quarantine.put_off(tx, message_id, until, reason, now)
    return True


def _goes_elsewhere(
    tx: Tx, book: LaneBook, message_id: int, to: str, lane: Lane, line: Line, want: Want, owner: Owner, now: int
) -> bool:
    """Give a message for which the sender shall stay the same to the SIM that wrote to its number last."""
    if lane.sim_id or lane.channel or lane.target.startswith(PREFER) or not want.sticky(lane):
        return False
    sim_id = senders.sender(tx, to)
    if sim_id in {0, line.sim_id}:
        return False
    tx.run(RETARGET, {"b_id": message_id, "v_target": f"{PREFER}{sim_id}:{lane.target}"})
    refold(tx, book, message_id, now, owner)
    return True


def _leave_to_others(
    tx: Tx, book: LaneBook, message_id: int, to: str, lane: Lane, line: Line, spent: Spent, now: int, owner: Owner
) -> None:
    """This SIM has no room for the message: it goes to one that has written to the number this month, or waits where
    those look that have room.
    """
    if spent.period == quota.RECIPIENTS and not lane.channel and not lane.target.startswith(PREFER):
        for sim_id in book.quotas:
            if sim_id != line.sim_id and quota.knows(tx, sim_id, to):
                tx.run(RETARGET, {"b_id": message_id, "v_target": f"{PREFER}{sim_id}:{lane.target}"})
                break
    refold(tx, book, message_id, now, owner, avoid_sim_id=-line.sim_id)


def _take_turn(tx: Tx, book: LaneBook, claim_: Claim, want: Want, now: int) -> None:
    """Move the turn of a dial string on to this channel, and tell the next."""
    turn = want.turn(claim_.lane)
    if turn is None:
        return
    key, port, passed = turn
    for name in passed:
        event(tx, claim_.message_id, now, "turn passed over", channel=name, detail="it was busy for too long")
    turns.move(tx, book.turns, key, port, now)
    tx.notices.claimable(claim_.lane)


def _comes_between(tx: Tx, message_id: int, to: str, segments: int, now: int, rules: Rules) -> bool:
    """Put an untouched message behind one to its number that is under way, if one of the two has several segments.

    It waits only while the other gets on: if that one's SIM is gone or its doubt is held for an operator, the number
    is free again after the time a doubt may take. One that is under way itself waits for no other: two would wait for
    each other for ever.
    """
    for other, other_segments, in_hand_of, moved_at in tx.all(BUSY, {"to": to, "id": message_id}):
        until = (now if in_hand_of is not None else min(moved_at, now)) + rules.in_doubt_wait_ms
        if until > now and (segments > 1 or other_segments > 1):
            values = {"v_waits_for": other, "v_due_at": until, "v_updated_at": now}
            tx.run(PUT_BEHIND, {"b_id": message_id, **values})
            tx.notices.at(until)
            return True
    return False


def _end_rest(
    tx: Tx,
    book: LaneBook,
    message_id: int,
    queued: Sequence[SegmentRow],
    command: Command,
    reason: str,
    now: int,
    owner: Owner,
) -> None:
    for segment in queued:
        move(tx, segment, command, now, detail=reason)
    refold(tx, book, message_id, now, owner, reason=reason)


def _replan(tx: Tx, message_id: int, old: int, new: int, now: int, line: Line) -> list[SegmentRow]:
    """Give an untouched message as many segments as this channel makes of it."""
    if new < old:
        tx.run(DROP_SEGMENTS, {"id": message_id, "keep": new})
    for seq in range(old + 1, new + 1):
        add_segment(tx, message_id, seq)
    tx.run(SET_SEGMENTS, {"b_id": message_id, "v_segments": new})
    event(tx, message_id, now, "planned anew", channel=line.channel, detail=f"{old} segments before, {new} now")
    tx.flush()
    return segments_of(tx, message_id)


def _intend(
    tx: Tx,
    row: SegmentRow,
    plan: Sequence[Segment],
    message: Message,
    lane: Lane,
    line: Line,
    owner: Owner,
    now: int,
    policy: InDoubtPolicy,
    expires_at: int | None,
) -> Claim | None:
    number = row.attempt + 1
    values = {"v_owner": owner.instance, "v_epoch": owner.epoch, "v_sim_id": line.sim_id, "v_channel": line.channel}
    if tx.run(TAKE, {"b_id": message.id, "v_now": now, **values}) != 1:
        return None  # it is another's meanwhile
    move(
        tx,
        row,
        Command.INTEND,
        now,
        channel=line.channel,
        values={
            "attempt": number,
            "sim_id": line.sim_id,
            "channel": line.channel,
            "tp_mr": None,
            "tp_mr_expected": None,
            "deadline_at": None,
        },
    )
    tx.add(
        schema.attempts,
        {
            "message_id": message.id,
            "seq": row.seq,
            "number": number,
            "channel": line.channel,
            "sim_id": line.sim_id,
            "owner": owner.instance,
            "owner_epoch": owner.epoch,
            "intent_at": now,
            "code": "",
            "detail": "",
        },
    )
    return Claim(plan[row.seq - 1], line, number, policy, expires_at, lane, intent_at=now)


def conclude(tx: Tx, book: LaneBook, result: Result, owner: Owner, now: int, rules: Rules) -> None:
    """Write down what became of a claim. A repetition of what is written already is ignored.

    An outcome that cannot be applied is kept as an event, or it would come back for ever and hold the channel.
    """
    claim_ = result.claim
    said = f"{result.outcome.value} {result.code} {result.detail}"
    tx.guard(
        partial(_conclude, tx, book, result, owner, now, rules),
        lambda error: event(
            tx, claim_.message_id, now, "outcome not applied", seq=claim_.segment.seq, detail=f"{said}: {error}"
        ),
    )


def _conclude(tx: Tx, book: LaneBook, result: Result, owner: Owner, now: int, rules: Rules) -> None:
    tx.flush()
    claim_ = result.claim
    line = claim_.line
    message_id, seq = claim_.message_id, claim_.segment.seq
    if not finish_attempt(
        tx,
        message_id,
        seq,
        claim_.attempt,
        result.outcome,
        started_at=result.started_at,
        finished_at=result.finished_at,
        failure=None if result.outcome is Outcome.SENT or result.withdrawn else result.failure,
        code=result.code,
        detail=result.detail,
        tp_mr=result.ref,
    ):
        return
    rows = segments_of(tx, message_id)
    row = rows[seq - 1]
    message = claim_.segment.message
    hit = optouts.blocking(tx, message.to, message.class_)
    book.recalled.pop(message_id, None)
    if result.outcome is Outcome.NOT_SENT:
        sim_quota = book.quotas.get(line.sim_id, SimQuota())
        quota.give_back(tx, line.sim_id, sim_quota, claim_.segment.message.to, claim_.intent_at)
    if hit is not None and result.outcome is not Outcome.NOT_SENT:
        optouts.shown_as_written(tx, message_id, seq, hit, now)
    if result.outcome is Outcome.SENT:
        blocked = any(other.state is S.BLOCKED for other in rows)  # then why is the last thing to say about it
        _sent(tx, book, line, row, result, owner, now, rules, None if blocked else "")
    elif result.outcome is Outcome.IN_DOUBT:
        detail = f"{result.code} {result.detail}".strip()
        into_doubt(
            tx, book, row, line, claim_.in_doubt, result.started_at or now, now, owner, rules, detail, result.code
        )
    elif hit is not None:
        move(tx, row, Command.BLOCK, now, channel=line.channel, detail=hit.sentence, values={"code": result.code})
        optouts.block(tx, book, message_id, hit, owner, now)
    else:
        _not_sent(tx, book, line, row, rows, result, owner, now, rules)
    if line.sim_id in book.undecided:
        reports.decide(tx, book, message.to, line.sim_id, claim_.intent_at, now, owner)


def finish_attempt(
    tx: Tx,
    message_id: int,
    seq: int,
    number: int,
    outcome: Outcome,
    *,
    finished_at: int,
    started_at: int | None = None,
    failure: FailureClass | None = None,
    code: str = "",
    detail: str = "",
    tp_mr: int | None = None,
) -> bool:
    """Write the outcome into the attempt's row; False if it has one already."""
    params = {
        "b_message": message_id,
        "b_seq": seq,
        "b_number": number,
        "v_started_at": started_at,
        "v_finished_at": finished_at,
        "v_outcome": outcome.value,
        "v_failure": None if failure is None else failure.value,
        "v_code": code,
        "v_detail": detail,
        "v_tp_mr": tp_mr,
    }
    return tx.run(ATTEMPT_DONE, params) == 1


def _sent(
    tx: Tx,
    book: LaneBook,
    line: Line,
    row: SegmentRow,
    result: Result,
    owner: Owner,
    now: int,
    rules: Rules,
    reason: str | None,
) -> None:
    message = result.claim.segment.message
    deadline = now + rules.report_wait_ms + (message.validity_s or 0) * 1000 if message.report else None
    submitted_at = result.started_at or result.finished_at
    move(
        tx,
        row,
        Command.SENT,
        now,
        channel=line.channel,
        detail="" if result.ref is None else f"TP-MR {result.ref}",
        values={
            "tp_mr": result.ref,
            "submitted_at": submitted_at,
            "deadline_at": deadline,
            "tries": row.tries + 1,
            "code": "",
            "parts_ok": 1,
        },
    )
    tx.run(SIM_USED, {"b_id": line.sim_id, "v_mr": result.ref, "v_at": submitted_at})
    quarantine.cleared(tx, book.faults, message.to, now)
    if result.sticky:
        senders.wrote(tx, message.to, line.sim_id, submitted_at)
    if deadline is not None:
        tx.notices.at(deadline)
        reports.adopt(tx, message.id, row.seq, message.to, line.sim_id, result.ref, submitted_at, now)
    refold(tx, book, message.id, now, owner, bind_sim_id=line.sim_id, reason=reason)


def into_doubt(
    tx: Tx,
    book: LaneBook,
    row: SegmentRow,
    line: Line,
    policy: InDoubtPolicy,
    started_at: int,
    now: int,
    owner: Owner,
    rules: Rules,
    detail: str,
    code: str = "",
) -> None:
    """Mark a segment of which nobody knows whether it went out; a report may be there already.

    From here on nobody knows the SIM's last TP-MR either: a second doubt in a row expects none in particular.
    """
    last = tx.one(LAST_MR, {"id": line.sim_id})
    expected = None if last is None or last[0] is None else (last[0] + 1) % 256
    tx.run(SIM_USED, {"b_id": line.sim_id, "v_mr": None, "v_at": started_at})
    deadline = None if policy is InDoubtPolicy.HOLD else now + rules.in_doubt_wait_ms
    move(
        tx,
        row,
        Command.DOUBT,
        now,
        channel=line.channel,
        detail=detail,
        values={
            "tp_mr_expected": expected,
            "submitted_at": started_at,
            "deadline_at": deadline,
            "tries": row.tries + 1,
            "code": code,
        },
    )
    if deadline is not None:
        tx.notices.at(deadline)
    message = tx.one(reports.RECIPIENT, {"id": row.message_id})
    assert message is not None
    reports.adopt_doubtful(tx, row.message_id, row.seq, message[0], line.sim_id, expected, started_at, now)
    refold(tx, book, row.message_id, now, owner, bind_sim_id=line.sim_id, reason=detail)


def _not_sent(
    tx: Tx,
    book: LaneBook,
    line: Line,
    row: SegmentRow,
    rows: Sequence[SegmentRow],
    result: Result,
    owner: Owner,
    now: int,
    rules: Rules,
) -> None:
    message_id = row.message_id
    said = f"{result.code} {result.detail}".strip()
    if result.withdrawn:
        move(tx, row, Command.NOT_SENT, now, channel=line.channel, detail=said)
        refold(tx, book, message_id, now, owner, due_at=now, reason=said)
        return
    if result.started_at is not None:
        tx.run(SIM_REFUSED, {"b_id": line.sim_id, "v_at": result.started_at})
    movable = all(other.seq == row.seq or other.state is S.QUEUED for other in rows)
    decision = decide(
        rules.retry,
        result.failure,
        row.tries + 1,
        written=result.started_at is not None,
        movable=movable,
        alternatives=result.alternatives,
        refused_before=result.claim.refused_before,
        lost=result.lost,
        attempts=row.attempt,
        stopped_ms=result.stopped_ms,
    )
    values = {"tries": row.tries + int(decision.counted), "code": result.code}
    if decision.action is Action.FAIL:
        move(tx, row, Command.REFUSED, now, channel=line.channel, detail=said, values=values)
        for other in rows:
            if other.state is S.QUEUED:
                move(tx, other, Command.GIVEN_UP, now, detail=f"segment {row.seq} failed for good")
        refold(tx, book, message_id, now, owner, reason=said)
        if decision.blames_number:
            to, code, detail = result.claim.segment.message.to, result.code, result.detail
            quarantine.failed(tx, book.faults, to, message_id, line.sim_id, code, detail, now, rules.quarantine)
        return
    due_at = now + decision.delay_ms
    move(tx, row, Command.NOT_SENT, now, channel=line.channel, detail=said, values=values)
    avoid = line.sim_id if decision.action is Action.ELSEWHERE else None
    refold(tx, book, message_id, now, owner, due_at=due_at, reason=said, avoid_sim_id=avoid)
