"""How a text is cut into the user data of one or more TPDUs, and how many it takes.

`split`, `count` and `plan` cut by the same function, so they always agree on the number of parts.
"""

from __future__ import annotations

from collections.abc import Iterator

from gatewayd.errors import EncodeError
from gatewayd.model import Message, Segment
from gatewayd.modems.pdu import dcs, grapheme, gsm7, ucs2
from gatewayd.modems.pdu.address import Address
from gatewayd.modems.pdu.dcs import Alphabet
from gatewayd.modems.pdu.tpdu import Submit
from gatewayd.modems.pdu.userdata import (
    MAX_OCTETS,
    MAX_SEPTETS,
    Concat,
    InformationElement,
    UserData,
    encode_udh,
    header_septets,
)
from gatewayd.modems.pdu.validity import RelativeValidity

MAX_PARTS = 255
MAX_UNITS = MAX_OCTETS // 2


def count(text: str, *, ref_bits: int = 8, max_parts: int = MAX_PARTS) -> tuple[Alphabet, int]:
    """The alphabet `text` would be sent in and how many parts it takes. Raises EncodeError beyond `max_parts`.

    Cheap for a text of one part: it is asked once for each message accepted.
    """
    if gsm7.encodable(text):
        if gsm7.length(text) <= MAX_SEPTETS:
            return Alphabet.GSM7, 1
        return Alphabet.GSM7, len(_cut(text, Alphabet.GSM7, (), ref_bits, max_parts))
    if len(text) <= MAX_UNITS and ucs2.units(text) <= MAX_UNITS:
        return Alphabet.UCS2, 1
    return Alphabet.UCS2, len(_cut(text, Alphabet.UCS2, (), ref_bits, max_parts))


def split(
    text: str,
    *,
    concat_ref: int = 0,
    ref_bits: int = 8,
    alphabet: Alphabet | None = None,
    message_class: int | None = None,
    udh: tuple[InformationElement, ...] = (),
    max_parts: int = MAX_PARTS,
) -> list[UserData]:
    """Cut `text` into 1 to `max_parts` (at most 255) user data, in order.

    `alphabet` None: GSM 7-bit if it has all characters, else UCS2. `udh` are elements for every part, before the one
    that joins them. No part ends between ESC and its character, inside a surrogate pair, or, unless it alone is longer
    than a part, inside what people see as one character. A lone surrogate is sent as U+FFFD. Raises EncodeError if
    there would be more parts, if `text` does not fit `alphabet`, or if `concat_ref` does not fit `ref_bits` (8 or 16).
    """
    chosen = alphabet or (Alphabet.GSM7 if gsm7.encodable(text) else Alphabet.UCS2)
    return _assemble(_cut(text, chosen, udh, ref_bits, max_parts), chosen, concat_ref, ref_bits, message_class, udh)


def split_data(
    data: bytes,
    *,
    concat_ref: int = 0,
    ref_bits: int = 8,
    message_class: int | None = None,
    udh: tuple[InformationElement, ...] = (),
    max_parts: int = MAX_PARTS,
) -> list[UserData]:
    """Cut 8-bit data as `split` cuts text; `udh` is where its ports go (`Ports.element`)."""

    def cut(capacity: int) -> list[bytes]:
        return [data[start : start + capacity] for start in range(0, len(data), capacity)] or [b""]

    pieces = cut(_capacity(Alphabet.DATA8, udh))
    if len(pieces) > 1:
        pieces = cut(_capacity(Alphabet.DATA8, (*udh, _joint(ref_bits))))
    _check_parts(len(pieces), max_parts)
    return _assemble(pieces, Alphabet.DATA8, concat_ref, ref_bits, message_class, udh)


def plan(
    message: Message,
    *,
    ref_bits: int = 8,
    max_parts: int = MAX_PARTS,
    submit_report: bool = True,
    submit_validity: bool = True,
) -> list[Segment]:
    """The TPDUs of a message, as many as `count` says. Pure; raises EncodeError.

    `submit_report` and `submit_validity` False: leave out what the channel's network refuses, though the message asks
    for it. Of `message.concat_ref` 8-bit references take the low octet.
    """
    destination = Address.to_send(message.to)
    validity = None
    if submit_validity and message.validity_s is not None:
        validity = RelativeValidity.of_seconds(message.validity_s)
    ref = message.concat_ref & ((1 << ref_bits) - 1)
    parts = split(message.text, concat_ref=ref, ref_bits=ref_bits, max_parts=max_parts)
    report = message.report and submit_report
    return [
        Segment(message, seq, len(parts), Submit(destination, part, report=report, validity=validity).encode())
        for seq, part in enumerate(parts, start=1)
    ]


