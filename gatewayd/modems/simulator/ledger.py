"""The ledger of the emulated SMS centre: what really happened, one JSON object a line.

Rows are written together at most FLUSH_S after they came about, and before any query is answered. What the program
under test does, or how it dies, cannot lose a row.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from gatewayd.modems.simulator.interfaces import Handle, Row, Timers

FLUSH_S = 0.05


class Ledger:
    """An append-only file that can be read from any row on."""

    def __init__(self, path: Path, timers: Timers) -> None:
        self._timers = timers
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        self._lines: list[str] = []
        self._flush_timer: Handle | None = None
        self._offsets = array("Q", [0])  # where each row begins, and where the next one will
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def append(self, row: Row) -> None:
        """Add a row; it gets its number `n`, from 0, and the time `t` in epoch seconds."""
        row["n"] = len(self._offsets) - 1
        row["t"] = time.time()
        line = json.dumps(row, separators=(",", ":")) + "\n"  # ASCII, so octets are characters
        self._lines.append(line)
        self._offsets.append(self._offsets[-1] + len(line))
        self.counts[row["kind"]] += 1
        if self._flush_timer is None:
            self._flush_timer = self._timers.call_later(FLUSH_S, self.flush)
        if self._waiting:
            self._wake()

    def flush(self) -> None:
        """Write what is not in the file yet."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        data = "".join(self._lines).encode("ascii")
        self._lines.clear()
        while data:
            data = data[os.write(self._fd, data) :]

    def rows(self, since: int = 0, limit: int = 10_000) -> list[Row]:
        """At most `limit` rows from number `since` on."""
        self.flush()
        first = min(max(since, 0), len(self))
        last = min(first + max(limit, 0), len(self))
        size = self._offsets[last] - self._offsets[first]
        data = os.pread(self._fd, size, self._offsets[first])
        return [json.loads(line) for line in data.splitlines()]

    async def wait(self, kind: str, count: int) -> None:
        """Until there are at least `count` rows of `kind`."""
        if self.counts[kind] >= count:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (lambda: self.counts[kind] >= count, reached)
        self._waiting.append(entry)
        try:
            await reached
        finally:
            self._waiting.remove(entry)

    def _wake(self) -> None:
        for condition, reached in self._waiting:
            if not reached.done() and condition():
                reached.set_result(None)

    def close(self) -> None:
        self.flush()
        os.close(self._fd)
