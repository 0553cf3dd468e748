"""The life cycle of a segment: one table, and the fold that makes a message's state of it.

Everything that decides a state lives in this file, and nothing outside the spool writes one. A command of our own that
the table does not have raises IllegalTransition: it is a bug. A report or result from outside that the table does not
have changes nothing and is kept as an event: were it an error, it would come back for ever.

Source: docs/architecture.md "Life cycle" (the diagram there is generated from this table).
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from gatewayd.errors import IllegalTransition
from gatewayd.model import Admission, Delivery, MessageState, ReportVerdict
from gatewayd.model import SegmentState as S


class Command(StrEnum):
    """What may happen to a segment. The value is what its event row says."""

    HOLD = "held"
    RELEASE = "released"
    BLOCK = "blocked"
    EXPIRE = "expired"
    CANCEL = "cancelled"
    INTEND = "intent"  # marked on disk before its first byte leaves
    SENT = "sent"  # the network took it
    NOT_SENT = "not sent"  # known not to have left; it goes back to the queue
    REFUSED = "refused"  # not sent, and no try will change that
    GIVEN_UP = "given up"  # another segment of the message has failed for good
    DOUBT = "in doubt"  # handed over, and nobody knows
    LATE_RESULT = "late result"  # +CMGS after its command had been given up
    SAID_SENT = "said to be sent"  # an operator's word
    RESEND = "resend"  # policy `resend`
    ABANDON = "abandoned"  # policy `fail`, nothing heard in time
    NO_REPORT = "no report"
    REPORTED_DELIVERED = "report: delivered"
    REPORTED_UNDELIVERED = "report: undelivered"
    REQUEUE = "requeued"  # operator only; from IN_DOUBT and ABANDONED a possible double


MOVES: dict[tuple[S, Command], S] = {
    (S.HELD, Command.RELEASE): S.QUEUED,
    (S.HELD, Command.BLOCK): S.BLOCKED,
    (S.HELD, Command.EXPIRE): S.EXPIRED,
    (S.HELD, Command.CANCEL): S.CANCELLED,
    (S.QUEUED, Command.INTEND): S.SUBMITTING,
    (S.QUEUED, Command.HOLD): S.HELD,
    (S.QUEUED, Command.BLOCK): S.BLOCKED,
    (S.QUEUED, Command.EXPIRE): S.EXPIRED,
    (S.QUEUED, Command.CANCEL): S.CANCELLED,
    (S.QUEUED, Command.REFUSED): S.FAILED,
    (S.QUEUED, Command.GIVEN_UP): S.FAILED,
    (S.SUBMITTING, Command.SENT): S.SUBMITTED,
    (S.SUBMITTING, Command.NOT_SENT): S.QUEUED,
    (S.SUBMITTING, Command.HOLD): S.HELD,
    (S.SUBMITTING, Command.REFUSED): S.FAILED,
    (S.SUBMITTING, Command.DOUBT): S.IN_DOUBT,
    # Only while nothing was written: the caller has the modem's word for it (ESC before the PDU).
    (S.SUBMITTING, Command.BLOCK): S.BLOCKED,
    (S.SUBMITTING, Command.EXPIRE): S.EXPIRED,
    (S.SUBMITTING, Command.CANCEL): S.CANCELLED,
    (S.IN_DOUBT, Command.LATE_RESULT): S.SUBMITTED,
    (S.IN_DOUBT, Command.REPORTED_DELIVERED): S.DELIVERED,
    (S.IN_DOUBT, Command.REPORTED_UNDELIVERED): S.UNDELIVERED,
    (S.IN_DOUBT, Command.SAID_SENT): S.SUBMITTED,
    (S.IN_DOUBT, Command.RESEND): S.QUEUED,
    (S.IN_DOUBT, Command.REQUEUE): S.QUEUED,
    (S.IN_DOUBT, Command.ABANDON): S.ABANDONED,
    (S.SUBMITTED, Command.REPORTED_DELIVERED): S.DELIVERED,
    (S.SUBMITTED, Command.REPORTED_UNDELIVERED): S.UNDELIVERED,
    (S.SUBMITTED, Command.NO_REPORT): S.NO_REPORT,
    (S.NO_REPORT, Command.REPORTED_DELIVERED): S.DELIVERED,
    (S.NO_REPORT, Command.REPORTED_UNDELIVERED): S.UNDELIVERED,
    (S.ABANDONED, Command.REPORTED_DELIVERED): S.DELIVERED,
    (S.ABANDONED, Command.REPORTED_UNDELIVERED): S.UNDELIVERED,
    (S.FAILED, Command.REQUEUE): S.QUEUED,
    (S.EXPIRED, Command.REQUEUE): S.QUEUED,
    (S.CANCELLED, Command.REQUEUE): S.QUEUED,
    (S.ABANDONED, Command.REQUEUE): S.QUEUED,
}

FROM_OUTSIDE = frozenset({Command.LATE_RESULT, Command.REPORTED_DELIVERED, Command.REPORTED_UNDELIVERED})
"""What the network says. It may come late, twice or of something else, so a move the table lacks is no error."""

_TOUCHED = frozenset({S.SUBMITTED, S.IN_DOUBT, S.DELIVERED, S.UNDELIVERED, S.NO_REPORT, S.ABANDONED})
"""States of a segment that was, or may have been, handed to the network."""


def next_state(state: S, command: Command) -> S | None:
    """Where `command` takes a segment in `state`.

    None: the command came from outside and changes nothing here. Raises IllegalTransition for a command of our own that
    is not in the table.
    """
    target = MOVES.get((state, command))
    if target is None and command not in FROM_OUTSIDE:
        raise IllegalTransition(f"a segment that is {state} cannot be {command.value!r}")
    return target


def report_command(verdict: ReportVerdict) -> Command | None:
    """The command a status report amounts to; None while the SMS centre still tries."""
    if verdict is ReportVerdict.DELIVERED:
        return Command.REPORTED_DELIVERED
    if verdict is ReportVerdict.UNDELIVERED:
        return Command.REPORTED_UNDELIVERED
    return None


def fold(states: Collection[S], admission: Admission = Admission.ADMITTED) -> MessageState:
    """The message state that follows from its segments' (DESIGN §3): the first rule that holds."""
    if admission is Admission.NONE:
        return MessageState.NONE
    if admission is Admission.BAD_NUMBER:
        return MessageState.OTHER
    present = set(states)
    for rule, state in _FOLD:
        if present & rule:
            return state
    return MessageState.PROCESSED


