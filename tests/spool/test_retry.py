"""What is done with a segment that was not sent: one table, class of failure to action."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.model import FailureClass
from gatewayd.spool.retry import ACTIONS, EXCUSED_TRIES, Action, Brake, Decision, RetryPolicy, decide

F = FailureClass
POLICY = RetryPolicy(attempts=5, backoff_ms=(1000, 2000, 3000, 4000))
MOVES = {"alternatives": True}
BLAMED = {"blames_number": True}


def test_every_class_has_an_action() -> None:
    assert set(ACTIONS) == set(FailureClass)


@pytest.mark.parametrize(
    ("failure", "tries", "more", "expected"),
    [
        # The network is out of order: the same channel three times, then another one.
        (F.NETWORK, 1, MOVES, Decision(Action.AGAIN, 1000)),
        (F.NETWORK, 2, MOVES, Decision(Action.AGAIN, 2000)),
        (F.NETWORK, 3, MOVES, Decision(Action.ELSEWHERE)),
        (F.NETWORK, 3, {}, Decision(Action.AGAIN, 3000)),
        (F.NETWORK, 4, {**MOVES, "refused_before": True}, Decision(Action.ELSEWHERE, 4000)),
        (F.NETWORK, 5, MOVES, Decision(Action.FAIL, **BLAMED)),
        # The channel went with it: waiting helps nobody.
        (F.UNKNOWN, 2, {"lost": True}, Decision(Action.AGAIN, 0)),
        (F.UNKNOWN, 5, {"lost": True}, Decision(Action.FAIL)),
        # The number, the message: never again.
        (F.NUMBER, 1, MOVES, Decision(Action.FAIL, **BLAMED)),
        (F.MESSAGE, 1, MOVES, Decision(Action.FAIL)),
        (F.MESSAGE, 1, {"written": False}, Decision(Action.FAIL)),
        # Nothing was written: the channel's own back-off bounds it.
        (F.DEVICE, 9, {"written": False}, Decision(Action.AGAIN, 0, counted=False)),
        # One refusal of a network is a second SIM's chance; two are believed. What a SIM may not says nothing of it.
        (F.REJECTED, 1, {}, Decision(Action.AGAIN, 1000)),
        (F.REJECTED, 1, MOVES, Decision(Action.ELSEWHERE)),
        (F.REJECTED, 2, {**MOVES, "refused_before": True}, Decision(Action.FAIL, **BLAMED)),
        (F.REJECTED, 1, {**MOVES, "movable": False}, Decision(Action.AGAIN, 1000)),
        (F.SIM, 2, {**MOVES, "refused_before": True}, Decision(Action.ELSEWHERE, 2000)),
        # Longer pauses.
        (F.CONGESTION, 1, MOVES, Decision(Action.AGAIN, 2000)),
        (F.UNREACHABLE, 1, MOVES, Decision(Action.AGAIN, 3000)),
        (F.UNREACHABLE, 4, {}, Decision(Action.AGAIN, 4000)),
        (F.UNREACHABLE, 5, {}, Decision(Action.FAIL, **BLAMED)),
        # The channel is stopped for it: not the message's fault, and not the number's.
        (F.NETWORK, 5, {"stopped_ms": 60_000}, Decision(Action.AGAIN, 61_000, counted=False)),
        (F.NETWORK, 5, {**MOVES, "stopped_ms": 60_000}, Decision(Action.ELSEWHERE, counted=False)),
        (F.NETWORK, 5, {"stopped_ms": 60_000, "attempts": EXCUSED_TRIES}, Decision(Action.FAIL, **BLAMED)),
    ],
)
def test_the_decision(failure: FailureClass, tries: int, more: dict[str, Any], expected: Decision) -> None:
    options = {"written": True, "movable": True, "alternatives": False, **more}
    assert decide(POLICY, failure, tries, **options) == expected


@given(
    st.sampled_from(FailureClass), st.integers(1, 20), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from([0, 30_000]), st.integers(0, 40),
)  # fmt: skip
def test_what_was_written_is_never_tried_beyond_the_bound(
    failure: FailureClass, tries: int, movable: bool, alternatives: bool, refused: bool, stopped_ms: int, attempts: int
) -> None:
    found = decide(
        POLICY, failure, tries, written=True, movable=movable, alternatives=alternatives, refused_before=refused,
        attempts=attempts, stopped_ms=stopped_ms,
    )  # fmt: skip
    assert found.counted or (stopped_ms and attempts < EXCUSED_TRIES)
    assert not found.counted or found.action is Action.FAIL or tries < POLICY.attempts
    assert not found.blames_number or found.action is Action.FAIL


@given(st.sampled_from(FailureClass), st.integers(1, 10))
def test_only_what_may_be_the_channels_fault_touches_the_channel(failure: FailureClass, tries: int) -> None:
    """A list of dead numbers stops no channel."""
    found = decide(POLICY, failure, tries, written=True, movable=True, alternatives=False)
    assert ACTIONS[failure].brake is Brake.NONE or found.action is not Action.FAIL or tries >= POLICY.attempts


def test_no_back_off_is_no_pause() -> None:
    assert decide(RetryPolicy(3, ()), F.NETWORK, 1, written=True, movable=True, alternatives=False).delay_ms == 0
