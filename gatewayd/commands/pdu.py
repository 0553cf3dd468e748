"""`gatewayd pdu`: the codec at the prompt. Needs no daemon and no configuration."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from gatewayd.errors import DecodeError, EncodeError
from gatewayd.modems.pdu import (
    AbsoluteValidity,
    Address,
    Alphabet,
    Deliver,
    RelativeValidity,
    Submit,
    Timestamp,
    Tpdu,
    TypeOfNumber,
    UserData,
    Validity,
    decode_pdu,
    encode_smsc,
    split,
    status_text,
    verdict,
)
from gatewayd.modems.pdu import dcs as coding

app = typer.Typer(help="Decode and encode short message PDUs.", no_args_is_help=True)

Fields = dict[str, Any]

_INDENT = 19
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
# A text is somebody else's: it must not reach the terminal as control sequences or turn the line round
_UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@app.command()
def decode(
    pdus: Annotated[
        list[str] | None, typer.Argument(metavar="HEX...", help="PDUs; - or none: one a line from standard input.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each PDU, on a line of its own.")
    ] = False,
    smsc: Annotated[
        bool, typer.Option("--smsc/--no-smsc", help="Whether the SMS centre's address comes first, as modems give it.")
    ] = True,
    to_sc: Annotated[
        bool | None,
        typer.Option(
            "--submit/--deliver",
            "--to-sc/--from-sc",
            help="A SUBMIT, or a DELIVER or STATUS-REPORT. Default: as the PDU's first octet looks.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say what is in PDUs. Exit status 1 if one of them is none."""
    console = Console(highlight=False, soft_wrap=True)
    failed = False
    for hex_text in _inputs(pdus or ["-"]):
        fields = decode_fields(hex_text, smsc=smsc, to_sc=to_sc)
        failed = failed or "error" in fields
        if as_json:
            typer.echo(json.dumps(fields))
        else:
            console.print(_rendered(fields))
    raise typer.Exit(1 if failed else 0)


@app.command()
def encode(
    number: Annotated[str, typer.Argument(help="To whom: +59898344484, or a short code.")],
    text: Annotated[str, typer.Argument(help="What; a long text becomes several PDUs.")],
    report: Annotated[bool, typer.Option("--report", help="Ask for a status report.")] = False,
    validity: Annotated[str, typer.Option(help="How long the SMS centre shall try: 30m, 12h, 2d, 1w.")] = "",
    message_class: Annotated[int | None, typer.Option("--class", help="0 (flash) to 3.", show_default=False)] = None,
    ref: Annotated[int, typer.Option(help="The reference that joins the parts of a long text.")] = 0,
    ref_bits: Annotated[int, typer.Option(help="8 or 16.")] = 8,
    smsc: Annotated[str, typer.Option(help="The SMS centre's number. Default: the one the modem has.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each PDU, on a line of its own.")
    ] = False,
) -> None:
    """Print SUBMIT PDUs, one a line: the length that AT+CMGS wants, a space, the PDU in hex."""
    try:
        destination = Address.to_send(number)
        centre = encode_smsc(_smsc(smsc))
        period = RelativeValidity.of_seconds(_seconds(validity)) if validity else None
        parts = split(text, concat_ref=ref, ref_bits=ref_bits, message_class=message_class)
        tpdus = [Submit(destination, part, report=report, validity=period).encode() for part in parts]
    except EncodeError as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(2) from None
    for tpdu in tpdus:
        pdu = (centre + tpdu).hex().upper()
        typer.echo(json.dumps({"length": len(tpdu), "hex": pdu}) if as_json else f"{len(tpdu)} {pdu}")


def decode_fields(hex_text: str, *, smsc: bool = True, to_sc: bool | None = None) -> Fields:
    """What a PDU says, ready for JSON: always with `hex` and `text`; `error`, `path` and `offset` where it is none.

    `to_sc` None: what claims to be a SUBMIT is read as one, for the other meaning of its type is never met alone.
    """
    try:
        try:
            centre, tpdu = decode_pdu(hex_text, smsc=smsc, from_sc=not to_sc)
        except DecodeError as fault:
            if to_sc is not None or fault.path != "first_octet":
                raise
            centre, tpdu = decode_pdu(hex_text, smsc=smsc, from_sc=False)
    except DecodeError as fault:
        return {"hex": hex_text, "text": None, "error": str(fault), "path": fault.path, "offset": fault.offset}
    return {"hex": hex_text, "smsc": centre.text if centre else None, **_tpdu_fields(tpdu)}


