"""The GSM 7-bit default alphabet, its extension table, and the packing of septets into octets.

Septets travel through this package as bytes with one septet each, 0x00..0x7F; only `pack` and `unpack` know how they
lie in octets. Source: 3GPP TS 23.038 §6.1.2 and §6.2.1.
"""

from __future__ import annotations

from collections.abc import Mapping

from gatewayd.errors import DecodeError, EncodeError

ESC = 0x1B
CR = 0x0D

DEFAULT = (
    "@£$¥èéùìòÇ\nØø\rÅå"
    "Δ_ΦΓΛΩΠΨΣΘΞ ÆæßÉ"  # 0x1B is ESC; met where no escape is understood it is shown as a space
    " !\"#¤%&'()*+,-./"
    "0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNO"
    "PQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmno"
    "pqrstuvwxyzäöñüà"
)
"""The default alphabet, by septet. Source: 3GPP TS 23.038 §6.2.1."""

EXTENSION: Mapping[int, str] = {
    0x0A: "\f",
    0x14: "^",
    0x28: "{",
    0x29: "}",
    0x2F: "\\",
    0x3C: "[",
    0x3D: "~",
    0x3E: "]",
    0x40: "|",
    0x65: "€",
}
"""What a septet means after ESC. Source: 3GPP TS 23.038 §6.2.1.1."""

# By national language identifier (3GPP TS 23.038 §6.2.1.2.4, annex A); 0 is no language. One that is not here is the
# default, as the standard demands of a receiver that does not know it.
LOCKING_SHIFT: Mapping[int, str] = {0: DEFAULT}
SINGLE_SHIFT: Mapping[int, Mapping[int, str]] = {0: EXTENSION}

_SEPTETS: dict[int, str] = {ord(char): chr(septet) for septet, char in enumerate(DEFAULT) if septet != ESC}
_SEPTETS |= {ord(char): chr(ESC) + chr(septet) for septet, char in EXTENSION.items()}
_ENCODABLE = frozenset(map(chr, _SEPTETS))
_EXTENDED = frozenset(EXTENSION.values())


def encodable(text: str) -> bool:
    """Whether every character is in the default alphabet or its extension table."""
    return _ENCODABLE.issuperset(text)


def length(text: str) -> int:
    """How many septets an encodable `text` takes: two for a character of the extension table."""
    if _EXTENDED.isdisjoint(text):
        return len(text)
    return len(text) + sum(map(text.count, _EXTENDED))


def encode(text: str, path: str = "text") -> bytes:
    """Text as septets. Raises EncodeError, which names the first character that is not in the alphabet."""
    if not encodable(text):
        index, char = next((index, char) for index, char in enumerate(text) if char not in _ENCODABLE)
        raise EncodeError(path, f"character {index + 1} (U+{ord(char):04X}) is not in the GSM 7-bit alphabet")
    return text.translate(_SEPTETS).encode("latin-1")


def decode(septets: bytes, locking_shift: int = 0, single_shift: int = 0) -> str:
    """Septets as text. Never fails.

    `locking_shift` and `single_shift` are national language identifiers; an unknown one means the default tables. An
    escape to a septet the extension table does not have gives the character of the main table (ESC itself: a space);
    an escape at the end gives nothing.
    """
    main = LOCKING_SHIFT.get(locking_shift, DEFAULT)
    extension = SINGLE_SHIFT.get(single_shift, EXTENSION)
    text: list[str] = []
    escaped = False
    for octet in septets:
        septet = octet & 0x7F
        if escaped:
            text.append(extension.get(septet) or main[septet])
            escaped = False
        elif septet == ESC:
            escaped = True
        else:
            text.append(main[septet])
    return "".join(text)


def pack(septets: bytes, fill_bits: int = 0) -> bytes:
    """Pack septets into octets, `fill_bits` (0..6) zero bits before the first one. Spare bits at the end are zero.

    Source: 3GPP TS 23.038 §6.1.2.1; fill bits: 3GPP TS 23.040 §9.2.3.24.
    """
    packed = bytearray()
    bits, pending = fill_bits, 0
    for septet in septets:
        pending |= septet << bits
        bits += 7
        if bits >= 8:
            packed.append(pending & 0xFF)
            pending >>= 8
            bits -= 8
    if bits:
        packed.append(pending)
    return bytes(packed)


def unpack(octets: bytes, septets: int, fill_bits: int = 0) -> bytes:
    """Unpack GSM 7-bit user data.

    `septets` counts characters, not octets; `fill_bits` (0..6) precede the first septet, after a UDH. Whatever bits
    follow the last septet are ignored. Returns one septet per byte, 0x00..0x7F. Raises DecodeError if `octets` is too
    short. Source: 3GPP TS 23.038 §6.1.2.1; fill bits: 3GPP TS 23.040 §9.2.3.24.
    """
    if septets * 7 + fill_bits > len(octets) * 8 and septets:
        raise DecodeError("septets", len(octets), f"{septets} septets do not fit in {len(octets)} octets")
    bits = int.from_bytes(octets, "little") >> fill_bits
    return bytes(bits >> shift & 0x7F for shift in range(0, septets * 7, 7))


def pack_ussd(septets: bytes) -> bytes:
    """Pack septets where no length tells how many there are: seven spare bits are filled with CR, not with zero.

    Seven zero bits would be read as `@`. A text that ends in CR on an octet boundary gets a second CR, or its own would
    be taken for such padding. Source: 3GPP TS 23.038 §6.1.2.3.1.
    """
    spare_bits = -7 * len(septets) % 8
    if spare_bits == 7 or (spare_bits == 0 and septets.endswith(bytes([CR]))):
        septets += bytes([CR])
    return pack(septets)


def unpack_ussd(octets: bytes) -> bytes:
    """Unpack as many septets as `octets` hold, without the CR that pads seven spare bits.

    Source: 3GPP TS 23.038 §6.1.2.3.1.
    """
    septets = unpack(octets, len(octets) * 8 // 7)
    if septets and len(septets) % 8 == 0 and septets[-1] == CR:
        return septets[:-1]
    return septets
