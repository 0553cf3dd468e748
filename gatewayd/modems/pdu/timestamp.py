"""Time stamps in semi-octets: TP-SCTS, TP-DT and the absolute TP-VP.

Source: 3GPP TS 23.040 §9.2.3.11.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from gatewayd.errors import EncodeError
from gatewayd.modems.pdu.octets import Octets

LENGTH = 7
_FIRST_YEAR, _LAST_YEAR = 1990, 2089  # two digits: 00 to 89 are of this century
_MAX_QUARTERS = 79
_NEGATIVE = 0x08


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A moment and the offset it was written with.

    `epoch_s` is UTC seconds; `quarters` the offset from UTC in quarter hours, -79..79, east positive. The
    offset is that of the SMS centre, which need not be right: compare `epoch_s` with care.
    """

    epoch_s: int
    quarters: int = 0

    @property
    def moment(self) -> datetime:
        """Aware, with the offset it was written with."""
        return datetime.fromtimestamp(self.epoch_s, timezone(timedelta(minutes=15 * self.quarters)))

    @property
    def epoch_ms(self) -> int:
        """UTC epoch milliseconds."""
        return self.epoch_s * 1000

    def __str__(self) -> str:
        return self.moment.isoformat()

    def encode(self, path: str = "timestamp") -> bytes:
        """Seven octets. Raises EncodeError if the year is not 1990..2089 or the offset not below 20 hours."""
        if not -_MAX_QUARTERS <= self.quarters <= _MAX_QUARTERS:
            raise EncodeError(path, f"an offset of {self.quarters} quarter hours does not fit")
        try:
            local = datetime.fromtimestamp(self.epoch_s, UTC) + timedelta(minutes=15 * self.quarters)
        except (OverflowError, ValueError, OSError):
            raise EncodeError(path, f"{self.epoch_s} is not a time") from None
        if not _FIRST_YEAR <= local.year <= _LAST_YEAR:
            raise EncodeError(path, f"the year {local.year} does not fit, {_FIRST_YEAR} to {_LAST_YEAR} do")
        fields = (local.year % 100, local.month, local.day, local.hour, local.minute, local.second)
        offset = _swapped(abs(self.quarters)) | (_NEGATIVE if self.quarters < 0 else 0)
        return bytes([*map(_swapped, fields), offset])


def encode(stamp: Timestamp | None, path: str) -> bytes:
    """Seven octets; all zero for an unknown time."""
    return bytes(LENGTH) if stamp is None else stamp.encode(path)


def decode(octets: Octets, path: str) -> Timestamp | None:
    """Read seven octets; None where they are no time, which is never an error. DecodeError only if they are missing."""
    value = octets.take(LENGTH, path)
    numbers = [semi_octets(octet) for octet in value[:6]]
    quarters = semi_octets(value[6] & ~_NEGATIVE)
    if quarters is None or None in numbers:
        return None
    if value[6] & _NEGATIVE:
        quarters = -quarters
    year, month, day, hour, minute, second = (number or 0 for number in numbers)
    year += 2000 if year <= _LAST_YEAR % 100 else 1900
    try:
        local = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return Timestamp(int(local.timestamp()) - 900 * quarters, quarters)


def semi_octets(octet: int) -> int | None:
    """Two decimal digits, the first in the low nibble; None if they are not decimal."""
    tens, ones = octet & 0x0F, octet >> 4
    return tens * 10 + ones if tens <= 9 and ones <= 9 else None


def _swapped(number: int) -> int:
    return number % 10 << 4 | number // 10
