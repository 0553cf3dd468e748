"""The three TPDUs a gateway meets: SMS-SUBMIT, SMS-DELIVER and SMS-STATUS-REPORT.

Fields have the names of 3GPP TS 23.040 §9.2.2 without their TP-; all `encode` methods raise EncodeError with the name
of the field, all decoding raises DecodeError and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from gatewayd.errors import DecodeError, EncodeError
from gatewayd.modems.pdu import address, timestamp, userdata, validity
from gatewayd.modems.pdu.address import Address
from gatewayd.modems.pdu.octets import Octets
from gatewayd.modems.pdu.smsc import from_hex, read_smsc
from gatewayd.modems.pdu.timestamp import Timestamp
from gatewayd.modems.pdu.userdata import UserData
from gatewayd.modems.pdu.validity import Validity

# First octet, 3GPP TS 23.040 §9.2.3.1 ff.; what a bit means depends on the TPDU
_MTI = 0x03
_MTI_DELIVER, _MTI_SUBMIT, _MTI_STATUS_REPORT, _MTI_RESERVED = range(4)
_RD = 0x04  # SUBMIT: reject duplicates
_NO_MORE = 0x04  # DELIVER, STATUS-REPORT: TP-MMS, set if no more messages wait
_LP = 0x08  # DELIVER, STATUS-REPORT: forwarded or spawned, do not forward again
_VPF = 3  # SUBMIT: shift of the validity period format
_SRR = 0x20  # SUBMIT: status report request; DELIVER: the sender wants one; STATUS-REPORT: it answers a COMMAND
_UDHI = 0x40
_RP = 0x80  # reply path

# TP-PI of a STATUS-REPORT, 3GPP TS 23.040 §9.2.3.27
_PI_PID, _PI_DCS, _PI_UDL, _PI_EXTENSION = 0x01, 0x02, 0x04, 0x80


@dataclass(frozen=True, slots=True)
class Submit:
    """SMS-SUBMIT: to the SMS centre. `report` asks for a status report; `mr` is replaced by most modems.

    Source: 3GPP TS 23.040 §9.2.2.2.
    """

    destination: Address
    user_data: UserData
    mr: int = 0
    report: bool = False
    reject_duplicates: bool = False
    reply_path: bool = False
    pid: int = 0
    validity: Validity | None = None

    def encode(self) -> bytes:
        """The TPDU, without SMS centre's address."""
        vpf = validity.NOT_PRESENT if self.validity is None else self.validity.format
        first = _MTI_SUBMIT | vpf << _VPF
        first |= _flags((_RD, self.reject_duplicates), (_SRR, self.report), (_RP, self.reply_path))
        return b"".join(
            (
                bytes([first | _udhi(self.user_data), _octet(self.mr, "mr")]),
                self.destination.encode("destination"),
                bytes([_octet(self.pid, "pid"), _octet(self.user_data.dcs, "user_data.dcs")]),
                b"" if self.validity is None else self.validity.encode(),
                self.user_data.encode(),
            )
        )


@dataclass(frozen=True, slots=True)
class Deliver:
    """SMS-DELIVER: from the SMS centre. `scts` is when the SMS centre got it; None: it gave no valid time.

    `report_indicator`: the sender asked for a status report. Source: 3GPP TS 23.040 §9.2.2.1.
    """

    originator: Address
    user_data: UserData
    scts: Timestamp | None = None
    pid: int = 0
    more_messages: bool = False
    report_indicator: bool = False
    reply_path: bool = False
    loop_prevention: bool = False

    def encode(self) -> bytes:
        """The TPDU, without SMS centre's address."""
        first = _MTI_DELIVER | _udhi(self.user_data)
        first |= _flags((_NO_MORE, not self.more_messages), (_LP, self.loop_prevention))
        first |= _flags((_SRR, self.report_indicator), (_RP, self.reply_path))
        return b"".join(
            (
                bytes([first]),
                self.originator.encode("originator"),
                bytes([_octet(self.pid, "pid"), _octet(self.user_data.dcs, "user_data.dcs")]),
                timestamp.encode(self.scts, "scts"),
                self.user_data.encode(),
            )
        )


@dataclass(frozen=True, slots=True)
class StatusReport:
    """SMS-STATUS-REPORT: what became of the message submitted with `mr` to `recipient` and taken in at `scts`.

    `discharge` is when that happened, `status` is TP-ST (`verdict`, `status_text`). `pid` and `user_data` are None
    where the SMS centre sent none. Source: 3GPP TS 23.040 §9.2.2.3.
    """

    mr: int
    recipient: Address
    scts: Timestamp | None
    discharge: Timestamp | None
    status: int
    more_messages: bool = False
    loop_prevention: bool = False
    command: bool = False
    pid: int | None = None
    user_data: UserData | None = None

    def encode(self) -> bytes:
        """The TPDU, without SMS centre's address; TP-PI only if an optional field follows."""
        first = _MTI_STATUS_REPORT | _flags((_NO_MORE, not self.more_messages), (_LP, self.loop_prevention))
        first |= _flags((_SRR, self.command))
        optional = bytearray()
        present = 0
        if self.pid is not None:
            present |= _PI_PID
            optional.append(_octet(self.pid, "pid"))
        if self.user_data is not None:
            first |= _udhi(self.user_data)
            present |= _PI_DCS | _PI_UDL
            optional.append(_octet(self.user_data.dcs, "user_data.dcs"))
            optional += self.user_data.encode()
        return b"".join(
            (
                bytes([first, _octet(self.mr, "mr")]),
                self.recipient.encode("recipient"),
                timestamp.encode(self.scts, "scts"),
                timestamp.encode(self.discharge, "discharge"),
                bytes([_octet(self.status, "status")]),
                bytes([present]) if present else b"",
                optional,
            )
        )


