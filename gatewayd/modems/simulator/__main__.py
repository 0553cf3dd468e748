"""`python -m gatewayd.modems.simulator`: the simulator without the rest of gatewayd, so that it starts fast."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gatewayd.modems.simulator.personality import PERSONALITIES
from gatewayd.modems.simulator.server import Options, run


def main() -> None:
    parser = argparse.ArgumentParser(description="Emulated modems and an emulated SMS centre.")
    parser.add_argument("--modems", type=int, default=1)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--report-delay-ms", type=float, default=0.0)
    parser.add_argument("--personality", choices=list(PERSONALITIES), default="generic")
    parser.add_argument("--number-base", default="+5989900")
    parser.add_argument("--exit-on-eof", action="store_true", help="end when standard input does")
    given = parser.parse_args()
    options = Options(
        given.dir,
        given.modems,
        given.latency_ms,
        given.report_delay_ms,
        given.personality,
        given.number_base,
        given.exit_on_eof,
    )
    try:
        run(options)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
