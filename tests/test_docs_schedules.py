"""docs/schedules.md is true: its table of examples is what its schedules do."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from gatewayd import wiring
from gatewayd.config import parse
from gatewayd.router.windows import Schedule

DOCUMENT = Path(__file__).parents[1] / "docs/schedules.md"
LEAST = 'spool: {url: "sqlite:////var/lib/gatewayd/spool.db"}\nhttp: {}\nchannels: []\n'
BEGIN, END = "<!-- made by tests/test_docs_schedules.py -->\n", "<!-- end -->\n"
EXAMPLES = (  # schedule, what the clock reads, whether it is the second pass of a repeated hour, what it shows
    ("office", "2026-11-27 17:59", False, "a Friday"),
    ("office", "2026-11-27 18:00", False, "`to` does not belong to it"),
    ("office", "2026-12-23 20:00", False, "24 December has hours of its own"),
    ("office", "2026-12-24 10:00", False, "until 12:00 and not 18:00"),
    ("office", "2026-12-24 12:00", False, "25 December is a holiday, then comes Saturday"),
    ("office", "2026-12-30 20:00", False, "2026-12-31 and 01-01 are holidays"),
    ("night", "2026-11-27 23:00", False, "Friday's window lasts into Saturday"),
    ("night", "2026-11-28 23:00", False, "no window begins on a Saturday"),
    ("night", "2026-12-24 23:00", False, "it ends at midnight, for 12-25 is a holiday"),
    ("night", "2026-12-25 00:00", False, "nor does Friday's window begin"),
    ("early", "2026-11-01 01:30", False, "the first 01:30: the clock goes back at 02:00"),
    ("early", "2026-11-01 01:30", True, "the second 01:30: an hour later, still open"),
    ("early", "2026-03-08 01:30", False, "the clock jumps from 02:00 to 03:00, and it ends at the jump"),
    ("small_hours", "2026-03-07 12:00", False, "on 8 March there is no 02:15: it does not take place"),
)


def shown(at_ms: int, zone: str) -> str:
    moment = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone))
    return f"{moment:%a %Y-%m-%d %H:%M} {moment:%z}"


def example(schedule: Schedule, reading: str, second: bool, why: str) -> str:
    moment = datetime.fromisoformat(reading).replace(tzinfo=ZoneInfo(schedule.timezone), fold=int(second))
    at = int(moment.astimezone(UTC).timestamp() * 1000)
    change = schedule.next_change(at)
    assert change is not None
    state = "open" if schedule.is_open(at) else "closed"
    zone = schedule.timezone
    return f"| `{schedule.name}` | {shown(at, zone)} | {state} | {shown(change, zone)} | {why} |"


def test_the_examples_are_what_the_schedules_do() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    (written,) = re.findall(r"```yaml\n(schedules:.*?)```", text, re.DOTALL)
    schedules = wiring.schedules(parse(LEAST + written))
    rows = [example(schedules[name], reading, second, why) for name, reading, second, why in EXAMPLES]
    made = "\n".join(["| schedule | when | is | until | |", "|---|---|---|---|---|", *rows, ""])
    _, begin, rest = text.partition(BEGIN)
    table, end, _ = rest.partition(END)
    assert begin
    assert end
    assert table == made, f"stale; it should be:\n{made}"
