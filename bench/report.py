"""What people see of the results."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

NOISE = 0.1  # less of a change than this part is not worth a word
_UNITS = {"_ms": " ms", "_s": " s", "_mib": " MiB"}
_HIDDEN = frozenset({"messages", "lanes", "made_in_s"})


def progress(said: str) -> None:
    print(said, file=sys.stderr, flush=True)


def _console() -> Console:
    """Not cut to 80 columns where the output is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=150)


def number(name: str, value: Any) -> str:
    """A figure with its unit, three digits of it."""
    if not isinstance(value, int | float):
        return str(value)
    if name == "air_utilisation":
        return f"{value:.1%}"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text + next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")


def label(name: str) -> str:
    """A figure's name for people: without its unit."""
    for end in _UNITS:
        name = name.removesuffix(end)
    return name.replace("_", " ")


def show(results: Mapping[str, Any]) -> None:
    """The machine, a line for each case, and the figures to reach."""
    console = _console()
    facts = results["machine"]
    console.print(
        f"{facts['cores']} cores ({facts['processor']}), Python {facts['python']}, SQLite {facts['sqlite']}, "
        f"{facts['fsyncs_per_second']:.0f} fsyncs a second on {facts['file_system']}, load {facts['load_average']:.1f}"
    )
    table = Table("case", "figures", show_lines=False)
    for name, case in results["cases"].items():
        figures = case["figures"]
        shown = [f"{label(key)} {number(key, value)}" for key, value in figures.items() if key not in _HIDDEN]
        table.add_row(name, ", ".join(shown))
    console.print(table)
    if results["targets"]:
        table = Table("figure to reach", "bound", "found", "")
        for row in results["targets"]:
            met = "yes" if row["met"] else "[bold red]NO[/]"
            table.add_row(row["target"], row["bound"], f"{row['found']:.4g}", met)
        console.print(table)
    for name, error in results["failures"].items():
        console.print(f"[bold red]{name} failed:[/] {error}", markup=True)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """Case, figure, before and now, of all that moved by more than NOISE."""
    moved = []
    for name, case in new["cases"].items():
        before = old["cases"].get(name, {"figures": {}})["figures"]
        for key, value in case["figures"].items():
            was = before.get(key)
            if key in _HIDDEN or not isinstance(was, int | float) or not was:
                continue
            if abs(value / was - 1) > NOISE:
                moved.append((name, key, float(was), float(value)))
    return moved


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """What moved since `old`; and whether the machine is another one."""
    console = _console()
    for key, was in old["machine"].items():
        now = new["machine"].get(key)
        if key != "load_average" and now != was:
            console.print(f"another machine or day: {key} was {was}, is {now}")
    table = Table("case", "figure", "was", "is", "change")
    for name, key, was, value in changes(old, new):
        table.add_row(name, label(key), number(key, was), number(key, value), f"{value / was - 1:+.0%}")
    console.print(table)


def show_profile(found: Mapping[str, Any]) -> None:
    """Where the processor's time goes: ms a message, by thread and area."""
    table = Table("thread", "what", "share", "ms a message")
    for thread, area, share in found["areas"]:
        table.add_row(thread, area, f"{share:.1%}", f"{share * found['cpu_ms_per_message']:.3f}")
    _console().print(table)
    print(f"{found['messages']} messages, {found['cpu_ms_per_message']:.2f} ms each")
