"""Which segment a report belongs to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.model import SegmentState as S
from gatewayd.spool.correlate import Candidate, choose, same_number

T = 1_790_000_000_000


def candidate(message_id: int, **fields: object) -> Candidate:
    values: dict[str, object] = {
        "seq": 1, "state": S.SUBMITTED, "to": "+59898344484", "tp_mr": 7, "tp_mr_expected": None, "submitted_at": T,
    }  # fmt: skip
    return Candidate(message_id, **{**values, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("+59898344484", "098344484", True),
        ("+59898344484", "59898344484", True),
        ("+59898344484", "+59898344485", False),
        ("7373", "7373", True),
        ("7373", "+5989837373", False),
        ("Bank", "Bank", True),
        ("Bank", "Shop", False),
        ("", "+59898344484", False),
    ],
)
def test_numbers_are_compared_by_their_last_digits(one: str, other: str, same: bool) -> None:
    assert same_number(one, other) is same
    assert same_number(other, one) is same


def test_reference_and_number_both_have_to_fit() -> None:
    assert choose([candidate(1)], 7, "098344484", None) == candidate(1)
    assert choose([candidate(1)], 8, "098344484", None) is None
    assert choose([candidate(1)], 7, "+59890000000", None) is None


def test_the_newest_goes_first_where_the_centres_clock_says_nothing() -> None:
    old, new = candidate(1, submitted_at=T - 5000), candidate(2, submitted_at=T)
    assert choose([old, new], 7, old.to, None) == new
    assert choose([old, new], 7, old.to, T - 86_400_000) == new


def test_the_centres_time_stamp_decides_between_two_with_one_reference() -> None:
    old, new = candidate(1, submitted_at=T - 60_000), candidate(2, submitted_at=T)
    assert choose([old, new], 7, old.to, T - 59_000) == old
    assert choose([old, new], 7, old.to, T + 1_000) == new


def test_one_that_still_waits_goes_before_one_that_has_its_report() -> None:
    done, waiting = candidate(1, state=S.DELIVERED, submitted_at=T), candidate(2, submitted_at=T - 9000)
    assert choose([done, waiting], 7, done.to, None) == waiting
    assert choose([done], 7, done.to, None) == done


def test_a_segment_in_doubt_is_known_by_the_sims_next_reference() -> None:
    doubt = candidate(1, state=S.IN_DOUBT, tp_mr=None, tp_mr_expected=8)
    assert choose([doubt], 8, doubt.to, None) == doubt
    assert choose([doubt], 9, doubt.to, None) == doubt, "refused ones between them use references up"
    assert choose([doubt], 7, doubt.to, None) is None
    known = candidate(2, tp_mr=8, submitted_at=T - 1)
    assert choose([doubt, known], 8, doubt.to, None) == known
    modem_tells_none = candidate(3, tp_mr=None)
    assert choose([modem_tells_none], 200, doubt.to, None) == modem_tells_none


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(S), st.none() | st.integers(0, 3), st.integers(T - 10**6, T)))
)
def test_what_is_chosen_always_fits(rows: list[tuple[int, S, int | None, int]]) -> None:
    candidates = [
        candidate(i, to=f"+5989000000{to}", state=state, tp_mr=mr, submitted_at=at)
        for i, (to, state, mr, at) in enumerate(rows)
    ]
    found = choose(candidates, 2, "+59890000003", T)
    if found is None:
        assert not [c for c in candidates if c.to.endswith("3") and c.tp_mr in {None, 2}]
    else:
        assert found.to.endswith("3")
        assert found.tp_mr in {None, 2}
