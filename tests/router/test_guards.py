"""Countries and prefixes that messages may go to, or not. Issue 4 item 8."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.router.guards import Reachable
from gatewayd.router.numbers import country_of

UY, AR, CA, FREE = "+59898344484", "+5491123456789", "+14165551234", "+80012345678"


@pytest.mark.parametrize(
    ("settings", "number", "refusal"),
    [
        ({}, FREE, ""),
        ({"allow": frozenset({"UY"})}, UY, ""),
        ({"allow": frozenset({"UY"})}, "7373", ""),  # a short code is of the home country
        ({"allow": frozenset({"UY", "PY"})}, AR, "is a number of AR, and the gateway sends to PY, UY only"),
        ({"allow": frozenset({"US"})}, CA, "is a number of CA"),  # not all of +1
        ({"allow": frozenset({"UY"})}, FREE, "is a number of no country"),
        ({"deny": frozenset({"AR"})}, AR, "gateway.countries.deny"),
        ({"deny": frozenset({"AR"})}, UY, ""),
        ({"deny_prefixes": ("+598983", "+54911")}, UY, "begins with +598983"),
        ({"deny_prefixes": ("+598983",)}, AR, ""),
    ],
)
def test_where_messages_may_go(settings: dict[str, Any], number: str, refusal: str) -> None:
    said = Reachable("UY", **settings).refusal(number)
    assert refusal in said
    assert bool(said) == bool(refusal)


def test_the_country_of_a_number_in_no_known_range_is_that_of_its_calling_code() -> None:
    assert country_of("+598999999999", "") == "UY"
    assert country_of("7373", "") == ""
