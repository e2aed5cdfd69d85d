"""The card's part about answers to questions on its page."""

from __future__ import annotations

from typing import Any

from lmworks.base import figures
from lmworks.reports.markup import table, text
from lmworks.reports.questions import NO_ANSWER, about_threshold, gold_of

Part = dict[str, Any]


def render(part: Part | None) -> str:
    """The sections; empty for a card without answers."""
    if part is None:
        return ""
    said = about_threshold(part)
    chosen = f"<section><h2>No answer</h2><p>{text(said)}</p></section>\n" if said else ""
    rows = [
        f'<tr><th scope="row">{figures.number(mistake["probability"])}</th>'
        f'<td class="text">{text(mistake["predicted"] or NO_ANSWER)}</td>'
        f'<td class="text">{text(gold_of(mistake))}</td>'
        f'<td class="text">{text(mistake["question"])}<div class="detail">{text(mistake["place"])}</div></td></tr>'
        for mistake in part["mistakes"]
    ]
    if not rows:
        return chosen
    heads = ["probability", "predicted", "right answers", "question"]
    return f"{chosen}<section><h2>Most confident mistakes</h2>{table(heads, rows, 'mistakes')}</section>\n"
