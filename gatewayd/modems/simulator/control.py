"""The client's side of a simulator's control socket, for tests and tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gatewayd.errors import GatewayError
from gatewayd.modems.simulator.interfaces import Row

MAX_ANSWER = 1 << 26
PAGE = 10_000  # rows a call


class SimulatorError(GatewayError):
    """The simulator refused a request, or is gone."""


class SimulatorControl:
    """Speaks to the simulator at `path` (DIR/control.sock). Calls may overlap."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def call(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send `{"do": …}` and return the answer. Raises SimulatorError if it is refused or nobody answers."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.path, limit=MAX_ANSWER)
        except OSError as error:
            raise SimulatorError(f"no simulator at {self.path}: {error.strerror}") from None
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            line = await reader.readline()
        except OSError as error:
            raise SimulatorError(f"the simulator at {self.path} is gone: {error}") from None
        finally:
            writer.close()
        if not line:
            raise SimulatorError(f"the simulator at {self.path} is gone")
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise SimulatorError(str(answer["error"]))
        return answer

    async def ledger(self, kind: str | None = None, *, since: int = 0) -> list[Row]:
        """The ledger's rows from number `since` on, all or of one kind."""
        rows: list[Row] = []
        while True:
            page = (await self.call({"do": "ledger", "since": since, "limit": PAGE}))["rows"]
            rows += page
            since += len(page)
            if len(page) < PAGE:
                return [row for row in rows if kind is None or row["kind"] == kind]

    async def counts(self) -> dict[str, int]:
        """How many rows of each kind there are."""
        counts: dict[str, int] = (await self.call({"do": "ledger"}))["counts"]
        return counts

    async def wait(self, kind: str, count: int = 1, *, timeout_s: float = 20.0) -> None:
        """Until the ledger has at least `count` rows of `kind`. Raises SimulatorError if that takes too long."""
        await self.call({"do": "wait", "kind": kind, "count": count, "timeout_s": timeout_s})
