"""How values are written in the configuration: durations, sizes, words. (Addresses: `addresses`.)

Each `Format` is an annotation on a field of a model. It parses what stands in YAML (text, see `yaml_lines`) or what
code passes, says in `wording` what would be right, shows a default as one would write it, and gives the JSON Schema.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from pydantic_core import CoreSchema, core_schema

from gatewayd.config.yaml_lines import Plain, shown

DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_UNITS_OCTETS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,12}) ?(B|KiB|MiB|GiB)", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}", re.ASCII)


class Format(ABC):
    """One way of writing a value."""

    wording: str

    @abstractmethod
    def parse(self, value: object) -> Any:
        """The plain value. Raises ValueError with a reason that says what would be right."""

    def show(self, value: Any) -> str:
        """The value as it is written in YAML."""
        return str(value)

    def default(self, value: Any) -> object:
        """The value as JSON has it."""
        return self.show(value)

    def schema(self) -> dict[str, object]:
        """The JSON Schema."""
        return {"type": "string"}

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse)

    def text(self, value: object) -> str:
        """The value as text; ValueError where it is a list, a mapping or nothing."""
        if isinstance(value, str):
            return value
        raise ValueError(f"{self.wording} is expected, not {_kind(value)}")


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list | tuple):
        return "a list"
    return shown(value)


def near(word: str, words: list[str]) -> str:
    """`" (did you mean …?)"`, or "" if nothing is near."""
    close = get_close_matches(word, words, 1) if len(word) <= 40 else []
    return f" (did you mean {close[0]}?)" if close else ""


@dataclass(frozen=True)
class Boolean(Format):
    wording = "true or false"

    def parse(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        text = self.text(value)
        if isinstance(value, Plain) and text in ("true", "false"):
            return text == "true"
        raise ValueError(f"{self.wording} (without quotes) is expected, not {shown(text)}")

    def show(self, value: bool) -> str:
        return "true" if value else "false"

    def default(self, value: bool) -> object:
        return value

    def schema(self) -> dict[str, object]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Integer(Format):
    least: int
    most: int

    @property
    def wording(self) -> str:  # type: ignore[override]
        return f"a whole number from {self.least} to {self.most}"

    def parse(self, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        else:
            text = self.text(value)
            if not (isinstance(value, Plain) and re.fullmatch(r"[-+]?[0-9]{1,18}", text, re.ASCII)):
                raise ValueError(f"{self.wording} (without quotes) is expected, not {shown(text)}")
            number = int(text)
        if not self.least <= number <= self.most:
            raise ValueError(f"{number} is out of range: {self.wording} is expected")
        return number

    def default(self, value: int) -> object:
        return value

    def schema(self) -> dict[str, object]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Choice(Format):
    """One word of an enumeration. `refused`: words that mean something but not here, with the reason."""

    options: type[StrEnum]
    refused: Mapping[str, str]

    @property
    def _words(self) -> list[str]:
        return [str(option.value) for option in self.options if option.value not in self.refused]

    @property
    def wording(self) -> str:  # type: ignore[override]
        words = self._words
        return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))

    def parse(self, value: object) -> StrEnum:
        text = self.text(value)
        if text in self.refused:
            raise ValueError(self.refused[text])
        if text not in self._words:
            raise ValueError(f"{self.wording} is expected, not {shown(text)}{near(text, self._words)}")
        return self.options(text)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "enum": self._words}


def parse_duration(text: str) -> float:
    """`6s`, `500ms`, `2m`, `1h`, `7d`, `1.5s` in seconds; `0` needs no unit. Raises ValueError."""
    if text == "0":
        return 0.0
    match = _DURATION.fullmatch(text)
    if match is None:
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII) and len(text) <= 12:
            raise ValueError(f"{text} has no unit: write {text}s for seconds, or ms, m, h, d")
        raise ValueError(f"a number and a unit (ms, s, m, h, d) such as 6s is expected, not {shown(text)}")
    return round(float(match[1]) * DURATION_UNITS_S[match[2]], 6)


def format_duration(seconds: float) -> str:
    """The shortest exact way to write a duration: 90.0 is 90s, 120.0 is 2m."""
    if seconds == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        count = seconds / DURATION_UNITS_S[unit]
        if count == int(count):
            return f"{int(count)}{unit}"
    return f"{round(seconds * 1000, 3):g}ms"


@dataclass(frozen=True)
class Duration(Format):
    """Seconds, as a float. In YAML a number with a unit; in code a number of seconds."""

    least: str = "0s"
    most: str = "366d"

    @property
    def wording(self) -> str:  # type: ignore[override]
        return f"a duration from {self.least} to {self.most}"

    def parse(self, value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
        else:
            seconds = parse_duration(self.text(value))
        if not parse_duration(self.least) <= seconds <= parse_duration(self.most):  # also false for a NaN
            raise ValueError(f"out of range: {self.wording} is expected")
        return seconds

    def show(self, value: float) -> str:
        return format_duration(value)

    def schema(self) -> dict[str, object]:
        return {"anyOf": [{"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s|m|h|d)|0)$"}, {"const": 0}]}


@dataclass(frozen=True)
class Size(Format):
    """Octets, as an int. In YAML a number with a unit."""

    least: str
    most: str

    @property
    def wording(self) -> str:  # type: ignore[override]
        return f"a size from {self.least} to {self.most}"

    def parse(self, value: object) -> int:
        octets = value if isinstance(value, int) and not isinstance(value, bool) else _parse_size(self.text(value))
        if not _parse_size(self.least) <= octets <= _parse_size(self.most):
            raise ValueError(f"out of range: {self.wording} is expected")
        return octets

    def show(self, value: int) -> str:
        for unit in ("GiB", "MiB", "KiB"):
            if value and value % SIZE_UNITS_OCTETS[unit] == 0:
                return f"{value // SIZE_UNITS_OCTETS[unit]} {unit}"
        return f"{value} B"

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB)$"}


def _parse_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"a number and a unit (B, KiB, MiB, GiB) such as 1 MiB is expected, not {shown(text)}")
    return int(match[1]) * SIZE_UNITS_OCTETS[match[2]]


@dataclass(frozen=True)
class Name(Format):
    """A name that can stand in URLs, file names, metrics and dial strings."""

    wording = "a name of 1 to 32 letters, digits, _ . or -"

    def parse(self, value: object) -> str:
        text = self.text(value)
        if _NAME.fullmatch(text) is None:
            raise ValueError(f"{self.wording} is expected, not {shown(text)}")
        return str(text)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": f"^{_NAME.pattern}$"}


@dataclass(frozen=True)
class Label(Format):
    wording = "a text of at most 64 characters on one line"

    def parse(self, value: object) -> str:
        text = self.text(value)
        if len(text) > 64 or not text.isprintable():
            raise ValueError(f"{self.wording} is expected")
        return str(text)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "maxLength": 64}


@dataclass(frozen=True)
class Digits(Format):
    """A number that is not a telephone number: IMSI, SMSC address. Spaces are not allowed in it."""

    pattern: str
    wording: str

    def parse(self, value: object) -> str:
        text = self.text(value)
        if re.fullmatch(self.pattern, text, re.ASCII) is None:
            raise ValueError(f"{self.wording} is expected, not {shown(text)}")
        return str(text)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": f"^{self.pattern}$"}
