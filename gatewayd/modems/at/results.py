"""Final results, and what they mean for a segment that was being sent.

`parse_final` reads a line, `judge` says what is known of the segment and what is at fault: one table, each row with its
source. What is then done, `spool/retry.py` says. Sheet: spec/gsm-modem.md. Its classes are P permanent, T temporary,
O another channel, R the modem, S the SIM, C configuration, u nobody knows. They become: P NUMBER or MESSAGE; T NETWORK,
CONGESTION or UNREACHABLE; O REJECTED; R DEVICE; S SIM; C SMSC or SETUP; u IN_DOUBT, of whatever class.

Sources: 3GPP TS 27.005 §3.2.5 (CMS), 27.007 §9.2 (CME), 24.011 §8.2.5.4 and Annex E (RP causes), 23.040 §9.2.3.22
(TP-FCS).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from gatewayd.model import FailureClass, Outcome


class Kind(Enum):
    """What family a final result is of."""

    OK = "OK"
    ERROR = "ERROR"  # without a code
    CMS = "CMS"
    CME = "CME"
    TIMEOUT = "TIMEOUT"  # none came: made by the engine, never by the modem


@dataclass(frozen=True, slots=True)
class Result:
    """A final result. `code` is None where the modem gave none or a text we do not know; `text` is the line."""

    kind: Kind
    code: int | None = None
    text: str = ""

    @property
    def ok(self) -> bool:
        return self.kind is Kind.OK

    def is_(self, kind: Kind, *codes: int) -> bool:
        """Whether this is one of `codes` of the family `kind`."""
        return self.kind is kind and self.code in codes

    def __str__(self) -> str:
        """ "CMS 38", "CME 14", "ERROR", "OK", "TIMEOUT"; an unknown text as the modem gave it."""
        if self.code is not None:
            return f"{self.kind.name} {self.code}"
        if self.kind in (Kind.OK, Kind.TIMEOUT):
            return self.kind.name
        return self.text or self.kind.name


OK = Result(Kind.OK, None, "OK")
TIMEOUT = Result(Kind.TIMEOUT)

# A code may be followed by nothing; a text (CMEE=2) by anything. The space after the colon is optional.
_FAILURE = re.compile(
    r"(?:\+CM(?P<family>[ES]) ERROR\s*:?\s*(?P<value>.*)"
    r"|ERROR|\+EXT ERROR:.*|MODEM ERROR:.*|COMMAND NOT SUPPORT(?:ED)?|TOO MANY PARAMETERS|ABORTED)",
    re.ASCII,
)

_CMS_TEXTS = {
    "me failure": 300,
    "phone failure": 300,
    "sms service of me reserved": 301,
    "sms service reserved": 301,
    "operation not allowed": 302,
    "operation not supported": 303,
    "invalid pdu mode parameter": 304,
    "invalid text mode parameter": 305,
    "sim not inserted": 310,
    "sim pin required": 311,
    "sim pin necessary": 311,
    "ph-sim pin required": 312,
    "sim failure": 313,
    "sim busy": 314,
    "sim wrong": 315,
    "sim puk required": 316,
    "sim pin2 required": 317,
    "sim puk2 required": 318,
    "memory failure": 320,
    "invalid memory index": 321,
    "memory full": 322,
    "smsc address unknown": 330,
    "no network service": 331,
    "no network": 331,
    "network timeout": 332,
    "no +cnma acknowledgement expected": 340,
    "unknown error": 500,
    "unknown": 500,
}

_CME_TEXTS = {
    "phone failure": 0,
    "no connection to phone": 1,
    "phone adapter link reserved": 2,
    "operation not allowed": 3,
    "operation not supported": 4,
    "ph-sim pin required": 5,
    "sim not inserted": 10,
    "sim pin required": 11,
    "sim puk required": 12,
    "sim failure": 13,
    "sim busy": 14,
    "sim wrong": 15,
    "incorrect password": 16,
    "sim pin2 required": 17,
    "sim puk2 required": 18,
    "memory full": 20,
    "invalid index": 21,
    "not found": 22,
    "memory failure": 23,
    "text string too long": 24,
    "invalid characters in text string": 25,
    "dial string too long": 26,
    "invalid characters in dial string": 27,
    "no network service": 30,
    "network timeout": 31,
    "network not allowed - emergency calls only": 32,
    "network not allowed, emergency calls only": 32,
    "incorrect parameters": 50,
    "unknown": 100,
    "unknown error": 100,
}


def parse_final(line: str) -> Result | None:
    """The final result that a whole line is, or None. Never a substring: texts contain "OK" and "ERROR"."""
    if line == "OK":
        return OK
    if line.startswith("CONNECT") and (len(line) == 7 or line[7] == " "):
        return Result(Kind.OK, None, line)
    match = _FAILURE.fullmatch(line)
    if match is None:
        return None
    family, value = match["family"], match["value"]
    if family is None:
        return Result(Kind.ERROR, None, line)
    kind = Kind.CMS if family == "S" else Kind.CME
    if value.isascii() and value.isdigit() and len(value) <= 5:
        return Result(kind, int(value), line)
    texts = _CMS_TEXTS if kind is Kind.CMS else _CME_TEXTS
    return Result(kind, texts.get(value.strip(' "').lower().replace("(u)", "").replace("usim", "sim")), line)


def parse_numeric(line: str) -> Result | None:
    """A result of a modem left in ATV0, or None. Source: 3GPP TS 27.007 §B.2.1, ITU-T V.250 §5.7.1."""
    if line == "0":
        return OK
    return Result(Kind.ERROR, None, line) if line == "4" else None


class Phase(Enum):
    """How far a submission came."""

    BEFORE_PDU = "before the PDU"  # not one octet of the PDU was written
    AFTER_PDU = "after the PDU"  # writing it had begun, or it was handed over whole


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a segment, what is at fault, and in words why."""

    outcome: Outcome
    failure: FailureClass
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Row:
    """Codes of one family with one meaning. `doubtful`: after the PDU nobody knows whether it was sent.

    `doubtful_after_s`: only if the result came later than that after the PDU. `sent`: the network has it already.
    `vendor` limits a row to modems of that family of codes.
    """

    codes: tuple[int, ...]
    failure: FailureClass
    text: str
    source: str
    doubtful: bool = False
    doubtful_after_s: float | None = None
    sent: bool = False
    vendor: str = ""


