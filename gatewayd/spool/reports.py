"""Status reports: kept first, then matched to the segment they are about, also when they overtake its receipt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import bindparam, select, update

from gatewayd.model import ReportVerdict
from gatewayd.model import SegmentState as S
from gatewayd.spool import schema
from gatewayd.spool.correlate import WAITING, Candidate, choose, may_have, number_tail, same_number
from gatewayd.spool.engine import Params, Row, Statement, storable
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.lifecycle import Command, report_command
from gatewayd.spool.moves import Owner, event, move, refold, segments_of
from gatewayd.spool.writer import Tx

MATCH_WITHIN_MS = 14 * 86_400_000  # no SMS centre keeps a message longer than it was asked to, and few a week
RECENT = 10  # segments with one reference (sent over hours) that are looked at first
MAX_CANDIDATES = 50
LATE_WITHIN_MS = 3_600_000  # a final result that comes later than this is no answer to what was given up
CLOCK_SLACK_MS = 2_000  # a report may carry an earlier reading of our clock than its segment's start


@dataclass(frozen=True, slots=True)
class NewReport:
    """A status report as decoded. `verdict` and `tp_status` as in 3GPP TS 23.040 §9.2.3.15; times in epoch ms."""

    channel: str
    sim_id: int
    tp_mr: int
    recipient: str
    tp_status: int
    verdict: ReportVerdict
    status_text: str
    scts_ms: int | None
    discharged_at: int | None
    raw: str
    listing: str


@dataclass(frozen=True, slots=True)
class Matched:
    """What a report was about: `message_id` None if nothing we know of; `duplicate`: it had come before."""

    message_id: int | None
    seq: int | None = None
    duplicate: bool = False


_s = schema.segments.c
_m = schema.messages.c
_r = schema.status_reports.c

_CANDIDATE = select(
    _s.message_id, _s.seq, _s.state, _m.to_number, _s.tp_mr, _s.tp_mr_expected, _s.submitted_at
).join_from(schema.segments, schema.messages, _s.message_id == _m.id)

BY_MR = Statement(
    _CANDIDATE.where(
        _s.sim_id == bindparam("sim_id"),
        _s.tp_mr == bindparam("tp_mr"),
        _s.tp_mr.is_not(None),
        _s.submitted_at >= bindparam("since"),
    )
    .order_by(_s.submitted_at.desc())
    .limit(schema.sqltext(RECENT))
)
WITHOUT_MR = Statement(
    _CANDIDATE.where(
        _s.sim_id == bindparam("sim_id"),
        _s.tp_mr.is_(None),
        _s.submitted_at.is_not(None),
        _s.submitted_at >= bindparam("since"),
    )
    .order_by(_s.submitted_at.desc())
    .limit(schema.sqltext(RECENT))
)
_LATE = _CANDIDATE.where(
    _s.sim_id == bindparam("sim_id"),
    _s.submitted_at >= bindparam("since"),
    _s.state.in_([schema.sqltext(state.value) for state in sorted(WAITING)]),
    _m.to_number.like(bindparam("ends_with")),
)
LATE_BY_MR = Statement(
    _LATE.where(_s.tp_mr == bindparam("tp_mr"), _s.tp_mr.is_not(None))
    .order_by(_s.submitted_at.desc())
    .limit(schema.sqltext(MAX_CANDIDATES))
)
LATE_WITHOUT_MR = Statement(
    _LATE.where(_s.tp_mr.is_(None), _s.submitted_at.is_not(None))
    .order_by(_s.submitted_at.desc())
    .limit(schema.sqltext(MAX_CANDIDATES))
)
SEEN_REPORT = Statement(
    select(_r.message_id, _r.seq)
    .where(
        _r.sim_id == bindparam("sim_id"),
        _r.digest == bindparam("digest"),
        _r.received_at >= bindparam("since"),
        _r.listing != bindparam("listing"),
    )
    .limit(schema.sqltext(1))
)
NEW_REPORT = Statement(
    schema.status_reports.insert(),
    columns=[
        "received_at", "channel", "sim_id", "tp_mr", "recipient", "tp_status", "discharged_at", "raw", "digest",
        "listing", "message_id", "seq",
    ],
)  # fmt: skip
_WAITING_REPORTS = (
    select(_r.id, _r.tp_mr, _r.recipient, _r.tp_status, _r.discharged_at, _r.received_at)
    .where(_r.sim_id == bindparam("sim_id"), _r.received_at >= bindparam("since"), _r.message_id.is_(None))
    .order_by(_r.received_at)
)
WAITING_REPORTS = Statement(_WAITING_REPORTS.where(_r.tp_mr == bindparam("tp_mr")))
ALL_WAITING_REPORTS = Statement(_WAITING_REPORTS)
CLAIM_REPORT = Statement(
    update(schema.status_reports)
    .where(_r.id == bindparam("b_id"))
    .values(message_id=bindparam("v_message"), seq=bindparam("v_seq"))
)
IN_HAND = Statement(
    select(_s.seq)
    .join_from(schema.messages, schema.segments, _s.message_id == _m.id)
    .where(
        _m.to_number == bindparam("to"),
        _m.busy == schema.sqltext(1),
        _s.sim_id == bindparam("sim_id"),
        _s.state == schema.sqltext(S.SUBMITTING.value),
    )
    .limit(schema.sqltext(1))
)
RECIPIENT = Statement(select(_m.to_number, _m.report).where(_m.id == bindparam("id")))
SIM_MR = Statement(
    update(schema.sims).where(schema.sims.c.id == bindparam("b_id")).values(last_tp_mr=bindparam("v_mr"))
)
DOUBTFUL = Statement(
    select(_s.message_id, _s.seq, _s.tp_mr_expected, _s.submitted_at)
    .where(
        _s.sim_id == bindparam("sim_id"),
        _s.tp_mr.is_(None),
        _s.submitted_at.is_not(None),
        _s.submitted_at >= bindparam("since"),
        _s.state == bindparam("state"),
    )
    .order_by(_s.submitted_at.desc())
    .limit(schema.sqltext(MAX_CANDIDATES))
)


def record(tx: Tx, book: LaneBook, report: NewReport, now: int, owner: Owner) -> Matched:
    """Keep a status report and apply it to its segment, if that is known already."""
    tx.flush()
    report = replace(report, recipient=storable(report.recipient), raw=storable(report.raw))
    key = {"sim_id": report.sim_id, "tp_mr": report.tp_mr, "since": now - MATCH_WITHIN_MS}
    digest = hashlib.sha256(report.raw.upper().encode()).digest()
    seen = tx.one(SEEN_REPORT, {**key, "digest": digest, "listing": report.listing})
    if seen is not None:
        return Matched(seen[0], seen[1], duplicate=True)
    found = _find(tx, report, key)
    if found is not None and _may_be_of_what_is_in_hand(tx, found, report.sim_id):
        book.undecided.add(report.sim_id)
        found = None
    tx.run(
        NEW_REPORT,
        {
            "received_at": now,
            "channel": report.channel,
            "sim_id": report.sim_id,
            "tp_mr": report.tp_mr,
            "recipient": report.recipient,
            "tp_status": report.tp_status,
            "discharged_at": report.discharged_at,
            "raw": report.raw,
            "digest": digest,
            "listing": report.listing,
            "message_id": None if found is None else found.message_id,
            "seq": None if found is None else found.seq,
        },
    )
    if found is None:
        return Matched(None)
    values = {"tp_status": report.tp_status, "reported_at": report.discharged_at or now}
    _apply(
        tx, found.message_id, found.seq, report.verdict, report.tp_mr, values, now, report.channel, report.status_text
    )
    refold(tx, book, found.message_id, now, owner)
    return Matched(found.message_id, found.seq)


def _find(tx: Tx, report: NewReport, key: Params) -> Candidate | None:
    """The segment a report is about: among the SIM's newest with its reference, else among all that still wait."""
    found: Candidate | None = None
    late = {**key, "ends_with": "%" + number_tail(report.recipient)}
    for by_mr, without_mr, params in ((BY_MR, WITHOUT_MR, key), (LATE_BY_MR, LATE_WITHOUT_MR, late)):
        rows = tx.all(by_mr, params) + tx.all(without_mr, params)
        chosen = choose([_candidate(row) for row in rows], report.tp_mr, report.recipient, report.scts_ms)
        if chosen is not None and chosen.state in WAITING:
            return chosen
        found = found or chosen
    return found


