"""/api/v1/clock: who may look, who may say that it is right, and what is recorded."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from gatewayd.clock import SystemClock
from gatewayd.http.schemas import ClockState
from tests.http.helpers import ADMIN, READ, SEND, gateway


class Clock(SystemClock):
    """The machine's, or some time before."""

    behind_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() - self.behind_ms


async def test_the_clock_is_shown_and_accepted(tmp_path: Path) -> None:
    clock = Clock()
    async with gateway(tmp_path, clock=clock) as gate:
        before = await gate.get("/api/v1/clock", key=ADMIN)
        assert (before.status, before.json["trusted"], before.json["doubt"]) == (200, True, "")
        clock.behind_ms = 3_600_000
        answer = await gate.get("/api/v1/clock", key=ADMIN)
        ClockState.model_validate(answer.json)
        assert not answer.json["trusted"]
        assert "min before the newest time seen" in answer.json["doubt"]
        assert (await gate.get("/api/v1/status", key=ADMIN)).json["clock_doubt"]

        accepted = await gate.request("POST", "/api/v1/clock/accept", key=ADMIN)
        ClockState.model_validate(accepted.json)
        assert (accepted.status, accepted.json["trusted"], accepted.json["doubt"]) == (200, True, "")
        assert accepted.json["accepted_by"] == "admin"
        assert (await gate.get("/api/v1/status", key=ADMIN)).json["clock_doubt"] == ""
        connection = sqlite3.connect(gate.path)
        ((actor, action, detail),) = connection.execute("SELECT actor, action, detail FROM audit").fetchall()
        connection.close()
        assert (actor, action) == ("admin", "accepted the clock")
        assert "it read 20" in detail


async def test_it_is_for_administrators(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        for key, status in ((SEND, 403), (READ, 403), (None, 401)):
            assert (await gate.get("/api/v1/clock", key=key)).status == status
            assert (await gate.request("POST", "/api/v1/clock/accept", key=key)).status == status
