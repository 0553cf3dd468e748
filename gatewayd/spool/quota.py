"""What a SIM may send: segments per minute, hour, day and month, and distinct recipients per month (promise 8).

A segment is counted in the transaction of its intent, before its first byte leaves, and taken back only when it is
known not to have been sent; what is in doubt stays counted. Counts are of the SIM, kept over restarts, and kept without
limits too, so that a limit set at noon knows of the morning. Recipients are only kept where they are limited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select, tuple_, update

from gatewayd.spool import schema
from gatewayd.spool.engine import Row, Statement, set_to
from gatewayd.spool.periods import PERIODS, Span, held, spans
from gatewayd.spool.writer import STEP, Tx

RECIPIENTS = "recipients"  # the fifth "period": distinct ones of the month
RECIPIENT_LIFE_MS = 65 * 86_400_000  # since the month began: this month, and the last, for a clock that is set back

_Counts = list[tuple[int, int]]
"""(start, segments used) of each of PERIODS."""


@dataclass(frozen=True, slots=True)
class SimQuota:
    """The most segments in each period, and recipients in a month, 1 or more; None: no limit.

    A month begins at midnight of `reset_day` (1 to 28) in `timezone` (an IANA key), a day at midnight there.
    """

    per_minute: int | None = None
    per_hour: int | None = None
    per_day: int | None = None
    per_month: int | None = None
    recipients_per_month: int | None = None
    reset_day: int = 1
    timezone: str = "UTC"

    @property
    def segments(self) -> tuple[int | None, ...]:
        """The limits on segments, in the order of PERIODS."""
        return self.per_minute, self.per_hour, self.per_day, self.per_month

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.recipients_per_month is not None or any(limit is not None for limit in self.segments)


@dataclass(frozen=True, slots=True)
class QuotaLeft:
    """What is `used` of `limit` (None: none) in a period (one of PERIODS, or RECIPIENTS) that ends at `until_ms` (UTC
    epoch ms).
    """

    period: str
    limit: int | None
    used: int
    until_ms: int

    def left_at(self, now: int) -> int | None:
        """What may still be sent at `now`; None: as much as you like. Once the period is over, all of it."""
        if self.limit is None:
            return None
        return self.limit if now >= self.until_ms else max(0, self.limit - self.used)


@dataclass(frozen=True, slots=True)
class Spent:
    """Why a segment may not be sent: `used` of `limit` are used in this period, and it ends at `until_ms`.

    Of several such periods, the one that ends last. `period` RECIPIENTS: only numbers are refused that this SIM has not
    written to this month.
    """

    period: str
    limit: int
    used: int
    until_ms: int


_u = schema.sim_usage.c
_r = schema.sim_recipients.c
_COLUMNS = (*(f"{period}_{what}" for period in PERIODS for what in ("start", "used")), RECIPIENTS)
USAGE = tuple(_u[name] for name in _COLUMNS)
"""The columns that make a row of usage, in the order `left_of` takes it."""

USED = Statement(select(*USAGE).where(_u.sim_id == bindparam("sim_id")))
COUNT = Statement(update(schema.sim_usage).where(_u.sim_id == bindparam("b_sim_id")).values(set_to(*_COLUMNS)))
FIRST = Statement(schema.sim_usage.insert(), columns=["sim_id", *_COLUMNS])
RECIPIENT = Statement(
    select(_r.month_start, _r.intents).where(_r.sim_id == bindparam("sim_id"), _r.number == bindparam("number"))
)
SET_RECIPIENT = Statement(
    update(schema.sim_recipients)
    .where(_r.sim_id == bindparam("b_sim_id"), _r.number == bindparam("b_number"))
    .values(set_to("month_start", "intents"))
)
NEW_RECIPIENT = Statement(schema.sim_recipients.insert(), columns=["sim_id", "number", "month_start", "intents"])
DROP_RECIPIENT = Statement(
    delete(schema.sim_recipients).where(_r.sim_id == bindparam("sim_id"), _r.number == bindparam("number"))
)
_old = (
    select(_r.sim_id, _r.number)
    .where(_r.month_start < bindparam("before"))
    .order_by(_r.month_start)
    .limit(schema.sqltext(STEP))
)
OLD_RECIPIENTS = Statement(delete(schema.sim_recipients).where(tuple_(_r.sim_id, _r.number).in_(_old)))


def spent(tx: Tx, sim_id: int, quota: SimQuota, now: int) -> Spent | None:
    """Why nothing at all may be sent from this SIM at UTC epoch ms `now`; None: something may.

    Recipients are another matter: a number the SIM knows may still be written to.
    """
    if not any(limit is not None for limit in quota.segments):
        return None
    row = tx.one(USED, {"sim_id": sim_id})
    found = spans(now, quota.timezone, quota.reset_day)
    return _refusal(_counts(row, found), found, quota, 1)


def reserve(
    tx: Tx, sim_id: int, quota: SimQuota, number: str, segments_left: int, now: int, *, begun: bool
) -> Spent | None:
    """Count one segment to `number` (E.164 or short code), whose intent is at UTC epoch ms `now`; if there is no room,
    count nothing and say why.

    `segments_left`, 1 or more, this one included: a message is only `begun` if there is room for all of it, or, where
    the limit itself is too small for it, with the first segment of a period.
    """
    row = tx.one(USED, {"sim_id": sim_id})
    found = spans(now, quota.timezone, quota.reset_day)
    counts = _counts(row, found)
    refused = _refusal(counts, found, quota, 1 if begun else segments_left)
    if refused is not None:
        return refused
    month = counts[-1][0]
    recipients = _recipients(row, month)
    if quota.recipients_per_month is not None:
        known = tx.one(RECIPIENT, {"sim_id": sim_id, "number": number})
        intents = 0 if known is None or known[0] != month else known[1]
        if not intents:
            if recipients >= quota.recipients_per_month:
                until = _end(found[-1], month, quota, -1)
                return Spent(RECIPIENTS, quota.recipients_per_month, recipients, until)
            recipients += 1
        if known is None:
            tx.run(NEW_RECIPIENT, {"sim_id": sim_id, "number": number, "month_start": month, "intents": 1})
        else:
            _set_recipient(tx, sim_id, number, month, intents + 1)
    _write(tx, sim_id, [(start, used + 1) for start, used in counts], recipients, new=row is None)
    return None


def knows(tx: Tx, sim_id: int, number: str) -> bool:
    """Whether a SIM has written to a number in the month it counts in."""
    row = tx.one(USED, {"sim_id": sim_id})
    known = tx.one(RECIPIENT, {"sim_id": sim_id, "number": number})
    return row is not None and known is not None and known[0] == row[-3] and known[1] > 0


def give_back(tx: Tx, sim_id: int, quota: SimQuota, number: str, intent_at: int) -> None:
    """Take back what `reserve` counted at UTC epoch ms `intent_at`: the segment is known not to have been sent.

    Only in periods that were the same then as the last that was counted in. A recipient is forgotten with the only
    intent of this month.
    """
    row = tx.one(USED, {"sim_id": sim_id})
    if row is None:
        return
    counts: _Counts = []
    same = False
    for index in range(len(PERIODS)):
        start, used = row[2 * index], row[2 * index + 1]
        # After a clock that was set back, start is later than intent_at: one too many stays counted rather than one
        # too few.
        same = start <= intent_at < spans(start, quota.timezone, quota.reset_day)[index].end
        counts.append((start, max(0, used - 1) if same else used))
    recipients = row[-1]
    month = counts[-1][0]
    if same and quota.recipients_per_month is not None:
        known = tx.one(RECIPIENT, {"sim_id": sim_id, "number": number})
        if known is not None and known[0] == month:
            if known[1] > 1:
                _set_recipient(tx, sim_id, number, month, known[1] - 1)
            else:
                tx.run(DROP_RECIPIENT, {"sim_id": sim_id, "number": number})
                recipients = max(0, recipients - 1)
    _write(tx, sim_id, counts, recipients, new=False)


def left(tx: Tx, sim_id: int, quota: SimQuota, now: int) -> tuple[QuotaLeft, ...]:
    """What is used of each period at UTC epoch ms `now`, in the order of PERIODS; and of recipients, if limited."""
    return left_of(tx.one(USED, {"sim_id": sim_id}), quota, now)


def left_of(row: Row | None, quota: SimQuota, now: int) -> tuple[QuotaLeft, ...]:
    """As `left`, of a row of USAGE; None: the SIM has never sent."""
    found = spans(now, quota.timezone, quota.reset_day)
    counts = _counts(row, found)
    ends = [_end(span, start, quota, index) for index, (span, (start, _)) in enumerate(zip(found, counts, strict=True))]
    segments = [
        QuotaLeft(period, limit, used, end)
        for period, limit, (_, used), end in zip(PERIODS, quota.segments, counts, ends, strict=True)
    ]
    if quota.recipients_per_month is not None:
        recipients = _recipients(row, counts[-1][0])
        segments.append(QuotaLeft(RECIPIENTS, quota.recipients_per_month, recipients, ends[-1]))
    return tuple(segments)


def forget_recipients(tx: Tx, now: int) -> bool:
    """Forget a step of the recipients of months that are over; whether there may be more."""
    return tx.run(OLD_RECIPIENTS, {"before": now - RECIPIENT_LIFE_MS}) == STEP


def _counts(row: Row | None, found: Sequence[Span]) -> _Counts:
    """What counts now: what was counted last, where its period still holds."""
    if row is None:
        return [(span.start, 0) for span in found]
    return [
        (row[2 * index], row[2 * index + 1]) if held(span, row[2 * index]) else (span.start, 0)
        for index, span in enumerate(found)
    ]


def _recipients(row: Row | None, month: int) -> int:
    return row[-1] if row is not None and row[-3] == month else 0


def _refusal(counts: _Counts, found: Sequence[Span], quota: SimQuota, wanted: int) -> Spent | None:
    refused: Spent | None = None
    for index, (limit, (start, used)) in enumerate(zip(quota.segments, counts, strict=True)):
        if limit is None or used + wanted <= limit or 0 == used < limit < wanted:
            continue
        until = _end(found[index], start, quota, index)
        if refused is None or until >= refused.until_ms:  # of two that end together the larger says more
            refused = Spent(PERIODS[index], limit, used, until)
    return refused


def _end(span: Span, start: int, quota: SimQuota, index: int) -> int:
    """When the period ends that began at `start`: not with `span` if the clock was set back."""
    return span.end if start < span.end else spans(start, quota.timezone, quota.reset_day)[index].end


def _write(tx: Tx, sim_id: int, counts: _Counts, recipients: int, *, new: bool) -> None:
    values = dict(zip(_COLUMNS, (*(value for count in counts for value in count), recipients), strict=True))
    if new:
        tx.run(FIRST, {"sim_id": sim_id, **values})
    else:
        tx.run(COUNT, {"b_sim_id": sim_id, **{"v_" + name: value for name, value in values.items()}})


def _set_recipient(tx: Tx, sim_id: int, number: str, month: int, intents: int) -> None:
    params = {"b_sim_id": sim_id, "b_number": number, "v_month_start": month, "v_intents": intents}
    tx.run(SET_RECIPIENT, params)
