"""Durable switches, and the record of who changed what."""

from __future__ import annotations

from sqlalchemy import bindparam, select, update

from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.writer import Tx

SPOOL_ID = "spool_id"
"""Name of the setting that tells this spool from all others."""

BACKUP = "backup"
"""Name of the setting that a backup has and its spool has not: JSON that says when it was made, and of whom."""

PAUSED = "paused"
"""Name of the switch of `gatewayd pause --all`; its value says who and why, "" is not paused."""

SETTING = Statement(select(schema.settings.c.value).where(schema.settings.c.name == bindparam("name")))
SET = Statement(
    update(schema.settings).where(schema.settings.c.name == bindparam("b_name")).values(value=bindparam("v_value"))
)
NEW_SETTING = Statement(schema.settings.insert(), columns=["name", "value"])


def setting(tx: Tx, name: str) -> str | None:
    """A durable switch; None if it was never set."""
    row = tx.one(SETTING, {"name": name})
    return None if row is None else str(row[0])


def set_setting(tx: Tx, name: str, value: str, actor: str, now: int) -> None:
    """Change a durable switch, and note who did."""
    if tx.run(SET, {"b_name": name, "v_value": value}) == 0:
        tx.run(NEW_SETTING, {"name": name, "value": value})
    audit(tx, actor, f"set {name}", value, now)


def audit(tx: Tx, actor: str, action: str, detail: str, now: int) -> None:
    """Note what somebody did."""
    tx.add(schema.audit, {"at": now, "actor": actor, "action": action, "detail": detail})
