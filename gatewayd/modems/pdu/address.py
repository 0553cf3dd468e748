"""TP addresses: who sent a short message and who is to get it.

Source: 3GPP TS 23.040 §9.1.2.5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from gatewayd.errors import EncodeError
from gatewayd.modems.pdu import gsm7
from gatewayd.modems.pdu.octets import Octets

DIGITS = "0123456789*#abc"
"""What the semi-octets 0x0 to 0xE stand for; 0xF fills up."""

MAX_DIGITS = 20
MAX_LETTERS = 11
_FILL = 0xF
_SEMI_OCTETS = {char: value for value, char in enumerate(DIGITS)}
_SENDABLE = re.compile(rf"\+?[{re.escape(DIGITS)}]{{1,{MAX_DIGITS}}}")


class TypeOfNumber(IntEnum):
    """TON, bits 6 to 4 of the type octet."""

    UNKNOWN = 0
    INTERNATIONAL = 1
    NATIONAL = 2
    NETWORK_SPECIFIC = 3
    SUBSCRIBER = 4
    ALPHANUMERIC = 5
    ABBREVIATED = 6
    RESERVED = 7


class NumberingPlan(IntEnum):
    """NPI, bits 3 to 0 of the type octet; only the two that occur."""

    UNKNOWN = 0
    ISDN = 1


@dataclass(frozen=True, slots=True)
class Address:
    """An address as the network gives it.

    `digits` is of `0-9*#abc` without any `+`, or the letters of an alphanumeric sender. `ton` is 0..7, `npi` 0..15.
    """

    digits: str
    ton: int
    npi: int

    @classmethod
    def to_send(cls, number: str) -> Address:
        """The address of a number to send to: international (type 0x91) with a leading `+`, else unknown (0x81).

        1 to 20 digits of `0-9*#abc`; anything else raises EncodeError. The number must be normalised before: spaces and
        hyphens are no digits.
        """
        if not _SENDABLE.fullmatch(number):
            raise EncodeError("number", f"{number!r} is not 1 to {MAX_DIGITS} digits of {DIGITS}, after a + or not")
        if number.startswith("+"):
            return cls(number[1:], TypeOfNumber.INTERNATIONAL, NumberingPlan.ISDN)
        return cls(number, TypeOfNumber.UNKNOWN, NumberingPlan.ISDN)

    @classmethod
    def alphanumeric(cls, name: str) -> Address:
        """The address of a sender that has a name: at most 11 septets of the GSM 7-bit alphabet, else EncodeError."""
        _name_septets(name, "name")
        return cls(name, TypeOfNumber.ALPHANUMERIC, NumberingPlan.UNKNOWN)

    @property
    def text(self) -> str:
        """As people write it: `+59898…` if international, the letters if alphanumeric, else the plain digits."""
        if self.ton == TypeOfNumber.INTERNATIONAL and self.digits:
            return f"+{self.digits}"
        return self.digits

    @property
    def type_octet(self) -> int:
        """TON and NPI in one octet, extension bit set."""
        return 0x80 | self.ton << 4 | self.npi

    def encode(self, path: str = "address") -> bytes:
        """Length in useful semi-octets, type octet, value. Raises EncodeError at `path`."""
        _check_type(self, path)
        if self.ton == TypeOfNumber.ALPHANUMERIC:
            septets = _name_septets(self.digits, path)
            return bytes([(len(septets) * 7 + 3) // 4, self.type_octet]) + gsm7.pack(septets)
        return bytes([len(self.digits), self.type_octet]) + encode_digits(self.digits, path)


def decode(octets: Octets, path: str) -> Address:
    """Read an address: length in semi-octets, a type octet (also if the length is 0), and the value.

    Raises DecodeError only if octets are missing. A value longer than the standard allows is read if it is there.
    """
    length = octets.octet(f"{path}.length")
    ton, npi = split_type(octets.octet(f"{path}.type"))
    value = octets.take((length + 1) // 2, f"{path}.value")
    if ton == TypeOfNumber.ALPHANUMERIC:
        letters = min(length * 4 // 7, MAX_LETTERS)
        return Address(gsm7.decode(gsm7.unpack(value, letters)), ton, npi)
    return Address(decode_digits(value, length), ton, npi)


def split_type(octet: int) -> tuple[int, int]:
    """TON and NPI of a type octet, whatever its extension bit."""
    return octet >> 4 & 0x07, octet & 0x0F


def decode_digits(value: bytes, length: int) -> str:
    """The first `length` semi-octets as digits, low nibble first; 0xF ends the number."""
    digits: list[str] = []
    for semi_octet in (nibble for octet in value for nibble in (octet & 0x0F, octet >> 4)):
        if semi_octet == _FILL or len(digits) == length:
            break
        digits.append(DIGITS[semi_octet])
    return "".join(digits)


def encode_digits(digits: str, path: str) -> bytes:
    """Digits as semi-octets, low nibble first, the last octet filled up. At most 20, else EncodeError at `path`."""
    if len(digits) > MAX_DIGITS:
        raise EncodeError(path, f"{len(digits)} digits, at most {MAX_DIGITS} fit")
    try:
        nibbles = [_SEMI_OCTETS[char] for char in digits]
    except KeyError as fault:
        raise EncodeError(path, f"{fault.args[0]!r} is not a digit of {DIGITS}") from None
    if len(nibbles) % 2:
        nibbles.append(_FILL)
    return bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))


def _check_type(address: Address, path: str) -> None:
    if not (0 <= address.ton <= 7 and 0 <= address.npi <= 15):
        raise EncodeError(path, f"type of number {address.ton} or numbering plan {address.npi} is out of range")


def _name_septets(name: str, path: str) -> bytes:
    septets = gsm7.encode(name, path)
    if len(septets) > MAX_LETTERS:
        raise EncodeError(path, f"{len(septets)} septets, a name has at most {MAX_LETTERS}")
    return septets
