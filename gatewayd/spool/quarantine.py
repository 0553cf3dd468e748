"""Quarantine of numbers that fail wherever they are tried: what is written to them waits, and delays nobody.

A message that fails of its number (`retry.ACTIONS`, column `number`) counts against it. After so many, with no success
on any SIM between, the number is in quarantine: untouched messages to it are put off until its end. Then one message
is tried, the probe, and no other until its outcome is known: success clears the number, failure begins a longer
quarantine. `retention` forgets what has not failed for long. Runs in the writer's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select, update

from gatewayd.clock import iso
from gatewayd.spool import schema
from gatewayd.spool.engine import Statement, set_to
from gatewayd.spool.settings import audit
from gatewayd.spool.writer import STEP, Tx

MAX_KNOWN = 10_000  # numbers kept in memory; with more of them the spool is asked about each
MAX_SIMS = 20  # named in a row; it is for people
PROBE_MS = 600_000  # so long the others wait for the probe's outcome at the most

_f = schema.number_faults.c
_m = schema.messages.c

KNOWN = Statement(select(_f.number).limit(schema.sqltext(MAX_KNOWN + 1)))
FAULT = Statement(
    select(_f.failures, _f.sims, _f.code, _f.detail, _f.first_at, _f.until, _f.probe).where(
        _f.number == bindparam("number")
    )
)
NEW_FAULT = Statement(
    schema.number_faults.insert(),
    columns=["number", "failures", "sims", "code", "detail", "first_at", "last_at", "until", "probe"],
)
FAILED_AGAIN = Statement(
    update(schema.number_faults)
    .where(_f.number == bindparam("b_number"))
    .values(set_to("failures", "sims", "code", "detail", "last_at", "until", "probe"))
)
PROBE = Statement(
    update(schema.number_faults).where(_f.number == bindparam("b_number")).values(set_to("until", "probe"))
)
CLEAR = Statement(delete(schema.number_faults).where(_f.number == bindparam("number")).returning(_f.until))
PUT_OFF = Statement(
    update(schema.messages)
    .where(_m.id == bindparam("b_id"), _m.queue == schema.sqltext(schema.DUE))
    .values(set_to("due_at", "reason", "updated_at") | {"queue": schema.sqltext(schema.LATER)})
)
_waiting = (
    select(_m.id)
    .where(
        _m.to_number == bindparam("b_number"),
        schema.OPEN,
        _m.queue == schema.sqltext(schema.LATER),
        _m.due_at > bindparam("b_now"),
        _m.not_before.is_(None) | (_m.not_before <= bindparam("b_now")),
    )
    .limit(schema.sqltext(STEP))
)
WAKE = Statement(update(schema.messages).where(_m.id.in_(_waiting)).values(due_at=bindparam("b_now")))


@dataclass(frozen=True, slots=True)
class QuarantinePolicy:
    """After `failures` of a number (0: never) it is in quarantine for the first of `backoff_ms`, next for the 2nd …"""

    failures: int = 3
    backoff_ms: Sequence[int] = (3_600_000, 21_600_000, 86_400_000)

    def length_ms(self, failures: int) -> int | None:
        """How long a quarantine that begins with the number's `failures`th failure lasts; None: it begins none."""
        if not self.failures or failures < self.failures or not self.backoff_ms:
            return None
        return self.backoff_ms[min(failures - self.failures, len(self.backoff_ms) - 1)]

    @property
    def longest_ms(self) -> int:
        """A quarantine that seems to last longer was begun by a clock that was ahead, or by another policy."""
        return max(PROBE_MS, *self.backoff_ms) if self.backoff_ms else PROBE_MS


class QuarantineBook:
    """Which numbers have failed at all, so that nothing is asked about the others. `forget()` after any rollback."""

    def __init__(self) -> None:
        self._numbers: set[str] | None = None
        self._too_many = False

    def forget(self) -> None:
        self._numbers, self._too_many = None, False

    def knows(self, tx: Tx, number: str) -> bool:
        """Whether there may be a row about the number."""
        if self._numbers is None:
            self._numbers = {row[0] for row in tx.all(KNOWN, {})}
            self._too_many = len(self._numbers) > MAX_KNOWN
        return self._too_many or number in self._numbers

    def add(self, number: str) -> None:
        if self._numbers is not None and not self._too_many:
            self._numbers.add(number)
            self._too_many = len(self._numbers) > MAX_KNOWN

    def drop(self, number: str) -> None:
        if self._numbers is not None:
            self._numbers.discard(number)


