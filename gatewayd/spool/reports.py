"""Status reports: kept first, then matched to the segment they are about, also when they overtake its receipt."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, select, update

from gatewayd.model import ReportVerdict
from gatewayd.model import SegmentState as S
from gatewayd.spool import schema
from gatewayd.spool.correlate import Candidate, choose, same_number
from gatewayd.spool.engine import Params, Statement
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.lifecycle import Command, report_command
from gatewayd.spool.moves import Owner, event, move, refold, segments_of
from gatewayd.spool.writer import Tx

MATCH_WITHIN_MS = 14 * 86_400_000  # no SMS centre keeps a message longer than it was asked to, and few a week
MAX_CANDIDATES = 50
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
    .limit(schema.sqltext(MAX_CANDIDATES))
)
WITHOUT_MR = Statement(
    _CANDIDATE.where(
        _s.sim_id == bindparam("sim_id"),
        _s.tp_mr.is_(None),
        _s.submitted_at.is_not(None),
        _s.submitted_at >= bindparam("since"),
    )
    .order_by(_s.submitted_at.desc())
    .limit(schema.sqltext(MAX_CANDIDATES))
)
SEEN_REPORTS = Statement(
    select(_r.id, _r.raw, _r.listing, _r.message_id, _r.seq).where(
        _r.sim_id == bindparam("sim_id"), _r.tp_mr == bindparam("tp_mr"), _r.received_at >= bindparam("since")
    )
)
NEW_REPORT = Statement(
    schema.status_reports.insert(),
    columns=[
        "received_at", "channel", "sim_id", "tp_mr", "recipient", "tp_status", "discharged_at", "raw", "listing",
        "message_id", "seq",
    ],
)  # fmt: skip
WAITING_REPORTS = Statement(
    select(_r.id, _r.recipient, _r.tp_status, _r.discharged_at, _r.received_at)
    .where(
        _r.sim_id == bindparam("sim_id"),
        _r.tp_mr == bindparam("tp_mr"),
        _r.received_at >= bindparam("since"),
        _r.message_id.is_(None),
    )
    .order_by(_r.received_at)
)
CLAIM_REPORT = Statement(
    update(schema.status_reports)
    .where(_r.id == bindparam("b_id"))
    .values(message_id=bindparam("v_message"), seq=bindparam("v_seq"))
)
RECIPIENT = Statement(select(_m.to_number).where(_m.id == bindparam("id")))
DOUBTFUL = Statement(
    select(_s.message_id, _s.seq)
    .where(
        _s.sim_id == bindparam("sim_id"),
        _s.tp_mr.is_(None),
        _s.submitted_at.is_not(None),
        _s.submitted_at >= bindparam("since"),
        _s.state == bindparam("state"),
    )
    .order_by(_s.submitted_at.desc())
    .limit(schema.sqltext(1))
)


def record(tx: Tx, book: LaneBook, report: NewReport, now: int, owner: Owner) -> Matched:
    """Keep a status report and apply it to its segment, if that is known already."""
    tx.flush()
    since = now - MATCH_WITHIN_MS
    key = {"sim_id": report.sim_id, "tp_mr": report.tp_mr, "since": since}
    for _, raw, listing, message_id, seq in tx.all(SEEN_REPORTS, key):
        if raw == report.raw and listing != report.listing:
            return Matched(message_id, seq, duplicate=True)
    rows = tx.all(BY_MR, key) + tx.all(WITHOUT_MR, {"sim_id": report.sim_id, "since": since})
    found = choose([_candidate(row) for row in rows], report.tp_mr, report.recipient, report.scts_ms)
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


def adopt(
    tx: Tx, message_id: int, seq: int, to: str, sim_id: int, tp_mr: int | None, started_at: int, now: int
) -> None:
    """Apply the reports that came before their segment's outcome was known. The caller refolds the message."""
    if tp_mr is None:
        return
    key = {"sim_id": sim_id, "tp_mr": tp_mr, "since": started_at - CLOCK_SLACK_MS}
    for report_id, recipient, tp_status, discharged_at, received_at in tx.all(WAITING_REPORTS, key):
        if same_number(to, recipient):
            tx.run(CLAIM_REPORT, {"b_id": report_id, "v_message": message_id, "v_seq": seq})
            values = {"tp_status": tp_status, "reported_at": discharged_at or received_at}
            _apply(tx, message_id, seq, _verdict(tp_status), tp_mr, values, now, None, "came before the receipt")


def late_result(
    tx: Tx, book: LaneBook, sim_id: int, ref: int | None, now: int, owner: Owner, report_wait_ms: int
) -> int | None:
    """A +CMGS after its command was given up: settle the newest doubt of the SIM. Returns the message's id, if any."""
    tx.flush()
    key = {"sim_id": sim_id, "since": now - MATCH_WITHIN_MS, "state": S.IN_DOUBT.value}
    row = tx.one(DOUBTFUL, key)
    if row is None:
        return None
    message_id, seq = row
    segment = segments_of(tx, message_id)[seq - 1]
    values = {"tp_mr": ref, "deadline_at": now + report_wait_ms, "parts_ok": 1}
    move(tx, segment, Command.LATE_RESULT, now, values=values, detail="" if ref is None else f"TP-MR {ref}")
    tx.notices.at(now + report_wait_ms)
    refold(tx, book, message_id, now, owner, reason="")
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
