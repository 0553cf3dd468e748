"""How many urgent operations share a commit: few where it is quick, as many as make it worth while where it is slow."""

from __future__ import annotations

from itertools import cycle

import pytest

from gatewayd.spool.rhythm import MANY, Rhythm

MS = 0.001
WAITING = 8


def settled(commits_ms: list[float], urgent_ms: list[float]) -> int:
    rhythm = Rhythm()
    for _, commit, urgent in zip(range(3000), cycle(commits_ms), cycle(urgent_ms), strict=False):
        rhythm.committed(commit * MS)
        rhythm.worked(urgent * MS)
    return rhythm.most_urgent(WAITING)


@pytest.mark.parametrize(
    ("commit_ms", "least", "most"),
    [(0.02, 1, 1), (0.3, 1, 2), (1, 3, 5), (15, 50, 70)],
    ids=["memory", "fast", "ssd", "disk"],
)
def test_groups_are_as_large_as_the_commit_is_slow(commit_ms: float, least: int, most: int) -> None:
    assert least <= settled([commit_ms], [0.25]) <= most


def test_what_other_processes_do_to_most_commits_changes_little() -> None:
    quiet = settled([0.3], [0.25])
    assert settled([0.3, 4.0, 9.0], [0.25, 2.0, 4.0]) in range(quiet - 1, quiet + 2)


def test_it_follows_a_disk_that_becomes_slow() -> None:
    rhythm = Rhythm()
    for _ in range(500):
        rhythm.committed(15 * MS)
        rhythm.worked(0.25 * MS)
    assert rhythm.most_urgent(WAITING) > 30


def test_one_goes_at_least() -> None:
    rhythm = Rhythm()
    for _ in range(10_000):
        rhythm.committed(0.0)
        rhythm.worked(1.0)
    assert rhythm.most_urgent(WAITING) == 1


def test_where_many_wait_getting_through_goes_first() -> None:
    rhythm = Rhythm(commit_s=2 * MS, urgent_s=0.25 * MS)
    assert rhythm.most_urgent(MANY) == 8
    assert rhythm.most_urgent(MANY + 1) == 24
