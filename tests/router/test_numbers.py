"""What people write as a number, and what it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import RequestError
from gatewayd.router.numbers import normalise, zones_of
from gatewayd.router.windows import distinct


def number(given: str, country: str = "UY", *, strict: bool = False, allow_premium: bool = False) -> str:
    return normalise(given, country, strict=strict, allow_premium=allow_premium)


@pytest.mark.parametrize(
    ("given", "country", "expected"),
    [
        ("098344484", "UY", "+59898344484"),  # S4-45
        ("98344484", "UY", "+59898344484"),
        ("+59898344484", "UY", "+59898344484"),
        ("59898344484", "UY", "+59898344484"),
        ("0059898344484", "UY", "+59898344484"),
        ("+598 98 344 484", "UY", "+59898344484"),
        ("(098) 344-484", "UY", "+59898344484"),
        ("098.344.484", "UY", "+59898344484"),
        (" 098\u00a0344\u2011484\t", "UY", "+59898344484"),
        ("０９８３４４４８４", "UY", "+59898344484"),
        ("＋５９８９８３４４４８４", "UY", "+59898344484"),
        ("٠٩٨٣٤٤٤٨٤", "UY", "+59898344484"),
        ("\u202a+59898344484\u202c", "UY", "+59898344484"),  # as copied out of an address book
        ("+44 (0)20 7946 0958", "UY", "+442079460958"),
        ("011 44 7911 123456", "US", "+447911123456"),
        ("4915112345678", "DE", "+4915112345678"),  # the plus was forgotten
        ("+393331234567", "", "+393331234567"),
        ("00393331234567", "", "+393331234567"),
        ("0612345678", "IT", "+390612345678"),  # the zero belongs to it
    ],
)
def test_a_number_in_any_spelling_is_e164(given: str, country: str, expected: str) -> None:
    assert number(given, country) == expected


@pytest.mark.parametrize("given", ["123", "7373", "22333", "123456", "007"])
def test_a_short_code_is_sent_as_it_is(given: str) -> None:
    assert number(given) == given
    assert number(given, "") == given
    assert number(f" {given[:2]}-{given[2:]} ") == given


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("+", "no digits"),
        ("()", "no digits"),
        ("1", "too short"),
        ("12", "too short"),
        ("+7373", "too short"),
        ("MYBANK", "letters"),
        ("098344484x", "letters"),
        ("098 344 484 ext. 5", "letters"),
        ("*123#", "'*'"),
        ("098344484\0", "\\x00"),
        ("\ud800098344484", "\\ud800"),
        ("098344484,098344485", "more than one"),
        ("098344484;098344485", "more than one"),
        ("098344484/5", "more than one"),
        ("098344484\n098344485", "more than one"),
        ("+59898344484+59898344485", "more than one"),
        ("098344484 098344485", "too long"),
        ("1" * 30, "too long"),
        ("+" + "1" * 30, "too long"),
        ("9" * 1000, "1000 characters"),
        ("+999123456789", "country"),
        ("+0123456789", "country"),
        ("0000000000", "country"),
    ],
)
def test_what_is_no_number_is_refused_and_says_what_would_be_right(given: str, why: str) -> None:
    with pytest.raises(RequestError) as error:
        normalise(given, "UY", strict=False, allow_premium=False, field="destination")
    assert error.value.field == "destination"
    assert why in error.value.reason
    assert "a telephone number" in error.value.reason


def test_a_national_number_needs_a_home_country() -> None:
    with pytest.raises(RequestError, match="home_country"):
        number("098344484", "")


def test_a_number_without_its_area_code_is_refused() -> None:
    with pytest.raises(RequestError, match="area code"):
        number("5551234", "US")


def test_possible_numbers_are_accepted_and_strict_demands_valid_ones() -> None:
    assert number("+59812345678") == "+59812345678"  # of the right length, in no range that is in use
    with pytest.raises(RequestError, match="strict_numbers"):
        number("+59812345678", strict=True)
    assert number("098344484", strict=True) == "+59898344484"


@pytest.mark.parametrize(
    ("given", "country"),
    [
        ("+19005551234", "UY"),
        ("+448454647123", "UY"),
        ("+499001123456", "UY"),
        ("0900 1 123456", "DE"),
        ("12345", "ES"),
    ],
)
def test_costly_ranges_are_refused_unless_they_are_allowed(given: str, country: str) -> None:
    with pytest.raises(RequestError, match="allow_premium"):
        number(given, country)
    assert number(given, country, allow_premium=True)


@pytest.mark.parametrize(
    ("number", "zones"),
    [
        ("+59898344484", ("America/Montevideo",)),
        ("+12125551234", ("America/New_York",)),
        ("+447911123456", ("Europe/Guernsey",)),  # London's clock, first in the alphabet
        ("+390612345678", ("Europe/Rome",)),
        ("+870773111632", ()),  # a satellite telephone
        ("7373", ()),
        ("+0", ()),
    ],
)
def test_where_a_number_may_be(number: str, zones: tuple[str, ...]) -> None:
    assert zones_of(number) == zones


def test_a_number_that_may_be_in_many_zones_has_one_for_each_clock() -> None:
    zones = zones_of("+18005551234")
    assert {"America/Adak", "America/Anguilla", "America/Los_Angeles"} <= set(zones)
    assert len(zones) < 20
    assert list(zones) == sorted(zones)
    assert distinct(zones) == zones
    assert len(zones_of("+61412345678")) > 3


@given(st.text(max_size=80), st.sampled_from(["UY", "US", "DE", "", "XX"]), st.booleans())
def test_whatever_is_given_is_a_number_or_a_request_error(given: str, country: str, flag: bool) -> None:
    try:
        found = number(given, country, strict=flag, allow_premium=not flag)
    except RequestError:
        return
    digits = found.removeprefix("+")
    assert digits.isascii()
    assert digits.isdigit()
    assert 3 <= len(digits) <= (15 if found.startswith("+") else 6)


@given(st.from_regex(r"\A[0-9+() -]{3,20}\Z"), st.sampled_from(["UY", "US", "DE"]))
def test_what_was_normalised_stays_as_it_is(given: str, country: str) -> None:
    try:
        found = number(given, country)
    except RequestError:
        return
    assert number(found, country) == found
