"""Guards against sending where nobody means to: countries and prefixes that are allowed or not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gatewayd.router.numbers import country_of


@dataclass(frozen=True, slots=True)
class Reachable:
    """Which numbers may be sent to. `allow` empty: all countries; `deny_prefixes` are of E.164."""

    home_country: str = ""
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    deny_prefixes: tuple[str, ...] = ()

    def refusal(self, number: str) -> str:
        """Why `number` (E.164 or a short code) must not be sent to, and by which setting; "" if it may."""
        if self.deny_prefixes and number.startswith(self.deny_prefixes):
            prefix = next(prefix for prefix in self.deny_prefixes if number.startswith(prefix))
            return f"{number} begins with {prefix}, which the gateway does not send to (gateway.deny_prefixes)"
        if not self.allow and not self.deny:
            return ""
        country = country_of(number, self.home_country)
        where = f"is a number of {country}" if country else "is a number of no country"
        if country in self.deny:
            return f"{number} {where}, and the gateway does not send there (gateway.countries.deny)"
        if self.allow and country not in self.allow:
            allowed = ", ".join(sorted(self.allow))
            return f"{number} {where}, and the gateway sends to {allowed} only (gateway.countries.allow)"
        return ""
