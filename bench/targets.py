"""The figures to reach: two cores, guard time 0, every message on disk before its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.measure import Figures


@dataclass(frozen=True, slots=True)
class Target:
    """`figure` of `case` is to be at least, or at most, `value`; a share of another case's where `of` names one."""

    case: str
    figure: str
    value: float
    at_least: bool = False
    of: str = ""

    def found(self, results: Mapping[str, Figures]) -> float | None:
        """What was measured; None if it was not."""
        if self.case not in results or (self.of and self.of not in results):
            return None
        value = float(results[self.case][self.figure])
        return value / float(results[self.of][self.figure]) if self.of else value

    def met(self, found: float) -> bool:
        return found >= self.value if self.at_least else found <= self.value

    @property
    def text(self) -> str:
        other = f", times that of {self.of}" if self.of else ""
        return f"{self.case}: {self.figure}{other}"


TARGETS = (
    Target("drain-1-0", "idle_gap_median_ms", 2),
    Target("drain-1-0", "idle_gap_p99_ms", 12),
    Target("drain-32-200", "idle_gap_median_ms", 4),
    *(Target(f"drain-{modems}-3000", "air_utilisation", 0.995, at_least=True) for modems in (1, 8, 32, 64)),
    Target("drain-32-200", "air_utilisation", 0.96, at_least=True),
    Target("drain-1-0", "per_second", 200, at_least=True),
    Target("drain-8-0", "per_second", 400, at_least=True),
    Target("drain-64-200", "per_second", 290, at_least=True),
    Target("drain-8-0-reports", "cpu_ms_per_message", 2),
    Target("accept-64", "per_second", 2000, at_least=True),
    Target("accept-64", "answer_p99_ms", 60),
    Target("accept-4-batch-1000", "per_second", 8000, at_least=True),
    *(
        Target(f"claim-{messages}{closed}", figure, 1.5, of="claim-1e3")
        for messages in ("1e6", "1e7")
        for closed in ("", "-closed-20")
        for figure in ("claim_median_ms", "claim_cpu_ms")
    ),
    Target("claim-1e6-closed-2000", "claim_cpu_ms", 1.5, of="claim-1e3"),
    Target("start-1e6", "ready_s", 4),
    Target("start-1e6", "first_cmgs_s", 4),
    Target("memory-1e6", "idle_mib", 150),
    Target("memory-1e6", "draining_mib", 150),
    Target("inbound-stored", "per_second", 100, at_least=True),
    Target("inbound-burst", "per_second", 100, at_least=True),
    Target("inbound-direct", "per_second", 500, at_least=True),
)


def judged(results: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """Each target that can be judged, with what was found."""
    rows = []
    for target in TARGETS:
        found = target.found(results)
        if found is not None:
            bound = f"{'≥' if target.at_least else '≤'} {target.value:g}"
            rows.append({"target": target.text, "bound": bound, "found": found, "met": target.met(found)})
    return rows