def failed(
    tx: Tx,
    book: QuarantineBook,
    number: str,
    message_id: int,
    sim_id: int,
    code: str,
    detail: str,
    now: int,
    policy: QuarantinePolicy,
) -> int | None:
    """Count a message that failed of its number (`retry.Decision.blames_number`).

    Returns until when the number is in quarantine (epoch ms), None if it is not. What was on its way already when a
    quarantine began makes it no longer.
    """
    if not policy.failures:
        return None
    said = {"code": code, "detail": detail}
    row = tx.one(FAULT, {"number": number}) if book.knows(tx, number) else None
    if row is None:
        length = policy.length_ms(1)
        until = None if length is None else now + length
        values = {"number": number, "failures": 1, "sims": str(sim_id), "first_at": now, "last_at": now, **said}
        tx.run(NEW_FAULT, {**values, "until": until, "probe": None})
        book.add(number)
        return until
    failures, sims, _, _, _, until, probe = row
    if until is not None and until > now and probe != message_id:
        return int(until)
    failures += 1
    length = policy.length_ms(failures)
    until = None if length is None else now + length
    values = {"failures": failures, "sims": _with(sims, sim_id), "last_at": now, "until": until, "probe": None, **said}
    tx.run(FAILED_AGAIN, {"b_number": number, **{"v_" + name: value for name, value in values.items()}})
    return until


def quarantined(
    tx: Tx, book: QuarantineBook, number: str, message_id: int, now: int, policy: QuarantinePolicy
) -> tuple[int, str] | None:
    """Until when an untouched message must wait because of its number, and why; None if it may go.

    Ask last, right before the intent: where a quarantine is over, the message becomes its probe.
    """
    if not policy.failures or not book.knows(tx, number):
        return None
    row = tx.one(FAULT, {"number": number})
    if row is None or row[5] is None or row[6] == message_id:
        return None
    failures, sims, code, detail, first_at, until, probe = row
    if now < until <= now + policy.longest_ms:
        return until, sentence(number, failures, sims, code, detail, first_at, until, probe)
    tx.run(PROBE, {"b_number": number, "v_until": now + PROBE_MS, "v_probe": message_id})
    return None


def sentence(
    number: str, failures: int, sims: str, code: str, detail: str, first_at: int, until: int, probe: int | None
) -> str:
    """Why a message to the number waits, for people."""
    if probe is not None:
        return f"its number has failed {failures} times; message {probe} is tried first (gatewayd numbers quarantined)"
    count = sims.count(",") + 1
    last = f"{code} {detail}".strip()
    return (
        f"its number is in quarantine until {iso(until)}: {failures} messages to it failed since {iso(first_at)}, on "
        f"{count} SIM{'s' if count > 1 else ''}, the last with {last or 'no code'} (gatewayd numbers release {number})"
    )


def put_off(tx: Tx, message_id: int, until: int, reason: str, now: int) -> None:
    """Let a claimable message wait until then."""
    tx.run(PUT_OFF, {"b_id": message_id, "v_due_at": until, "v_reason": reason, "v_updated_at": now})
    tx.notices.at(until)


def cleared(tx: Tx, book: QuarantineBook, number: str, now: int) -> bool:
    """The number takes messages, or wrote one: what counted against it is forgotten, and what waited is due.

    Whether there was anything. With very many messages the first step of them is due at once, the others when they
    would have been.
    """
    if not book.knows(tx, number):
        return False
    row = tx.one(CLEAR, {"number": number})
    book.drop(number)
    if row is None:
        return False
    if row[0] is not None:
        wake(tx, number, now)
    return True


def wake(tx: Tx, number: str, now: int) -> int:
    """Make a step of what waits for the number due; returns how many. Less than STEP: that was all."""
    woken = tx.run(WAKE, {"b_number": number, "b_now": now})
    if woken:
        tx.notices.at(now)
    return woken


def release(tx: Tx, book: QuarantineBook, number: str, actor: str, now: int) -> bool:
    """An operator lets a number out, and forgets its failures; False if it has none. What waits is for `wake`."""
    row = tx.one(CLEAR, {"number": number})
    book.drop(number)
    if row is None:
        return False
    audit(tx, actor, "released a number from quarantine", number, now)
    return True


def _with(sims: str, sim_id: int) -> str:
    known = sims.split(",")
    return sims if str(sim_id) in known or len(known) >= MAX_SIMS else f"{sims},{sim_id}"
