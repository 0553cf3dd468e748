"""What an inbound text asks for: no more messages (surely or probably), messages again, help, or none of these. Pure.

`classify` looks at the text alone: scope, policy and confirmation are the caller's. The words are data, one pack for
each language (optout_packs). Work is linear in the length of the text. Sources: 47 CFR 64.1200(a)(10); CTIA Messaging
Principles (May 2023) 5.1.3; the tiers and what belongs to them: docs/optout.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from gatewayd.router.optout_packs import (
    DEFAULT_LANGUAGES,
    MAX_PHRASE,
    Kind,
    Pack,
    Pattern,
    Words,
    load_packs,
    parse_pack,
)
from gatewayd.router.optout_text import normalise, readings

__all__ = [
    "DEFAULT_LANGUAGES",
    "RULES_VERSION",
    "Intent",
    "Pack",
    "Tier",
    "Verdict",
    "classify",
    "load_packs",
    "normalise",
    "parse_pack",
]

RULES_VERSION = 2  # of this code and optout_text; goes up when a verdict changes without a pack having changed


class Tier(StrEnum):
    """How sure it is that the text is an opt-out."""

    A = "A"  # it is one: opt out now
    B = "B"  # probably: act by policy, never ignore
    C = "C"  # it is none


class Intent(StrEnum):
    """What the sender wants."""

    OPT_OUT = "opt_out"
    OPT_IN = "opt_in"
    HELP = "help"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a text was found to be.

    `rule` is "name: what it hit" ("keyword: stop"; names are few, so they can label a metric), "" where nothing did;
    `language` the pack it is of, "" likewise; `normalised` the text as compared; `version` the pack's and the code's.
    """

    tier: Tier
    intent: Intent
    rule: str
    language: str
    normalised: str
    version: str


# --- The verdict ---------------------------------------------------------------------------------------------------

_MAX_NAME = 4  # words after a sign-off
_SPELT_FROM = 3  # letters
_LONG_WORD = 8  # letters; from here any one slip counts, for nothing else is that near
_STRETCHED = re.compile(r"([^\W\d_])\1{2,}")


@dataclass(frozen=True, slots=True)
class _Hit:
    rule: str
    pack: Pack


def classify(text: str, packs: Sequence[Pack]) -> Verdict:
    """The verdict on a text, by the packs in their order. Any text has one; nothing is raised.

    Opt-in and help count as the whole text only; their tier is C, for they are no opt-outs.
    """
    dropped, spaced = readings(text)
    plain = [tuple(reading.split()) for reading in (dropped, spaced)]
    exact = list(dict.fromkeys((*plain, *map(_spelt_out, plain))))
    for words in exact:
        if hit := _whole(words, packs, Tier.A):
            return _verdict(Tier.A, Intent.OPT_OUT, hit, dropped)
    for words in exact:
        for pack in packs:
            for intent, known in ((Intent.OPT_IN, pack.opt_in), (Intent.HELP, pack.help)):
                if words in known:
                    return _verdict(Tier.C, intent, _Hit(f"keyword: {' '.join(words)}", pack), dropped)
    for words in exact:
        if hit := _probable(words, packs):
            return _verdict(Tier.B, Intent.OPT_OUT, hit, dropped)
    return Verdict(Tier.C, Intent.NONE, "", "", dropped, f"rules-{RULES_VERSION}")


def _verdict(tier: Tier, intent: Intent, hit: _Hit, normalised: str) -> Verdict:
    version = f"{hit.pack.language}-{hit.pack.version}/rules-{RULES_VERSION}"
    return Verdict(tier, intent, hit.rule, hit.pack.language, normalised, version)


def _spelt_out(words: Words) -> Words:
    """ "s t o p please" as "stop please": dots and spaces between letters are punctuation, which must not matter."""
    joined: list[str] = []
    for single, group in groupby(words, lambda word: len(word) == 1 and word.isalpha()):
        letters = list(group)
        joined += ["".join(letters)] if single and len(letters) >= _SPELT_FROM else letters
    return tuple(joined)


