"""TP-DCS: which alphabet the user data is in, and what else its data coding scheme says.

Source: 3GPP TS 23.038 §4.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from gatewayd.errors import EncodeError


class Alphabet(StrEnum):
    """How user data becomes text; 8-bit data does not."""

    GSM7 = "gsm7"
    DATA8 = "8bit"
    UCS2 = "ucs2"


class WaitingKind(IntEnum):
    """What a message waiting indication is about."""

    VOICEMAIL = 0
    FAX = 1
    EMAIL = 2
    OTHER = 3


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message waiting indication: switched on (`active`) or off; the text may be thrown away (`discard`)."""

    kind: WaitingKind
    active: bool
    discard: bool


@dataclass(frozen=True, slots=True)
class CodingScheme:
    """What a TP-DCS octet says.

    `message_class` is 0 (flash) to 3, or None. `compressed` data is not understood and therefore 8-bit data here.
    `auto_delete`: the sender wishes it deleted once read.
    """

    alphabet: Alphabet
    message_class: int | None = None
    compressed: bool = False
    auto_delete: bool = False
    waiting: Waiting | None = None


_BY_BITS = (Alphabet.GSM7, Alphabet.DATA8, Alphabet.UCS2, Alphabet.GSM7)  # 11 is reserved: the default alphabet
_BITS = {Alphabet.GSM7: 0x00, Alphabet.DATA8: 0x04, Alphabet.UCS2: 0x08}


def decode(dcs: int) -> CodingScheme:
    """The meaning of a TP-DCS octet. Every octet has one: reserved codings are the GSM 7-bit default alphabet."""
    group = dcs >> 4
    if group < 0x8:
        compressed = bool(dcs & 0x20)
        return CodingScheme(
            alphabet=Alphabet.DATA8 if compressed else _BY_BITS[dcs >> 2 & 0x03],
            message_class=dcs & 0x03 if dcs & 0x10 else None,
            compressed=compressed,
            auto_delete=bool(dcs & 0x40),
        )
    if 0xC <= group <= 0xE:
        waiting = Waiting(WaitingKind(dcs & 0x03), active=bool(dcs & 0x08), discard=group == 0xC)
        return CodingScheme(Alphabet.UCS2 if group == 0xE else Alphabet.GSM7, waiting=waiting)
    if group == 0xF and not dcs & 0x08:
        return CodingScheme(Alphabet.DATA8 if dcs & 0x04 else Alphabet.GSM7, message_class=dcs & 0x03)
    return CodingScheme(Alphabet.GSM7)


def encode(alphabet: Alphabet, message_class: int | None = None) -> int:
    """The TP-DCS octet of the general group. `message_class` is 0 (flash) to 3; raises EncodeError otherwise."""
    if message_class is None:
        return _BITS[alphabet]
    if not 0 <= message_class <= 3:
        raise EncodeError("message_class", f"{message_class} is not 0 to 3")
    return _BITS[alphabet] | 0x10 | message_class
