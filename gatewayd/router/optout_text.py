"""How an inbound text is made comparable before the opt-out rules look at it. Pure."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_PICTURE = "\0"
_SYMBOL = "\N{WHITE SQUARE}"  # any character that is a picture and stays one under NFKC
_MAX_MARKS = 30  # on one letter; Unicode's stream-safe bound (UAX 15 §13), else normalisation is quadratic
_QUOTES = frozenset("'\"`´‘’‚‛“”„‟‹›«»′″‵‶ʹʺʻʼʽˈ׳״❛❜❝❞〝〞〟")
# Letters as they are in Unicode, pictures as phones show them: trade marks, and letters drawn as an emoji
_DRAWN_LETTERS = re.compile("[™℠]\ufe0f?|[ℹⓂ㊗㊙]\ufe0f")
_MARKS = re.compile(  # accents, vowel points and variation selectors; not the vowel signs that other scripts need
    "[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u180b-\u180f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
    "\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef]"
)
_BLANK_LETTERS = frozenset("\u0640\u115f\u1160\u17b4\u17b5")  # letters by category that show nothing of their own
_STROKES = {"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ŧ": "t", "ı": "i"}  # diacritics that Unicode does not decompose
_SKIN_TONES = frozenset("\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")


def normalise(text: str) -> str:
    """The text as it is compared: folded letters and digits with single spaces between.

    NFKC, case folding, diacritics off (the script stays), zero-width characters, emoji and quotes dropped, each run of
    punctuation and white space one space, trimmed. Idempotent. Source: spec of the opt-out rules, §2.
    """
    return readings(text)[0]


def readings(text: str) -> tuple[str, str]:
    """With pictures dropped, and with a space in their place ("stop🙏thanks")."""
    plain = _DRAWN_LETTERS.sub(_SYMBOL, text).replace("´", "'")  # NFKC makes a space of the acute people type for '
    folded = unicodedata.normalize("NFKC", _bounded_marks(plain)).casefold()
    kept = "".join(map(_folded_character, unicodedata.normalize("NFKD", folded)))
    kept = _bounded_marks(kept)
    dropped, spaced = (" ".join(kept.replace(_PICTURE, instead).split()) for instead in ("", " "))
    return unicodedata.normalize("NFKC", dropped), unicodedata.normalize("NFKC", spaced)


def _bounded_marks(text: str) -> str:
    kept = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= _MAX_MARKS:
            kept.append(character)
    return "".join(kept)


@lru_cache(maxsize=4096)
def _folded_character(character: str) -> str:
    """A letter, mark or digit, "", a space, or _PICTURE."""
    if character in _QUOTES or character in _BLANK_LETTERS or _MARKS.match(character):
        return ""
    category = unicodedata.category(character)
    if category[0] in "LNM":
        return _STROKES.get(character, character)
    # Unassigned: an emoji newer than this Python. Private: operators' emoji of old. Surrogate: half of one.
    if category in {"So", "Co", "Cn", "Cs"} or character in _SKIN_TONES:
        return _PICTURE
    if category == "Cf" or (category == "Cc" and not character.isspace()):
        return ""
    return " "
