"""Which long message a part belongs to, and its text where parts lack: the pure choice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.spool.reassemble import (
    CONTINUES_WITHIN_MS,
    FAR_APART_MS,
    Assembly,
    Joins,
    KnownPart,
    NewPart,
    Opens,
    Repeats,
    in_order,
    is_whole,
    place,
)

NOW = 1_790_000_000_000


def assembly(
    id_: int, *seqs: int, at: int | None = NOW, opened_at: int = NOW, became: int | None = None, of: int | None = None
) -> Assembly:
    """Parts `seqs` that the SMS centre took at `at`; it `became` a message, and continues message `of`."""
    parts = tuple(KnownPart(100 * id_ + seq, seq, at, b"%d/%d" % (id_, seq)) for seq in seqs)
    return Assembly(id_, opened_at, became, parts, of)


def part(seq: int, at: int | None = NOW, content: bytes = b"new") -> NewPart:
    return NewPart(seq, at, content)


@pytest.mark.parametrize(
    ("new", "assemblies", "expected"),
    [
        (part(1), [], Opens()),
        (part(2), [assembly(1, 1)], Joins(1)),
        (part(1), [assembly(1, 1)], Opens()),  # another message with the same reference
        (part(1, content=b"1/1"), [assembly(1, 1)], Repeats(101)),
        (part(1, NOW + 1000, content=b"1/1"), [assembly(1, 1)], Opens()),  # the same text a second later
        # Repetitions of what was handed over already are no new message.
        (part(2, content=b"1/2"), [assembly(1, 1, 2, became=5)], Repeats(102)),
        (part(2, content=b"2/2"), [assembly(1, 1, became=5), assembly(2, 2, of=5, became=6)], Repeats(202)),
        # The nearest by the SMS centre's time; the newer one where that does not tell.
        (part(2, NOW + 59_000), [assembly(1, 1), assembly(2, 1, at=NOW + 60_000)], Joins(2)),
        (part(2, NOW + 1000), [assembly(1, 1), assembly(2, 1, at=NOW + 60_000)], Joins(1)),
        (part(2), [assembly(1, 1), assembly(2, 1)], Joins(2)),
        (part(2, None), [assembly(1, 1, at=None)], Joins(1)),
        (part(2, NOW + FAR_APART_MS), [assembly(1, 1)], Opens()),
        (part(2, NOW + FAR_APART_MS - 1), [assembly(1, 1)], Joins(1)),
        # Late: what lacked when the message was handed over.
        (part(2), [assembly(1, 1, 3, became=5)], Opens(5)),
        (part(3), [assembly(1, 1, 3, became=5)], Opens()),
        (part(3), [assembly(1, 1, became=5), assembly(2, 2, of=5)], Joins(2)),
        (part(3), [assembly(1, 1, became=5), assembly(2, 2, of=5, became=6)], Opens(6)),
        (part(2), [assembly(1, 1, became=5, opened_at=NOW - CONTINUES_WITHIN_MS - 1)], Opens()),
        (part(2, NOW + FAR_APART_MS), [assembly(1, 1, became=5)], Opens()),
        # What came late has filled the hole: another part with that number is of another message.
        (part(2), [assembly(1, 1, became=5), assembly(2, 2, of=5, became=6)], Opens()),
        (part(1), [assembly(1, 1, became=5), assembly(2, 2, of=5)], Opens()),
    ],
)  # fmt: skip
def test_where_a_part_belongs(new: NewPart, assemblies: Sequence[Assembly], expected: object) -> None:
    assert place(new, assemblies, NOW) == expected
    assert place(new, assemblies[::-1], NOW) == expected  # whatever order they are read in


@pytest.mark.parametrize(
    ("texts", "total", "expected"),
    [
        ({1: "a", 2: "b", 3: "c"}, 3, "abc"),
        ({2: "b"}, 3, "…b…"),
        ({1: "a", 4: "d"}, 4, "a…d"),
        ({1: "a", 3: "c"}, 5, "a…c…"),
        ({3: "c"}, 3, "…c"),
    ],
)
def test_gaps_are_marked_once_each(texts: dict[int, str], total: int, expected: str) -> None:
    assert in_order(texts, total, "…") == expected


@given(
    st.integers(1, 255).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(1, n)), st.sets(st.integers(1, n))))
)
@settings(deadline=None, max_examples=100)
def test_whole_is_all_parts_and_nothing_less(drawn: tuple[int, set[int], set[int]]) -> None:
    total, now, before = drawn
    assert is_whole(now, before, total) == (len(now | before) == total)
    text = in_order(dict.fromkeys(now, "x"), total, "…")
    assert text.count("x") == len(now)
    missing = sorted(set(range(1, total + 1)) - now)
    runs = sum(seq - 1 not in missing for seq in missing)
    assert text.count("…") == runs
