"""TP-ST: what became of a submitted message. Source: 3GPP TS 23.040 §9.2.3.15."""

from __future__ import annotations

from collections.abc import Mapping

from gatewayd.model import ReportVerdict

_TEMPORARY: Mapping[int, str] = {
    0x0: "congestion",
    0x1: "recipient busy",
    0x2: "no response from the recipient",
    0x3: "service rejected",
    0x4: "quality of service not available",
    0x5: "error in the recipient",
}

_TEXTS: Mapping[int, str] = {
    0x00: "delivered",
    0x01: "forwarded, the SMS centre cannot confirm the delivery",
    0x02: "replaced by the SMS centre",
    0x40: "remote procedure error",
    0x41: "incompatible destination",
    0x42: "connection rejected by the recipient",
    0x43: "not obtainable",
    0x44: "quality of service not available",
    0x45: "no interworking available",
    0x46: "validity period expired",
    0x47: "deleted by the sender",
    0x48: "deleted by the SMS centre's administration",
    0x49: "the SMS centre does not know the message",
    **{0x20 + code: f"{text}, the SMS centre still tries" for code, text in _TEMPORARY.items()},
    **{0x60 + code: f"{text}, the SMS centre gave up" for code, text in _TEMPORARY.items()},
}

_RANGES = (
    (0x00, "done"),
    (0x20, "temporary error, the SMS centre still tries"),
    (0x40, "permanent error"),
    (0x60, "temporary error, the SMS centre gave up"),
    (0x80, "service rejected"),
)


def verdict(status: int) -> ReportVerdict:
    """What a TP-ST octet means for the message. Reserved values from 0x80 are a refusal, as the standard says."""
    if status < 0x20:
        return ReportVerdict.DELIVERED
    return ReportVerdict.TRYING if status < 0x40 else ReportVerdict.UNDELIVERED


def status_text(status: int) -> str:
    """A TP-ST octet in words; for a value that is reserved or the SMS centre's own, its range and number."""
    known = _TEXTS.get(status)
    if known is not None:
        return known
    kind = next(text for first, text in reversed(_RANGES) if status >= first)
    # the second half of each range but the last is for the SMS centre to define
    origin = "SMS centre's code" if status < 0x80 and status & 0x10 else "reserved code"
    return f"{kind} ({origin} 0x{status:02X})"
