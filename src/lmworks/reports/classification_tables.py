"""The card's part about a classifier on a terminal: confusion matrix, calibration, mistakes, words."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lmworks.base import figures
from lmworks.base.figures import shorten
from lmworks.reports.classification import is_small
from lmworks.reports.tables import EXCERPT, table

Part = dict[str, Any]


def render(part: Part | None) -> list[RenderableType]:
    """The parts in their order, each with an empty line before it; none for a card without a classifier."""
    if part is None:
        return []
    shown = [_confusion(part), _calibration(part), _mistakes(part), _words(part)]
    return [line for rows in shown if rows for line in (Text(), *rows)]


def _confusion(part: Part) -> list[RenderableType]:
    if is_small(part):
        grid = table("right label ↓, predicted →", *map(shorten, part["labels"]))
        for label, row in zip(part["labels"], part["confusion"], strict=True):
            cells = [Text(f"{count:,}", style="" if count else "dim") for count in row]
            grid.add_row(Text(shorten(label)), *cells)
        return [Text("Confusion matrix, rows", style="bold"), grid]
    if not part["confusions"]:
        return []
    grid = table("right label", "predicted", "rows", "of")
    for pair in part["confusions"]:
        grid.add_row(
            Text(shorten(pair["label"])), Text(shorten(pair["predicted"])), f"{pair['rows']:,}", f"{pair['of']:,}"
        )
    return [Text("Most frequent confusions", style="bold"), grid]


def _calibration(part: Part) -> list[RenderableType]:
    if not part["calibration"]:
        return []
    grid = table("confidence", "accuracy", "predictions")
    for confidence, accuracy, count in part["calibration"]:
        grid.add_row(figures.number(confidence), figures.number(accuracy), f"{count:,}")
    title = f"Calibration, expected error {figures.number(part['calibration_error'])}"
    return [Text(title, style="bold"), grid]


def _mistakes(part: Part) -> list[RenderableType]:
    if not part["mistakes"]:
        return []
    grid = table("probability", "predicted", "right label", "text")
    grid.columns[0].justify = "right"
    for column in grid.columns[1:]:
        column.justify, column.no_wrap = "left", False
    grid.columns[-1].overflow = "fold"
    for mistake in part["mistakes"]:
        grid.add_row(
            figures.number(mistake["probability"]),
            Text(shorten(mistake["predicted"])),
            Text(shorten(mistake["label"])),
            Text(shorten(mistake["text"], EXCERPT)),
        )
    return [Text("Most confident mistakes", style="bold"), grid]


def _words(part: Part) -> list[RenderableType]:
    if not part["heaviest_words"]:
        return []
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    for label, words in part["heaviest_words"].items():
        listed = ", ".join(f"{word!r}" if word != word.strip() else word for word, _ in words)
        grid.add_row(Text(shorten(label)), Text(listed))
    return [Text("Heaviest words of each label", style="bold"), grid]
