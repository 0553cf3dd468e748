"""What people write as a telephone number, as E.164 or as a short code. Pure.

Possible numbers are accepted: numbering plans change faster than anybody's metadata. `strict` demands that the number
is valid in the plan as it is known. Source of the plans: the `phonenumbers` library. DESIGN §6, behaviours decision 9.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import phonenumbers
from phonenumbers import PhoneNumber, PhoneNumberFormat, PhoneNumberType, ValidationResult, shortnumberinfo

from gatewayd.errors import RequestError
from gatewayd.router.windows import distinct

MAX_GIVEN = 64  # characters; nobody writes a number in more
SHORT_CODE_DIGITS = range(3, 7)
MAX_DIGITS = 15  # ITU-T E.164 §6.2.1

_INSIDE = frozenset("().·_\t\N{MINUS SIGN}")  # besides dashes and spaces, which are told by their category
_BETWEEN = frozenset(",;/|&\n\r")
_COSTLY = frozenset({PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST})
_ALLOW = "is in a premium-rate range, and the gateway does not allow those (allow_premium)"
_IMPOSSIBLE = {
    ValidationResult.INVALID_COUNTRY_CODE: "has a country code that does not exist",
    ValidationResult.TOO_SHORT: "is too short",
    ValidationResult.IS_POSSIBLE_LOCAL_ONLY: "lacks its area code",
    ValidationResult.TOO_LONG: "is too long",
    ValidationResult.INVALID_LENGTH: "has a length that its numbering plan does not have",
}


class _Fault(Exception):
    """Why it is no number."""


def normalise(given: str, home_country: str, *, strict: bool, allow_premium: bool, field: str = "to") -> str:
    """The number that `given` means: E.164 ("+59898344484"), or a short code of 3 to 6 digits as it is.

    `home_country` (ISO 3166-1, "UY"; "" for none) is whose national numbers are understood. Digits of any script,
    spaces, dashes, dots and parentheses are tolerated, `00` is the international prefix. Raises RequestError that names
    `field` and says what would be right.
    """
    if len(given) > MAX_GIVEN:
        raise RequestError(field, f"has {len(given)} characters; a telephone number has at most {MAX_DIGITS} digits")
    number, fault = _normalise(given, home_country, strict, allow_premium)
    if fault:
        raise RequestError(field, fault)
    return number


@lru_cache(maxsize=16384)
def _normalise(given: str, home_country: str, strict: bool, allow_premium: bool) -> tuple[str, str]:
    """(number, "") or ("", what is wrong with it)."""
    try:
        return _parse(_clean(given), home_country, strict, allow_premium), ""
    except _Fault as fault:
        return "", f"{fault}; a telephone number such as {_example(home_country)} is expected"


@lru_cache(maxsize=16384)
def zones_of(number: str) -> tuple[str, ...]:
    """The time zones (IANA) that a number of `normalise` may be in, in order of the alphabet; () where nobody knows.

    Of zones whose clocks always read the same there is only the first. A geographic number has mostly one, a mobile of
    a wide country all of its country, a free-phone number of North America all of that.
    """
    from phonenumbers import timezone  # most gateways never ask; its tables take a moment, and a megabyte

    if not number.startswith("+"):
        return ()
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return ()
    return distinct(sorted(set(timezone.time_zones_for_number(parsed)) - {timezone.UNKNOWN_TIMEZONE}))


def _clean(given: str) -> str:
    """Digits 0-9, after a "+" if there was one."""
    cleaned = ""
    for char in unicodedata.normalize("NFKC", given.strip()):
        digit = unicodedata.decimal(char, None)
        if digit is not None:
            cleaned += str(digit)
        elif char == "+" and not cleaned:
            cleaned = "+"
        elif char in _BETWEEN or char == "+":
            raise _Fault(f"{given!r} looks like more than one number, and a message goes to one")
        elif char in _INSIDE or unicodedata.category(char) in {"Zs", "Pd", "Cf"}:  # Cf: marks that spreadsheets leave
            continue
        elif char.isalpha():
            raise _Fault(f"{given!r} has letters in it")
        else:
            raise _Fault(f"{given!r} has a {char!r} in it")
    if not cleaned.strip("+"):
        raise _Fault("is empty" if not given.strip() else f"{given!r} has no digits")
    return cleaned


def _parse(cleaned: str, home_country: str, strict: bool, allow_premium: bool) -> str:
    if cleaned[0] != "+" and len(cleaned) in SHORT_CODE_DIGITS:
        if home_country and not allow_premium and _is_costly_code(cleaned, home_country):
            raise _Fault(f"{cleaned} {_ALLOW}")
        return cleaned
    if cleaned.startswith("00"):
        cleaned = "+" + cleaned[2:]
    digits = len(cleaned.lstrip("+"))
    if digits < SHORT_CODE_DIGITS.start:
        raise _Fault(f"{cleaned} is too short")
    if cleaned[0] != "+" and not home_country:
        raise _Fault(f"{cleaned} is a national number, and the gateway has no home_country")
    parsed = _read(cleaned, home_country)
    if cleaned[0] != "+" and (_lacks_prefix(cleaned, home_country) or not phonenumbers.is_valid_number(parsed)):
        # "4915112345678" in Germany: not a landline written without its 0, but a mobile whose plus was forgotten.
        with_code = _read(f"+{cleaned}", "", parsed)
        if with_code.country_code == parsed.country_code and phonenumbers.is_valid_number(with_code):
            parsed = with_code
    _check(parsed, cleaned, strict, allow_premium)
    number: str = phonenumbers.format_number(parsed, PhoneNumberFormat.E164)
    if len(number) > 1 + MAX_DIGITS:
        raise _Fault(f"{cleaned} is too long")
    return number


def _read(cleaned: str, country: str, otherwise: PhoneNumber | None = None) -> PhoneNumber:
    try:
        return phonenumbers.parse(cleaned, country or None)
    except phonenumbers.NumberParseException as error:
        if otherwise is not None:
            return otherwise
        too_long = error.error_type == phonenumbers.NumberParseException.TOO_LONG
        raise _Fault(f"{cleaned} is {'too long' if too_long else 'no number of any country'}") from None


def _check(parsed: PhoneNumber, cleaned: str, strict: bool, allow_premium: bool) -> None:
    possible = phonenumbers.is_possible_number_with_reason(parsed)
    if possible != ValidationResult.IS_POSSIBLE:
        raise _Fault(f"{cleaned} {_IMPOSSIBLE.get(possible, 'is not possible')}")
    if strict and not phonenumbers.is_valid_number(parsed):
        raise _Fault(f"{cleaned} is in no range that is in use (strict_numbers)")
    if not allow_premium and phonenumbers.number_type(parsed) in _COSTLY:
        raise _Fault(f"{cleaned} {_ALLOW}")


def _lacks_prefix(cleaned: str, country: str) -> bool:
    """Whether the country writes its national numbers with a prefix ("0"), and this one has none."""
    prefix = phonenumbers.ndd_prefix_for_region(country, True)
    return prefix is not None and not cleaned.startswith(prefix)


def _is_costly_code(code: str, country: str) -> bool:
    zeros = len(code) - len(code.lstrip("0"))
    number = PhoneNumber(
        country_code=phonenumbers.country_code_for_region(country),
        national_number=int(code),
        italian_leading_zero=zeros > 0 or None,
        number_of_leading_zeros=zeros or None,
    )
    cost = shortnumberinfo.expected_cost_for_region(number, country)
    return bool(cost == shortnumberinfo.ShortNumberCost.PREMIUM_RATE)


def _example(country: str) -> str:
    example = phonenumbers.example_number_for_type(country, PhoneNumberType.MOBILE) if country else None
    if example is None:
        return "+59898344484"
    return str(phonenumbers.format_number(example, PhoneNumberFormat.E164))


@lru_cache(maxsize=16384)
def country_of(number: str, home_country: str) -> str:
    """The country (ISO 3166) of a number as `normalise` gives it; "" if it is in none (satellites, freephone).

    A short code is of the home country. Of a number in no range that is known, the main country of its calling code.
    """
    if not number.startswith("+"):
        return home_country
    parsed = phonenumbers.parse(number)
    code = parsed.country_code or 0
    region = phonenumbers.region_code_for_number(parsed) or phonenumbers.region_code_for_country_code(code)
    return str(region) if region in phonenumbers.SUPPORTED_REGIONS else ""
