"""The SMS centre's address, which a modem puts before each TPDU, and the hex text it comes in.

Unlike a TP address its length counts octets, type octet included. Source: 3GPP TS 27.005 §3.1, 3GPP TS 24.011 §8.2.5.1.
"""

from __future__ import annotations

from gatewayd.errors import DecodeError
from gatewayd.modems.pdu.address import Address, decode_digits, encode_digits, split_type
from gatewayd.modems.pdu.octets import Octets


def encode_smsc(smsc: Address | None) -> bytes:
    """The octets before a TPDU; None: the modem is to use the one it has (AT+CSCA). Raises EncodeError."""
    if smsc is None:
        return b"\x00"
    value = encode_digits(smsc.digits, "smsc")
    return bytes([1 + len(value), smsc.type_octet]) + value


def split_smsc(pdu: bytes) -> tuple[Address | None, bytes]:
    """The SMS centre's address (None: none given) and the TPDU. Raises DecodeError if the address is cut."""
    octets = Octets(pdu)
    smsc = read_smsc(octets)
    return smsc, pdu[octets.offset :]


def read_smsc(octets: Octets) -> Address | None:
    """Read the SMS centre's address from the front of a PDU."""
    length = octets.octet("smsc.length")
    if length == 0:
        return None
    ton, npi = split_type(octets.octet("smsc.type"))
    return Address(decode_digits(octets.take(length - 1, "smsc.value"), 2 * (length - 1)), ton, npi)


def from_hex(text: str) -> bytes:
    """Hex text, upper or lower case, white space anywhere between octets. Raises DecodeError where it is none."""
    digits = "".join(text.split())
    try:
        if digits.isascii():
            return bytes.fromhex(digits)
    except ValueError:
        pass
    bad = next((index for index, char in enumerate(digits) if char not in "0123456789abcdefABCDEF"), None)
    if bad is None:
        raise DecodeError("hex", len(digits) // 2, "an odd number of hex digits")
    raise DecodeError("hex", bad // 2, f"{digits[bad]!r} is not a hex digit")


def check_length(raw_hex: str, announced_length: int | None, *, smsc: bool = True) -> None:
    """Raise DecodeError if a PDU is shorter than its modem said: the line was cut on its way.

    `announced_length` is the <length> of +CMGR, +CMGL, +CMT or +CDS: the TPDU's octets, SMS centre's address not
    counted; None: nothing was announced. `smsc`: the PDU begins with that address. Source: 3GPP TS 27.005 §3.1.
    """
    if announced_length is None:
        return
    pdu = from_hex(raw_hex)
    tpdu = split_smsc(pdu)[1] if smsc else pdu
    if len(tpdu) < announced_length:
        raise DecodeError("length", len(pdu), f"{announced_length} octets were announced, {len(tpdu)} are there")
