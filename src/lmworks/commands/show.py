"""How the commands print: tables, bars, and a console that is plain where standard output is no terminal.

NO_COLOR (https://no-color.org) is respected; a file or a pipe gets plain lines of any length. Texts are printed
literally: square brackets in them are no markup.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

NUMBER = re.compile(r"^[-+~]?[\d.,]+([eE][-+]?\d+)?( ?[%×x]| [A-Za-z/]+)?$")

LABEL = re.compile(r"\S+ {2,}| {4,}")  # or the room below one
GAP = 3  # terminal cells between two columns


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


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str = "",
    to: Console | None = None,
    spare: Sequence[str] = (),
) -> None:
    """Print a table; columns of numbers are aligned to the right. On a terminal, cells are wrapped, between words where
    that is possible.

    Args:
        headers: one a column; all empty for a table without a head.
        rows: cells; a rich Text keeps its style, all else is printed as its text.
        title: a line above it.
        to: the console; standard output by default.
        spare: headers of columns that are left out, in this order, where a terminal is too narrow for all; a line
            below the table names them.
    """
    to = to or console()
    cells = [[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row] for row in rows]
    left_out = _left_out(headers, cells, spare, to.width) if to.is_terminal else []
    kept = [index for index, header in enumerate(headers) if header not in left_out]
    cells = [[row[index] for index in kept if index < len(row)] for row in cells]
    grid = _grid([headers[index] for index in kept], cells, to.width)
    if title:
        to.print(Text(title, style="bold"))
    if to.is_terminal:
        to.print(grid)
        if left_out:
            to.print(Text(f"not in {to.width} columns: {'; '.join(left_out)}", style="dim"))
        return
    with to.capture() as lines:
        to.print(grid)
    for line in lines.get().removesuffix("\n").split("\n"):  # without trailing spaces
        to.print(Text(line.rstrip()))


def line(text: str) -> None:
    """Print a line at once; a terminal gets it wrapped between words, below its text where a label stands before it:
    ``time        9 min``."""
    if sys.stdout.isatty():
        label = LABEL.match(text)
        indent = " " * (len(label[0]) if label else 0)
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    print(text, flush=True)


def _left_out(headers: Sequence[str], cells: list[list[Text]], spare: Sequence[str], width: int) -> list[str]:
    """The first of the spare columns, so many that the longest words of the others stand side by side."""
    words = dict(zip(headers, _longest(headers, cells, str.split), strict=True))
    left_out: list[str] = []
    for header in spare:
        if sum(words.values()) <= width - GAP * (len(words) - 1):
            break
        del words[header]
        left_out.append(header)
    return left_out


def _grid(headers: Sequence[str], cells: list[list[Text]], width: int) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, show_header=any(headers), pad_edge=False, show_edge=False)
    widths = _widths(headers, cells, width - GAP * (len(headers) - 1))
    for index, header in enumerate(headers):
        column = [row[index].plain for row in cells if index < len(row)]
        numbers = any(column) and all(NUMBER.match(text) or text in ("", "-") for text in column)
        side: Literal["left", "right"] = "right" if numbers else "left"
        grid.add_column(Text(header), justify=side, overflow="fold", width=widths[index] if widths else None)
    for row in cells:
        grid.add_row(*row)
    return grid


def _widths(headers: Sequence[str], cells: list[list[Text]], room: int) -> list[int] | None:
    """The widest columns that fit side by side without cutting a word; None where rich finds them: where whole lines
    fit, or not even the longest words do."""
    words, lines = _longest(headers, cells, str.split), _longest(headers, cells, str.splitlines)
    if sum(lines) <= room or sum(words) > room:
        return None
    caps = (
        [max(word, min(line, cap)) for word, line in zip(words, lines, strict=True)]
        for cap in range(max(lines), -1, -1)
    )
    return next(widths for widths in caps if sum(widths) <= room)


def _longest(headers: Sequence[str], cells: list[list[Text]], parts: Callable[[str], list[str]]) -> list[int]:
    """The width of the longest part of a cell, in each column."""
    columns = [
        [header, *(row[index].plain for row in cells if index < len(row))] for index, header in enumerate(headers)
    ]
    return [max((cell_len(part) for text in column for part in parts(text)), default=0) for column in columns]


def bar(fraction: float, width: int = 30) -> str:
    """A bar of ``width`` characters for 1.0, to an eighth of one; # where the terminal's encoding has no blocks."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    try:
        "█▏".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return "#" * round(eighths / 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
