"""What the harness knows by itself: what was answered, what was written to the gateway, what it told.

`verdict` compares that with the SMS centre's ledger and with what the daemon says at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

WITHDRAWN = {"doomed": 7, "kept": 1}
"""In which state the operator may have left messages of these campaigns."""
NOT_SENT = frozenset({"HELD", "QUEUED", "CANCELLED", "EXPIRED", "FAILED", "BLOCKED"})
UNREAD_S = 10.0  # before its death a daemon may have left unread what lay in a port, on a machine that is busy


@dataclass(frozen=True, slots=True)
class Sent:
    """A submission: its number and text are no other's. `life`: of which daemon, from 0. `fields`: of the API, beside
    number and text; none: it goes to /SendSMS.
    """

    life: int
    to: str
    text: str
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def campaign(self) -> str:
        return self.fields.get("campaign", "")

    @property
    def guarded(self) -> bool:
        """Whether the guard against duplicates looks at it."""
        return self.fields.get("class") != "agent"

    def request(self, base: str) -> dict[str, Any]:
        """How it is POSTed: arguments of aiohttp's `post`."""
        if not self.fields:
            return {"url": f"{base}/SendSMS", "data": {"destination": self.to, "message": self.text}}
        return {"url": f"{base}/api/v1/messages", "json": {"to": self.to, "text": self.text, **self.fields}}


@dataclass(slots=True)
class Tally:
    """One line of the table."""

    runs: int = 0
    accepted: int = 0
    sent: int = 0
    withdrawn: int = 0
    received: int = 0
    in_doubt: int = 0
    doubles: int = 0
    lost: int = 0
    broken: int = 0  # other promises

    def add(self, other: Tally) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Books:
    """What one rig has done. All of it is kept outside the daemon that is killed."""

    submitted: dict[str, Sent] = field(default_factory=dict)  # by number
    answered: dict[str, int] = field(default_factory=dict)  # the idm by number
    contradicted: list[str] = field(default_factory=list)  # one Idempotency-Key, two answers
    written: dict[str, tuple[int, str]] = field(default_factory=dict)  # to the gateway: life and text, by sender
    told: list[dict[str, Any]] = field(default_factory=list)  # at the webhook, in order
    in_hand: list[set[tuple[int, int, int]]] = field(default_factory=list)  # SIM, idm, segment, at each kill
    deaf: list[tuple[float, float]] = field(default_factory=list)  # when nobody may have listened: epoch seconds
    ordered: dict[int, str] = field(default_factory=dict)  # operations on the queue that were answered, by id
    begun: list[int] = field(default_factory=list)  # when each daemon was started, epoch ms


@dataclass
class Found:
    """What there is at the end. `inbound`: as the API lists it; `messages`: with their history, by idm; those that were
    `archived` as they stand in the archive.
    """

    ledger: list[dict[str, Any]]
    messages: dict[int, dict[str, Any]]
    inbound: list[dict[str, Any]]
    archived: Collection[int] = ()


@dataclass
class Verdict:
    """What was broken, in sentences, and the table's figures by life."""

    tallies: list[Tally]
    faults: list[str] = field(default_factory=list)

    def fault(self, life: int, kind: str, sentence: str) -> None:
        tally = self.tallies[min(life, len(self.tallies) - 1)]
        setattr(tally, kind, getattr(tally, kind) + 1)
        self.faults.append(f"life {life}, {kind}: {sentence}")


def verdict(books: Books, found: Found) -> Verdict:
    """Everything the promises 1 to 3 say of what happened."""
    lives = len(books.in_hand)
    result = Verdict([Tally(runs=1) for _ in range(lives)])
    _sent(books, found, result)
    _doubts(books, found, result)
    _reports(books, found, result)
    _received(books, found, result)
    for sentence in books.contradicted:
        result.fault(0, "broken", sentence)
    return result


def _sent(books: Books, found: Found, result: Verdict) -> None:
    """Each that was answered is there once, and was sent once, or is shown to be in doubt."""
    times = Counter((row["to"], row["seq"]) for row in found.ledger if row["kind"] == "submit")
    rows: dict[str, list[dict[str, Any]]] = {}
    for message in found.messages.values():
        rows.setdefault(message["to"], []).append(message)
    for to, sent in books.submitted.items():
        tally = result.tallies[min(sent.life, len(result.tallies) - 1)]
        idm = books.answered.get(to)
        if idm is None:
            result.fault(sent.life, "broken", f"{to} was asked for and never answered")
            continue
        tally.accepted += 1
        kept = rows.get(to, [])
        if [message["idm"] for message in kept] != [idm]:
            kind = "doubles" if len(kept) > 1 else "lost"
            result.fault(sent.life, kind, f"{to} was accepted as {idm}; kept are {[m['idm'] for m in kept]}")
            continue
        (message,) = kept
        count = [times[to, segment["seq"]] for segment in message["segments"]]
        said = [segment["state"] for segment in message["segments"]]
        if max(count) > 1:
            result.fault(sent.life, "doubles", f"{idm} went out {count} times: {message}")
        elif any(times and state in NOT_SENT for times, state in zip(count, said, strict=True)):
            result.fault(sent.life, "broken", f"{idm} went out {count} times, and is said to be {said}: {message}")
        elif message["state"] == 2:
            tally.sent += 1
            if min(count) == 0:
                result.fault(sent.life, "lost", f"{idm} is said to be sent: {message}")
        elif message["state"] == WITHDRAWN.get(sent.campaign):
            tally.withdrawn += 1
        elif message["state"] != 8:
            result.fault(sent.life, "lost", f"{idm} was neither sent nor is it in doubt: {message}")
    for row in found.ledger:
        if row["kind"] == "malformed":
            result.fault(0, "broken", f"what a modem got was no PDU: {row}")
    for to in rows.keys() - books.submitted.keys():
        result.fault(0, "broken", f"nobody asked for a message to {to}")


