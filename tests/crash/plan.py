"""What a rig does to its daemon: one kill after the other, all of it decided by the rig's seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from gatewayd.crashpoints import POINTS

KILLS = 10  # of one rig
RANDOM, STARTING, STOPPING = "at random", "in the start", "in the stop"
KINDS = (*POINTS, RANDOM, STARTING, STOPPING)
"""Every way to die. So many rigs as make len(KINDS) kills, with consecutive seeds, go through all of them."""

AFTERWARDS = ("restore.", "hold.")
"""Points of a restore, which a rig does once its daemon has settled: what these begin with."""

PASSAGES = {
    "outbox.recorded": 3, "start": 1, "stop": 1, "writer": 60, "inbound": 5, "report": 12, "operation": 4, "prune": 1,
    "archive": 1, "witness": 2, "backup": 1, "restore": 1, "hold.stepped": 2, "hold.done": 1,
}  # fmt: skip
"""At most, by a point's name or what it begins with: what the load of one life comes to on the slowest machine."""
_PASSAGES = 15
_LATEST_S = 0.5


@dataclass(frozen=True, slots=True)
class Kill:
    """One end of a daemon. `kind`: a crash point, passed for the `passage`th time, or one of the other `KINDS`.

    `after_s`: after the start, the load or SIGTERM has begun.
    """

    kind: str
    passage: int
    after_s: float

    @property
    def point(self) -> str:
        """For the environment of what is to die; "" if it does not kill itself."""
        return f"{self.kind}:{self.passage}" if self.kind in POINTS else ""

    @property
    def is_of_backup(self) -> bool:
        """Whether a `gatewayd backup` dies of it. The daemon that it copies from is killed at random after that."""
        return self.kind.startswith("backup.")

    @property
    def is_of_restore(self) -> bool:
        """Whether it is a kill of the aftermath: a `gatewayd restore`, or the first start after it, dies of it."""
        return self.kind.startswith(AFTERWARDS)

    def __str__(self) -> str:
        return self.point or f"{self.kind}, after {self.after_s:.3f} s"


def plan(seed: int, kills: int = KILLS, only: str = "") -> list[Kill]:
    """The kills of the rig with this seed; all of one kind with `only`."""
    chance = random.Random(seed)
    kinds = [only or KINDS[(seed * KILLS + i) % len(KINDS)] for i in range(kills)]
    chance.shuffle(kinds)
    kinds.sort(key=lambda kind: kind.startswith(AFTERWARDS))
    return [
        Kill(
            kind,
            chance.randint(1, PASSAGES.get(kind, PASSAGES.get(kind.partition(".")[0], _PASSAGES))),
            chance.uniform(0, _LATEST_S),
        )
        for kind in kinds
    ]


def rigs_for(runs: int) -> int:
    """How many rigs make so many kills."""
    return -(-runs // KILLS)
