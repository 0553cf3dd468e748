"""TP-UD: the text or data of a TPDU and the header that may precede it.

Source: 3GPP TS 23.040 §9.2.3.16 (length), §9.2.3.24 (header).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from gatewayd.errors import DecodeError, EncodeError
from gatewayd.modems.pdu import dcs as coding
from gatewayd.modems.pdu import gsm7, ucs2
from gatewayd.modems.pdu.dcs import Alphabet
from gatewayd.modems.pdu.octets import Octets

MAX_OCTETS = 140
MAX_SEPTETS = 160

IEI_CONCAT_8 = 0x00
IEI_PORTS_8 = 0x04
IEI_PORTS_16 = 0x05
IEI_CONCAT_16 = 0x08
IEI_SINGLE_SHIFT = 0x24
IEI_LOCKING_SHIFT = 0x25


@dataclass(frozen=True, slots=True)
class InformationElement:
    """One element of a user data header, kept raw whether known or not."""

    iei: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Concat:
    """Part `seq` (from 1) of `total`, all with the same `ref` of 8 or 16 `bits`. Sources: §9.2.3.24.1, §9.2.3.24.8."""

    ref: int
    total: int
    seq: int
    bits: int = 8

    def element(self) -> InformationElement:
        """As an information element. Raises EncodeError for what a receiver would ignore."""
        if self.bits not in (8, 16):
            raise EncodeError("ref_bits", f"{self.bits} is not 8 or 16")
        if not 0 <= self.ref < 1 << self.bits:
            raise EncodeError("concat_ref", f"{self.ref} does not fit in {self.bits} bits")
        if not 1 <= self.seq <= self.total <= 255:
            raise EncodeError("concat", f"part {self.seq} of {self.total} is not within 1 to 255")
        iei = IEI_CONCAT_8 if self.bits == 8 else IEI_CONCAT_16
        return InformationElement(iei, self.ref.to_bytes(self.bits // 8, "big") + bytes([self.total, self.seq]))


@dataclass(frozen=True, slots=True)
class Ports:
    """Application ports, of 8 or 16 `bits`. Sources: §9.2.3.24.3, §9.2.3.24.4."""

    destination: int
    source: int
    bits: int = 16

    def element(self) -> InformationElement:
        """As an information element. Raises EncodeError for a port that does not fit."""
        if self.bits not in (8, 16):
            raise EncodeError("ports", f"{self.bits} bits are not 8 or 16")
        if not (0 <= self.destination < 1 << self.bits and 0 <= self.source < 1 << self.bits):
            raise EncodeError("ports", f"{self.destination} or {self.source} does not fit in {self.bits} bits")
        width = self.bits // 8
        data = self.destination.to_bytes(width, "big") + self.source.to_bytes(width, "big")
        return InformationElement(IEI_PORTS_8 if self.bits == 8 else IEI_PORTS_16, data)


@dataclass(frozen=True, slots=True)
class UserData:
    """The user data of one TPDU.

    `text` is what `data` says by itself, None for 8-bit data; parts of a long message are joined by `join_text`, for a
    part can end inside a character. `data` is without header: septets, one a byte, for GSM7, otherwise octets. Give
    either: the other follows from it (given both, `data` is what is sent). `dcs` -1: the plain one of `alphabet`.
    Raises EncodeError if `text` cannot be written in `alphabet`.
    """

    alphabet: Alphabet
    text: str | None = None
    data: bytes = b""
    udh: tuple[InformationElement, ...] = ()
    dcs: int = -1

    def __post_init__(self) -> None:
        if self.dcs < 0:
            object.__setattr__(self, "dcs", coding.encode(self.alphabet))
        if self.text is None:
            object.__setattr__(self, "text", self._decoded())
        elif self.text and not self.data:
            object.__setattr__(self, "data", _encoded(self.text, self.alphabet))

    @property
    def message_class(self) -> int | None:
        """0 (flash) to 3, or None."""
        return coding.decode(self.dcs).message_class

    @property
    def concat(self) -> Concat | None:
        """Which part of a long message this is: the last valid such element counts, an invalid one is none."""
        found = None
        for element in self.udh:
            if (element.iei, len(element.data)) in ((IEI_CONCAT_8, 3), (IEI_CONCAT_16, 4)):
                *ref, total, seq = element.data
                if 1 <= seq <= total:
                    found = Concat(int.from_bytes(ref, "big"), total, seq, 8 * len(ref))
        return found

    @property
    def ports(self) -> Ports | None:
        """The application it is for, if not a person: the last valid such element counts."""
        found = None
        for element in self.udh:
            if (element.iei, len(element.data)) in ((IEI_PORTS_8, 2), (IEI_PORTS_16, 4)):
                width = len(element.data) // 2
                destination, source = element.data[:width], element.data[width:]
                found = Ports(int.from_bytes(destination, "big"), int.from_bytes(source, "big"), 8 * width)
        return found

    def encode(self) -> bytes:
        """TP-UDL and TP-UD. Raises EncodeError if it is more than 140 octets or does not fit its own `dcs`."""
        if not 0 <= self.dcs <= 0xFF or coding.decode(self.dcs).alphabet != self.alphabet:
            raise EncodeError("user_data.dcs", f"{self.dcs:#04x} is not a coding of {self.alphabet}")
        header = encode_udh(self.udh)
        if self.alphabet is Alphabet.GSM7:
            if max(self.data, default=0) > 0x7F:
                raise EncodeError("user_data.data", "holds a septet above 0x7f")
            udl = header_septets(len(header)) + len(self.data)
            octets = header + gsm7.pack(self.data, _fill_bits(len(header)))
        else:
            octets = header + self.data
            udl = len(octets)
        if len(octets) > MAX_OCTETS:
            raise EncodeError("user_data", f"{len(octets)} octets, at most {MAX_OCTETS} fit")
        return bytes([udl]) + octets

    def _decoded(self) -> str | None:
        if self.alphabet is Alphabet.GSM7:
            return gsm7.decode(self.data, _language(self.udh, IEI_LOCKING_SHIFT), _language(self.udh, IEI_SINGLE_SHIFT))
        return ucs2.decode(self.data) if self.alphabet is Alphabet.UCS2 else None


def join_text(parts: Sequence[UserData]) -> str:
    """The text of a long message from its parts, in their order.

    UCS2 parts that follow each other are decoded as one, since a surrogate pair may lie across their border; GSM7 parts
    each by their own header; 8-bit parts give nothing.
    """
    texts: list[str] = []
    for alphabet, run in groupby(parts, key=lambda part: part.alphabet):
        if alphabet is Alphabet.UCS2:
            texts.append(ucs2.decode(b"".join(part.data for part in run)))
        else:
            texts.extend(part.text or "" for part in run)
    return "".join(texts)


def decode(octets: Octets, dcs: int, has_udh: bool) -> UserData:
    """Read TP-UDL and TP-UD. `has_udh` is TP-UDHI. What follows the user data is not read.

    Raises DecodeError if TP-UDL is beyond the octets there are, or the header beyond the user data.
    """
    alphabet = coding.decode(dcs).alphabet
    udl = octets.octet("user_data.udl")
    start = octets.offset
    content = octets.take((udl * 7 + 7) // 8 if alphabet is Alphabet.GSM7 else udl, "user_data")
    udh: tuple[InformationElement, ...] = ()
    header = 0
    if has_udh:
        if not content or content[0] >= len(content):
            raise DecodeError("user_data.udh", start, "the header is longer than the user data")
        header = 1 + content[0]
        udh = decode_udh(content[1:header])
    if alphabet is Alphabet.GSM7:
        septets = max(udl - header_septets(header), 0)
        data = gsm7.unpack(content[header:], septets, _fill_bits(header))
    else:
        data = content[header:]
    return UserData(alphabet, None, data, udh, dcs)


def decode_udh(elements: bytes) -> tuple[InformationElement, ...]:
    """The elements of a header, without its length. What is left after the last whole element is ignored."""
    found: list[InformationElement] = []
    offset = 0
    while offset + 2 <= len(elements):
        iei, length = elements[offset], elements[offset + 1]
        offset += 2 + length
        if offset <= len(elements):
            found.append(InformationElement(iei, elements[offset - length : offset]))
    return tuple(found)


def encode_udh(udh: Iterable[InformationElement]) -> bytes:
    """A header with its length; nothing for no elements. Raises EncodeError if it does not fit in a TPDU."""
    elements = bytearray()
    for element in udh:
        if not 0 <= element.iei <= 0xFF or len(element.data) > MAX_OCTETS:
            raise EncodeError("user_data.udh", f"element {element.iei} of {len(element.data)} octets does not fit")
        elements += bytes([element.iei, len(element.data)]) + element.data
    if len(elements) >= MAX_OCTETS:
        raise EncodeError("user_data.udh", f"{len(elements)} octets, less than {MAX_OCTETS} fit")
    return bytes([len(elements)]) + elements if elements else b""


def header_septets(header_octets: int) -> int:
    """How many septets a header of so many octets, its length included, takes with its fill bits."""
    return (header_octets * 8 + 6) // 7


def _fill_bits(header_octets: int) -> int:
    """The bits between a header and the first septet, which begins at a septet's border."""
    return -8 * header_octets % 7


def _language(udh: tuple[InformationElement, ...], iei: int) -> int:
    """The national language of a shift element; 0: none. Source: 3GPP TS 23.040 §9.2.3.24.15, §9.2.3.24.16."""
    return next((element.data[0] for element in reversed(udh) if element.iei == iei and len(element.data) == 1), 0)


def _encoded(text: str, alphabet: Alphabet) -> bytes:
    if alphabet is Alphabet.GSM7:
        return gsm7.encode(text)
    if alphabet is Alphabet.UCS2:
        return ucs2.encode(text)
    raise EncodeError("text", "8-bit data has no text")
