"""When the next start may be."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.router.pacing import ROUNDING_S, Pace, start_moment

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


@given(st.lists(st.floats(0, 30), min_size=2, max_size=40), st.floats(0.001, 10), st.integers(1, 5), st.floats(0, 5))
def test_no_more_than_a_burst_is_ever_ahead_of_the_interval(
    idles: list[float], interval: float, burst: int, jitter: float
) -> None:
    """In any stretch of time there are at most `burst` starts more than the interval allows."""
    pace = Pace(interval, jitter, burst)
    now, starts = 0.0, []
    for idle in idles:
        now += idle
        now += pace.wait_s(now)
        starts.append(now)
        pace.started(now)
    for first, last in itertools.combinations(range(len(starts)), 2):
        allowed = (last - first + 1 - burst) * interval
        assert starts[last] - starts[first] >= allowed - 1e-6


def test_jitter_only_ever_adds() -> None:
    pace = Pace(6.0, 4.0, chance=lambda: 0.5)
    pace.started(100.0)
    assert 8.0 <= pace.wait_s(100.0) <= 8.01


def test_a_start_that_did_not_wait_takes_nothing_from_the_next() -> None:
    """As one of an urgent message between two others."""
    pace = Pace(6.0)
    pace.started(100.0)
    pace.started(101.0)
    assert 7.0 <= pace.wait_s(100.0) <= 7.01


def test_after_a_restart_the_burst_counts_as_used_up() -> None:
    pace = Pace(10, burst=3)
    pace.resume(100)
    assert pace.wait_s(100) == pytest.approx(10 + ROUNDING_S)
    pace.started(111)
    assert pace.wait_s(111) == pytest.approx(9, abs=0.01)


def test_a_shorter_interval_holds_at_once_and_a_longer_one_from_the_next_start() -> None:
    pace = Pace(3600)
    pace.started(0)
    pace.become(6)
    assert pace.wait_s(0) == pytest.approx(6, abs=0.01)
    pace.become(60)
    assert pace.wait_s(0) == pytest.approx(6, abs=0.01)
