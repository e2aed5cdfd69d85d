"""A comparison as one HTML file."""

from __future__ import annotations

from html import escape
from pathlib import Path

from lmworks.base.files import atomic_write
from lmworks.comparisons import comparison_table
from lmworks.comparisons.comparison_state import State

HTML = "comparison.html"


def write(folder: Path, state: State) -> None:
    """Write the page of a comparison into its folder."""
    atomic_write(folder / HTML, notebook_html(state))


def notebook_html(state: State) -> str:
    """Table, pictures and recommendation, without the page around them."""
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in comparison_table.rows(state)
    )
    return f"<h1>{escape(comparison_table.heading(state))}</h1><table>{cells}</table>"
