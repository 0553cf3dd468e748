"""How many urgent operations share one transaction: pure.

What shares a transaction is answered at one moment. Channels that are answered together submit together and come back
together, for ever, and each waits for the work of all the others: 64 modems at 3 s on the air for 20 ms, instead of 4.
In small groups they get out of step, and none waits. But a commit costs the same for one as for many: where the disk is
slow, groups are larger.
"""

from __future__ import annotations

from dataclasses import dataclass

COMMIT_SHARE = 1.0  # urgent work in one transaction, in times of what its commit takes
BACKLOG_SHARE = 3.0  # the same where more than MANY wait: no rhythm helps them then, only getting through
MANY = 24
QUICKER, SLOWER = 0.95, 1.01  # steps that settle where one in six is quicker: other processes make the rest slow


@dataclass(slots=True)
class Rhythm:
    """What a commit and an urgent operation take here when nothing disturbs them, in seconds."""

    commit_s: float = 0.0005
    urgent_s: float = 0.0003

    def most_urgent(self, waiting: int) -> int:
        """So many of `waiting` urgent operations go into the next transaction, at most."""
        share = COMMIT_SHARE if waiting <= MANY else BACKLOG_SHARE
        return max(1, round(share * self.commit_s / self.urgent_s))

    def committed(self, took_s: float) -> None:
        """A commit took so long."""
        self.commit_s *= QUICKER if took_s < self.commit_s else SLOWER

    def worked(self, took_s: float) -> None:
        """An urgent operation took so long, without its commit."""
        self.urgent_s *= QUICKER if took_s < self.urgent_s else SLOWER
