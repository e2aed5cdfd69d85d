"""The card's part about answers to questions on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.text import Text

from lmworks.base import figures
from lmworks.base.figures import shorten
from lmworks.evaluate.question_answering import NO_ANSWER
from lmworks.reports.questions import about_threshold, gold_of
from lmworks.reports.tables import EXCERPT

Part = dict[str, Any]


def render(part: Part | None) -> list[RenderableType]:
    """The parts in their order, each with an empty line before it; none for a card without answers."""
    if part is None:
        return []
    lines: list[RenderableType] = []
    if sentence := about_threshold(part):
        lines += [Text(), Text(sentence)]
    if part["mistakes"]:
        lines += [Text(), Text("Most confident mistakes", style="bold")]
    for mistake in part["mistakes"]:
        lines.append(Text(f"{shorten(mistake['question'], EXCERPT)} ({mistake['place']})"))
        lines.append(Text(f"  right     {shorten(gold_of(mistake), EXCERPT)}", style="dim"))
        predicted = shorten(mistake["predicted"], EXCERPT) or NO_ANSWER
        probability = f", probability {figures.number(mistake['probability'])}" if mistake["predicted"] else ""
        lines.append(Text(f"  predicted {predicted}{probability}", style="dim"))
    return lines