def _doubts(books: Books, found: Found, result: Verdict) -> None:
    """A kill leaves one segment of each SIM in doubt at most; each of them says so, and nothing else does."""
    explained: set[int] = set()
    known: set[tuple[int, int, int]] = set()
    for life, hands in enumerate(books.in_hand):
        result.tallies[life].in_doubt += len(hands - known)  # one that died in its start has left what it found
        known |= hands
        sims = Counter(sim for sim, _, _ in hands)
        if sims and max(sims.values()) > 1:
            result.fault(life, "broken", f"more in one SIM's hands than one segment: {hands}")
        for _, idm, seq in hands:
            explained.add(idm)
            events = found.messages[idm]["events"] if idm in found.messages else []
            if not any(event["event"] == "in doubt" and event["seq"] == seq for event in events):
                result.fault(life, "broken", f"{idm} was in hand and is not shown to have been in doubt: {events}")
    for idm, message in found.messages.items():
        if message["state"] == 8 and idm not in explained:
            result.fault(_life_of(books, message["to"]), "broken", f"{idm} is in doubt without a reason: {message}")


def _reports(books: Books, found: Found, result: Verdict) -> None:
    """A report that the modem could keep until it was on disk has been applied.

    One that it passed on at once (+CDS) is the modem's to lose where nobody listened, or if the daemon died before it
    had read so far. A port is read in order: so what came after a lost one, in the same life, is lost as well.
    """
    submits = {row["n"]: row for row in found.ledger if row["kind"] == "submit"}
    by_number = {message["to"]: message for message in found.messages.values()}
    unread: dict[str, float] = {}  # until which death a SIM's lost report could be the first of those nobody read
    for row in found.ledger:
        if row["kind"] != "report":
            continue
        to, seq = submits[row["submit"]]["to"], submits[row["submit"]]["seq"]
        segments = by_number[to]["segments"] if to in by_number else []
        applied = any(segment["seq"] == seq and segment["state"] == "DELIVERED" for segment in segments)
        passed_on = row["how"] in {"+CDS", "dropped"}
        if applied and unread.get(row["number"], 0.0) >= row["t"]:
            result.fault(
                _life_of(books, to), "lost", f"a report before that of {to}, segment {seq}, of one port: {row}"
            )
        elif not applied and passed_on and not _while_deaf(books.deaf, row["t"]):
            death = next((start for start, _ in books.deaf if 0 <= start - row["t"] < UNREAD_S), None)
            if death is None:
                result.fault(_life_of(books, to), "lost", f"the report of {to}, segment {seq}: {row}, {segments}")
            else:
                unread[row["number"]] = death
        elif not applied and not passed_on:
            result.fault(_life_of(books, to), "lost", f"the report of {to}, segment {seq}: {row}, {segments}")


def _received(books: Books, found: Found, result: Verdict) -> None:
    """Each text that was written to the gateway is there once, and was told under one event id."""
    kept: dict[str, list[dict[str, Any]]] = {}
    for message in found.inbound:
        kept.setdefault(message["from"], []).append(message)
    told: dict[int, set[str]] = {}
    for event in books.told:
        if event["type"] == "inbound.received":
            told.setdefault(event["data"]["id"], set()).add(event["id"])
    for sender, (life, text) in books.written.items():
        rows = kept.get(sender, [])
        if [row["text"] for row in rows] != [text]:
            kind = "doubles" if len(rows) > 1 else "lost"
            result.fault(life, kind, f"{sender} wrote {text!r}; kept is {rows}")
            continue
        result.tallies[min(life, len(result.tallies) - 1)].received += 1
        if len(told.get(rows[0]["id"], ())) != 1:
            result.fault(life, "broken", f"{rows[0]['id']} was told under the ids {told.get(rows[0]['id'])}")
    bodies: dict[str, dict[str, Any]] = {}
    for event in books.told:
        if event["data"].get("idm") in found.archived:
            continue  # what retention deletes after a second is told without its particulars if it is told again
        if bodies.setdefault(event["id"], event) != event:
            result.fault(0, "broken", f"one event id, two bodies: {bodies[event['id']]}, {event}")


def _while_deaf(deaf: Iterable[tuple[float, float]], t: float) -> bool:
    return any(start <= t <= end for start, end in deaf)


def _life_of(books: Books, to: str) -> int:
    return books.submitted[to].life if to in books.submitted else 0


def table(tallies: Mapping[str, Tally]) -> str:
    """The figures, a line for each kind of kill and one for all."""
    head = ("killed at", "runs", "accepted", "sent", "received", "in doubt", "doubles", "lost", "broken")
    total = Tally()
    lines = [f"{head[0]:24}" + "".join(f"{name:>10}" for name in head[1:])]
    for tally in tallies.values():
        total.add(tally)
    for kind, tally in {**tallies, "all": total}.items():
        lines.append(f"{kind:24}" + "".join(f"{getattr(tally, name):>10}" for name in Tally.__slots__))
    return "\n".join(lines)