Tpdu = Submit | Deliver | StatusReport


def decode(tpdu: bytes, *, from_sc: bool = True) -> Tpdu:
    """Decode a TPDU without SMS centre's address: DELIVER or STATUS-REPORT `from_sc`, otherwise SUBMIT.

    Octets after the last field are ignored. Raises DecodeError for whatever is none of these, and nothing else.
    """
    return _decode(Octets(tpdu), from_sc)


def decode_pdu(hex_text: str, *, smsc: bool = True, from_sc: bool = True) -> tuple[Address | None, Tpdu]:
    """Decode a PDU as a modem writes it, in hex; `smsc`: the SMS centre's address comes first.

    Returns that address (None: none given) and the TPDU. Raises DecodeError, whose offset counts from the first octet
    of the whole PDU.
    """
    octets = Octets(from_hex(hex_text))
    centre = read_smsc(octets) if smsc else None
    return centre, _decode(octets, from_sc)


def _decode(octets: Octets, from_sc: bool) -> Tpdu:
    start = octets.offset
    first = octets.octet("first_octet")
    mti = first & _MTI
    if not from_sc:
        if mti == _MTI_SUBMIT:
            return _decode_submit(octets, first)
        name = {_MTI_DELIVER: "a DELIVER-REPORT", _MTI_STATUS_REPORT: "a COMMAND"}.get(mti, "reserved")
        raise DecodeError("first_octet", start, f"message type {mti} to the SMS centre is {name}, not a SUBMIT")
    if mti == _MTI_STATUS_REPORT:
        return _decode_status_report(octets, first)
    if mti == _MTI_SUBMIT:
        raise DecodeError("first_octet", start, "message type 1 from the SMS centre is a SUBMIT-REPORT, not handled")
    return _decode_deliver(octets, first)  # also the reserved type: 3GPP TS 23.040 §9.2.3.1


def _decode_submit(octets: Octets, first: int) -> Submit:
    mr = octets.octet("mr")
    destination = address.decode(octets, "destination")
    pid = octets.octet("pid")
    dcs = octets.octet("user_data.dcs")
    period = validity.decode(octets, first >> _VPF & 0x03)
    return Submit(
        destination=destination,
        user_data=userdata.decode(octets, dcs, bool(first & _UDHI)),
        mr=mr,
        report=bool(first & _SRR),
        reject_duplicates=bool(first & _RD),
        reply_path=bool(first & _RP),
        pid=pid,
        validity=period,
    )


def _decode_deliver(octets: Octets, first: int) -> Deliver:
    originator = address.decode(octets, "originator")
    pid = octets.octet("pid")
    dcs = octets.octet("user_data.dcs")
    scts = timestamp.decode(octets, "scts")
    return Deliver(
        originator=originator,
        user_data=userdata.decode(octets, dcs, bool(first & _UDHI)),
        scts=scts,
        pid=pid,
        more_messages=not first & _NO_MORE,
        report_indicator=bool(first & _SRR),
        reply_path=bool(first & _RP),
        loop_prevention=bool(first & _LP),
    )


def _decode_status_report(octets: Octets, first: int) -> StatusReport:
    mr = octets.octet("mr")
    recipient = address.decode(octets, "recipient")
    scts = timestamp.decode(octets, "scts")
    discharge = timestamp.decode(octets, "discharge")
    status = octets.octet("status")
    pid, user_data = _decode_optional(octets, bool(first & _UDHI))
    return StatusReport(
        mr=mr,
        recipient=recipient,
        scts=scts,
        discharge=discharge,
        status=status,
        more_messages=not first & _NO_MORE,
        loop_prevention=bool(first & _LP),
        command=bool(first & _SRR),
        pid=pid,
        user_data=user_data,
    )


def _decode_optional(octets: Octets, has_udh: bool) -> tuple[int | None, UserData | None]:
    """TP-PID and the user data of a STATUS-REPORT, as TP-PI says; what is not there in full is None.

    The verdict is complete before TP-PI. Modems and SMS centres put stray octets after it, and a report must not be
    lost over them; a line that was cut is found by its length (`check_length`).
    """
    pid: int | None = None
    try:
        present = more = octets.octet("parameters")
        while more & _PI_EXTENSION:
            more = octets.octet("parameters")
        if present & _PI_PID:
            pid = octets.octet("pid")
        dcs = octets.octet("user_data.dcs") if present & _PI_DCS else 0
        return pid, userdata.decode(octets, dcs, has_udh) if present & _PI_UDL else None
    except DecodeError:
        return pid, None


def _flags(*flags: tuple[int, bool]) -> int:
    return sum(bit for bit, wanted in flags if wanted)


def _udhi(user_data: UserData) -> int:
    return _UDHI if user_data.udh else 0


def _octet(value: int, path: str) -> int:
    if not 0 <= value <= 0xFF:
        raise EncodeError(path, f"{value} does not fit in an octet")
    return value
