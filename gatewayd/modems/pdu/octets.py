"""A cursor over the octets of a PDU: the one place where octets can be missing."""

from __future__ import annotations

from gatewayd.errors import DecodeError


class Octets:
    """Octets read from the front. `offset` counts from the first octet of the whole PDU, for error messages.

    Every read names the field it is for; a field that is not there in full raises DecodeError with that name.
    """

    __slots__ = ("_data", "offset")

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self._data = data
        self.offset = offset

    @property
    def left(self) -> int:
        """How many octets are still to be read."""
        return len(self._data) - self.offset

    def take(self, count: int, path: str) -> bytes:
        """The next `count` octets."""
        if count > self.left:
            raise DecodeError(path, self.offset, f"needs {_octets(count)}, {_octets(max(self.left, 0))} left")
        start = self.offset
        self.offset += count
        return self._data[start : self.offset]

    def octet(self, path: str) -> int:
        """The next octet as a number."""
        return self.take(1, path)[0]


def _octets(count: int) -> str:
    return "1 octet" if count == 1 else f"{count} octets"
