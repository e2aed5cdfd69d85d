"""How the commands print: tables, bars, and a console that is plain where standard output is no terminal.

NO_COLOR (https://no-color.org) is respected; a file or a pipe gets plain lines of any length. Texts are printed
literally: square brackets in them are no markup.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

NUMBER = re.compile(r"^[-+~]?[\d.,]+([eE][-+]?\d+)?( ?[%×x]| [A-Za-z/]+)?$")


class _Console(Console):
    """A console that raises BrokenPipeError, which the command handles, when the reader has gone."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(stderr: bool = False) -> Console:
    """A console; colours only on a terminal without NO_COLOR, and lines are wrapped only on a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    terminal = bool(getattr(stream, "isatty", lambda: False)())
    return _Console(
        stderr=stderr, width=None if terminal else 10_000, highlight=False, markup=False, emoji=False, soft_wrap=False
    )


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], title: str = "", to: Console | None = None) -> None:
    """Print a table; columns of numbers are aligned to the right.

    Args:
        headers: one a column; all empty for a table without a head.
        rows: cells; a rich Text keeps its style, all else is printed as its text.
        title: a line above it.
        to: the console; standard output by default.
    """
    to = to or console()
    cells = [[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row] for row in rows]
    grid = Table(box=box.SIMPLE_HEAD, show_header=any(headers), pad_edge=False, show_edge=False)
    for index, header in enumerate(headers):
        column = [row[index].plain for row in cells if index < len(row)]
        numbers = any(column) and all(NUMBER.match(text) or text in ("", "-") for text in column)
        grid.add_column(Text(header), justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        grid.add_row(*row)
    if title:
        to.print(Text(title, style="bold"))
    if to.is_terminal:
        to.print(grid)
        return
    with to.capture() as lines:
        to.print(grid)
    for line in lines.get().removesuffix("\n").split("\n"):  # without trailing spaces
        to.print(Text(line.rstrip()))


def bar(fraction: float, width: int = 30) -> str:
    """A bar of ``width`` characters for 1.0, to an eighth of one; # where the terminal's encoding has no blocks."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    try:
        "█▏".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return "#" * round(eighths / 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
