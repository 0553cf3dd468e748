"""`python -m tests.crash.hurried …` is `python -m gatewayd …` in a hurry: what takes minutes or years takes a second.

Retention walks all the time, and finished messages are old after `AGE_MS`; the witness is written often. So a daemon
that lives for a second does all of it under load.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from gatewayd import wiring
from gatewayd.config import Config
from gatewayd.spool import prune, witness
from gatewayd.spool.prune import RetentionPolicy

AGE_MS = 1_000
WITNESS_EVERY_S = 0.3
WALK_EVERY_MS = 300


def hurry() -> None:
    """Shorten what this process waits for."""
    of_config = wiring.retention

    def retention(config: Config) -> RetentionPolicy:
        return replace(of_config(config), content_ms=0, messages_ms=AGE_MS, inbound_ms=0)

    wiring.retention = retention
    prune.SETTLE_MS, prune.TICK_S, prune.EVERY_MS = 0, WALK_EVERY_MS / 1000, WALK_EVERY_MS
    witness.EVERY_S = WITNESS_EVERY_S


if __name__ == "__main__":
    hurry()
    from gatewayd.cli import main

    sys.exit(main())
