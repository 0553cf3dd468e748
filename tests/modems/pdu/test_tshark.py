"""Our codec against Wireshark's dissector, an independent one.

TPDUs are wrapped in RP-DATA messages (3GPP TS 24.011 §7.3.1) and written to a capture file whose link type is mapped to
the dissector of these. One run of tshark reads all of them.
"""

from __future__ import annotations

import json
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gatewayd.modems.pdu import (
    AbsoluteValidity,
    Address,
    Alphabet,
    Deliver,
    Ports,
    RelativeValidity,
    StatusReport,
    Submit,
    Timestamp,
    Tpdu,
    UserData,
    dcs,
    split,
    split_data,
)
from tests.modems.pdu.strategies import GSM_CHARACTERS

DLT_USER0 = 147
FIELDS = (
    *("tp-mti", "tp-oa", "tp-da", "tp-ra", "tp-pid", "tp-dcs", "tp-mr", "sms_text", "sms_body"),
    *("tp-mms", "tp-lp", "tp-sri", "tp-srr", "tp-srq", "tp-udhi", "tp-rp", "tp-vpf", "tp-rd"),
    *("dis_field_addr.num_type", "dis_field_addr.num_plan", "destination_port", "originator_port"),
    *("scts.year", "scts.month", "scts.day", "scts.hour", "scts.minutes", "scts.seconds", "scts.timezone"),
    *("udh.mm.msg_id", "udh.mm.msg_parts", "udh.mm.msg_part", "dis_field.st_error", "dis.field_st_reason"),
)

pytestmark = pytest.mark.needs("tshark", "tshark")

Layers = dict[str, list[str]]


