"""The benchmarks run: at the smallest size, so that they cannot rot. What they measure is not judged here."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as bench
from bench import report, rows, targets
from bench.cases import CASES, Case
from bench.measure import median
from bench.profile import summed
from gatewayd.spool import schema

ROOT = Path(__file__).parents[1]
TINY = {
    "drain-1-0": 0.005,
    "drain-8-0-reports": 0.001,
    "accept-4-batch-1000": 0.001,
    "inbound-burst": 0.01,
    "inbound-direct": 0.01,
    "inbound-stored": 0.01,
    "claim-1e3-closed-20": 0.1,
    "start-1e6": 0.0001,
    "reads-1e6": 0.0002,
    "watched-1e6": 0.0001,
    "counting": 0.001,
}
"""One case of each kind, and a scale at which it takes a moment."""


@pytest.mark.parametrize("name", TINY)
async def test_each_kind_of_case_runs(short_path: Path, name: str) -> None:
    (case,) = bench.chosen([name], large=False)
    results = await bench.run([case], short_path, scale=TINY[name])
    assert not results["failures"]
    figures = results["cases"][name]["figures"]
    assert all(isinstance(value, int | float) for value in figures.values())
    report.show(results)


def test_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "new.json"
    command = [sys.executable, "-m", "bench", "counting", "--out", str(out), "--dir", str(tmp_path)]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert first.returncode == 0, first.stderr
    found = json.loads(out.read_text())
    assert found["machine"]["fsyncs_per_second"] > 0
    assert found["cases"]["counting"]["figures"]["cpu_ms_per_message"] > 0
    again = subprocess.run([*command, "--compare", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    unknown = subprocess.run([*command, "no-such-case"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert unknown.returncode == 2
    assert "there is no case no-such-case" in unknown.stderr


def test_a_case_that_fails_is_said_and_stops_no_other(tmp_path: Path) -> None:
    async def broken(folder: Path, scale: float) -> dict[str, Any]:
        raise AssertionError("lost or doubled")

    (counting,) = bench.chosen(["counting"], large=False)
    results = asyncio.run(bench.run([Case("broken", "a case", broken), counting], tmp_path, scale=0.001))
    assert results["failures"] == {"broken": "AssertionError: lost or doubled"}
    assert list(results["cases"]) == ["counting"]


def test_names_are_told_apart_and_large_cases_run_only_when_asked_for() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert not any(case.large for case in bench.chosen([], large=False))
    assert all(case.rows == 10_000_000 for case in bench.chosen([], large=True))
    named = set(names)
    assert {target.case for target in targets.TARGETS} | {t.of for t in targets.TARGETS if t.of} <= named


def test_targets_are_judged_by_what_was_measured() -> None:
    found = {"claim-1e3": {"claim_median_ms": 1.0, "claim_cpu_ms": 0.5}, "claim-1e6": {"claim_median_ms": 2.0, "claim_cpu_ms": 0.6}}  # fmt: skip  # noqa: E501
    assert [(row["found"], row["met"]) for row in targets.judged(found)] == [(2.0, False), (1.2, True)]


def test_the_median_of_runs_and_what_moved_since() -> None:
    runs = [{"per_second": value, "what": "x"} for value in (100.0, 900.0, 200.0)]
    assert median(runs) == {"per_second": 200.0, "what": "x"}
    old = {"cases": {"a": {"figures": {"per_second": 100.0, "idle_ms": 1.0}}}}
    new = {"cases": {"a": {"figures": {"per_second": 120.0, "idle_ms": 1.05}}, "b": {"figures": {"per_second": 1.0}}}}
    assert report.changes(old, new) == [("a", "per_second", 100.0, 120.0)]


def test_rows_have_all_that_the_schema_wants() -> None:
    with pytest.raises(AssertionError, match="events has new columns that must be filled here"):
        rows._bulk(schema.events, {"message_id": "n", "at": "0"})


def test_a_disk_without_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="name another folder with --dir"):
        rows.room_for(tmp_path, 10**12)


def test_a_profile_is_summed_by_thread_and_area() -> None:
    stacks = (
        'thread (0x1): "MainThread";run (asyncio/base_events.py:1);feed (gatewayd/modems/at/engine.py:9) 3\n'
        'thread (0x2): "spool-writer";_main (gatewayd/spool/writer.py:1);Tx._execute (gatewayd/spool/writer.py:9) 1\n'
        'thread (0x2): "spool-writer";_main (gatewayd/spool/writer.py:1);Writer._take (gatewayd/spool/writer.py:9) 7\n'
    )
    assert summed(stacks) == [("event loop", "AT engine", 0.75), ("writer", "SQLite", 0.25)]
