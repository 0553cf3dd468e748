"""Final results, and what they mean for a segment that was being sent.

`parse_final` reads a line, `judge` says what is known of the segment: one table, each row with its source. Sheet means
spec/gsm-modem.md; its classes are P permanent, T temporary, O another channel, R the modem, S the SIM, C configuration,
u nobody knows. They become: P NEVER, T and R LATER, O and S and C ELSEWHERE, u IN_DOUBT (with the retry that holds
should a policy decide to send again).

Sources: 3GPP TS 27.005 §3.2.5 (CMS), 27.007 §9.2 (CME), 24.011 §8.2.5.4 and Annex E (RP causes), 23.040 §9.2.3.22
(TP-FCS).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from gatewayd.model import Outcome, Retry


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
    """What is known of a segment, what may be done about it, and in words why."""

    outcome: Outcome
    retry: Retry
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Row:
    """Codes of one family with one meaning. `doubtful`: after the PDU nobody knows whether it was sent.

    `doubtful_after_s`: only if the result came later than that after the PDU. `sent`: the network has it already.
    `vendor` limits a row to modems of that family of codes.
    """

    codes: tuple[int, ...]
    retry: Retry
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
_NEVER, _LATER, _ELSEWHERE = Retry.NEVER, Retry.LATER, Retry.ELSEWHERE


def _span(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


CMS_ROWS: tuple[Row, ...] = (
    Row((1,), _NEVER, "unassigned number", _RP),
    Row((8,), _ELSEWHERE, "operator determined barring", _RP),
    Row((10,), _ELSEWHERE, "call barred", _RP),
    Row((17,), _LATER, "network failure", _RP),
    Row((21,), _ELSEWHERE, "short message transfer rejected", _RP),
    Row((22,), _LATER, "memory capacity exceeded", _RP),
    Row((27,), _LATER, "destination out of order", _RP),
    Row((28,), _ELSEWHERE, "unidentified subscriber", _RP),
    Row((29,), _ELSEWHERE, "facility rejected", _RP),
    Row((30,), _ELSEWHERE, "unknown subscriber", _RP),
    Row((38,), _LATER, "network out of order", _RP, doubtful_after_s=RADIO_TIMEOUT_AFTER_S),
    Row((41,), _LATER, "temporary failure", _RP, doubtful_after_s=RADIO_TIMEOUT_AFTER_S),
    Row((42,), _LATER, "congestion", _RP),
    Row((47,), _LATER, "resources unavailable", _RP, doubtful_after_s=RADIO_TIMEOUT_AFTER_S),
    Row((50,), _ELSEWHERE, "requested facility not subscribed", _RP),
    Row((69,), _ELSEWHERE, "requested facility not implemented", _RP),
    Row((81,), _LATER, "invalid transfer reference", _RP),
    Row((95,), _NEVER, "semantically incorrect message", _RP),
    Row((96,), _NEVER, "invalid mandatory information", _RP),
    Row((97,), _NEVER, "message type not implemented", _RP),
    Row((98,), _LATER, "message not compatible with the protocol state", _RP),
    Row((99,), _NEVER, "information element not implemented", _RP),
    Row((111,), _LATER, "protocol error", _RP, doubtful_after_s=RADIO_TIMEOUT_AFTER_S),
    Row((127,), _LATER, "interworking, unspecified", _RP),
    Row((128,), _NEVER, "telematic interworking not supported", _FCS),
    Row((129,), _NEVER, "short message type 0 not supported", _FCS),
    Row((130,), _NEVER, "short message cannot be replaced", _FCS),
    Row(_span(131, 143), _NEVER, "TP-PID error", _FCS),
    Row((144,), _NEVER, "alphabet not supported", _FCS),
    Row((145,), _NEVER, "message class not supported", _FCS),
    Row(_span(146, 159), _NEVER, "TP-DCS error", _FCS),
    Row((160,), _NEVER, "command cannot be actioned", _FCS),
    Row((161,), _NEVER, "command unsupported", _FCS),
    Row(_span(162, 175), _NEVER, "TP-Command error", _FCS),
    Row((176,), _NEVER, "TPDU not supported", _FCS),
    Row((192,), _LATER, "SMS centre busy", _FCS),
    Row((193,), _ELSEWHERE, "no subscription at this SMS centre", _FCS),
    Row((194,), _LATER, "SMS centre system failure", _FCS),
    Row((195,), _NEVER, "invalid destination address", _FCS),
    Row((196,), _NEVER, "destination barred", _FCS),
    Row((197,), _NEVER, "rejected as a duplicate: an earlier copy got through", _FCS, sent=True),
    Row((198,), _ELSEWHERE, "validity period format not supported", _FCS),
    Row((199,), _ELSEWHERE, "validity period not supported", _FCS),
    Row((208,), _LATER, "SIM storage full", _FCS),
    Row((209,), _ELSEWHERE, "no SMS storage in the SIM", _FCS),
    Row((210,), _LATER, "error in the modem", _FCS),
    Row((211,), _LATER, "memory capacity exceeded", _FCS),
    Row((212,), _LATER, "SIM application toolkit busy", _FCS),
    Row((213,), _LATER, "SIM data download error", _FCS),
    Row(_span(224, 254), _ELSEWHERE, "refused for a reason of the SMS centre's own", _FCS),
    Row((255,), _ELSEWHERE, "refused without a reason", _FCS),
    Row((300,), _LATER, "modem failure", _MS, doubtful=True),
    Row((301,), _LATER, "SMS service of the modem reserved", _MS),
    Row((302,), _LATER, "operation not allowed now", _MS),
    Row((303,), _LATER, "operation not supported in this mode", _MS),
    # Later than a parse takes, a 304 says nothing of what became of the PDU: sheet §3.
    Row((304,), _LATER, "invalid PDU mode parameter", _MS, doubtful_after_s=PARSE_ERROR_WITHIN_S),
    Row((305,), _LATER, "invalid text mode parameter: not in PDU mode", _MS),
    Row((310,), _ELSEWHERE, "no SIM", _MS),
    Row((311,), _ELSEWHERE, "SIM PIN required", _MS),
    Row((312,), _ELSEWHERE, "PH-SIM PIN required", _MS),
    Row((313,), _ELSEWHERE, "SIM failure", _MS),
    Row((314,), _LATER, "SIM busy", _MS),
    Row((315,), _ELSEWHERE, "wrong SIM", _MS),
    Row((316,), _ELSEWHERE, "SIM PUK required", _MS),
    Row((317, 318), _ELSEWHERE, "SIM PIN2 or PUK2 required", _MS),
    Row((320,), _LATER, "memory failure", _MS),
    Row((321,), _LATER, "invalid memory index", _MS),
    Row((322,), _LATER, "memory full", _MS),
    Row((330,), _ELSEWHERE, "SMS centre address unknown", _MS),
    Row((331,), _LATER, "no network service", _MS),
    Row((332,), _LATER, "network timeout", _MS, doubtful=True),
    Row((350,), _ELSEWHERE, "refused by the modem after its own timeout", _VENDOR, doubtful=True),
    Row((500,), _LATER, "unknown error", _MS, doubtful=True),
    Row((510,), _ELSEWHERE, "message blocked", _VENDOR),
    Row((512,), _LATER, "radio connection could not be set up", _VENDOR, vendor="wavecom"),
    Row((513,), _LATER, "no acknowledgement, radio link lost", _VENDOR, doubtful=True, vendor="wavecom"),
    Row((514,), _LATER, "congestion", _VENDOR, vendor="wavecom"),
    Row((515,), _LATER, "modem still initialising", _VENDOR, vendor="wavecom"),
    Row((512,), _LATER, "aborted", _VENDOR, doubtful=True, vendor="cinterion"),
    Row((513,), _LATER, "cannot store", _VENDOR, vendor="cinterion"),
    Row((514, *_span(515, 520), 538, *_span(549, 554)), _NEVER, "malformed PDU", _VENDOR, vendor="cinterion"),
    Row((521,), _LATER, "timer expired", _VENDOR, doubtful=True, vendor="cinterion"),
    Row((522, 532, 535), _LATER, "temporarily not possible", _VENDOR, vendor="cinterion"),
    Row((615, 616), _LATER, "network failure", _VENDOR, vendor="cinterion"),
)

CME_ROWS: tuple[Row, ...] = (
    Row((0, 1, 2, 23, 100), _LATER, "modem failure", _ME, doubtful=True),
    Row((3,), _LATER, "operation not allowed now", _ME),
    Row((4, 50), _ELSEWHERE, "operation not supported", _ME),
    Row((5, 6, 7, *_span(40, 48)), _ELSEWHERE, "modem or SIM locked to an operator", _ME),
    Row((10,), _ELSEWHERE, "no SIM", _ME),
    Row((11,), _ELSEWHERE, "SIM PIN required", _ME),
    Row((12,), _ELSEWHERE, "SIM PUK required", _ME),
    Row((13,), _ELSEWHERE, "SIM failure", _ME),
    Row((14, 515), _LATER, "SIM busy", _ME),
    Row((15,), _ELSEWHERE, "wrong SIM", _ME),
    Row((16,), _ELSEWHERE, "wrong PIN", _ME),
    Row((17, 18), _ELSEWHERE, "SIM PIN2 or PUK2 required", _ME),
    Row((20,), _LATER, "memory full", _ME),
    Row((21, 22), _LATER, "invalid index", _ME),
    Row((24, 25, 26, 27), _NEVER, "text or number not accepted by the modem", _ME),
    Row((30,), _LATER, "no network service", _ME),
    Row((31,), _LATER, "network timeout", _ME, doubtful=True),
    Row((32,), _LATER, "emergency calls only", _ME),
    Row((103, 106), _ELSEWHERE, "SIM or modem refused by the network", _ME),
    Row((107, 111, 112, 113), _ELSEWHERE, "service, network or area not allowed", _ME),
    Row((257,), _ELSEWHERE, "call barred", _VENDOR, vendor="cinterion"),
    Row((256, *_span(258, 263)), _LATER, "not allowed now", _VENDOR, vendor="cinterion"),
    Row((770,), _ELSEWHERE, "SIM rejected", _VENDOR, vendor="cinterion"),
    Row((771, 772), _LATER, "SIM powered down", _VENDOR, vendor="cinterion"),
)

# All other RP causes are to be treated as 41 (24.011 §8.2.5.4), all other TP-FCS are refusals of the SMS centre.
_OTHER_RP = Row((), _LATER, "refused by the network", "24.011 §8.2.5.4", doubtful_after_s=RADIO_TIMEOUT_AFTER_S)
_OTHER_FCS = Row((), _ELSEWHERE, "refused by the network", _FCS)
_OTHER = Row((), _LATER, "unknown code", "sheet §3", doubtful=True)
_PLAIN_ERROR = Row((), _LATER, "refused without a code", "sheet §3", doubtful_after_s=PARSE_ERROR_WITHIN_S)
_NO_RESULT = Row((), _LATER, "no final result in time", "sheet §3", doubtful=True)


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
        return Verdict(Outcome.NOT_SENT, _LATER if row.sent else row.retry, row.text, row.source)
    if row.sent:
        return Verdict(Outcome.SENT, row.retry, row.text, row.source)
    late = row.doubtful_after_s is not None and elapsed_s > row.doubtful_after_s
    if row.doubtful or late:
        return Verdict(Outcome.IN_DOUBT, row.retry, row.text, row.source)
    return Verdict(Outcome.NOT_SENT, row.retry, row.text, row.source)
