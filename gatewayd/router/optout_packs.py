"""The words of the opt-out rules: one pack for each language, read from `optout_data/*.yaml` (see docs/optout.md).

Pure but for `load_packs`, which reads the files that come with gatewayd, once, at the start.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from gatewayd.errors import ConfigError, Fault
from gatewayd.router.optout_text import normalise

DEFAULT_LANGUAGES = ("en", "es", "pt", "fr", "de")
MAX_PHRASE = 6  # words, of what a whole text may consist of

Words = tuple[str, ...]


class Kind(StrEnum):
    """What a word or phrase of a pack can be for a text that has nothing else in it."""

    KEYWORD = "keyword"  # counts also with filler around it, and doubled
    EVERYDAY = "everyday"  # counts only as the whole text
    PHRASE = "phrase"  # the same, of several words
    FILLER = "filler"  # please, thanks
    LEAD = "lead"  # hello, I want to: more than politeness
    SIGN_OFF = "sign_off"  # regards, and the name after it


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of a pattern: phrases by their first word; or, if `forbidden`, words that must not come next."""

    choices: Mapping[str, tuple[Words, ...]]
    optional: bool = False
    number: bool = False
    forbidden: bool = False

    def advance(self, words: Words, ends: set[int]) -> set[int]:
        """Where a match can stand after this slot, given where it stood before."""
        if self.forbidden:
            return {at for at in ends if at >= len(words) or words[at] not in self.choices}
        after = set(ends) if self.optional else set()
        for at in ends:
            if at >= len(words):
                continue
            if self.number and words[at].isdecimal():
                after.add(at + 1)
            for choice in self.choices.get(words[at], ()):
                if words[at : at + len(choice)] == choice:
                    after.add(at + len(choice))
        return after


@dataclass(frozen=True, slots=True)
class Pattern:
    """Slots one after the other, anywhere in a text, or bound to its start or end (filler and leads aside).

    `number` counts the pack's patterns from 1.
    """

    number: int
    slots: tuple[Slot, ...]
    at_start: bool
    at_end: bool


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """The words of one language, normalised; `phrases` is everything a whole text may consist of."""

    language: str
    version: str
    phrases: Mapping[Words, Kind]
    opt_in: frozenset[Words]
    help: frozenset[Words]
    patterns: Mapping[str, tuple[Pattern, ...]]  # by the words they can begin with
    negations: frozenset[Words]  # a pattern right after one does not count: "don't stop texting me"
    neighbours: Mapping[str, frozenset[str]]  # keys that touch a key
    not_typos: frozenset[str]
    replies: Mapping[str, str]

    def reply(self, name: str) -> str:
        """What is answered: `opt_out`, `opt_in`, `help`, or `contact` (with {contact} in it)."""
        return self.replies[name]

    @property
    def keywords(self) -> Iterator[str]:
        """The keywords of one word that filler may surround."""
        return (words[0] for words, kind in self.phrases.items() if kind is Kind.KEYWORD and len(words) == 1)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _OptOut(_Strict):
    keywords: list[str]
    everyday: list[str] = []
    phrases: list[str] = []


class _Probable(_Strict):
    leads: list[str] = []
    sign_offs: list[str] = []
    negations: list[str] = []
    not_typos: list[str] = []
    sets: dict[str, list[str]] = {}
    patterns: list[str] = []


class _Replies(_Strict):
    opt_out: str
    opt_in: str
    help: str
    contact: str


class _File(_Strict):
    language: str
    version: int
    keyboard: list[str] = []
    spellings: dict[str, str] = {}
    filler: list[str] = []
    opt_out: _OptOut
    opt_in: list[str] = []
    help: list[str] = []
    probable: _Probable = _Probable()
    replies: _Replies


