"""What operators said about channels: paused, draining, or at work. Durable, over restarts and reloads."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, select, update

from gatewayd.clock import iso
from gatewayd.spool import schema
from gatewayd.spool.engine import Statement, set_to
from gatewayd.spool.settings import audit
from gatewayd.spool.writer import Tx

WORKS = ""
PAUSED = "paused"  # takes nothing more; what it has in hand is finished
DRAINING = "draining"  # takes only what was begun on its SIM
"""Values of channels.mode."""


@dataclass(frozen=True, slots=True)
class ChannelMode:
    """A channel's mode, and who said so, when (epoch ms) and why."""

    mode: str
    actor: str = ""
    reason: str = ""
    at: int = 0

    @property
    def sentence(self) -> str:
        """For people; "" of a channel that works."""
        if self.mode == WORKS:
            return ""
        when = f"{(iso(self.at) or '')[:19].replace('T', ' ')} UTC"
        return f"{self.mode} by {self.actor} at {when}{f': {self.reason}' if self.reason else ''}"


_c = schema.channels.c

MODES = Statement(
    select(_c.name, _c.mode, _c.mode_actor, _c.mode_reason, _c.mode_at).where(_c.mode != schema.sqltext(WORKS))
)
SET_MODE = Statement(
    update(schema.channels)
    .where(_c.name == bindparam("b_name"))
    .values(set_to("mode", "mode_actor", "mode_reason", "mode_at"))
)
NEW_CHANNEL = Statement(  # no SIM was seen in it yet
    schema.channels.insert(), columns=["name", "mode", "mode_actor", "mode_reason", "mode_at"]
)

_SAID = {WORKS: "resume", PAUSED: "pause", DRAINING: "drain"}


def set_mode(tx: Tx, name: str, mode: str, actor: str, reason: str, now: int) -> ChannelMode:
    """Change a channel's mode; who did is noted."""
    values = {"mode": mode, "mode_actor": actor, "mode_reason": reason, "mode_at": now}
    if tx.run(SET_MODE, {"b_name": name, **{"v_" + column: value for column, value in values.items()}}) == 0:
        tx.run(NEW_CHANNEL, {"name": name, **values})
    audit(tx, actor, f"channel {_SAID[mode]}", f"{name}{f': {reason}' if reason else ''}", now)
    return ChannelMode(mode, actor, reason, now)


def modes(tx: Tx) -> dict[str, ChannelMode]:
    """All channels that do not simply work, by name."""
    return {row[0]: ChannelMode(row[1], row[2], row[3], row[4] or 0) for row in tx.all(MODES, {})}
