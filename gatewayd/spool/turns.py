"""The strict turn of dial strings: whose it was last. Durable, moved in the transaction of the intent."""

from __future__ import annotations

from sqlalchemy import bindparam, select, update

from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.writer import Tx

_t = schema.turns.c

ALL_TURNS = Statement(select(_t.key, _t.port))
MOVE_TURN = Statement(
    update(schema.turns)
    .where(_t.key == bindparam("b_key"))
    .values(port=bindparam("v_port"), moved_at=bindparam("v_at"))
)
NEW_TURN = Statement(schema.turns.insert(), columns=["key", "port", "moved_at"])


def load(tx: Tx) -> dict[str, int]:
    """The port that each turn was given to last."""
    return dict(tx.all(ALL_TURNS, {}))


def move(tx: Tx, turns: dict[str, int], key: str, port: int, now: int) -> None:
    """The port has its turn now; `turns` is what is known in memory, and follows."""
    if tx.run(MOVE_TURN, {"b_key": key, "v_port": port, "v_at": now}) == 0:
        tx.run(NEW_TURN, {"key": key, "port": port, "moved_at": now})
    turns[key] = port
