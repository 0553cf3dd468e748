"""docs/outcomes.md shows the tables of the code: modem code to class of failure, class to what is done."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from gatewayd.model import FailureClass
from gatewayd.modems.at.results import CME_ROWS, CMS_ROWS, Row
from gatewayd.spool.retry import ACTIONS, Brake, Remedy

TEXT = (Path(__file__).parents[1] / "docs/outcomes.md").read_text(encoding="utf-8")


def codes_of(row: Row) -> str:
    """ "1, 3 to 7"."""
    runs = [[code for _, code in run] for _, run in groupby(enumerate(row.codes), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def doubt_of(row: Row) -> str:
    if row.sent:
        return "it is sent"
    if row.doubtful:
        return "yes"
    return "" if row.doubtful_after_s is None else f"after {row.doubtful_after_s:g} s"


def line_of(family: str, row: Row) -> str:
    vendor = f" ({row.vendor})" if row.vendor else ""
    return f"| {family} {codes_of(row)}{vendor} | {row.text} | {row.failure.value} | {doubt_of(row)} |"


def cells_of(failure: FailureClass, remedy: Remedy) -> list[str]:
    if remedy.elsewhere is None:
        elsewhere = "no"
    else:
        elsewhere = f"after {remedy.elsewhere}" + ("; two refusals are believed" if remedy.believed else "")
    return [
        f"`{failure.value}`",
        "one" if remedy.tries == 1 else "`attempts`",
        "" if remedy.tries == 1 else f"{remedy.first_step + 1}.",
        elsewhere,
        {Brake.NONE: "", Brake.SLOW: "slowed down", Brake.OPEN: "stopped"}[remedy.brake],
        "yes" if remedy.number else "",
    ]


def test_each_code_is_in_it() -> None:
    shown = re.findall(r"^\| CM[SE] .*\|$", TEXT, re.MULTILINE)
    assert shown == [
        *(line_of("CMS", row) for row in CMS_ROWS),
        *(line_of("CME", row) for row in CME_ROWS),
    ]


def test_each_class_is_in_it_with_what_is_done() -> None:
    shown = {}
    for line in re.findall(r"^\| (`\w+` \|.*)\|$", TEXT, re.MULTILINE):
        name, what, *rest = [cell.strip() for cell in line.split("|")]
        assert what
        shown[name] = [name, *rest]
    assert shown == {f"`{failure.value}`": cells_of(failure, remedy) for failure, remedy in ACTIONS.items()}
