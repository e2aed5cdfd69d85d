"""Text and tables as HTML of the card's page; everything that came from outside is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Any

from lmworks.base import figures


def text(value: Any) -> str:
    """A value, escaped; a dash where there is none."""
    return figures.UNKNOWN if value is None else escape(str(value), quote=True)


def prose(value: Any) -> str:
    """Text in which a figure and its unit stand on the same line."""
    return re.sub(r"(?<=\d) (?=[A-Za-z%])", "\u00a0", text(value))


def table(heads: Iterable[str], rows: Iterable[str], kind: str = "") -> str:
    """A table of rows that are HTML already; ``kind`` is a class of the style sheet."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in heads)
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{body}</table></div>'


def frame(title: str, page: str) -> str:
    """A whole page as part of another one, such as a notebook's, in a frame of its own."""
    return (
        f'<iframe title="{text(title)}" srcdoc="{escape(page, quote=True)}" '
        'sandbox="allow-scripts" style="width: 100%; height: 640px; border: 0"></iframe>'
    )
