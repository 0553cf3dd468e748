"""What operators order: what is to be done to messages, by whose word, and what it is done with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import bindparam, select

from gatewayd.model import InDoubtPolicy, MessageClass, MessageState
from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.moves import Owner
from gatewayd.spool.writer import Tx


class Action(StrEnum):
    """What an operator can do to messages."""

    CANCEL = "cancel"
    HOLD = "hold"
    RELEASE = "release"
    REQUEUE = "requeue"
    PRIORITY = "priority"
    ROUTE = "route"
    SENT = "resolve-sent"  # in doubt no more: it was sent
    RESEND = "resolve-resend"  # it goes out again, perhaps for the second time
    GIVE_UP = "resolve-give-up"  # nobody will ever know


ACTS_ON: dict[Action, tuple[MessageState, ...]] = {
    Action.CANCEL: (MessageState.TO_PROCESS, MessageState.IN_DOUBT),
    Action.HOLD: (MessageState.TO_PROCESS, MessageState.IN_DOUBT),
    Action.RELEASE: (MessageState.TO_PROCESS, MessageState.IN_DOUBT),
    Action.REQUEUE: (MessageState.FAILED, MessageState.EXPIRED, MessageState.CANCELLED),
    Action.PRIORITY: (MessageState.TO_PROCESS,),
    Action.ROUTE: (MessageState.TO_PROCESS,),
}
"""The states a filter means that names none: nothing else could be changed. The rest goes by what is in doubt."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done, by whose word and why.

    `priority` for PRIORITY; `target` and `channel` (one that it is pinned to, "": none) for ROUTE; `expires_at` (epoch
    ms, None: an expiry that has passed is lifted) for REQUEUE; `may_double`: REQUEUE may take what was given up in
    doubt, too.
    """

    action: Action
    actor: str
    reason: str = ""
    priority: int = 0
    target: str = "any"
    channel: str = ""
    expires_at: int | None = None
    may_double: bool = False

    @property
    def value(self) -> str:
        """What the action needs besides its name, as the spool keeps it (JSON; "" where it needs nothing)."""
        wanted: dict[str, Any] = {}
        if self.action is Action.PRIORITY:
            wanted = {"priority": self.priority}
        elif self.action is Action.ROUTE:
            wanted = {"target": self.target, **({"channel": self.channel} if self.channel else {})}
        elif self.action is Action.REQUEUE:
            if self.expires_at is not None:
                wanted["expires_at"] = self.expires_at
            if self.may_double:
                wanted["may_double"] = True
        return json.dumps(wanted, separators=(",", ":")) if wanted else ""

    @classmethod
    def kept(cls, action: str, actor: str, reason: str, value: str) -> Order:
        """As the spool kept it."""
        return cls(Action(action), actor, reason, **(json.loads(value) if value else {}))


@dataclass(frozen=True, slots=True)
class Means:
    """What an action works with. `channels`: those of the configuration, by name; `report_wait_ms`: how long a report
    is waited for.
    """

    book: LaneBook
    owner: Owner
    now: int
    report_wait_ms: int
    channels: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Applied:
    """Whether the message was changed, and what there is to say of it."""

    changed: bool
    said: str


@dataclass(frozen=True, slots=True)
class Meant:
    """The message's row, as far as an action looks at it."""

    id: int
    state: MessageState
    admission: str
    class_: MessageClass
    to: str
    pin: str
    lane_id: int
    queue: int
    priority: int
    policy: InDoubtPolicy
    expires_at: int | None
    not_before: int | None
    due_at: int
    owner: str | None
    report: bool
    held: str
    wish: str
    text_dropped_at: int | None
    target: str


_m = schema.messages.c

MESSAGE = Statement(
    select(
        _m.id, _m.state, _m.admission, getattr(_m, "class"), _m.to_number, _m.pin_channel, _m.lane_id, _m.queue,
        _m.priority, _m.in_doubt, _m.expires_at, _m.not_before, _m.due_at, _m.owner, _m.report, _m.held, _m.wish,
        _m.text_dropped_at, _m.target,
    ).where(_m.id == bindparam("id"))
)  # fmt: skip


def meant(tx: Tx, message_id: int) -> Meant | None:
    """The message as it stands; None if there is none with this id."""
    row = tx.one(MESSAGE, {"id": message_id})
    if row is None:
        return None
    id_, state, admission, class_, to, pin, lane_id, queue, priority, policy, expires_at, not_before = row[:12]
    due_at, owner, report, held, wish, text_dropped_at, target = row[12:]
    return Meant(
        id_,
        MessageState(state),
        admission,
        MessageClass(class_),
        to,
        pin,
        lane_id,
        queue,
        priority,
        InDoubtPolicy(policy),
        expires_at,
        not_before,
        due_at,
        owner,
        bool(report),
        held,
        wish,
        text_dropped_at,
        target,
    )
