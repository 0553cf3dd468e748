"""Lanes: the queues that a claim merges, and what is known of their heads.

A lane is what decides whether a message may be claimed: who sends it (dialer or class), where it is routed, which
channel or SIM it is tied to. Reading ahead (50 per lane) is a hint and not a claim: each candidate is checked again in
the transaction that claims it, and whatever is in doubt is read again. Lives in the writer's thread.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from sqlalchemy import bindparam, select

from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.quarantine import QuarantineBook
from gatewayd.spool.quota import SimQuota
from gatewayd.spool.turns import load as load_turns
from gatewayd.spool.writer import Tx

READ_AHEAD = 50  # S4-37

Key = tuple[int, int, int]
"""(-priority, position, message id): the order in which a lane is served. Decision 3: larger priority first."""

_lanes = schema.lanes.c
_messages = schema.messages.c

ALL_LANES = Statement(
    select(_lanes.id, _lanes.source, _lanes.target, _lanes.channel, _lanes.sim_id, _lanes.avoid_sim_id, _lanes.zone)
)
NEW_LANE = Statement(
    schema.lanes.insert().returning(_lanes.id),
    columns=["key", "source", "target", "channel", "sim_id", "avoid_sim_id", "zone"],
)
HEAD = Statement(
    select(_messages.priority, _messages.position, _messages.id)
    .where(_messages.lane_id == bindparam("lane"), _messages.queue == schema.sqltext(schema.DUE))
    .order_by(_messages.priority.desc(), _messages.position)
    .limit(schema.sqltext(READ_AHEAD))
)


@dataclass(frozen=True, slots=True)
class Lane:
    """One queue. `channel` "" and the SIM ids 0 mean: no such tie.

    `avoid_sim_id`: the SIM that refused what is in it; negative: that SIM has no room for recipients new to it. `zone`:
    where the recipients live, for windows of theirs ("": no matter).
    """

    id: int
    source: str
    target: str
    channel: str
    sim_id: int
    avoid_sim_id: int
    zone: str = ""

    def open_to(self, channel: str, sim_id: int) -> bool:
        """Whether a channel with this name and SIM may serve it at all."""
        return (
            self.channel in {"", channel}
            and self.sim_id in {0, sim_id}
            and not (sim_id and self.avoid_sim_id == sim_id)
        )


@dataclass(slots=True)
class _Head:
    keys: list[Key] = field(default_factory=list)
    complete: bool = False  # `keys` is all there is in the lane


class LaneBook:
    """The lanes and their heads. `forget()` after any rollback: all of it is read again from the spool.

    `recalled`: messages in a channel's hands that must not be written any more, and why. Added to before the commit
    that makes it so, in the writer's thread; looked at by the channels' gates, in the event loop's. `turns`: the port
    that each dial string's turn was given to last. `undecided`: SIMs that got reports of which it is not known whether
    they are about what the SIM has in hand, or about an older doubt (`reports.record`).
    """

    def __init__(self) -> None:
        self.recalled: dict[int, str] = {}
        self.turns: dict[str, int] = {}
        self.undecided: set[int] = set()
        self.quotas: dict[int, SimQuota] = {}  # by the SIM: what it was last claimed for
        self.faults = QuarantineBook()
        self._served: dict[str, int] = {}  # source: when it was last served, as a running number
        self._lanes: dict[int, Lane] | None = None
        self._ids: dict[str, int] = {}
        self._heads: dict[int, _Head] = {}
        self._filled: dict[int, Lane] = {}  # all but those known to be empty

    def forget(self) -> None:
        self._lanes = None
        self._heads.clear()
        self.faults.forget()

    def recall(self, message_id: int, because: str) -> None:
        """A message that a channel has in its hands must not be written any more."""
        self.recalled[message_id] = because

    def stale(self, lane_id: int) -> None:
        """The order of the lane was changed: its head is read again."""
        if self._lanes is not None and lane_id in self._lanes:
            self._heads.pop(lane_id, None)
            self._filled[lane_id] = self._lanes[lane_id]

    def served(self, lane: Lane) -> None:
        """A message of the lane was taken: other sources of the same priority come first now."""
        self._served[lane.source] = 1 + max(self._served.values(), default=0)

    def last_served(self, lane: Lane) -> int:
        """The larger, the later its source was served."""
        return self._served.get(lane.source, 0)

    def filled(self, tx: Tx) -> list[Lane]:
        """The lanes that may have a candidate: a claim costs nothing for all those that ran empty."""
        self._load(tx)
        return list(self._filled.values())

    def get(self, tx: Tx, lane_id: int) -> Lane:
        return self._load(tx)[lane_id]

    def find(
        self, tx: Tx, source: str, target: str, channel: str, sim_id: int, avoid_sim_id: int, zone: str = ""
    ) -> Lane:
        """The lane with these properties, made where there is none yet."""
        lanes = self._load(tx)
        key = _key(source, target, channel, sim_id, avoid_sim_id, zone)
        lane_id = self._ids.get(key)
        if lane_id is None:
            values = {
                "key": key,
                "source": source,
                "target": target,
                "channel": channel,
                "sim_id": sim_id,
                "avoid_sim_id": avoid_sim_id,
                "zone": zone,
            }
            row = tx.one(NEW_LANE, values)
            assert row is not None
            lane_id = self._ids[key] = row[0]
            lanes[lane_id] = Lane(lane_id, source, target, channel, sim_id, avoid_sim_id, zone)
            self._heads[lane_id] = _Head(complete=True)
        return lanes[lane_id]

    def added(self, lane_id: int, key: Key) -> None:
        """A message became claimable in the lane."""
        head = self._heads.get(lane_id)
        if head is None or self._lanes is None:
            return
        self._filled[lane_id] = self._lanes[lane_id]
        if head.complete or (head.keys and key < head.keys[-1]):
            insort(head.keys, key)
            if len(head.keys) > READ_AHEAD:
                head.keys.pop()
                head.complete = False

    def first(self, tx: Tx, lane_id: int) -> Key | None:
        """The best candidate of the lane, None if it is empty."""
        head = self._heads.get(lane_id)
        if head is None:
            head = self._heads[lane_id] = _Head()
        if not head.keys and not head.complete:
            tx.flush()
            head.keys = [(-row[0], row[1], row[2]) for row in tx.all(HEAD, {"lane": lane_id})]
            head.complete = len(head.keys) < READ_AHEAD
        if not head.keys:
            self._filled.pop(lane_id, None)
            return None
        return head.keys[0]

    def take(self, lane_id: int) -> None:
        """Drop the best candidate: it was claimed, or is none any more."""
        del self._heads[lane_id].keys[0]

    def _load(self, tx: Tx) -> dict[int, Lane]:
        if self._lanes is None:
            tx.flush()
            self._lanes = {row[0]: Lane(*row) for row in tx.all(ALL_LANES, {})}
            self._filled = dict(self._lanes)
            turns = load_turns(tx)
            self.turns.clear()  # the same object: the event loop looks at it
            self.turns.update(turns)
            self._ids = {
                _key(lane.source, lane.target, lane.channel, lane.sim_id, lane.avoid_sim_id, lane.zone): lane.id
                for lane in self._lanes.values()
            }
        return self._lanes


def _key(source: str, target: str, channel: str, sim_id: int, avoid_sim_id: int, zone: str) -> str:
    key = f"{source}|{target}|{channel}|{sim_id}|{avoid_sim_id}"
    return f"{key}|{zone}" if zone else key
