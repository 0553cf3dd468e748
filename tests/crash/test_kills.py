"""Promises 1 to 3 under SIGKILL: at every crash point, at random times, in the start, in the stop. docs/crash.md."""

from __future__ import annotations

import pytest

from gatewayd.crashpoints import POINTS
from tests.crash.__main__ import crash
from tests.crash.books import Books, Found, Sent, verdict
from tests.crash.plan import KILLS, KINDS, Kill, plan

SEEDS = (1, 2, 3)  # as many rigs as go through all kinds of kill


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_kill_at_any_point_loses_or_doubles_anything(seed: int) -> None:
    """A point is only counted once the daemon has died of it."""
    outcome = await crash(KILLS, seed, jobs=1)
    assert outcome.failed == {}
    assert {kind for kind, tally in outcome.tallies.items() if tally.runs} == {kill.kind for kill in plan(seed)}
    accepted, received = (sum(getattr(t, name) for t in outcome.tallies.values()) for name in ("accepted", "received"))
    assert min(accepted, received) > KILLS, "the load was on"


def test_these_seeds_go_through_every_point() -> None:
    assert {kill.kind for seed in SEEDS for kill in plan(seed)} == set(KINDS) >= set(POINTS)


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