PARSE_ERROR_WITHIN_S = 1.0  # sheet §3: what a modem refuses so soon it has only parsed
RADIO_TIMEOUT_AFTER_S = 25.0  # sheet §3: so late, it may be the modem's own timeout under a network's code

_RP = "24.011 Annex E; sheet §5"
_FCS = "23.040 §9.2.3.22; sheet §5"
_MS = "27.005 §3.2.5; sheet §5"
_ME = "27.007 §9.2; sheet §5"
_VENDOR = "vendor; sheet §5"
_F = FailureClass


def _span(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


CMS_ROWS: tuple[Row, ...] = (
    Row((1,), _F.NUMBER, "unassigned number", _RP),
    Row((8,), _F.SIM, "operator determined barring", _RP),
    Row((10,), _F.SIM, "call barred", _RP),
    Row((17,), _F.NETWORK, "network failure", _RP),
    Row((21,), _F.REJECTED, "short message transfer rejected", _RP),
    Row((22,), _F.UNREACHABLE, "memory capacity exceeded", _RP),
    Row((27,), _F.UNREACHABLE, "destination out of order", _RP),
    Row((28,), _F.REJECTED, "unidentified subscriber", _RP),
    Row((29,), _F.REJECTED, "facility rejected", _RP),
    Row((30,), _F.REJECTED, "unknown subscriber", _RP),
    Row((38,), _F.NETWORK, "network out of order", _RP, doubtful_after_s=RADIO_TIMEOUT_AFTER_S),
    Row((41,), _F.NETWORK, "temporary failure", _RP, doubtful_after_s=RADIO_TIMEOUT_AFTER_S),
    Row((42,), _F.CONGESTION, "congestion", _RP),
    Row((47,), _F.CONGESTION, "resources unavailable", _RP, doubtful_after_s=RADIO_TIMEOUT_AFTER_S),
    Row((50,), _F.SIM, "requested facility not subscribed", _RP),
    Row((69,), _F.SMSC, "requested facility not implemented", _RP),
    Row((81,), _F.DEVICE, "invalid transfer reference", _RP),
    Row((95,), _F.MESSAGE, "semantically incorrect message", _RP),
    Row((96,), _F.MESSAGE, "invalid mandatory information", _RP),
    Row((97,), _F.MESSAGE, "message type not implemented", _RP),
    Row((98,), _F.NETWORK, "message not compatible with the protocol state", _RP),
    Row((99,), _F.MESSAGE, "information element not implemented", _RP),
    Row((111,), _F.NETWORK, "protocol error", _RP, doubtful_after_s=RADIO_TIMEOUT_AFTER_S),
    Row((127,), _F.NETWORK, "interworking, unspecified", _RP),
    Row((128,), _F.MESSAGE, "telematic interworking not supported", _FCS),
    Row((129,), _F.MESSAGE, "short message type 0 not supported", _FCS),
    Row((130,), _F.MESSAGE, "short message cannot be replaced", _FCS),
    Row(_span(131, 143), _F.MESSAGE, "TP-PID error", _FCS),
    Row((144,), _F.MESSAGE, "alphabet not supported", _FCS),
    Row((145,), _F.MESSAGE, "message class not supported", _FCS),
    Row(_span(146, 159), _F.MESSAGE, "TP-DCS error", _FCS),
    Row((160,), _F.MESSAGE, "command cannot be actioned", _FCS),
    Row((161,), _F.MESSAGE, "command unsupported", _FCS),
    Row(_span(162, 175), _F.MESSAGE, "TP-Command error", _FCS),
    Row((176,), _F.MESSAGE, "TPDU not supported", _FCS),
    Row((192,), _F.CONGESTION, "SMS centre busy", _FCS),
    Row((193,), _F.SMSC, "no subscription at this SMS centre", _FCS),
    Row((194,), _F.NETWORK, "SMS centre system failure", _FCS),
    Row((195,), _F.NUMBER, "invalid destination address", _FCS),
    Row((196,), _F.NUMBER, "destination barred", _FCS),
    Row((197,), _F.UNKNOWN, "rejected as a duplicate: an earlier copy got through", _FCS, sent=True),
    Row((198,), _F.SETUP, "validity period format not supported", _FCS),
    Row((199,), _F.SETUP, "validity period not supported", _FCS),
    Row((208,), _F.DEVICE, "SIM storage full", _FCS),
    Row((209,), _F.SIM, "no SMS storage in the SIM", _FCS),
    Row((210,), _F.DEVICE, "error in the modem", _FCS),
    Row((211,), _F.DEVICE, "memory capacity exceeded", _FCS),
    Row((212,), _F.DEVICE, "SIM application toolkit busy", _FCS),
    Row((213,), _F.DEVICE, "SIM data download error", _FCS),
    Row(_span(224, 254), _F.REJECTED, "refused for a reason of the SMS centre's own", _FCS),
    Row((255,), _F.REJECTED, "refused without a reason", _FCS),
    Row((300,), _F.DEVICE, "modem failure", _MS, doubtful=True),
    Row((301,), _F.DEVICE, "SMS service of the modem reserved", _MS),
    Row((302,), _F.DEVICE, "operation not allowed now", _MS),
    Row((303,), _F.SETUP, "operation not supported in this mode", _MS),
    # Later than a parse takes, a 304 says nothing of what became of the PDU: sheet §3.
    Row((304,), _F.SETUP, "invalid PDU mode parameter", _MS, doubtful_after_s=PARSE_ERROR_WITHIN_S),
    Row((305,), _F.SETUP, "invalid text mode parameter: not in PDU mode", _MS),
    Row((310,), _F.SIM, "no SIM", _MS),
    Row((311,), _F.SIM, "SIM PIN required", _MS),
    Row((312,), _F.SIM, "PH-SIM PIN required", _MS),
    Row((313,), _F.SIM, "SIM failure", _MS),
    Row((314,), _F.DEVICE, "SIM busy", _MS),
    Row((315,), _F.SIM, "wrong SIM", _MS),
    Row((316,), _F.SIM, "SIM PUK required", _MS),
    Row((317, 318), _F.SIM, "SIM PIN2 or PUK2 required", _MS),
    Row((320,), _F.DEVICE, "memory failure", _MS),
    Row((321,), _F.DEVICE, "invalid memory index", _MS),
    Row((322,), _F.DEVICE, "memory full", _MS),
    Row((330,), _F.SMSC, "SMS centre address unknown", _MS),
    Row((331,), _F.NETWORK, "no network service", _MS),
    Row((332,), _F.NETWORK, "network timeout", _MS, doubtful=True),
    Row((350,), _F.SIM, "refused by the modem after its own timeout", _VENDOR, doubtful=True),
    Row((500,), _F.UNKNOWN, "unknown error", _MS, doubtful=True),
    Row((510,), _F.SIM, "message blocked", _VENDOR),
    Row((512,), _F.NETWORK, "radio connection could not be set up", _VENDOR, vendor="wavecom"),
    Row((513,), _F.NETWORK, "no acknowledgement, radio link lost", _VENDOR, doubtful=True, vendor="wavecom"),
    Row((514,), _F.CONGESTION, "congestion", _VENDOR, vendor="wavecom"),
    Row((515,), _F.DEVICE, "modem still initialising", _VENDOR, vendor="wavecom"),
    Row((512,), _F.DEVICE, "aborted", _VENDOR, doubtful=True, vendor="cinterion"),
    Row((513,), _F.DEVICE, "cannot store", _VENDOR, vendor="cinterion"),
    Row((514, *_span(515, 520), 538, *_span(549, 554)), _F.MESSAGE, "malformed PDU", _VENDOR, vendor="cinterion"),
    Row((521,), _F.NETWORK, "timer expired", _VENDOR, doubtful=True, vendor="cinterion"),
    Row((522, 532, 535), _F.DEVICE, "temporarily not possible", _VENDOR, vendor="cinterion"),
    Row((615, 616), _F.NETWORK, "network failure", _VENDOR, vendor="cinterion"),
)

CME_ROWS: tuple[Row, ...] = (
    Row((0, 1, 2, 23, 100), _F.DEVICE, "modem failure", _ME, doubtful=True),
    Row((3,), _F.DEVICE, "operation not allowed now", _ME),
    Row((4, 50), _F.SETUP, "operation not supported", _ME),
    Row((5, 6, 7, *_span(40, 48)), _F.SIM, "modem or SIM locked to an operator", _ME),
    Row((10,), _F.SIM, "no SIM", _ME),
    Row((11,), _F.SIM, "SIM PIN required", _ME),
    Row((12,), _F.SIM, "SIM PUK required", _ME),
    Row((13,), _F.SIM, "SIM failure", _ME),
    Row((14, 515), _F.DEVICE, "SIM busy", _ME),
    Row((15,), _F.SIM, "wrong SIM", _ME),
    Row((16,), _F.SIM, "wrong PIN", _ME),
    Row((17, 18), _F.SIM, "SIM PIN2 or PUK2 required", _ME),
    Row((20,), _F.DEVICE, "memory full", _ME),
    Row((21, 22), _F.DEVICE, "invalid index", _ME),
    Row((24, 25, 26, 27), _F.MESSAGE, "text or number not accepted by the modem", _ME),
    Row((30,), _F.NETWORK, "no network service", _ME),
    Row((31,), _F.NETWORK, "network timeout", _ME, doubtful=True),
    Row((32,), _F.NETWORK, "emergency calls only", _ME),
    Row((103, 106), _F.SIM, "SIM or modem refused by the network", _ME),
    Row((107, 111, 112, 113), _F.SIM, "service, network or area not allowed", _ME),
    Row((257,), _F.SIM, "call barred", _VENDOR, vendor="cinterion"),
    Row((256, *_span(258, 263)), _F.DEVICE, "not allowed now", _VENDOR, vendor="cinterion"),
    Row((770,), _F.SIM, "SIM rejected", _VENDOR, vendor="cinterion"),
    Row((771, 772), _F.DEVICE, "SIM powered down", _VENDOR, vendor="cinterion"),
)

# All other RP causes are to be treated as 41 (24.011 §8.2.5.4), all other TP-FCS are refusals of the SMS centre.
_OTHER_RP = Row((), _F.NETWORK, "refused by the network", "24.011 §8.2.5.4", doubtful_after_s=RADIO_TIMEOUT_AFTER_S)
_OTHER_FCS = Row((), _F.REJECTED, "refused by the network", _FCS)
_OTHER = Row((), _F.UNKNOWN, "unknown code", "sheet §3", doubtful=True)
_PLAIN_ERROR = Row((), _F.UNKNOWN, "refused without a code", "sheet §3", doubtful_after_s=PARSE_ERROR_WITHIN_S)
_NO_RESULT = Row((), _F.UNKNOWN, "no final result in time", "sheet §3", doubtful=True)


def _index(rows: tuple[Row, ...]) -> dict[tuple[str, int], Row]:
    return {(row.vendor, code): row for row in rows for code in row.codes}


_TABLES = {Kind.CMS: _index(CMS_ROWS), Kind.CME: _index(CME_ROWS)}


def _row(result: Result, vendor: str) -> Row:
    if result.kind is Kind.TIMEOUT:
        return _NO_RESULT
    if result.kind is Kind.ERROR:
        return _PLAIN_ERROR
    code = result.code
    if result.kind is Kind.OK or code is None:
        return _OTHER
    table = _TABLES[result.kind]
    row = table.get((vendor, code)) or table.get(("", code))
    if row is not None:
        return row
    if result.kind is Kind.CMS and 1 <= code <= 127:
        return _OTHER_RP
    if result.kind is Kind.CMS and 128 <= code <= 255:
        return _OTHER_FCS
    return _OTHER


def judge(phase: Phase, result: Result, elapsed_s: float, vendor: str = "") -> Verdict:
    """What a final result that is not OK means for the segment.

    `elapsed_s` is the time from the PDU to the result (ignored before the PDU), `vendor` the profile's family of codes
    beyond 511 ("" for none). Before the PDU everything is NOT_SENT; after it an unknown code is IN_DOUBT.
    Source: sheet §3 "Outcome when something breaks" and §5.
    """
    row = _row(result, vendor)
    if phase is Phase.BEFORE_PDU:
        return Verdict(Outcome.NOT_SENT, row.failure, row.text, row.source)
    if row.sent:
        return Verdict(Outcome.SENT, row.failure, row.text, row.source)
    late = row.doubtful_after_s is not None and elapsed_s > row.doubtful_after_s
    if row.doubtful or late:
        return Verdict(Outcome.IN_DOUBT, row.failure, row.text, row.source)
    return Verdict(Outcome.NOT_SENT, row.failure, row.text, row.source)
