"""What is done with a segment that was not sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.model import Retry
from gatewayd.spool.retry import Action, Decision, RetryPolicy, decide

POLICY = RetryPolicy(attempts=3, backoff_ms=(1000, 5000))


@pytest.mark.parametrize(
    ("retry", "tries", "more", "expected"),
    [
        (Retry.LATER, 1, {}, Decision(Action.AGAIN, 1000)),
        (Retry.LATER, 2, {}, Decision(Action.AGAIN, 5000)),
        (Retry.LATER, 3, {}, Decision(Action.FAIL)),
        (Retry.LATER, 2, {"lost": True}, Decision(Action.AGAIN, 0)),
        (Retry.LATER, 3, {"lost": True}, Decision(Action.FAIL)),
        (Retry.NEVER, 1, {}, Decision(Action.FAIL)),
        (Retry.NEVER, 1, {"written": False}, Decision(Action.FAIL)),
        (Retry.LATER, 9, {"written": False}, Decision(Action.AGAIN, 0, counted=False)),
        (Retry.ELSEWHERE, 1, {}, Decision(Action.AGAIN, 1000)),
        (Retry.ELSEWHERE, 1, {"alternatives": True}, Decision(Action.ELSEWHERE)),
        (Retry.ELSEWHERE, 2, {"alternatives": True, "refused_before": True}, Decision(Action.FAIL)),
        (Retry.ELSEWHERE, 1, {"alternatives": True, "movable": False}, Decision(Action.AGAIN, 1000)),
    ],
)
def test_the_decision(retry: Retry, tries: int, more: dict[str, bool], expected: Decision) -> None:
    options = {"written": True, "movable": True, "alternatives": False, **more}
    assert decide(POLICY, retry, tries, **options) == expected


@given(st.sampled_from(Retry), st.integers(1, 20), st.booleans(), st.booleans(), st.booleans())
def test_what_was_written_is_never_tried_beyond_the_bound(
    retry: Retry, tries: int, movable: bool, alternatives: bool, refused_before: bool
) -> None:
    found = decide(
        POLICY, retry, tries, written=True, movable=movable, alternatives=alternatives, refused_before=refused_before
    )
    assert found.counted
    assert found.action is Action.FAIL or tries < POLICY.attempts
