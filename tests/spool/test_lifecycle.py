"""The life cycle table and the folds: DESIGN §3, word for word."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import IllegalTransition
from gatewayd.model import Admission, Delivery, MessageState, ReportVerdict
from gatewayd.model import SegmentState as S
from gatewayd.spool.lifecycle import (
    FROM_OUTSIDE,
    MOVES,
    Command,
    fold,
    fold_delivery,
    is_final,
    mermaid,
    next_state,
    report_command,
    touched,
)

# As DESIGN §3 prints it.
DESIGN = """
HELD       → QUEUED | BLOCKED | EXPIRED | CANCELLED
QUEUED     → SUBMITTING | HELD | BLOCKED | EXPIRED | CANCELLED | FAILED
SUBMITTING → SUBMITTED | QUEUED | HELD | FAILED | IN_DOUBT | BLOCKED | EXPIRED | CANCELLED
IN_DOUBT   → SUBMITTED | DELIVERED | UNDELIVERED | QUEUED | ABANDONED
SUBMITTED  → DELIVERED | UNDELIVERED | NO_REPORT
NO_REPORT  → DELIVERED | UNDELIVERED
ABANDONED  → DELIVERED | UNDELIVERED | QUEUED
FAILED     → QUEUED
EXPIRED    → QUEUED
CANCELLED  → QUEUED
"""


def test_the_table_has_the_moves_of_the_design_and_no_others() -> None:
    wanted = set()
    for line in DESIGN.strip().splitlines():
        source, targets = line.split("→")
        wanted |= {(S(source.strip()), S(target.strip())) for target in targets.split("|")}
    assert {(source, target) for (source, _), target in MOVES.items()} == wanted


@pytest.mark.parametrize(("state", "command"), list(itertools.product(S, Command)))
def test_an_unlisted_command_of_ours_raises_and_one_from_outside_changes_nothing(state: S, command: Command) -> None:
    if (state, command) in MOVES:
        assert next_state(state, command) is MOVES[state, command]
    elif command in FROM_OUTSIDE:
        assert next_state(state, command) is None
    else:
        with pytest.raises(IllegalTransition):
            next_state(state, command)


def test_only_an_operator_brings_back_what_was_given_up() -> None:
    back = {command for (state, command), target in MOVES.items() if is_final(state) and target is S.QUEUED}
    assert back == {Command.REQUEUE}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([S.HELD, S.FAILED], MessageState.TO_PROCESS),
        ([S.SUBMITTED, S.QUEUED], MessageState.TO_PROCESS),
        ([S.SUBMITTING], MessageState.TO_PROCESS),
        ([S.IN_DOUBT, S.BLOCKED], MessageState.IN_DOUBT),
        ([S.ABANDONED, S.FAILED], MessageState.IN_DOUBT),
        ([S.BLOCKED, S.FAILED], MessageState.BLOCKED),
        ([S.FAILED, S.EXPIRED], MessageState.FAILED),
        ([S.EXPIRED, S.CANCELLED], MessageState.EXPIRED),
        ([S.CANCELLED, S.DELIVERED], MessageState.CANCELLED),
        ([S.SUBMITTED, S.DELIVERED], MessageState.PROCESSED),
        ([S.UNDELIVERED], MessageState.PROCESSED),
        ([S.NO_REPORT], MessageState.PROCESSED),
    ],
)
def test_the_first_rule_that_holds_is_the_message_state(states: list[S], expected: MessageState) -> None:
    """S4-41, S4-42, S4-43 and the numbers in their gaps (decision 1)."""
    assert fold(states) is expected


def test_admission_comes_before_the_segments() -> None:
    """S4-41: state 0 is not picked up; 4: the destination is no number."""
    assert fold([S.QUEUED], Admission.NONE) is MessageState.NONE
    assert fold([S.QUEUED], Admission.BAD_NUMBER) is MessageState.OTHER
    assert [state.value for state in (MessageState.NONE, MessageState.TO_PROCESS, MessageState.BLOCKED)] == [0, 1, 3]


@pytest.mark.parametrize(
    ("states", "report", "expected"),
    [
        ([S.QUEUED], True, Delivery.NONE),
        ([S.SUBMITTED], True, Delivery.PENDING),
        ([S.SUBMITTED], False, Delivery.NONE),
        ([S.DELIVERED], False, Delivery.DELIVERED),
        ([S.DELIVERED, S.DELIVERED], True, Delivery.DELIVERED),
        ([S.DELIVERED, S.SUBMITTED], True, Delivery.PENDING),
        ([S.DELIVERED, S.QUEUED], True, Delivery.PENDING),
        ([S.DELIVERED, S.UNDELIVERED], True, Delivery.UNDELIVERED),
        ([S.DELIVERED, S.FAILED], True, Delivery.UNDELIVERED),
        ([S.DELIVERED, S.NO_REPORT], True, Delivery.UNKNOWN),
        ([S.NO_REPORT], True, Delivery.UNKNOWN),
        ([S.ABANDONED], True, Delivery.UNKNOWN),
        ([S.IN_DOUBT], True, Delivery.PENDING),
        ([S.FAILED, S.FAILED], True, Delivery.NONE),
    ],
)
def test_delivered_is_all_parts_and_undelivered_is_any(states: list[S], report: bool, expected: Delivery) -> None:
    assert fold_delivery(states, report) is expected


@given(st.lists(st.sampled_from(S), min_size=1, max_size=6), st.booleans())
def test_the_folds_do_not_depend_on_the_order_of_the_segments(states: list[S], report: bool) -> None:
    assert fold(states) is fold(states[::-1])
    assert fold_delivery(states, report) is fold_delivery(states[::-1], report)
    assert touched(states) is touched(states[::-1])


@given(st.lists(st.sampled_from(Command), max_size=12))
def test_what_was_in_doubt_goes_out_again_only_by_policy_or_operator(commands: list[Command]) -> None:
    """Promise 2: nothing is ever sent twice silently."""
    state = S.IN_DOUBT
    chosen = False
    for command in commands:
        try:
            target = next_state(state, command)
        except IllegalTransition:
            continue
        chosen = chosen or command in {Command.RESEND, Command.REQUEUE}
        state = target or state
        if state in {S.QUEUED, S.SUBMITTING}:
            assert chosen


def test_a_report_while_the_centre_still_tries_is_no_command() -> None:
    assert report_command(ReportVerdict.TRYING) is None
    assert report_command(ReportVerdict.DELIVERED) is Command.REPORTED_DELIVERED
    assert report_command(ReportVerdict.UNDELIVERED) is Command.REPORTED_UNDELIVERED


def test_the_diagram_in_the_documentation_is_the_table() -> None:
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    assert mermaid() in page, "docs/architecture.md is stale: paste lifecycle.mermaid() into it"
