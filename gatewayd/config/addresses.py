"""How places and numbers are written in the configuration: addresses, paths, time zones, telephone numbers, SIMs."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo, available_timezones

import phonenumbers
from pydantic_core import CoreSchema, core_schema

from gatewayd.config.units import Format, near
from gatewayd.config.yaml_lines import shown

IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_SOCKET_PATH_OCTETS = 107  # sockaddr_un.sun_path, less the NUL


@dataclass(frozen=True)
class Iccid(Format):
    """Upper case, without the filler F that some modems show. Some operators use the letters A to E.

    Source: ITU-T E.118; 3GPP TS 51.011 §10.1.1.
    """

    wording = "18 to 20 digits as printed on the SIM"

    def parse(self, value: object) -> str:
        text = self.text(value).upper().removesuffix("F")
        if re.fullmatch(r"[0-9]{2}[0-9A-F]{16,18}", text, re.ASCII) is None:
            raise ValueError(f"{self.wording} are expected, not {shown(value)}")
        return text

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": "^[0-9]{2}[0-9A-Fa-f]{16,19}$"}


@dataclass(frozen=True)
class AbsolutePath(Format):
    """A `pathlib.Path`. `most_octets` bounds it, for sockets."""

    most_octets: int = 4095

    wording = "an absolute path"

    def parse(self, value: object) -> Path:
        text = str(value) if isinstance(value, Path) else self.text(value)
        if not text.startswith("/") or not text.isprintable():
            raise ValueError(f"{self.wording} is expected (a service has no folder of its own), not {shown(text)}")
        if len(text.encode()) > self.most_octets:
            raise ValueError(f"longer than {self.most_octets} octets: a shorter path is needed")
        return Path(text)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": "^/"}


@dataclass(frozen=True)
class DevicePath(AbsolutePath):
    """The path of a device node, as text."""

    def parse(self, value: object) -> Any:
        return str(super().parse(value))


SOCKET_PATH = AbsolutePath(_SOCKET_PATH_OCTETS)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen. `host` is an IP address or `localhost`, without brackets; port 0: any free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ListenAddress(Format):
    """A `Listen`. Host names are refused, for what they stand for may change after the check."""

    wording = "ADDRESS:PORT such as 127.0.0.1:8080 or [::1]:8080"

    def parse(self, value: object) -> Listen:
        if isinstance(value, Listen):
            return value
        text = self.text(value)
        match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]*)):([0-9]{1,5})", text, re.ASCII)
        if match is None or int(match[3]) > 65535:
            raise ValueError(f"{self.wording} is expected, not {shown(text)}")
        host = match[1] or match[2]
        if not host:
            raise ValueError(
                f"say which address: 127.0.0.1:{match[3]} for this machine only, 0.0.0.0:{match[3]} for all"
            )
        try:
            address = None if host == "localhost" else ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{shown(host)} is no IP address: {self.wording} is expected") from None
        if address is not None and (address.version == 6) != (match[1] is not None):
            raise ValueError(f"an IPv6 address (and no other) stands in brackets: {self.wording} is expected")
        return Listen(host, int(match[3]))


@dataclass(frozen=True)
class Network(Format):
    """An IPv4Network or IPv6Network; a single address is a network of one."""

    wording = "a network such as 10.0.0.0/8 or fd00::/8"

    def parse(self, value: object) -> IpNetwork:
        if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
            return value
        text = self.text(value)
        try:
            loose = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{self.wording} is expected, not {shown(text)}") from None
        try:
            return ipaddress.ip_network(text)
        except ValueError:
            raise ValueError(f"{shown(text)} has bits set beyond the mask: write {loose}") from None


@dataclass(frozen=True)
class Country(Format):
    """ISO 3166-1 alpha-2, as far as there are telephone numbers."""

    wording = "a country of ISO 3166, two capital letters such as UY"

    def parse(self, value: object) -> str:
        text = self.text(value)
        if text in phonenumbers.SUPPORTED_REGIONS:
            return str(text)
        upper = {"UK": "GB"}.get(text.upper(), text.upper())
        hint = f" (did you mean {upper}?)" if upper in phonenumbers.SUPPORTED_REGIONS else ""
        raise ValueError(f"{self.wording} is expected, not {shown(text)}{hint}")

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": "^[A-Z]{2}$"}


@dataclass(frozen=True)
class TimeZone(Format):
    """The key of an IANA time zone that this machine knows."""

    wording = "an IANA time zone such as America/Montevideo"

    def parse(self, value: object) -> str:
        text = self.text(value)
        if text == "UTC":  # known also where no tzdata is installed
            return "UTC"
        try:
            if re.fullmatch(r"[A-Za-z0-9_+/-]{1,64}", text, re.ASCII) is None:
                raise ValueError(text)
            ZoneInfo(text)
        except (ValueError, OSError, KeyError):  # also a folder of zones, and ZoneInfoNotFoundError
            hint = near(text, sorted(available_timezones()))
            raise ValueError(f"{self.wording} is expected, not {shown(text)}{hint}") from None
        return str(text)


UNKNOWN_COUNTRY = "?"  # the home country itself is at fault: national numbers cannot be judged


@dataclass(frozen=True)
class PhoneNumber(Format):
    """E.164 ("+…"). A national number is read with the home country, taken from the validation context."""

    wording = "a telephone number such as +59899000001"

    def parse(self, value: object, home: str | None = None) -> str:
        text = self.text(value)
        if not text.startswith("+") and home is None:
            raise ValueError(
                "a national number needs gateway.home_country: write it with + and country code, or set that"
            )
        if not text.startswith("+") and home == UNKNOWN_COUNTRY:
            return str(text)
        try:
            number = phonenumbers.parse(text, home) if len(text) <= 32 else None
        except phonenumbers.NumberParseException:
            number = None
        # Letters and extensions would be dropped or turned to digits without a word.
        if number is None or re.search(r"[^0-9+() ./-]", text) or not phonenumbers.is_possible_number(number):
            raise ValueError(f"{self.wording} is expected, {shown(text)} is not possible as one")
        return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        def parse(value: object, info: core_schema.ValidationInfo) -> str:
            return self.parse(value, (info.context or {}).get("home_country"))

        return core_schema.with_info_plain_validator_function(parse)


@dataclass(frozen=True)
class SpoolUrl(Format):
    """`sqlite:////absolute/path` or `postgresql://user@host:port/database`, without a password."""

    wording = "sqlite:////absolute/path or postgresql://USER@HOST/DATABASE"

    def parse(self, value: object) -> str:
        text = self.text(value)  # never shown: it may hold a password
        scheme = text.partition(":")[0]
        try:
            if not text.isprintable() or " " in text:
                raise ValueError
            parts = urlsplit(text)
            _ = parts.port  # raises ValueError if it is none
        except ValueError:
            raise ValueError(f"no URL: {self.wording} is expected") from None
        if scheme == "sqlite":
            self._check_sqlite(text)
        elif scheme == "postgresql":
            if parts.password is not None or "password" in parse_qs(parts.query):
                raise ValueError("holds a password: put it into a file and name that in spool.password_file")
            if len(parts.path) < 2 or "/" in parts.path[1:]:
                raise ValueError("names no database: postgresql://USER@HOST/DATABASE is expected")
        else:
            raise ValueError(f"{self.wording} is expected, not {shown(scheme + ':…')}")
        return str(text)

    def _check_sqlite(self, text: str) -> None:
        path = text.removeprefix("sqlite:///")
        if ":memory:" in text or text in ("sqlite://", "sqlite:///"):
            raise ValueError(
                "a spool in memory would lose every accepted message: sqlite:////absolute/path is expected"
            )
        if not text.startswith("sqlite:////") or path.endswith("/"):
            raise ValueError(
                "an absolute path to a file is expected, with four slashes: sqlite:////var/lib/gatewayd/spool.db"
            )
        if "?" in path or "#" in path or unquote(path) != path:
            raise ValueError("options and %-escapes are not supported in the path")

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": "^(sqlite:////|postgresql://)"}
