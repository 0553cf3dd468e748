"""`make crash`: kills by the hundred, and a table of what came of them. docs/crash.md says what is proven."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.books import Tally, table
from tests.crash.plan import KILLS, KINDS, Kill, plan, rigs_for
from tests.crash.rig import HarnessError, Rig


@dataclass
class Outcome:
    """What all rigs came to. `failed`: sentences by seed."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    failed: dict[int, list[str]] = field(default_factory=dict)


async def crash(runs: int, seed: int, jobs: int, only: str = "", *, pycache: Path, verbose: bool = False) -> Outcome:
    """So many kills in rigs of `KILLS`, with the seeds from `seed` on, `jobs` rigs at a time. `pycache`: a folder for
    compiled modules.
    """
    outcome = Outcome({kind: Tally() for kind in KINDS})
    free = asyncio.Semaphore(jobs)

    async def one(number: int, kills: list[Kill]) -> None:
        async with free:
            with tempfile.TemporaryDirectory(prefix="gatewayd-crash-") as folder:
                begun = time.monotonic()
                try:
                    result = await Rig(Path(folder), number, kills, pycache).run()
                except Exception as error:  # in a group of the load's tasks, as a rule
                    outcome.failed[number] = [f"the run proves nothing: {each}" for each in _leaves(error)]
                    return
                for kill, tally in zip(kills, result.tallies, strict=True):
                    outcome.tallies[kill.kind].add(tally)
                if result.faults:
                    outcome.failed[number] = [f"kills: {', '.join(map(str, kills))}", *result.faults]
                if verbose:
                    for sentence in result.faults:
                        print(f"seed {number}: {sentence}", flush=True)
                    took_s = time.monotonic() - begun
                    print(
                        f"seed {number}: {len(kills)} kills in {took_s:.1f} s, {len(result.faults)} faults", flush=True
                    )

    async with asyncio.TaskGroup() as tasks:
        for i in range(rigs_for(runs)):
            kills = plan(seed + i, min(KILLS, runs - i * KILLS), only)
            tasks.create_task(one(seed + i, kills), name=f"rig {seed + i}")
    return outcome


def _leaves(error: Exception) -> list[str]:
    if isinstance(error, ExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [str(error) if isinstance(error, HarnessError) else repr(error)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="kills (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the first rig; each has the next one (1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="rigs at a time (as many as CPUs)")
    parser.add_argument("--point", choices=sorted(set(KINDS)), default="", help="only kills of this kind")
    arguments = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gatewayd-crash-pycache-") as compiled:
        running = crash(
            arguments.runs, arguments.seed, arguments.jobs, arguments.point, pycache=Path(compiled), verbose=True
        )
        outcome = asyncio.run(running)
    print(table({kind: tally for kind, tally in outcome.tallies.items() if tally.runs}))
    last = arguments.seed + rigs_for(arguments.runs) - 1
    print(f"{time.monotonic() - begun:.0f} s; seeds from {arguments.seed} to {last}")
    for seed, sentences in outcome.failed.items():
        point = f" --point {arguments.point!r}" if arguments.point else ""
        print(
            f"FAILED: to repeat it, python -m tests.crash --runs {KILLS} --seed {seed}{point}", *sentences, sep="\n  "
        )
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
