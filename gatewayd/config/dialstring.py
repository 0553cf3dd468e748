"""Dial strings: which ports of a device or group are used, and in which turn. Pure.

`(0.3)` is ports 0 to 3, used strictly in turn 0-1-2-3-0-…; `3`, `0.3`, `0-3`, `0,2,3` and `(0.3),7` are understood too.
The order written is the order of the turn. Source: behaviours decision 2, S4-27 to S4-29.
"""

from __future__ import annotations

MAX_PORT = 9999
MAX_LENGTH = 1000  # characters

_EXAMPLES = "a dial string such as (0.3), 3, 0-3, 0,2,3 or (0.3),7 is expected"
_DIGITS = frozenset("0123456789")


class DialStringError(ValueError):
    """No dial string. `position` (from 1) is the character at which it stops being one."""

    def __init__(self, position: int, reason: str) -> None:
        self.position = position
        self.reason = reason
        super().__init__(f"at character {position}: {reason}")


def parse(text: str) -> tuple[int, ...]:
    """The ports of a dial string in the order of their turn, each once. Raises DialStringError."""
    if not text:
        raise DialStringError(1, f"it is empty; {_EXAMPLES}")
    if len(text) > MAX_LENGTH:
        raise DialStringError(MAX_LENGTH + 1, f"it has more than {MAX_LENGTH} characters")
    ports: dict[int, None] = {}
    at = 0
    while True:
        first, last, end = _element(text, at)
        for port in range(first, last + 1):
            if port in ports:
                raise DialStringError(at + 1, f"port {port} stands in it twice")
            ports[port] = None
        if end == len(text):
            return tuple(ports)
        if text[end] != ",":
            raise DialStringError(end + 1, f"{text[end]!r} does not belong there; {_EXAMPLES}")
        at = end + 1


def write(ports: tuple[int, ...]) -> str:
    """The canonical dial string of some ports: `parse(write(ports)) == ports`."""
    runs: list[list[int]] = []
    for port in ports:
        if runs and port == runs[-1][1] + 1:
            runs[-1][1] = port
        else:
            runs.append([port, port])
    return ",".join(str(first) if first == last else f"({first}.{last})" for first, last in runs)


def _element(text: str, at: int) -> tuple[int, int, int]:
    """One port or range that begins at `at`: (first port, last port, where it ends)."""
    bracket = text[at : at + 1] == "("
    first, end = _port(text, at + bracket)
    last = first
    if bracket and text[end : end + 1] not in {".", "-"}:
        raise DialStringError(end + 1, "a range such as (0.3) is expected in parentheses")
    if text[end : end + 1] in {".", "-"}:
        last, after = _port(text, end + 1)
        if last < first:
            raise DialStringError(end + 2, f"the range runs backwards; {last}.{first} is expected")
        end = after
    if bracket:
        if text[end : end + 1] != ")":
            raise DialStringError(end + 1, f"the parenthesis of character {at + 1} is not closed here")
        end += 1
    return first, last, end


def _port(text: str, at: int) -> tuple[int, int]:
    """The port number at `at`, and where it ends."""
    end = at
    while end < len(text) and text[end] in _DIGITS:
        end += 1
    if end == at:
        found = f"not {text[at]!r}" if at < len(text) else "but it ends"
        raise DialStringError(at + 1, f"the number of a port is expected, {found}; {_EXAMPLES}")
    digits = text[at:end]
    if len(digits) > 1 and digits[0] == "0":
        raise DialStringError(at + 1, f"{digits[:8]} has leading zeros")
    if len(digits) > len(str(MAX_PORT)):
        raise DialStringError(at + 1, f"ports have numbers from 0 to {MAX_PORT}")
    return int(digits), end
