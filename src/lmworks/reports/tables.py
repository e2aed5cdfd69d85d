"""A plain table of the card on a terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

EXCERPT = 300
"""Characters of a text in a table."""


def table(*heads: str) -> Table:
    """A table with these heads; all columns but the first are aligned to the right."""
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for place, head in enumerate(heads):
        grid.add_column(Text(head), justify="right" if place else "left", no_wrap=place > 0)
    return grid
