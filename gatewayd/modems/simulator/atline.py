"""An AT command line taken apart. Source: 3GPP TS 27.007 §4, ITU-T V.250 §5."""

from __future__ import annotations

import re
from dataclasses import dataclass

_EXTENDED = re.compile(r"([+^#$%*!_][A-Z][A-Z0-9_./:-]*)(=\?|\?|=)?")
_BASIC = re.compile(r"(&?[A-Z])(\d*)")
_REGISTER = re.compile(r"(S)(\d+(?:=\d*|\?))")
_END = re.compile(r'(?:"[^"]*"?|[^;"])*')  # up to a semicolon outside quotes


class LineError(ValueError):
    """A command line that is none."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `name` ("+CMGS", "E", "&F"), `op` ("", "?", "=?" or "="), `value` as written after it."""

    name: str
    op: str = ""
    value: str = ""

    @property
    def text(self) -> str:
        """As written, without AT."""
        return f"{self.name}{self.op}{self.value}"

    def arguments(self) -> list[str]:
        """The parameters, without their quotes; an omitted one is ""."""
        if not self.value:
            return []
        parts, quoted = [""], False
        for char in self.value:
            if char == '"':
                quoted = not quoted
            elif char == "," and not quoted:
                parts.append("")
            else:
                parts[-1] += char
        return parts

    def numbers(self, count: int) -> list[int | None]:
        """`count` integer parameters, None where omitted. Raises LineError if one is no number or there are more."""
        texts = self.arguments()
        if len(texts) > count:
            raise LineError(self.text)
        numbers = [_number(text) for text in texts]
        return numbers + [None] * (count - len(numbers))


def _number(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise LineError(text)
    return int(text)


def parse(line: str) -> list[Command]:
    """The commands after `AT`, in order. Case and spaces do not matter outside quotes. Raises LineError."""
    line = _normal(line)
    commands: list[Command] = []
    at = 0
    while at < len(line):
        char = line[at]
        if char == ";":
            at += 1
        elif char == "D":
            commands.append(Command("D", "", line[at + 1 :]))
            break
        elif match := _EXTENDED.match(line, at):
            name, op = match.group(1), match.group(2) or ""
            value = ""
            at = match.end()
            if op == "=":
                end = _END.match(line, at)
                value = end.group() if end else ""
                at += len(value)
            if at < len(line) and line[at] != ";":
                raise LineError(line)
            commands.append(Command(name, op, value))
        elif match := _REGISTER.match(line, at) or _BASIC.match(line, at):
            commands.append(Command(match.group(1), "", match.group(2)))
            at = match.end()
        else:
            raise LineError(line)
    return commands


def _normal(line: str) -> str:
    if '"' not in line:
        return line.replace(" ", "").upper()
    pieces = line.split('"')
    pieces[::2] = [piece.replace(" ", "").upper() for piece in pieces[::2]]
    return '"'.join(pieces)
