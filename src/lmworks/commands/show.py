"""How the commands print: tables, bars, and a console that knows whether a person looks at it.

NO_COLOR (https://no-color.org) is respected; what is no terminal gets plain lines of any length. Texts are printed as
they are: square brackets in them are no markup.
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
    """A console that leaves it to the command what happens when nobody reads on."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(stderr: bool = False) -> Console:
    """A console; colours only on a terminal without NO_COLOR, lines cut off nowhere else than there."""
    stream = sys.stderr if stderr else sys.stdout
    terminal = bool(getattr(stream, "isatty", lambda: False)())
    return _Console(
        stderr=stderr, width=None if terminal else 10_000, highlight=False, markup=False, emoji=False, soft_wrap=False
    )


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], title: str = "", to: Console | None = None) -> None:
    """Prints a table; columns of numbers stand to the right.

    Args:
        headers: one a column; all empty for a table without a head.
        rows: cells; a rich Text keeps its style, all else is printed as its text.
        title: a line above it.
        to: the console; standard output by default.
    """
    to = to or console()
    cells = [[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row] for row in rows]
    shown = Table(box=box.SIMPLE_HEAD, show_header=any(headers), pad_edge=False, show_edge=False)
    for index, header in enumerate(headers):
        column = [row[index].plain for row in cells if index < len(row)]
        numbers = any(column) and all(NUMBER.match(text) or text in ("", "-") for text in column)
        shown.add_column(Text(header), justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        shown.add_row(*row)
    if title:
        to.print(Text(title, style="bold"))
    if to.is_terminal:
        to.print(shown)
        return
    with to.capture() as lines:
        to.print(shown)
    for line in lines.get().removesuffix("\n").split("\n"):  # without the spaces that fill a line up
        to.print(Text(line.rstrip()))


def bar(fraction: float, width: int = 30) -> str:
    """A bar of ``width`` signs for 1.0, to an eighth of a sign; # where the terminal has no blocks."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    try:
        "█▏".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return "#" * round(eighths / 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