def dissect(octets: list[tuple[bytes, bool]], folder: Path) -> list[Layers]:
    """What tshark reads in TPDUs, each with whether it is from the SMS centre."""
    capture = folder / "tpdus.pcap"
    packets = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, DLT_USER0)]
    for second, (tpdu, from_sc) in enumerate(octets):
        centre = bytes([3, 0x91, 0x13, 0xF2])
        addresses = centre + b"\0" if from_sc else b"\0" + centre
        rp_data = bytes([1 if from_sc else 0, 0]) + addresses + bytes([len(tpdu)]) + tpdu
        packets.append(struct.pack("<IIII", second, 0, len(rp_data), len(rp_data)) + rp_data)
    capture.write_bytes(b"".join(packets))
    command = ["tshark", "-n", "-r", str(capture), "-T", "json", "-o", "gsm_sms.reassemble:FALSE"]
    command += ["-o", f'uat:user_dlts:"User 0 (DLT={DLT_USER0})","gsm_a_rp","0","","0",""']
    for field in FIELDS:
        command += ["-e", f"gsm_sms.{field}"]
    # without a home of its own it would read the preferences of whoever runs the tests
    environment = {"HOME": str(folder), "PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    run = subprocess.run(command, capture_output=True, check=True, timeout=60, env=environment)
    packets_read: list[dict[str, Any]] = json.loads(run.stdout)
    return [
        {name.removeprefix("gsm_sms."): values for name, values in packet["_source"]["layers"].items()}
        for packet in packets_read
    ]


def test_tpdus(tmp_path: Path) -> None:
    tpdus = examples(random.Random(20261122))
    layers = dissect([(tpdu.encode(), not isinstance(tpdu, Submit)) for tpdu in tpdus], tmp_path)
    assert len(layers) == len(tpdus) > 250
    for tpdu, read in zip(tpdus, layers, strict=True):
        for field, value in expected(tpdu).items():
            assert read.get(field, [""]) == value, (field, tpdu)


def test_every_coding_scheme(tmp_path: Path) -> None:
    """Except the reserved ones, which 3GPP TS 23.038 §4 wants read as the default alphabet and Wireshark shows raw."""
    octets = bytes.fromhex("00480069")  # "Hi", or "@" and others
    known = [
        value
        for value in range(256)
        if (value < 0x80 and value & 0x0C != 0x0C and not value & 0x20) or 0xC0 <= value < 0xE0 or 0xF0 <= value < 0xF8
    ] + list(range(0xE0, 0xF0))
    tpdus = []
    for value in known:
        alphabet = dcs.decode(value).alphabet
        tpdus.append(
            Deliver(Address.to_send("+1"), UserData(alphabet, data=octets, dcs=value), Timestamp(1700000000)).encode()
        )
    for value, read in zip(known, dissect([(tpdu, True) for tpdu in tpdus], tmp_path), strict=True):
        alphabet = dcs.decode(value).alphabet
        assert read["tp-dcs"] == [str(value)]
        assert read.get("sms_text", [None]) == [UserData(alphabet, data=octets).text], hex(value)
        assert read.get("sms_body") == ([octets.hex()] if alphabet is Alphabet.DATA8 else None), hex(value)


def examples(rng: random.Random) -> list[Tpdu]:
    """TPDUs of all kinds, the same each time."""
    tpdus: list[Tpdu] = []
    for user_data in _user_data(rng):
        stamp = Timestamp(rng.randrange(946_684_800, 3_786_739_200), rng.randrange(-48, 57))
        if rng.random() < 0.5:
            tpdus.append(
                Submit(
                    _number(rng),
                    user_data,
                    mr=rng.randrange(256),
                    report=rng.random() < 0.5,
                    reject_duplicates=rng.random() < 0.5,
                    reply_path=rng.random() < 0.5,
                    pid=rng.randrange(256),
                    validity=rng.choice([None, RelativeValidity(rng.randrange(256)), AbsoluteValidity(stamp)]),
                )
            )
        else:
            tpdus.append(
                Deliver(
                    rng.choice([_number(rng), Address.alphanumeric(_name(rng))]),
                    user_data,
                    stamp,
                    pid=rng.randrange(256),
                    more_messages=rng.random() < 0.5,
                    report_indicator=rng.random() < 0.5,
                    reply_path=rng.random() < 0.5,
                    loop_prevention=rng.random() < 0.5,
                )
            )
    for status in range(0x80):
        stamp = Timestamp(rng.randrange(946_684_800, 3_786_739_200), rng.randrange(-48, 57))
        tpdus.append(
            StatusReport(rng.randrange(256), _number(rng), stamp, stamp, status, more_messages=status % 2 == 0)
        )
    return tpdus


def _user_data(rng: random.Random) -> list[UserData]:
    parts = [part for length in range(1, 20) for part in split("@" * length)]
    for length in (*range(145, 165), 306, 307, 500):
        text = "".join(rng.choices(GSM_CHARACTERS, k=length))
        parts += split(text, concat_ref=rng.randrange(256), message_class=rng.choice([None, 0, 1, 2, 3]))
        parts += split(text, concat_ref=rng.randrange(65536), ref_bits=16)
    for length in (1, 35, 66, 67, 70, 71, 140, 200):
        text = "".join(rng.choices("абв日本語é€ñ😀🇺🇾", k=length))
        parts += split("б" + text, concat_ref=rng.randrange(256))
        parts += split("б" + text, concat_ref=rng.randrange(65536), ref_bits=16)
    for length in (1, 140, 141, 400):
        parts += split_data(rng.randbytes(length))
    # a header whose every length gives other fill bits
    for length in range(1, 9):
        text = "".join(rng.choices(GSM_CHARACTERS, k=50))
        (element,) = (Ports(rng.randrange(1, 256), rng.randrange(256), 8).element(),)
        parts += split("x" * length + text, udh=(element,) * length)
    return parts


def _number(rng: random.Random) -> Address:
    digits = "".join(rng.choices("0123456789", k=rng.randrange(1, 21)))
    return Address(digits, rng.choice([0, 1, 2, 3, 4, 6]), rng.choice([0, 1, 8, 9]))


def _name(rng: random.Random) -> str:
    letters = "".join(rng.choices("ABCxyz0189 .!&ñü", k=rng.randrange(1, 12)))
    return letters.strip() or "ACME"


def expected(tpdu: Tpdu) -> dict[str, list[str]]:
    """The fields as tshark names and prints them."""
    if isinstance(tpdu, StatusReport):
        return {
            "tp-mti": ["2"],
            "tp-mr": [str(tpdu.mr)],
            "tp-ra": [tpdu.recipient.digits],
            "tp-mms": [_flag(not tpdu.more_messages)],
            "dis_field.st_error": [str(tpdu.status >> 5 & 3)],
            "dis.field_st_reason": [str(tpdu.status & 0x1F)],
            **_address(tpdu.recipient),
            **_stamps(tpdu.scts, tpdu.discharge),
        }
    common = {
        "tp-pid": [str(tpdu.pid)],
        "tp-dcs": [str(tpdu.user_data.dcs)],
        "tp-udhi": [_flag(bool(tpdu.user_data.udh))],
        "tp-rp": [_flag(tpdu.reply_path)],
        **_user_data_fields(tpdu.user_data),
    }
    if isinstance(tpdu, Deliver):
        return {
            "tp-mti": ["0"],
            "tp-oa": [tpdu.originator.digits],
            "tp-mms": [_flag(not tpdu.more_messages)],
            "tp-lp": [_flag(tpdu.loop_prevention)],
            "tp-sri": [_flag(tpdu.report_indicator)],
            **_address(tpdu.originator),
            **_stamps(tpdu.scts),
            **common,
        }
    absolute = isinstance(tpdu.validity, AbsoluteValidity)
    return {
        "tp-mti": ["1"],
        "tp-da": [tpdu.destination.digits],
        "tp-mr": [str(tpdu.mr)],
        "tp-srr": [_flag(tpdu.report)],
        "tp-rd": [_flag(tpdu.reject_duplicates)],
        "tp-vpf": ["0" if tpdu.validity is None else str(tpdu.validity.format)],
        **_address(tpdu.destination),
        **(_stamps(tpdu.validity.until) if absolute and isinstance(tpdu.validity, AbsoluteValidity) else {}),
        **common,
    }


def _user_data_fields(user_data: UserData) -> dict[str, list[str]]:
    concat, ports = user_data.concat, user_data.ports
    fields: dict[str, list[str]] = {}
    if user_data.alphabet is Alphabet.DATA8:
        fields["sms_body"] = [user_data.data.hex()]
    else:
        fields["sms_text"] = [user_data.text or ""]
    if concat:
        fields["udh.mm.msg_id"] = [str(concat.ref)]
        fields["udh.mm.msg_parts"] = [str(concat.total)]
        fields["udh.mm.msg_part"] = [str(concat.seq)]
    if ports:
        fields["destination_port"] = [str(ports.destination)] * len(
            [element for element in user_data.udh if element == ports.element()]
        )
    return fields


def _address(address: Address) -> dict[str, list[str]]:
    return {"dis_field_addr.num_type": [str(address.ton)], "dis_field_addr.num_plan": [str(address.npi)]}


def _stamps(*stamps: Timestamp | None) -> dict[str, list[str]]:
    moments = [(stamp.moment, stamp.quarters) for stamp in stamps if stamp]
    return {
        "scts.year": [str(moment.year % 100) for moment, _ in moments],
        "scts.month": [str(moment.month) for moment, _ in moments],
        "scts.day": [str(moment.day) for moment, _ in moments],
        "scts.hour": [str(moment.hour) for moment, _ in moments],
        "scts.minutes": [str(moment.minute) for moment, _ in moments],
        "scts.seconds": [str(moment.second) for moment, _ in moments],
        "scts.timezone": [str(abs(quarters)) for _, quarters in moments],  # the sign is in words
    }


def _flag(value: bool) -> str:
    return "1" if value else "0"
