"""Where a text may be cut without tearing what people see as one character.

The rules of Unicode Standard Annex #29 §3.1.1 as far as the standard library's character data carries them. Where that
is coarser than the annex it keeps more together, which costs nothing here.
"""

from __future__ import annotations

import unicodedata

ZWNJ, ZWJ = "\u200c", "\u200d"
_VIRAMA = 9  # canonical combining class
_ALSO_EXTENDING = frozenset("\u0e33\u0eb3\uff9e\uff9f")  # Thai and Lao AM, half-width voiced sound marks


def is_boundary(text: str, index: int, start: int = 0) -> bool:
    """Whether one may cut before `text[index]`, where `start` (less than `index`) is known to be a boundary."""
    before, after = text[index - 1], text[index]
    if before < "\u0300" and after < "\u0300":
        return not (before == "\r" and after == "\n")
    if _extends(after) or before == ZWJ:
        return False
    if _is_regional(before) and _is_regional(after):
        run = index - 1
        while run > start and _is_regional(text[run - 1]):
            run -= 1
        return (index - run) % 2 == 0  # flags are pairs
    if unicodedata.combining(before) == _VIRAMA and unicodedata.category(after) == "Lo":
        return False
    return not _joins_hangul(before, after)


def _extends(char: str) -> bool:
    return (
        char in (ZWNJ, ZWJ)
        or unicodedata.category(char).startswith("M")  # combining marks, variation selectors, the keycap
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= char <= "\U000e007f"  # tags of subdivision flags
        or char in _ALSO_EXTENDING
    )


def _is_regional(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _joins_hangul(before: str, after: str) -> bool:
    """Whether two characters are of one Hangul syllable (rules GB6 to GB8)."""
    first, second = _hangul(before), _hangul(after)
    return (first, second) in _HANGUL_PAIRS


_HANGUL_PAIRS = frozenset(
    {("L", "L"), ("L", "V"), ("L", "LV"), ("L", "LVT"), ("LV", "V"), ("LV", "T"), ("V", "V"), ("V", "T")}
    | {("LVT", "T"), ("T", "T")}
)


def _hangul(char: str) -> str:
    if "\uac00" <= char <= "\ud7a3":
        return "LVT" if (ord(char) - 0xAC00) % 28 else "LV"
    if "\u1100" <= char <= "\u115f" or "\ua960" <= char <= "\ua97c":
        return "L"
    if "\u1160" <= char <= "\u11a7" or "\ud7b0" <= char <= "\ud7c6":
        return "V"
    if "\u11a8" <= char <= "\u11ff" or "\ud7cb" <= char <= "\ud7fb":
        return "T"
    return ""
