"""`make bench`: what the gateway reaches on this machine, on emulated modems in processes of their own.

`make bench ARGS="drain-32-200 claim-1e6 --repeat 3"` runs some cases, `--list` names them all. Figures move with the
machine: compare in one run, or with `--compare` what one machine gave at two times.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import profile, report
from bench.cases import CASES, Case
from bench.measure import Figures, machine, median
from bench.rows import room_for
from bench.targets import judged

OUT = Path("build/bench.json")
CASE_LIMIT_S = 600.0


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help="a name or pattern, such as drain-*-200; without: all")
    parser.add_argument("--list", action="store_true", help="say which cases there are")
    parser.add_argument("--large", action="store_true", help="the cases with ten million messages")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run each N times, take the median")
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="X", help="do X times the work; 0.2 is a quick look"
    )
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where the spools lie: a disk, not memory")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help=f"JSON of it all ({OUT})")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="and say what changed since then")
    parser.add_argument("--profile", action="store_true", help="only say what the daemon's processor time goes into")
    given = parser.parse_intermixed_args(arguments)
    if given.repeat < 1 or given.scale <= 0:
        parser.error("--repeat and --scale must be more than 0")
    return given


def chosen(patterns: Sequence[str], large: bool) -> list[Case]:
    """The cases that are meant. Raises SystemExit for a name that is none."""
    if not patterns:
        return [case for case in CASES if case.large == large]
    for pattern in patterns:
        if not any(fnmatch.fnmatch(case.name, pattern) for case in CASES):
            print(f"there is no case {pattern}; --list names them all", file=sys.stderr)
            sys.exit(2)
    return [case for case in CASES if any(fnmatch.fnmatch(case.name, pattern) for pattern in patterns)]


async def run(cases: Sequence[Case], folder: Path, *, repeat: int = 1, scale: float = 1.0) -> dict[str, Any]:
    """Run the cases, one after the other. One that fails is noted, and the others run all the same."""
    found: dict[str, Any] = {}
    failures: dict[str, str] = {}
    facts = machine(folder)
    for case in cases:
        runs: list[Figures] = []
        begun = time.monotonic()
        for _ in range(repeat):
            report.progress(f"{case.name}: {case.what}")
            try:
                async with asyncio.timeout(CASE_LIMIT_S):
                    runs.append(await case(folder, scale))
            except (Exception, TimeoutError) as error:
                failures[case.name] = f"{type(error).__name__}: {error}"
                report.progress(f"{case.name} FAILED: {failures[case.name]}")
                break
        if runs:
            found[case.name] = {
                "what": case.what,
                "took_s": time.monotonic() - begun,
                "figures": median(runs),
                "runs": runs,
            }
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": facts,
        "scale": scale,
        "cases": found,
        "targets": judged({name: each["figures"] for name, each in found.items()}) if scale == 1 else [],
        "failures": failures,
    }


def main() -> None:
    given = parsed()
    if given.list:
        for case in CASES:
            print(f"{case.name:24} {case.what}{'  (large)' if case.large else ''}")
        return
    if given.profile:
        report.show_profile(asyncio.run(profile.profile(given.scale)))
        return
    before = json.loads(given.compare.read_text()) if given.compare is not None else None
    cases = chosen(given.cases, given.large)
    folder = given.dir or Path(tempfile.gettempdir())
    most = int(max((case.rows for case in cases), default=0) * given.scale)
    try:
        room_for(folder, most)
    except OSError as error:
        sys.exit(str(error))
    results = asyncio.run(run(cases, folder, repeat=given.repeat, scale=given.scale))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    report.show(results)
    if before is not None:
        report.compare(before, results)
    print(f"all of it: {given.out}")
    sys.exit(1 if results["failures"] else 0)


if __name__ == "__main__":
    main()
