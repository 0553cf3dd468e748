from __future__ import annotations

import pytest
from hypothesis import given

from gatewayd.modems.pdu.grapheme import is_boundary
from tests.modems.pdu.strategies import any_text, modest


@pytest.mark.parametrize(
    "cluster",
    [
        "e\u0301",  # a combining mark
        "e\u0301\u0327",
        "❤\ufe0f",  # a variation selector
        "1\ufe0f\u20e3",  # a keycap
        "👍🏽",  # a skin tone
        "👨\u200d👩\u200d👧\u200d👦",  # a family
        "🏳\ufe0f\u200d🌈",
        "🇺🇾",  # a flag
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # Scotland
        "\r\n",
        "क्षि",
        "ก\u0e33",
        "\u1112\u1161\u11ab",  # Hangul jamo
        "하\u11ab",
        "ｶ\uff9e",
    ],
)
def test_what_people_see_as_one(cluster: str) -> None:
    assert not any(is_boundary(cluster, index) for index in range(1, len(cluster)))
    around = f"a{cluster}b"
    assert is_boundary(around, 1)
    assert is_boundary(around, len(around) - 1)


@pytest.mark.parametrize("pair", ["ab", "a ", "\n\r", "日本", "😀😀", "한국", "🇺a", "\n\n", "é😀"])
def test_what_people_see_as_two(pair: str) -> None:
    assert is_boundary(pair, 1)


def test_flags_are_counted_from_the_start_of_their_run() -> None:
    flags = "🇺🇾🇧🇷🇦🇷"
    assert [is_boundary(flags, index) for index in range(1, 6)] == [False, True, False, True, False]
    assert [is_boundary("a" + flags, index) for index in range(1, 7)] == [True, False, True, False, True, False]
    assert is_boundary(flags, 3, 1)  # where a cut was made at 1


@modest
@given(any_text)
def test_any_text_has_an_answer(text: str) -> None:
    assert all(is_boundary(text, index) in (True, False) for index in range(1, len(text)))
