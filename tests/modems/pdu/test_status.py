from __future__ import annotations

import pytest

from gatewayd.model import ReportVerdict
from gatewayd.modems.pdu import status_text, verdict

DELIVERED, TRYING, UNDELIVERED = ReportVerdict.DELIVERED, ReportVerdict.TRYING, ReportVerdict.UNDELIVERED


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x00, DELIVERED),
        (0x01, DELIVERED),
        (0x02, DELIVERED),
        (0x1F, DELIVERED),
        (0x20, TRYING),
        (0x3F, TRYING),
        (0x40, UNDELIVERED),
        (0x46, UNDELIVERED),
        (0x5F, UNDELIVERED),
        (0x60, UNDELIVERED),
        (0x7F, UNDELIVERED),
        (0x80, UNDELIVERED),
        (0xFF, UNDELIVERED),
    ],
)
def test_verdict(status: int, expected: ReportVerdict) -> None:
    assert verdict(status) is expected


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0x00, "delivered"),
        (0x22, "no response from the recipient, the SMS centre still tries"),
        (0x46, "validity period expired"),
        (0x62, "no response from the recipient, the SMS centre gave up"),
        (0x10, "done (SMS centre's code 0x10)"),
        (0x4A, "permanent error (reserved code 0x4A)"),
        (0x7F, "temporary error, the SMS centre gave up (SMS centre's code 0x7F)"),
        (0x95, "service rejected (reserved code 0x95)"),
    ],
)
def test_text(status: int, text: str) -> None:
    assert status_text(status) == text


def test_every_status_has_its_own_words() -> None:
    assert len({status_text(status) for status in range(256)}) == 256
