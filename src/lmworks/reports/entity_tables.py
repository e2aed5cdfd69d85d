"""The card's part about a model that tags words on a terminal: its types of entities, and mistakes."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.text import Text

from lmworks.base import figures
from lmworks.base.figures import shorten
from lmworks.reports.tables import EXCERPT, table

Part = dict[str, Any]


def render(part: Part | None) -> list[RenderableType]:
    """The parts in their order, each with an empty line before it; none for a card without a tagger."""
    if part is None:
        return []
    return [line for rows in (_types(part), _mistakes(part)) if rows for line in (Text(), *rows)]


def _types(part: Part) -> list[RenderableType]:
    if not part["types"]:
        return []
    grid = table("type", "precision", "recall", "F1", "expected", "predicted", "right")
    for kind, scores in part["types"].items():
        shares = (figures.number(scores[name]) for name in ("precision", "recall", "f1"))
        counts = (f"{scores[name]:,}" for name in ("expected", "predicted", "right"))
        grid.add_row(Text(shorten(kind)), *shares, *counts)
    more = f", the most frequent; {part['left_out']:,} more" if part["left_out"] else ""
    return [Text(f"{part['title']}{more}", style="bold"), grid]


def _mistakes(part: Part) -> list[RenderableType]:
    if not part["mistakes"]:
        return []
    lines: list[RenderableType] = [Text("Most confident mistakes", style="bold")]
    for mistake in part["mistakes"]:
        head = f"{mistake['place']}: {shorten(mistake['wrong'])} ({figures.number(mistake['probability'])})"
        lines.append(Text(head))
        lines.append(Text(f"  right     {shorten(mistake['expected'], EXCERPT)}", style="dim"))
        lines.append(Text(f"  predicted {shorten(mistake['predicted'], EXCERPT)}", style="dim"))
    return lines
