"""What clusters of failures do to a channel."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.model import FailureClass
from gatewayd.router.breaker import MAX_CODES, Breaker, BreakerSettings
from gatewayd.spool.retry import ACTIONS, Brake

F = FailureClass
NUMBERS = ["+59890000001", "+59890000002", "+59890000003"]
OPENING = [failure for failure in F if ACTIONS[failure].brake is Brake.OPEN]
HARMLESS = [failure for failure in F if ACTIONS[failure].brake is Brake.NONE]


def at(moment: float) -> str:
    return f"t{moment:g}"


def broken(breaker: Breaker, now: float = 0.0, times: int = 5) -> float:
    """The network refuses two numbers in turn."""
    return [breaker.failed(F.NETWORK, "CMS 38", NUMBERS[n % 2], now + n) for n in range(times)][-1]


def test_a_cluster_of_one_code_stops_the_channel_and_it_is_tried_once_after_ever_longer_pauses() -> None:
    breaker = Breaker()
    assert broken(breaker, times=4) == 0
    assert breaker.reason(3, at) == ""
    now = 4.0
    assert breaker.failed(F.NETWORK, "CMS 38", NUMBERS[0], now) == 30
    assert breaker.reason(now, at) == "stopped: CMS 38 5 times in a row since t0; tried again at t34"
    pauses = [30.0]
    for _ in range(6):
        now += breaker.wait_s(now)
        assert breaker.wait_s(now) == 0, "one try"
        assert breaker.reason(now, at).endswith("tried again with the next message")
        pauses.append(breaker.failed(F.NETWORK, "CMS 38", NUMBERS[0], now))
    assert pauses == [30, 60, 120, 240, 480, 900, 900]
    breaker.succeeded(now)
    assert (breaker.wait_s(now), breaker.reason(now, at)) == (0, "")
    assert broken(breaker, now, times=4) == 0, "the row begins anew"
    assert breaker.failed(F.NETWORK, "CMS 38", NUMBERS[0], now) == 30


def test_one_number_is_not_the_channels_fault() -> None:
    breaker = Breaker()
    assert [breaker.failed(F.NETWORK, "CMS 38", NUMBERS[0], n) for n in range(50)] == [0] * 50
    assert breaker.failed(F.NETWORK, "CMS 38", NUMBERS[1], 50) == 30


def test_different_codes_are_no_cluster() -> None:
    breaker = Breaker()
    for n in range(4):
        for code in ("CMS 38", "CMS 41", "CMS 331"):
            assert breaker.failed(F.NETWORK, code, NUMBERS[n % 2], n) == 0
    assert breaker.failed(F.NETWORK, "CMS 41", NUMBERS[0], 5) == 30
    assert "CMS 41 5 times in a row" in breaker.reason(5, at)


@pytest.mark.parametrize("failure", HARMLESS)
def test_bad_numbers_and_messages_stop_nobody(failure: FailureClass) -> None:
    breaker = Breaker()
    assert [breaker.failed(failure, "CMS 1", NUMBERS[n % 3], n) for n in range(1000)] == [0] * 1000
    assert breaker.wait_s(0) == 0


def test_a_device_that_says_nothing_is_its_supervisors_matter() -> None:
    breaker = Breaker()
    assert [breaker.failed(F.DEVICE, "", NUMBERS[n % 3], n) for n in range(20)] == [0] * 20


def test_a_try_that_says_nothing_of_the_channel_leaves_it_open_for_the_next() -> None:
    breaker = Breaker()
    broken(breaker)
    assert breaker.failed(F.NUMBER, "CMS 1", NUMBERS[0], 40) == 0
    assert breaker.wait_s(40) == 0
    assert breaker.failed(F.SIM, "CMS 10", NUMBERS[0], 41) == 60, "whatever it is, it is no success"
    assert "CMS 10 once" in breaker.reason(41, at)


def test_congestion_slows_down_and_success_makes_it_faster_again() -> None:
    breaker = Breaker()
    intervals = []
    for now in range(8):
        assert breaker.failed(F.CONGESTION, "CMS 42", NUMBERS[now % 2], now) == 0
        assert breaker.wait_s(now) == breaker.interval_s
        intervals.append(breaker.interval_s)
    assert intervals == [1, 2, 4, 8, 16, 32, 60, 60]
    assert breaker.reason(8, at) == "slowed down to one message in 60 s after CMS 42"
    for expected in (30, 15, 7.5, 3.75, 1.875, 0):
        breaker.succeeded(100)
        assert (breaker.interval_s, breaker.wait_s(100)) == (expected, expected)
    assert breaker.reason(100, at) == ""


def test_another_sim_begins_anew() -> None:
    breaker = Breaker()
    broken(breaker)
    breaker.failed(F.CONGESTION, "CMS 42", NUMBERS[0], 5)
    breaker.release()
    assert (breaker.wait_s(5), breaker.reason(5, at), breaker.interval_s) == (0, "", 0)


happened = st.lists(
    st.tuples(
        st.one_of(st.none(), st.sampled_from(F)),  # None: sent
        st.sampled_from(["", "CMS 38", "CMS 10", "CMS 42"]),
        st.sampled_from(NUMBERS),
        st.floats(0, 100),
    ),
    max_size=60,
)


@given(happened)
def test_it_never_waits_longer_than_its_bound_nor_is_it_stopped_after_a_success(
    story: list[tuple[FailureClass | None, str, str, float]],
) -> None:
    settings = BreakerSettings()
    breaker, now = Breaker(settings), 0.0
    for failure, code, number, idle in story:
        now += idle + breaker.wait_s(now + idle)
        if failure is None:
            breaker.succeeded(now)
            assert breaker.stopped_s(now) == 0
            assert breaker.reason(now, at) == "" or breaker.interval_s > 0
        else:
            stopped = breaker.failed(failure, code, number, now)
            assert stopped == breaker.stopped_s(now)
        assert breaker.wait_s(now) <= settings.max_pause_s
        assert breaker.interval_s <= settings.max_slow_s
        assert (breaker.wait_s(now) > 0) <= bool(breaker.reason(now, at)), "who waits says why"


@given(st.sampled_from(OPENING), st.integers(1, 40))
def test_pauses_only_grow(failure: FailureClass, tries: int) -> None:
    breaker, now, pauses = Breaker(), 0.0, []
    for n in range(5 + tries):
        now += breaker.wait_s(now)
        pauses.append(breaker.failed(failure, "CMS 38", NUMBERS[n % 2], now))
    assert all(a <= b for a, b in pairwise(pauses))
    assert pauses[4] == 30


def test_codes_without_end_are_not_kept() -> None:
    breaker = Breaker()
    for n in range(10 * MAX_CODES):
        breaker.failed(F.UNKNOWN, f"CMS {1000 + n}", NUMBERS[n % 2], n)
    assert len(breaker._rows) <= MAX_CODES
