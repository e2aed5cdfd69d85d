"""The card's part about answers to questions: the threshold of "no answer", and mistakes.

It is made from the part ``questions`` of an ``evaluation`` event (evaluate/question_answering). The figures stand in
the card's table (reports/measures). Computes nothing anew; terminal and page draw it.
"""

from __future__ import annotations

from typing import Any

from lmworks.base import figures
from lmworks.evaluate.question_answering import NO_ANSWER

Event = dict[str, Any]


def card_part(event: Event) -> dict[str, Any] | None:
    """The part of a card; None where the evaluation is not that of a model that answers questions."""
    part = event.get("questions")
    if not part:
        return None
    return {
        "rows": part["rows"],
        "has_answer": part["has_answer"],
        "no_answer": part["no_answer"],
        "threshold": part.get("best_f1_threshold"),
        "mistakes": [mistake for mistake in part.get("mistakes") or [] if isinstance(mistake, dict)],
    }


def about_threshold(part: dict[str, Any]) -> str:
    """What was chosen for questions without an answer; empty where each has one."""
    if part["threshold"] is None:
        return ""
    rows = figures.count_of(part["rows"], "question")
    return (
        f"{part['no_answer']:,} of {rows} have no answer. The model gives none where the score of no answer "
        f"exceeds that of the best span by more than {figures.number(part['threshold'])}: the "
        "threshold that is best for these very rows, saved with the model"
    )


def gold_of(mistake: dict[str, Any]) -> str:
    """The right answers of a question in one text."""
    return " | ".join(dict.fromkeys(map(str, mistake["gold"]))) or NO_ANSWER
