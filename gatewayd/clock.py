"""Time, as data that can be replaced in tests."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where gatewayd takes the time from."""

    def now_ms(self) -> int:
        """UTC epoch milliseconds: for what is stored. It may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start: for pacing and timeouts. It never jumps."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


def iso(epoch_ms: int | None) -> str | None:
    """UTC epoch milliseconds as ISO 8601 with a Z ("2026-11-23T12:00:00.000Z"); None stays None."""
    if epoch_ms is None:
        return None
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