def load_packs(languages: Iterable[str] = DEFAULT_LANGUAGES) -> tuple[Pack, ...]:
    """The packs that come with gatewayd, in the order asked for: it decides whose a word is that several have.

    Reads their files; call it once, at the start. Raises ConfigError for a language that there is no pack of.
    """
    folder = resources.files("gatewayd.router") / "optout_data"
    known = {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    wanted = tuple(dict.fromkeys(languages))
    faults = [
        Fault("languages", f"there is no opt-out pack {language!r}; there are {', '.join(sorted(known))}")
        for language in wanted
        if language not in known
    ]
    if faults:
        raise ConfigError(faults)
    return tuple(parse_pack(known[name].read_text(encoding="utf-8"), known[name].name) for name in wanted)


def parse_pack(document: str, source: str) -> Pack:
    """A pack from its YAML. Raises ConfigError with every fault found; `source` names the file in it."""
    try:
        file = _File.model_validate(yaml.safe_load(document))
    except yaml.YAMLError as error:
        raise ConfigError([Fault("", f"is no YAML: {error}")], source) from None
    except ValidationError as error:
        faults = [Fault(".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors()]
        raise ConfigError(faults, source) from None
    return _Builder(file, source).pack()


class _Builder:
    """Turns a file's lists into a pack, and collects what is wrong with them."""

    def __init__(self, file: _File, source: str) -> None:
        self._file = file
        self._source = source
        self._faults: list[Fault] = []

    def pack(self) -> Pack:
        file = self._file
        pack = Pack(
            language=file.language,
            version=str(file.version),
            phrases=self._phrases(),
            opt_in=self._forms("opt_in", file.opt_in),
            help=self._forms("help", file.help),
            patterns=self._patterns(),
            negations=self._forms("probable.negations", file.probable.negations),
            neighbours=_neighbours([normalise(row) for row in file.keyboard]),
            not_typos=frozenset(normalise(word) for word in file.probable.not_typos),
            replies=self._replies(),
        )
        for phrase in ((pack.opt_in | pack.help) & pack.phrases.keys()) | (pack.opt_in & pack.help):
            self._fault("opt_in, help", f"{' '.join(phrase)!r} stands elsewhere in the pack too")
        if self._faults:
            raise ConfigError(self._faults, self._source)
        return pack

    def _fault(self, path: str, reason: str) -> None:
        self._faults.append(Fault(path, reason))

    def _replies(self) -> dict[str, str]:
        replies: dict[str, str] = self._file.replies.model_dump()
        for name, text in replies.items():
            if not text.strip() or ("{contact}" in text) != (name == "contact"):
                self._fault(f"replies.{name}", "is empty, or has {contact} where it must not, or has it not")
        return replies

    def _phrases(self) -> dict[Words, Kind]:
        opt_out, probable = self._file.opt_out, self._file.probable
        phrases: dict[Words, Kind] = {}
        for path, kind, texts in (
            ("opt_out.keywords", Kind.KEYWORD, opt_out.keywords),
            ("opt_out.everyday", Kind.EVERYDAY, opt_out.everyday),
            ("opt_out.phrases", Kind.PHRASE, opt_out.phrases),
            ("filler", Kind.FILLER, self._file.filler),
            ("probable.leads", Kind.LEAD, probable.leads),
            ("probable.sign_offs", Kind.SIGN_OFF, probable.sign_offs),
        ):
            for form in self._forms(path, texts):
                if phrases.setdefault(form, kind) is not kind:
                    self._fault(path, f"{' '.join(form)!r} is {phrases[form]} already")
                if len(form) > MAX_PHRASE:
                    self._fault(path, f"{' '.join(form)!r} has more than {MAX_PHRASE} words")
        return phrases

    def _forms(self, path: str, texts: Iterable[str]) -> frozenset[Words]:
        """Each text normalised, in each way it is spelt ("hör auf", "hoer auf"; "don't", "don t")."""
        forms: set[Words] = set()
        for text in texts:
            spellings = [unicodedata.normalize("NFC", text).casefold()]
            for letter, instead in self._file.spellings.items():
                spellings += [spelling.replace(letter, instead) for spelling in spellings if letter in spelling]
            found = {tuple(normalise(spelling).split()) for spelling in spellings}
            if () in found:
                self._fault(path, f"{text!r} has no letters in it")
            forms |= found - {()}
        return frozenset(forms)

    def _patterns(self) -> dict[str, tuple[Pattern, ...]]:
        by_word: dict[str, list[Pattern]] = {}
        for index, source in enumerate(self._file.probable.patterns):
            pattern = self._pattern(index, source)
            for word in _first_words(pattern.slots):
                by_word.setdefault(word, []).append(pattern)
        return {word: tuple(patterns) for word, patterns in by_word.items()}

    def _pattern(self, index: int, source: str) -> Pattern:
        path = f"probable.patterns.{index}"
        places = source.split()
        at_start, at_end = places[:1] == ["^"], places[-1:] == ["$"]
        slots = tuple(self._slot(path, place) for place in places[at_start : len(places) - at_end])
        if not _first_words(slots) or all(slot.optional or slot.forbidden for slot in slots):
            self._fault(path, f"{source!r} has nothing that must be there, or does not begin with words")
        return Pattern(index + 1, slots, at_start, at_end)

    def _slot(self, path: str, place: str) -> Slot:
        """`word`, `one|other`, `SET` (its phrases) or `#` (a number); `?` after it: may be missing; `!` before: not."""
        forbidden, optional = place.startswith("!"), place.endswith("?")
        names = place[forbidden : len(place) - optional].split("|")
        texts: list[str] = []
        for name in names:
            if name.isupper() and name not in self._file.probable.sets:
                self._fault(path, f"there is no set {name}")
            texts += self._file.probable.sets.get(name, [] if name == "#" or name.isupper() else [name])
        choices: dict[str, list[Words]] = {}
        for form in self._forms(path, texts):
            choices.setdefault(form[0], []).append(form)
        if forbidden and any(len(form) > 1 for forms in choices.values() for form in forms):
            self._fault(path, f"{place!r}: only single words can be forbidden")
        return Slot({word: tuple(forms) for word, forms in choices.items()}, optional, "#" in names, forbidden)


def _first_words(slots: Iterable[Slot]) -> frozenset[str]:
    words: set[str] = set()
    for slot in slots:
        if slot.forbidden or slot.number:
            return frozenset()
        words |= slot.choices.keys()
        if not slot.optional:
            break
    return frozenset(words)


def _neighbours(rows: Sequence[str]) -> dict[str, frozenset[str]]:
    """Keys that touch, given the rows from above to below; each row is half a key to the right of the one above."""
    near: dict[str, set[str]] = {}
    for number, row in enumerate(rows):
        below = rows[number + 1] if number + 1 < len(rows) else ""
        for index, key in enumerate(row):
            for other in (*row[index + 1 : index + 2], *below[max(0, index - 1) : index + 1]):
                near.setdefault(key, set()).add(other)
                near.setdefault(other, set()).add(key)
    return {key: frozenset(others) for key, others in near.items()}
