"""Text and tables for a terminal or a pipe."""

from __future__ import annotations

import io
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

import typer

PIPE_WIDTH = 240
LAST_WIDTH = 16  # the last column's least
_JOINERS = "\u200c\u200d"  # letters and emoji are made with them


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], *, one_line: bool = False) -> None:
    """Print a table whose last column takes what room there is; the others are never cut.

    The last one is broken into lines, or cut if `one_line`. Cells are taken literally.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [[plain(cell) for cell in row] for row in rows]
    fixed = sum(max(cell_len(line[i]) for line in (columns, *lines)) + 2 for i in range(len(columns) - 1))
    terminal = sys.stdout.isatty()
    width = max(Console().width if terminal else PIPE_WIDTH, fixed + LAST_WIDTH)
    table = Table(box=None, pad_edge=False)
    for name in columns[:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(
        columns[-1], no_wrap=one_line, overflow="ellipsis" if one_line else "fold", max_width=width - fixed
    )
    for line in lines:
        table.add_row(*map(Text, line))
    drawn = io.StringIO()
    Console(file=drawn, width=width, force_terminal=terminal, legacy_windows=False).print(table)
    for drawn_line in drawn.getvalue().splitlines():
        typer.echo(drawn_line.rstrip())


def plain(text: str) -> str:
    """Text from outside on one line, without what a terminal would obey."""
    return "".join(
        c if c.isprintable() or c in _JOINERS else " " if c.isspace() or unicodedata.category(c) == "Zs" else "�"
        for c in text
    )


def local(moment: str | None, *, short: bool = False, dated: bool = False) -> str:
    """A time of the API in the reader's own zone: to the second, its day only if that is not today.

    `short`: of another day no seconds, of another year no time. `dated`: with its day, also if that is today.
    """
    if moment is None:
        return ""
    when = datetime.fromisoformat(moment).astimezone()
    now = datetime.now(when.tzinfo)
    if when.date() == now.date() and not dated:
        return when.strftime("%H:%M:%S")
    if not short:
        return when.strftime("%Y-%m-%d %H:%M:%S")
    return when.strftime("%m-%d %H:%M" if when.year == now.year else "%Y-%m-%d")


def zone() -> str:
    """The reader's time zone, for a heading."""
    return datetime.now(UTC).astimezone().strftime("%Z")
