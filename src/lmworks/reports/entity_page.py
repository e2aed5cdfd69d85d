"""The card's part about a model that tags words on its page: its types of entities, and mistakes."""

from __future__ import annotations

from typing import Any

from lmworks.base import figures
from lmworks.base.figures import shorten
from lmworks.reports.markup import section, table, text

Part = dict[str, Any]


def render(part: Part | None) -> str:
    """The sections; empty for a card without a tagger."""
    return "" if part is None else f"{_types(part)}{_mistakes(part)}"


def _types(part: Part) -> str:
    if not part["types"]:
        return ""
    rows = []
    for kind, scores in part["types"].items():
        cells = [figures.number(scores[name]) for name in ("precision", "recall", "f1")]
        cells += [f"{scores[name]:,}" for name in ("expected", "predicted", "right")]
        rows.append(
            f'<tr><th scope="row">{text(shorten(kind))}</th>{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>'
        )
    heads = ["type", "precision", "recall", "F1", "expected", "predicted", "right"]
    more = f'<p class="detail">the most frequent; {part["left_out"]:,} more</p>' if part["left_out"] else ""
    return section(part["title"], f"{table(heads, rows)}{more}")


def _mistakes(part: Part) -> str:
    rows = [
        f'<tr><th scope="row">{figures.number(mistake["probability"])}</th>'
        f'<td class="text">{text(mistake["wrong"])}</td><td class="text">{text(mistake["expected"])}</td>'
        f'<td class="text">{text(mistake["predicted"])}<div class="detail">{text(mistake["place"])}</div></td></tr>'
        for mistake in part["mistakes"]
    ]
    if not rows:
        return ""
    heads = ["probability", "wrong", "right entities", "predicted entities"]
    return section("Most confident mistakes", table(heads, rows, "mistakes"))