def _whole(words: Words, packs: Sequence[Pack], tier: Tier) -> _Hit | None:
    """The hit if the text consists of a pack's phrases alone, and they make it this tier."""
    parts = _parts(words, packs)
    if parts is None:
        return None
    kinds = [kind for _, kind in parts]
    asked = {phrase: kind for phrase, kind in parts if kind in {Kind.KEYWORD, Kind.EVERYDAY, Kind.PHRASE}}
    if not asked:
        return None
    phrase, kind = next(iter(asked.items()))
    alone = len(parts) == 1
    polite = {Kind.LEAD, Kind.SIGN_OFF}.isdisjoint(kinds)
    sure = alone or (len(asked) == 1 and kind is Kind.KEYWORD and polite)
    if not polite and Kind.KEYWORD not in kinds and Kind.PHRASE not in kinds:
        return None  # "ok cancel" is talk about something else
    if sure != (tier is Tier.A):
        return None
    if len(asked) > 1:
        name = "keywords"
    elif not polite:
        name = f"{kind} in a sentence"
    else:
        name = f"{kind} repeated" if kinds.count(kind) > 1 else str(kind) if alone else f"{kind} and filler"
    return _Hit(f"{name}: {' '.join(phrase)}", _speaker(packs, phrase, [part for part, _ in parts]))


def _parts(words: Words, packs: Sequence[Pack]) -> list[tuple[Words, Kind]] | None:
    """The text as phrases of the packs, the longest first; None if it has anything else in it.

    Where the longest leads nowhere ("merci de" in "merci, de inmediato"), the next one is tried; no place twice.
    """
    parts: list[tuple[Words, Kind]] = []
    choices = [_phrases_at(words, 0, packs)]
    dead_ends: set[int] = set()
    at = 0
    while choices:
        found = next(choices[-1], None)
        if found is None:
            choices.pop()
            dead_ends.add(at)
            at -= len(parts.pop()[0]) if parts else 0
            continue
        end = at + len(found[0])
        if end in dead_ends:
            continue
        parts.append(found)
        at = end
        if at == len(words) or (found[1] is Kind.SIGN_OFF and len(words) - at <= _MAX_NAME):
            return parts
        choices.append(_phrases_at(words, at, packs))
    return None


def _phrases_at(words: Words, at: int, packs: Sequence[Pack]) -> Iterator[tuple[Words, Kind]]:
    """What stands at a place, the longest first."""
    for length in range(min(MAX_PHRASE, len(words) - at), 0, -1):
        phrase = words[at : at + length]
        for pack in packs:
            kind = pack.phrases.get(phrase)
            if kind is not None:
                yield phrase, kind
                break


def _speaker(packs: Sequence[Pack], phrase: Words, parts: Iterable[Words]) -> Pack:
    """Whose language it is: the first pack that has all the parts, else the first that has the phrase asked for."""
    speakers = [pack for pack in packs if phrase in pack.phrases]
    needed = set(parts)
    return next((pack for pack in speakers if needed <= pack.phrases.keys()), speakers[0])


def _probable(words: Words, packs: Sequence[Pack]) -> _Hit | None:
    calm = tuple(_STRETCHED.sub(r"\1", " ".join(words)).split())
    for reading in dict.fromkeys((words, calm)):
        if hit := _whole(reading, packs, Tier.B):
            return hit
    if calm != words and (hit := _whole(calm, packs, Tier.A)):
        return _Hit(hit.rule.replace(":", " stretched:", 1), hit.pack)
    if hit := _slipped(words, packs):
        return hit
    bare = tuple(word for word in calm if not any(pack.phrases.get((word,)) is Kind.FILLER for pack in packs))
    for reading in dict.fromkeys((words, calm, bare)):
        if hit := _patterned(reading, packs):
            return hit
    return None


# --- Slips of the finger -------------------------------------------------------------------------------------------


