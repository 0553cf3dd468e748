"""Which long message a part belongs to: a pure choice.

A sender's references are 8 or 16 bits and come round again, some senders use the same one always, parts come in any
order, twice, hours apart and to another reading of the SIM. Source: 3GPP TS 23.040 §9.2.3.24.1, §9.2.3.24.8.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

CONTINUES_WITHIN_MS = 7 * 86_400_000  # a part that comes later is of another message with the same reference
FAR_APART_MS = 86_400_000  # by the SMS centre's clock, parts of one message are not


@dataclass(frozen=True, slots=True)
class NewPart:
    """A part that came: its place and what tells it from others with the same place."""

    seq: int
    sent_at: int | None
    content: bytes


@dataclass(frozen=True, slots=True)
class KnownPart:
    """A part that is on disk."""

    id: int
    seq: int
    sent_at: int | None
    content: bytes


@dataclass(frozen=True, slots=True)
class Assembly:
    """Parts with one sender, reference and total. `message_id`: it was handed over already, maybe without some.

    `continues`: the message that was handed over without these.
    """

    id: int
    opened_at: int
    message_id: int | None
    parts: tuple[KnownPart, ...]
    continues: int | None = None


@dataclass(frozen=True, slots=True)
class Joins:
    """It belongs to an assembly that waits."""

    assembly_id: int


@dataclass(frozen=True, slots=True)
class Repeats:
    """The same part is there already."""

    part_id: int


@dataclass(frozen=True, slots=True)
class Opens:
    """It is the first of its message; or of what was missing when message `continues` was handed over."""

    continues: int | None = None


Place = Joins | Repeats | Opens


def place(part: NewPart, assemblies: Sequence[Assembly], now: int) -> Place:
    """Where a part belongs among the assemblies with its sender, reference and total.

    The waiting one that lacks it and is nearest by the SMS centre's time; a second copy with the same time is a
    repetition, also of what was handed over; a part that lacked when its message was handed over continues that one;
    else a new message begins.
    """
    for assembly in assemblies:
        for known in assembly.parts:
            if (known.seq, known.sent_at, known.content) == (part.seq, part.sent_at, part.content):
                return Repeats(known.id)
    there = _there(assemblies)
    fitting = [
        assembly
        for assembly in assemblies
        if assembly.message_id is None
        and part.seq not in there[assembly.id]
        and _distance(part, assembly) < FAR_APART_MS
    ]
    if fitting:
        return Joins(min(fitting, key=lambda assembly: (_distance(part, assembly), -assembly.id)).id)
    handed_over = [
        assembly
        for assembly in assemblies
        if assembly.message_id is not None
        and part.seq not in there[assembly.id]
        and now - assembly.opened_at <= CONTINUES_WITHIN_MS
        and _distance(part, assembly) < FAR_APART_MS
    ]
    if handed_over:
        return Opens(min(handed_over, key=lambda assembly: (_distance(part, assembly), -assembly.id)).message_id)
    return Opens()


def is_whole(seqs: Collection[int], before: Collection[int], total: int) -> bool:
    """Whether all parts are there: `seqs` now, `before` in the messages that this one continues."""
    return set(range(1, total + 1)) <= {*seqs, *before}


def in_order(texts: Mapping[int, str], total: int, gap: str) -> str:
    """The texts of the parts there are, with `gap` for each run of those that lack between or around them."""
    pieces: list[str] = []
    missing = False
    for seq in range(1, total + 1):
        if seq in texts:
            pieces += [gap] if missing else []
            pieces.append(texts[seq])
        missing = seq not in texts
    return "".join(pieces + ([gap] if missing else []))


def _there(assemblies: Sequence[Assembly]) -> dict[int, set[int]]:
    """The parts there are of each one's message: those that continue one another are one message."""
    became = {assembly.message_id: assembly for assembly in assemblies if assembly.message_id is not None}
    seqs: defaultdict[int, set[int]] = defaultdict(set)
    there: dict[int, set[int]] = {}
    for assembly in assemblies:
        first = assembly
        while first.continues is not None and first.continues in became:
            first = became[first.continues]
        there[assembly.id] = seqs[first.id]
        seqs[first.id] |= {part.seq for part in assembly.parts}
    return there


def _distance(part: NewPart, assembly: Assembly) -> int:
    """How far apart the SMS centre took them, in ms; 0 where it does not say."""
    if part.sent_at is None:
        return 0
    known = [abs(part.sent_at - other.sent_at) for other in assembly.parts if other.sent_at is not None]
    return min(known, default=0)