def _may_be_of_what_is_in_hand(tx: Tx, found: Candidate, sim_id: int) -> bool:
    """Whether a report that fits a segment in doubt may as well have overtaken the receipt of one that the SIM has in
    hand for the same number. Its TP-MR, known with the receipt, decides (`decide`).
    """
    return found.tp_mr is None and tx.one(IN_HAND, {"to": found.to, "sim_id": sim_id}) is not None


def decide(tx: Tx, book: LaneBook, to: str, sim_id: int, intent_at: int, now: int, owner: Owner) -> None:
    """The outcome of what a SIM had in hand is written: reports that waited for it and are not about it are about what
    they fit else.
    """
    book.undecided.discard(sim_id)
    for row in tx.all(ALL_WAITING_REPORTS, {"sim_id": sim_id, "since": _came_since(intent_at, now)}):
        _, tp_mr, recipient, tp_status, *_ = row
        if not same_number(to, recipient):
            continue
        report = NewReport("", sim_id, tp_mr, recipient, tp_status, _verdict(tp_status), "", None, None, "", "")
        found = _find(tx, report, {"sim_id": sim_id, "tp_mr": tp_mr, "since": now - MATCH_WITHIN_MS})
        if found is not None and found.state in WAITING:
            _take_over(tx, [row], found.message_id, found.seq, to, now)
            refold(tx, book, found.message_id, now, owner)


def _came_since(started_at: int, now: int) -> int:
    """How early a report of what was started then can have come, also where the clock was set back in between."""
    return min(started_at, now) - CLOCK_SLACK_MS


