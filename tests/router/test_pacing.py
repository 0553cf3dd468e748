"""When the next start may be."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.router.pacing import Pace, start_moment

moments = st.floats(0, 1e6, allow_nan=False)


def test_the_first_start_is_free_and_the_next_an_interval_later() -> None:
    pace = Pace(6.0)
    assert pace.wait_s(100.0) == 0
    pace.started(100.0)
    assert 6.0 <= pace.wait_s(100.0) <= 6.002
    assert pace.wait_s(200.0) == 0


def test_without_an_interval_nothing_ever_waits() -> None:
    pace = Pace(0)
    pace.started(100.0)
    assert pace.wait_s(100.0) == 0


@given(st.lists(st.tuples(moments, st.floats(0, 30)), min_size=2, max_size=30), st.floats(0.001, 10))
def test_starts_are_never_closer_than_the_interval_and_nothing_is_caught_up(
    demands: list[tuple[float, float]], interval: float
) -> None:
    pace = Pace(interval)
    now, starts = 0.0, []
    for idle, _ in demands:
        now += idle
        now += pace.wait_s(now)
        starts.append(now)
        pace.started(now)
    assert all(b - a >= interval for a, b in itertools.pairwise(starts))


@given(moments, st.floats(0, 200), st.integers(-(10**9), 10**9))
def test_a_jump_of_the_wall_clock_opens_no_gap(called: float, took: float, jump_ms: int) -> None:
    """Pace uses the monotonic clock: the start lies between call and end, whatever the wall clock says."""
    moment = start_moment(0, int(took * 1000) + jump_ms, called, called + took)
    assert called - 1e-6 <= moment <= called + took
