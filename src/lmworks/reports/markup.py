"""What all HTML pages are made of: escaped text, tables, the page around them, colours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from importlib import resources
from typing import Any

from lmworks.base import figures

PALETTE = (
    ("#2b5fb3", "#7fabf0"), ("#b4531f", "#eba06c"), ("#1f6f4a", "#7fd0a6"), ("#8a3f9e", "#d29be3"),
    ("#a12b2b", "#f09a94"), ("#0f7480", "#6fcfd8"), ("#7a6a12", "#d8c65e"), ("#b03a76", "#f099c4"),
    ("#4d5bd0", "#a9b2ff"), ("#5b6b2a", "#b4c77c"),
)  # fmt: skip
"""Colours of curves and groups, each on light and on dark paper."""


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


def section(title: str, content: str) -> str:
    """A section of a page; ``content`` is HTML already."""
    return f"<section><h2>{text(title)}</h2>{content}</section>\n"


def frame(title: str, page: str) -> str:
    """A whole page as part of another one, such as a notebook's, in a frame of its own."""
    return (
        f'<iframe title="{text(title)}" srcdoc="{escape(page, quote=True)}" '
        'sandbox="allow-scripts" style="width: 100%; height: 640px; border: 0"></iframe>'
    )


def document(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page as one file that needs no network: the style sheet and the script of all pages are in it.

    Args:
        title: of the browser's window.
        body: content of the page, HTML already.
        style, script: CSS and JavaScript of this page alone.
    """
    files = resources.files("lmworks.reports")
    css, js = (files.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{text(title)}</title><link rel="icon" href="data:,"><style>\n{css}{style}</style></head>\n'
        f"<body><main>{body}</main><script>\n{js}{script}</script></body></html>\n"
    )


def palette_variables(prefix: str) -> str:
    """CSS variables of the PALETTE, ``--{prefix}0`` and on, for light and dark paper."""
    light, dark = ("".join(f"--{prefix}{n}: {pair[side]}; " for n, pair in enumerate(PALETTE)) for side in (0, 1))
    return f":root {{ {light}}}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"
