"""What the cases measure with: processes from outside, figures of a series, and the machine."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
FSYNCS = 200
MIB = 1 << 20

Figures = dict[str, Any]
"""What a run of a case gives: names of figures, each with its unit at its end, and their values."""


def cpu_s(pid: int) -> float:
    """Processor time a process has used, user and system, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(pid: int) -> float:
    """Resident memory of a process in MiB. The file pages that other processes have as well count too."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(prefix: str, values: Sequence[float]) -> Figures:
    """Median and p99 of a series of milliseconds."""
    return {f"{prefix}_median_ms": statistics.median(values), f"{prefix}_p99_ms": percentile(values, 0.99)}


def median(runs: Sequence[Figures]) -> Figures:
    """The median of each figure over several runs of a case."""
    first = runs[0]
    return {
        name: statistics.median(run[name] for run in runs) if isinstance(value, int | float) else value
        for name, value in first.items()
    }


def cold(path: Path) -> None:
    """Let the machine forget what it holds of a file in memory, as after a boot."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)  # only what is on disk can be forgotten
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def fsyncs_per_second(folder: Path) -> float:
    """How often a second this disk takes 4 KiB for good: appended to a file and synchronised, one after the other."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        block = os.urandom(4096)
        begun = time.perf_counter()
        for _ in range(FSYNCS):
            os.write(file.fileno(), block)
            os.fdatasync(file.fileno())
        return FSYNCS / (time.perf_counter() - begun)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _file_system(folder: Path) -> str:
    """The kind of file system a folder lies on: where it is memory, no figure with a commit in it means anything."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text(errors="replace").splitlines():
        _, mount, type_, *_ = line.split()
        if folder.resolve().is_relative_to(mount) and len(mount) > len(best):
            best, kind = mount, type_
    return kind


def machine(folder: Path) -> dict[str, Any]:
    """What the figures depend on; `folder` is where the spools lie."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "file_system": _file_system(folder),
        "fsyncs_per_second": fsyncs_per_second(folder),
        "load_average": os.getloadavg()[0],
    }
