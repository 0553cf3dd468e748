"""`python -m tests.crash.shifted …` is `python -m gatewayd …` on a machine whose wall clock is wrong, and jumps.

The file named by SHIFT_FILE says by how many seconds; it is read at each look at the clock. The monotonic clock is the
machine's. So the daemon needs no hook for it, and every look of Python's at the time is shifted, the log's too.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

VARIABLE = "SHIFT_FILE"


def shift(path: Path) -> None:
    """Shift this process's wall clock by what the file says from now on."""
    fd = os.open(path, os.O_RDONLY)
    time_ns = time.time_ns

    def shifted_ns() -> int:
        return time_ns() + int(os.pread(fd, 32, 0) or b"0") * 1_000_000_000

    time.time_ns = shifted_ns
    time.time = lambda: shifted_ns() / 1e9


if __name__ == "__main__":
    shift(Path(os.environ[VARIABLE]))
    from gatewayd.cli import main

    sys.exit(main())
