"""TP-VP: for how long the SMS centre shall try. Source: 3GPP TS 23.040 §9.2.3.12."""

from __future__ import annotations

from dataclasses import dataclass

from gatewayd.errors import EncodeError
from gatewayd.modems.pdu import timestamp
from gatewayd.modems.pdu.octets import Octets
from gatewayd.modems.pdu.timestamp import Timestamp

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86400, 604800

# TP-VPF, bits 4 and 3 of the first octet (3GPP TS 23.040 §9.2.3.3)
NOT_PRESENT, ENHANCED, RELATIVE, ABSOLUTE = range(4)

# first value, what the value before it stands for, step: 3GPP TS 23.040 §9.2.3.12.1
_BANDS = (
    (0, 0, 5 * MINUTE),
    (144, 12 * HOUR, 30 * MINUTE),
    (168, 1 * DAY, DAY),
    (197, 4 * WEEK, WEEK),
)


@dataclass(frozen=True, slots=True)
class RelativeValidity:
    """A period from the SMS centre's receipt, in one octet: 5 minutes (0) to 63 weeks (255)."""

    format = RELATIVE
    value: int

    @classmethod
    def of_seconds(cls, seconds: int) -> RelativeValidity:
        """The longest period not longer than `seconds`; 5 minutes if that is less, 63 weeks if it is more."""
        first, base, step = next((band for band in reversed(_BANDS) if seconds >= band[1] + band[2]), _BANDS[0])
        last = next((later for later, _, _ in _BANDS if later > first), 256) - 1
        return cls(max(first, min(first - 1 + (seconds - base) // step, last)))

    @property
    def seconds(self) -> int:
        first, base, step = next(band for band in reversed(_BANDS) if self.value >= band[0])
        return base + (self.value - first + 1) * step

    def encode(self) -> bytes:
        if not 0 <= self.value <= 255:
            raise EncodeError("validity", f"{self.value} does not fit in an octet")
        return bytes([self.value])


@dataclass(frozen=True, slots=True)
class AbsoluteValidity:
    """A last moment; None where the octets are no time."""

    format = ABSOLUTE
    until: Timestamp | None

    @property
    def seconds(self) -> None:
        """Unknown: it depends on when the SMS centre got the message."""

    def encode(self) -> bytes:
        return timestamp.encode(self.until, "validity")


@dataclass(frozen=True, slots=True)
class EnhancedValidity:
    """The enhanced format: seven octets kept as they are. Source: 3GPP TS 23.040 §9.2.3.12.3."""

    format = ENHANCED
    octets: bytes

    @property
    def single_shot(self) -> bool:
        """The SMS centre shall try only once."""
        return bool(self.octets[0] & 0x40)

    @property
    def seconds(self) -> int | None:
        """The period; None if none is given, or in a form that is reserved."""
        after = 1  # each functionality indicator octet with bit 7 set is followed by another
        while after < len(self.octets) and self.octets[after - 1] & 0x80:
            after += 1
        form, value = self.octets[0] & 0x07, self.octets[after:]
        if form == 1 and value:
            return RelativeValidity(value[0]).seconds
        if form == 2 and value:
            return value[0] or None  # 0 is reserved
        if form == 3 and len(value) >= 3:
            hours, minutes, seconds = (timestamp.semi_octets(octet) for octet in value[:3])
            if hours is not None and minutes is not None and seconds is not None:
                return hours * HOUR + minutes * MINUTE + seconds
        return None

    def encode(self) -> bytes:
        if len(self.octets) != timestamp.LENGTH:
            raise EncodeError("validity", f"{len(self.octets)} octets, the enhanced format has {timestamp.LENGTH}")
        return self.octets


Validity = RelativeValidity | AbsoluteValidity | EnhancedValidity


def decode(octets: Octets, vpf: int) -> Validity | None:
    """Read TP-VP in the format TP-VPF (0..3) says. Raises DecodeError only if octets are missing."""
    if vpf == RELATIVE:
        return RelativeValidity(octets.octet("validity"))
    if vpf == ABSOLUTE:
        return AbsoluteValidity(timestamp.decode(octets, "validity"))
    if vpf == ENHANCED:
        return EnhancedValidity(octets.take(timestamp.LENGTH, "validity"))
    return None