def adopt(
    tx: Tx, message_id: int, seq: int, to: str, sim_id: int, tp_mr: int | None, started_at: int, now: int
) -> None:
    """Apply the reports that came before their segment's receipt. The caller refolds the message."""
    if tp_mr is not None:
        key = {"sim_id": sim_id, "tp_mr": tp_mr, "since": _came_since(started_at, now)}
        _take_over(tx, tx.all(WAITING_REPORTS, key), message_id, seq, to, now)


def adopt_doubtful(
    tx: Tx, message_id: int, seq: int, to: str, sim_id: int, expected: int | None, started_at: int, now: int
) -> None:
    """The same for a segment in doubt: all reports about it have one TP-MR, the likeliest that any has."""
    rows = tx.all(ALL_WAITING_REPORTS, {"sim_id": sim_id, "since": _came_since(started_at, now)})
    references = {row[1] for row in rows if same_number(to, row[2]) and may_have(expected, row[1])}
    if references:
        likeliest = min(references, key=lambda tp_mr: 0 if expected is None else (tp_mr - expected) % 256)
        _take_over(tx, [row for row in rows if row[1] == likeliest], message_id, seq, to, now)


def _take_over(tx: Tx, rows: Sequence[Row], message_id: int, seq: int, to: str, now: int) -> None:
    for report_id, tp_mr, recipient, tp_status, discharged_at, received_at in rows:
        if same_number(to, recipient):
            tx.run(CLAIM_REPORT, {"b_id": report_id, "v_message": message_id, "v_seq": seq})
            values = {"tp_status": tp_status, "reported_at": discharged_at or received_at}
            _apply(tx, message_id, seq, _verdict(tp_status), tp_mr, values, now, None, "came before the receipt")


def late_result(
    tx: Tx, book: LaneBook, sim_id: int, ref: int | None, now: int, owner: Owner, report_wait_ms: int
) -> int | None:
    """A +CMGS after its command was given up. Returns the id of the message it settled, if any.

    It belongs to the SIM's doubt that expects this reference, else to the newest that may have it; never to an old one.
    A reference that the SIM is known to have used since is that segment's, said again.
    """
    tx.flush()
    if ref is not None:
        tx.run(SIM_MR, {"b_id": sim_id, "v_mr": ref})
    rows = tx.all(DOUBTFUL, {"sim_id": sim_id, "since": now - LATE_WITHIN_MS, "state": S.IN_DOUBT.value})
    if ref is not None:
        known = tx.all(BY_MR, {"sim_id": sim_id, "tp_mr": ref, "since": now - LATE_WITHIN_MS})
        used_at = max((row[6] for row in known), default=0)
        rows = [row for row in rows if row[3] > used_at]
        rows = [row for row in rows if row[2] == ref] or [row for row in rows if may_have(row[2], ref)]
    if not rows:
        return None
    message_id, seq = rows[0][:2]
    segments = segments_of(tx, message_id)
    segment = segments[seq - 1]
    message = tx.one(RECIPIENT, {"id": message_id})
    assert message is not None
    deadline = now + report_wait_ms if message[1] else None
    values = {"tp_mr": ref, "deadline_at": deadline, "parts_ok": 1}
    move(tx, segment, Command.LATE_RESULT, now, values=values, detail="" if ref is None else f"TP-MR {ref}")
    if deadline is not None:
        tx.notices.at(deadline)
    adopt(tx, message_id, seq, message[0], sim_id, ref, segment.submitted_at or now, now)
    blocked = any(other.state is S.BLOCKED for other in segments)  # why, is what there is to say of it
    refold(tx, book, message_id, now, owner, reason=None if blocked else "")
    return int(message_id)


def _apply(
    tx: Tx,
    message_id: int,
    seq: int,
    verdict: ReportVerdict,
    tp_mr: int,
    values: Params,
    now: int,
    channel: str | None,
    detail: str,
) -> None:
    segment = segments_of(tx, message_id)[seq - 1]
    command = report_command(verdict)
    if command is None:
        event(tx, message_id, now, "report: still trying", seq=seq, channel=channel, detail=detail)
        return
    if segment.tp_mr is None:
        values = {**values, "tp_mr": tp_mr}
    move(
        tx, segment, command, now, values={**values, "deadline_at": None, "parts_ok": 1}, channel=channel, detail=detail
    )


def _candidate(row: tuple[object, ...]) -> Candidate:
    message_id, seq, state, to, tp_mr, expected, submitted_at = row
    return Candidate(message_id, seq, S(state), to, tp_mr, expected, submitted_at)  # type: ignore[arg-type]


def _verdict(tp_status: int) -> ReportVerdict:
    """3GPP TS 23.040 §9.2.3.15: 0x00..0x1F done, 0x20..0x3F still trying, the rest failed."""
    if tp_status < 0x20:
        return ReportVerdict.DELIVERED
    if tp_status < 0x40:
        return ReportVerdict.TRYING
    return ReportVerdict.UNDELIVERED