_FOLD: tuple[tuple[frozenset[S], MessageState], ...] = (
    (frozenset({S.HELD, S.QUEUED, S.SUBMITTING}), MessageState.TO_PROCESS),
    (frozenset({S.IN_DOUBT, S.ABANDONED}), MessageState.IN_DOUBT),
    (frozenset({S.BLOCKED}), MessageState.BLOCKED),
    (frozenset({S.FAILED}), MessageState.FAILED),
    (frozenset({S.EXPIRED}), MessageState.EXPIRED),
    (frozenset({S.CANCELLED}), MessageState.CANCELLED),
)


def fold_delivery(states: Collection[S], report: bool) -> Delivery:
    """What status reports say of the whole message: delivered is all parts, undelivered is any.

    `report`: whether reports were asked for. A message of which one part will never go out is undelivered as soon as
    another part has gone.
    """
    present = set(states)
    if not present & _TOUCHED:
        return Delivery.NONE
    if S.UNDELIVERED in present:
        return Delivery.UNDELIVERED
    if present == {S.DELIVERED}:
        return Delivery.DELIVERED
    if not report and S.DELIVERED not in present:
        return Delivery.NONE
    if present & {S.FAILED, S.BLOCKED, S.EXPIRED, S.CANCELLED}:
        return Delivery.UNDELIVERED
    if present & {S.HELD, S.QUEUED, S.SUBMITTING, S.SUBMITTED, S.IN_DOUBT} and report:
        return Delivery.PENDING
    return Delivery.UNKNOWN


def touched(states: Collection[S]) -> bool:
    """Whether any segment was, or may have been, handed over: the rest then stays with that SIM."""
    return bool(set(states) & _TOUCHED)


def is_final(state: S) -> bool:
    """Whether nothing moves a segment in `state` any more but an operator or a late report."""
    return state not in {S.HELD, S.QUEUED, S.SUBMITTING, S.IN_DOUBT, S.SUBMITTED}


def mermaid() -> str:
    """The table as a Mermaid state diagram, for docs/architecture.md."""
    lines = ["stateDiagram-v2", "    [*] --> QUEUED: accepted", "    [*] --> HELD: accepted, kept back"]
    lines += [f"    {source} --> {target}: {command.value}" for (source, command), target in MOVES.items()]
    return "\n".join(line.replace(": report: ", ": report ") for line in lines) + "\n"
