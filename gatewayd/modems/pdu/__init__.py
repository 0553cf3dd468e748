"""The TPDU codec: pure functions between octets and what they mean. Every decoding error is a DecodeError."""

from __future__ import annotations

from gatewayd.modems.pdu.address import Address, NumberingPlan, TypeOfNumber
from gatewayd.modems.pdu.dcs import Alphabet, CodingScheme, Waiting, WaitingKind
from gatewayd.modems.pdu.segment import count, plan, split, split_data
from gatewayd.modems.pdu.smsc import check_length, encode_smsc, split_smsc
from gatewayd.modems.pdu.status import status_text, verdict
from gatewayd.modems.pdu.timestamp import Timestamp
from gatewayd.modems.pdu.tpdu import Deliver, StatusReport, Submit, Tpdu, decode, decode_pdu
from gatewayd.modems.pdu.userdata import Concat, InformationElement, Ports, UserData, join_text
from gatewayd.modems.pdu.validity import AbsoluteValidity, EnhancedValidity, RelativeValidity, Validity

__all__ = [
    "AbsoluteValidity",
    "Address",
    "Alphabet",
    "CodingScheme",
    "Concat",
    "Deliver",
    "EnhancedValidity",
    "InformationElement",
    "NumberingPlan",
    "Ports",
    "RelativeValidity",
    "StatusReport",
    "Submit",
    "Timestamp",
    "Tpdu",
    "TypeOfNumber",
    "UserData",
    "Validity",
    "Waiting",
    "WaitingKind",
    "check_length",
    "count",
    "decode",
    "decode_pdu",
    "encode_smsc",
    "join_text",
    "plan",
    "split",
    "split_data",
    "split_smsc",
    "status_text",
    "verdict",
]
