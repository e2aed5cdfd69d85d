"""The card's part about answers to questions on its page."""

from __future__ import annotations

from typing import Any

from lmworks.base import figures
from lmworks.evaluate.question_answering import NO_ANSWER
from lmworks.reports.markup import section, table, text
from lmworks.reports.questions import about_threshold, gold_of

Part = dict[str, Any]


def render(part: Part | None) -> str:
    """The sections; empty for a card without answers."""
    if part is None:
        return ""
    sentence = about_threshold(part)
    chosen = section("No answer", f"<p>{text(sentence)}</p>") if sentence else ""
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
    return chosen + section("Most confident mistakes", table(heads, rows, "mistakes"))