def _inputs(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument != "-":
            yield argument.strip()
            continue
        for line in sys.stdin.buffer:
            stripped = line.decode("utf-8", "replace").strip()
            if stripped:
                yield stripped


def _tpdu_fields(tpdu: Tpdu) -> Fields:
    if isinstance(tpdu, Submit):
        return {
            "type": "submit",
            **_address_fields("destination", tpdu.destination),
            "mr": tpdu.mr,
            "report": tpdu.report,
            "reject_duplicates": tpdu.reject_duplicates,
            "reply_path": tpdu.reply_path,
            "pid": tpdu.pid,
            "validity": _validity_text(tpdu.validity),
            **_user_data_fields(tpdu.user_data),
        }
    if isinstance(tpdu, Deliver):
        return {
            "type": "deliver",
            **_address_fields("originator", tpdu.originator),
            "scts": _stamp(tpdu.scts),
            "more_messages": tpdu.more_messages,
            "report_indicator": tpdu.report_indicator,
            "reply_path": tpdu.reply_path,
            "loop_prevention": tpdu.loop_prevention,
            "pid": tpdu.pid,
            **_user_data_fields(tpdu.user_data),
        }
    return {
        "type": "status_report",
        "mr": tpdu.mr,
        **_address_fields("recipient", tpdu.recipient),
        "scts": _stamp(tpdu.scts),
        "discharge": _stamp(tpdu.discharge),
        "status": tpdu.status,
        "status_text": status_text(tpdu.status),
        "verdict": str(verdict(tpdu.status)),
        "more_messages": tpdu.more_messages,
        "pid": tpdu.pid,
        **(_user_data_fields(tpdu.user_data) if tpdu.user_data else {"text": None}),
    }


def _address_fields(role: str, address: Address) -> Fields:
    return {role: address.text, "ton": TypeOfNumber(address.ton).name.lower(), "npi": address.npi}


def _user_data_fields(user_data: UserData) -> Fields:
    scheme = coding.decode(user_data.dcs)
    concat, ports, waiting = user_data.concat, user_data.ports, scheme.waiting
    fields: Fields = {
        "text": user_data.text,
        "alphabet": str(user_data.alphabet),
        "dcs": user_data.dcs,
        "class": scheme.message_class,
        "concat": None,
        "udh": [{"iei": element.iei, "data": element.data.hex().upper()} for element in user_data.udh],
    }
    if concat:
        fields["concat"] = {"ref": concat.ref, "total": concat.total, "seq": concat.seq, "bits": concat.bits}
    if ports:
        fields["ports"] = {"destination": ports.destination, "source": ports.source}
    if waiting:
        kind = waiting.kind.name.lower()
        fields["waiting"] = {"kind": kind, "active": waiting.active, "discard": waiting.discard}
    if scheme.compressed:
        fields["compressed"] = True
    if user_data.alphabet is Alphabet.DATA8:
        fields["data"] = user_data.data.hex().upper()
    return fields


def _validity_text(validity: Validity | None) -> str | None:
    if validity is None:
        return None
    if isinstance(validity, AbsoluteValidity):
        return _stamp(validity.until) or "invalid"
    return "none given" if validity.seconds is None else f"{validity.seconds}s"


def _stamp(stamp: Timestamp | None) -> str | None:
    return str(stamp) if stamp else None


def _rendered(fields: Fields) -> Text:
    """Fields one a line; those that say nothing are left out, further lines of a text are indented."""
    rendered = Text()
    for name, value in fields.items():
        if value is None or value is False or value == []:
            continue
        plain = value if isinstance(value, str) else json.dumps(value)
        safe = _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", plain)
        rendered.append(f"{name:<{_INDENT}}", style="bold red" if name == "error" else "bold")
        rendered.append(safe.replace("\n", "\n" + " " * _INDENT) + "\n")
    return rendered


def _smsc(number: str) -> Address | None:
    try:
        return Address.to_send(number) if number else None
    except EncodeError as fault:
        raise EncodeError("smsc", fault.reason) from None


def _seconds(duration: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhdw])", duration)
    if match is None:
        raise EncodeError("validity", f"{duration!r} is not a number with a unit: s, m, h, d or w")
    return int(match[1]) * _UNITS_S[match[2]]