def _slipped(words: Words, packs: Sequence[Pack]) -> _Hit | None:
    """A keyword with one slip in it, or run together, or cut in two, in a text of nothing else but filler."""
    start, end = max(_starts(words, packs)), min(_ends(words, packs))
    if not 1 <= end - start <= 2:
        return None
    written = "".join(words[start:end])
    for pack in packs:
        for keyword in pack.keywords:
            cut = end - start == 2
            if (written == keyword) if cut else _is_slip(written, keyword, pack):
                return _Hit(f"typo: {keyword}", pack)
    return None


def _is_slip(written: str, meant: str, pack: Pack) -> bool:
    if written == meant or written in pack.not_typos or len(meant) < 4:
        return False
    if len(written) > len(meant) and written == meant * (len(written) // len(meant)):
        return True  # stopstop
    if _is_stretched(written, meant):
        return True
    if abs(len(written) - len(meant)) > 1:
        return False
    was, should = _difference(written, meant)
    if len(was) == 2 and was == should[::-1]:
        return True
    if len(was) == 1 and len(should) == 1 and was in pack.neighbours.get(should, ()):
        return True
    return len(meant) >= _LONG_WORD and len(was) <= 1 and len(should) <= 1


def _is_stretched(written: str, meant: str) -> bool:
    runs = [(letter, len(list(group))) for letter, group in groupby(written)]
    expected = [(letter, len(list(group))) for letter, group in groupby(meant)]
    return len(runs) == len(expected) and all(
        letter == wanted and count >= least for (letter, count), (wanted, least) in zip(runs, expected, strict=True)
    )


def _difference(left: str, right: str) -> tuple[str, str]:
    """What is left of both without what they begin and end with in common."""
    shorter = min(len(left), len(right))
    head = next((i for i in range(shorter) if left[i] != right[i]), shorter)
    room = shorter - head
    tail = next((i for i in range(room) if left[-1 - i] != right[-1 - i]), room)
    return left[head : len(left) - tail], right[head : len(right) - tail]


# --- Patterns ------------------------------------------------------------------------------------------------------


def _patterned(words: Words, packs: Sequence[Pack]) -> _Hit | None:
    starts, ends = _starts(words, packs), _ends(words, packs)
    for pack in packs:
        for at, word in enumerate(words):
            for pattern in pack.patterns.get(word, ()):
                end = _match_end(pattern, words, at, starts, ends)
                if end is not None and not _is_negated(words, at, pack):
                    return _Hit(f"pattern {pattern.number}: {' '.join(words[at:end])}", pack)
    return None


def _match_end(pattern: Pattern, words: Words, at: int, starts: set[int], ends: set[int]) -> int | None:
    """Where the longest match that begins at `at` ends."""
    if pattern.at_start and at not in starts:
        return None
    reached = {at}
    for slot in pattern.slots:
        reached = slot.advance(words, reached)
    if pattern.at_end:
        reached &= ends
    return max(reached, default=None)


def _is_negated(words: Words, at: int, pack: Pack) -> bool:
    return any(words[max(0, at - length) : at] in pack.negations for length in range(1, MAX_PHRASE))


_ASIDE = frozenset({Kind.FILLER, Kind.LEAD})


def _starts(words: Words, packs: Sequence[Pack]) -> set[int]:
    """Where a text begins: at 0, and after each filler or lead that it begins with."""
    at, starts = 0, {0}
    while found := _aside(words, packs, range(at + 1, min(at + MAX_PHRASE, len(words)) + 1), start=at):
        at = found
        starts.add(at)
    return starts


def _ends(words: Words, packs: Sequence[Pack]) -> set[int]:
    at, ends = len(words), {len(words)}
    while (found := _aside(words, packs, range(at - 1, max(0, at - MAX_PHRASE) - 1, -1), end=at)) is not None:
        at = found
        ends.add(at)
    return ends


def _aside(
    words: Words, packs: Sequence[Pack], others: range, *, start: int | None = None, end: int | None = None
) -> int | None:
    """The farthest of `others` such that a filler or lead lies between it and `start` or `end`."""
    for other in reversed(others):
        phrase = words[other if start is None else start : other if end is None else end]
        if any(pack.phrases.get(phrase) in _ASIDE for pack in packs):
            return other
    return None
