from __future__ import annotations

import pytest

from gatewayd.errors import EncodeError
from gatewayd.modems.pdu import Alphabet, CodingScheme, Waiting, WaitingKind, dcs

GSM7, DATA8, UCS2 = Alphabet.GSM7, Alphabet.DATA8, Alphabet.UCS2


@pytest.mark.parametrize(
    ("octet", "scheme"),
    [
        (0x00, CodingScheme(GSM7)),
        (0x01, CodingScheme(GSM7)),  # the class bits mean nothing without bit 4
        (0x04, CodingScheme(DATA8)),
        (0x08, CodingScheme(UCS2)),
        (0x0B, CodingScheme(UCS2)),
        (0x0C, CodingScheme(GSM7)),  # reserved alphabet
        (0x10, CodingScheme(GSM7, 0)),
        (0x15, CodingScheme(DATA8, 1)),
        (0x1A, CodingScheme(UCS2, 2)),
        (0x20, CodingScheme(DATA8, compressed=True)),
        (0x3B, CodingScheme(DATA8, 3, compressed=True)),
        (0x40, CodingScheme(GSM7, auto_delete=True)),
        (0x58, CodingScheme(UCS2, 0, auto_delete=True)),
        (0x64, CodingScheme(DATA8, compressed=True, auto_delete=True)),
        (0x80, CodingScheme(GSM7)),
        (0x88, CodingScheme(GSM7)),
        (0xBF, CodingScheme(GSM7)),
        (0xC0, CodingScheme(GSM7, waiting=Waiting(WaitingKind.VOICEMAIL, False, True))),
        (0xC8, CodingScheme(GSM7, waiting=Waiting(WaitingKind.VOICEMAIL, True, True))),
        (0xD9, CodingScheme(GSM7, waiting=Waiting(WaitingKind.FAX, True, False))),
        (0xEA, CodingScheme(UCS2, waiting=Waiting(WaitingKind.EMAIL, True, False))),
        (0xE3, CodingScheme(UCS2, waiting=Waiting(WaitingKind.OTHER, False, False))),
        (0xF0, CodingScheme(GSM7, 0)),
        (0xF3, CodingScheme(GSM7, 3)),
        (0xF4, CodingScheme(DATA8, 0)),
        (0xF7, CodingScheme(DATA8, 3)),
        (0xF8, CodingScheme(GSM7)),  # bit 3 is reserved
        (0xFF, CodingScheme(GSM7)),
    ],
)
def test_decode(octet: int, scheme: CodingScheme) -> None:
    assert dcs.decode(octet) == scheme


def test_every_octet_means_something() -> None:
    assert {dcs.decode(octet).alphabet for octet in range(256)} == set(Alphabet)


@pytest.mark.parametrize("alphabet", Alphabet)
@pytest.mark.parametrize("message_class", [None, 0, 1, 2, 3])
def test_encode(alphabet: Alphabet, message_class: int | None) -> None:
    assert dcs.decode(dcs.encode(alphabet, message_class)) == CodingScheme(alphabet, message_class)


def test_flash() -> None:
    assert dcs.encode(GSM7, 0) == 0x10
    assert dcs.encode(UCS2, 0) == 0x18


@pytest.mark.parametrize("message_class", [-1, 4])
def test_no_such_class(message_class: int) -> None:
    with pytest.raises(EncodeError, match="message_class"):
        dcs.encode(GSM7, message_class)
