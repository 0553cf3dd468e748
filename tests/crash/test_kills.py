"""Promises 1 to 3 under SIGKILL: at every crash point, at random times, in the start, in the stop. docs/crash.md."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gatewayd.crashpoints import POINTS
from tests.crash.__main__ import Outcome, crash
from tests.crash.books import Books, Found, Sent, verdict
from tests.crash.plan import KILLS, KINDS, Kill, plan
from tests.crash.queue_books import Attempt, History, Rules, judge

SEEDS = ((1, 2), (3, 4))  # as many rigs as go through all kinds of kill, two at a time

LIMIT_S = 600  # half a minute on two idle cores


@pytest.fixture(scope="module")
def pycache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pycache")


@pytest.mark.parametrize("seeds", SEEDS)
def test_no_kill_at_any_point_loses_or_doubles_anything(seeds: tuple[int, ...], pycache: Path) -> None:
    """A point is only counted once the daemon (or `gatewayd backup`, `gatewayd restore`) has died of it."""

    async def limited() -> Outcome:
        async with asyncio.timeout(LIMIT_S):
            return await crash(len(seeds) * KILLS, seeds[0], jobs=len(seeds), pycache=pycache)

    outcome = asyncio.run(limited())  # not in asyncio's debug mode: the harness is not what is tested
    assert outcome.failed == {}
    died_of = {kill.kind for seed in seeds for kill in plan(seed)}
    assert {kind for kind, tally in outcome.tallies.items() if tally.runs} == died_of
    accepted, received = (sum(getattr(t, name) for t in outcome.tallies.values()) for name in ("accepted", "received"))
    assert min(accepted, received) > KILLS, "the load was on"


def test_these_seeds_go_through_every_point() -> None:
    assert {kill.kind for seeds in SEEDS for seed in seeds for kill in plan(seed)} == set(KINDS) >= set(POINTS)


def test_a_seed_decides_every_kill() -> None:
    assert plan(7) == plan(7) != plan(8)
    assert Kill("modem.inside_pdu", 3, 0.1).point == "modem.inside_pdu:3"


# The harness itself: what it must not overlook.


def _message(idm: int, to: str, state: int = 2, segment: str = "SUBMITTED", **more: object) -> dict[str, object]:
    segments = [{"seq": 1, "state": segment}]
    return {"idm": idm, "to": to, "state": state, "segments": segments, "events": [], **more}


def _submit(n: int, to: str) -> dict[str, object]:
    return {"kind": "submit", "n": n, "to": to, "seq": 1, "t": 0.0}


def _books(**more: object) -> Books:
    return Books(submitted={"+1": Sent(0, "+1", "x")}, answered={"+1": 1}, in_hand=[set()], **more)  # type: ignore[arg-type]


def test_the_verdict_sees_what_was_lost_doubled_or_hidden() -> None:
    good = Found([_submit(0, "+1")], {1: _message(1, "+1")}, [])
    assert verdict(_books(), good).faults == []
    cases = {
        "lost: +1 was accepted": Found([_submit(0, "+1")], {}, []),
        "lost: 1 is said to be sent": Found([], good.messages, []),
        "lost: 1 was neither": Found([], {1: _message(1, "+1", state=5, segment="FAILED")}, []),
        "doubles: 1 went out [2] times": Found([_submit(0, "+1"), _submit(1, "+1")], good.messages, []),
        "doubles: +1 was accepted as 1; kept are [1, 2]": Found(
            good.ledger, {1: _message(1, "+1"), 2: _message(2, "+1")}, []
        ),
        "broken: 1 is in doubt without a reason": Found([], {1: _message(1, "+1", state=8, segment="IN_DOUBT")}, []),
        "broken: what a modem got was no PDU": Found([*good.ledger, {"kind": "malformed"}], good.messages, []),
    }
    for expected, found in cases.items():
        (fault,) = verdict(_books(), found).faults
        assert expected in fault


def test_the_verdict_sees_two_segments_in_hand_and_a_doubt_that_is_not_shown() -> None:
    books = _books()
    books.in_hand = [{(1, 1, 1), (1, 1, 2)}]
    faults = verdict(books, Found([_submit(0, "+1")], {1: _message(1, "+1")}, [])).faults
    assert len([fault for fault in faults if "more in one SIM's hands" in fault]) == 1
    assert len([fault for fault in faults if "not shown to have been in doubt" in fault]) == 2


def test_the_verdict_sees_what_came_in_and_was_lost_doubled_or_told_under_two_ids() -> None:
    row = {"id": 5, "from": "+2", "text": "y"}
    told = [{"id": "e1", "type": "inbound.received", "data": {"id": 5}}]
    good = _books(written={"+2": (0, "y")}, told=told * 2)
    found = Found([_submit(0, "+1")], {1: _message(1, "+1")}, [row])
    assert verdict(good, found).faults == []
    assert "lost: +2 wrote 'y'" in verdict(good, Found(found.ledger, found.messages, [])).faults[0]
    assert "doubles: +2 wrote 'y'" in verdict(good, Found(found.ledger, found.messages, [row, row])).faults[0]
    for events in ([], [*told, {**told[0], "id": "e2"}]):
        assert "5 was told under the ids" in verdict(_books(written={"+2": (0, "y")}, told=events), found).faults[0]


def test_the_verdict_sees_a_report_that_could_have_been_kept() -> None:
    ledger = [_submit(0, "+1"), {"kind": "report", "submit": 0, "how": "SM", "t": 5.0}]
    assert "the report of +1" in verdict(_books(), Found(ledger, {1: _message(1, "+1")}, [])).faults[0]
    ledger[1] = {"kind": "report", "number": "+0", "submit": 0, "how": "+CDS", "t": 5.0}
    assert "the report of +1" in verdict(_books(), Found(ledger, {1: _message(1, "+1")}, [])).faults[0]
    for deaf in ((4.0, 6.0), (5.5, 6.0)):
        books = _books(deaf=[deaf])
        assert verdict(books, Found(ledger, {1: _message(1, "+1")}, [])).faults == []
    books.submitted["+2"], books.answered["+2"] = Sent(0, "+2", "z"), 2
    ledger += [_submit(1, "+2"), {**ledger[1], "submit": 1, "t": 5.1}]
    messages = {1: _message(1, "+1"), 2: _message(2, "+2", segment="DELIVERED")}
    assert "a report before that of +2" in verdict(books, Found(ledger, messages, [])).faults[0]


def test_the_verdict_sees_what_was_withdrawn_and_sent() -> None:
    books = _books()
    books.submitted["+1"] = Sent(0, "+1", "x", {"campaign": "doomed"})
    cancelled = {1: _message(1, "+1", state=7, segment="CANCELLED")}
    assert verdict(books, Found([], cancelled, [])).faults == []
    assert verdict(books, Found([], cancelled, [])).tallies[0].withdrawn == 1
    assert "is said to be ['CANCELLED']" in verdict(books, Found([_submit(0, "+1")], cancelled, [])).faults[0]
    held = {1: _message(1, "+1", state=1, segment="HELD")}
    assert "was neither sent" in verdict(books, Found([], held, [])).faults[0], "only what was to be kept may be held"
    assert "was neither sent" in verdict(_books(), Found([], cancelled, [])).faults[0], "nobody cancelled it"


def _attempts(*starts: tuple[str, int]) -> tuple[Books, Found, History]:
    """Messages of the campaign c, each tried by a channel at a time."""
    books = Books(in_hand=[set()], begun=[0, 1000])
    found = Found([], {}, [])
    history = History(channels=[(10, name, "ready") for name in "abc"])
    for idm, (channel, at) in enumerate(starts, 1):
        to = f"+{idm}"
        books.submitted[to], books.answered[to] = Sent(0, to, "x", {"campaign": "c"}), idm
        found.messages[idm] = _message(idm, to)
        found.ledger.append({**_submit(idm, to), "from": f"+9{channel}"})
        history.attempts.append(Attempt(idm, 1, idm, channel, at, at, "sent"))
        history.used[channel] = history.used.get(channel, 0) + 1
    return books, found, history


def test_the_verdict_sees_a_turn_that_was_not_kept() -> None:
    rules = Rules({}, "c", "abc")
    assert judge(*_attempts(("a", 20), ("b", 30), ("c", 40), ("a", 50)), rules).faults == []
    (fault,) = judge(*_attempts(("a", 20), ("c", 30)), rules).faults
    assert "2 went to c after a, and b was up" in fault
    for more in ({"passed": {(2, "b")}}, {"channels": [(10, "a", "ready"), (10, "b", "ready"), (25, "b", "down")]}):
        books, found, history = _attempts(("a", 20), ("c", 30))
        for name, value in more.items():
            setattr(history, name, value)
        assert judge(books, found, history, rules).faults == []
    assert judge(*_attempts(("a", 20), ("c", 1030)), rules).faults == [], "b is not up yet in the second life"


def test_the_verdict_sees_starts_that_are_too_close() -> None:
    assert judge(*_attempts(("a", 20), ("b", 120)), Rules({"c": 100})).faults == []
    (fault,) = judge(*_attempts(("a", 950), ("b", 1040)), Rules({"c": 100})).faults
    assert fault == "life 1, broken: c: started at 950 and 1040, 90 ms apart instead of 100"


def test_the_verdict_sees_a_quota_that_does_not_hold() -> None:
    rules = Rules(sims={"+9a": ("a", 2)})
    assert judge(*_attempts(("a", 20), ("a", 30)), rules).faults == []
    assert "has sent 3 of 2 segments" in judge(*_attempts(("a", 20), ("a", 30), ("a", 40)), rules).faults[0]
    books, found, history = _attempts(("a", 20), ("a", 30))
    history.used["a"] = 1
    assert "2 of 2 segments, and 1 are counted" in judge(books, found, history, rules).faults[0]
    history.used["a"] = 3
    assert "3 segments are counted; 2 went out" in judge(books, found, history, Rules()).faults[0]


def test_the_verdict_sees_an_operation_that_was_answered_and_is_not_done() -> None:
    books, found, history = _attempts()
    books.ordered[4] = "cancel"
    assert "operation 4 (cancel) was answered, and is None" in judge(books, found, history, Rules()).faults[0]
    history.operations[4] = "done"
    assert judge(books, found, history, Rules()).faults == []