def _assemble(
    pieces: list[bytes],
    alphabet: Alphabet,
    concat_ref: int,
    ref_bits: int,
    message_class: int | None,
    udh: tuple[InformationElement, ...],
) -> list[UserData]:
    coding = dcs.encode(alphabet, message_class)
    total = len(pieces)
    first = Concat(concat_ref, total, 1, ref_bits).element()  # the reference is checked also where it is not needed
    if total == 1:
        return [UserData(alphabet, None, pieces[0], udh, coding)]
    joints = [first, *(Concat(concat_ref, total, seq, ref_bits).element() for seq in range(2, total + 1))]
    return [UserData(alphabet, None, piece, (*udh, joint), coding) for piece, joint in zip(pieces, joints, strict=True)]


def _cut(
    text: str, alphabet: Alphabet, udh: tuple[InformationElement, ...], ref_bits: int, max_parts: int
) -> list[bytes]:
    """The `data` of each part of `text`."""
    if alphabet is Alphabet.DATA8:
        raise EncodeError("alphabet", "8-bit data is not text: use split_data")
    if len(text) > MAX_PARTS * MAX_SEPTETS:  # before anything is done that takes time by the length
        raise EncodeError("text", f"{len(text)} characters do not fit in {MAX_PARTS} parts")
    whole = gsm7.encode(text) if alphabet is Alphabet.GSM7 else ucs2.encode(text)
    units = len(whole) if alphabet is Alphabet.GSM7 else len(whole) // 2
    if units <= _capacity(alphabet, udh):
        return [whole]
    capacity = _capacity(alphabet, (*udh, _joint(ref_bits)))
    if capacity < 2:
        raise EncodeError("udh", "leaves no room for text")
    if alphabet is Alphabet.GSM7:
        pieces = list(_cut_septets(whole, capacity))
    else:
        pieces = [ucs2.encode(piece) for piece in _cut_units(ucs2.decode(whole), capacity)]
    _check_parts(len(pieces), max_parts)
    return pieces


def _cut_septets(septets: bytes, capacity: int) -> Iterator[bytes]:
    start = 0
    while start < len(septets):
        end = start + capacity
        if end < len(septets) and septets[end - 1] == gsm7.ESC:  # ESC never follows ESC: none is in the alphabet
            end -= 1
        yield septets[start:end]
        start = end


def _cut_units(text: str, capacity: int) -> Iterator[str]:
    """Cut where people see characters end, each piece of at most `capacity` 16-bit units."""
    start = 0
    while start < len(text):
        # the furthest end that fits; "ignore" drops the half of a pair that does not
        window = text[start : start + capacity].encode("utf-16-be")[: 2 * capacity]
        end = start + len(window.decode("utf-16-be", "ignore"))
        if end < len(text):
            boundaries = (index for index in range(end, start, -1) if grapheme.is_boundary(text, index, start))
            end = next(boundaries, end)
        yield text[start:end]
        start = end


def _capacity(alphabet: Alphabet, udh: tuple[InformationElement, ...]) -> int:
    """How much a part with this header holds: septets, octets or 16-bit units."""
    header = len(encode_udh(udh))
    if alphabet is Alphabet.GSM7:
        return MAX_SEPTETS - header_septets(header)
    return MAX_OCTETS - header if alphabet is Alphabet.DATA8 else (MAX_OCTETS - header) // 2


def _joint(ref_bits: int) -> InformationElement:
    """An element as long as the one that joins parts."""
    return Concat(0, 1, 1, ref_bits).element()


def _check_parts(parts: int, max_parts: int) -> None:
    limit = min(max_parts, MAX_PARTS)
    if parts > limit:
        raise EncodeError("text", f"takes {parts} parts, at most {limit} are allowed")
