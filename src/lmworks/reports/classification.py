"""The card's part about a classifier: confusion, calibration, mistakes, and the words that weigh most.

It is made from the part ``classification`` of an ``evaluation`` event, which holds what evaluate/classification gives
(``single_label_figures`` or ``multi_label_figures``, then ``with_texts``) and, where the model has weights by word,
``heaviest_words``: label -> [[word, weight], ...]. The figures themselves stand in the card's table (reports/measures).
Computes nothing anew; terminal and page draw it.
"""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]
MOST_CLASSES = 12
"""Classes of a confusion matrix that are shown in full; of more, the most frequent confusions are listed."""
CONFUSIONS = 10  # listed


def card_part(event: Event) -> dict[str, Any] | None:
    """The part of a card; None where the evaluation is not that of a classifier."""
    figures = event.get("classification")
    if not figures:
        return None
    return {
        "labels": list(figures["labels"]),
        "rows": figures["rows"],
        "confusion": figures.get("confusion"),
        "confusions": _most_frequent(figures["labels"], figures.get("confusion") or []),
        "calibration_error": figures.get("calibration_error"),
        "calibration": [list(bin_) for bin_ in figures.get("calibration") or []],
        "mistakes": [mistake for mistake in figures.get("mistakes") or [] if isinstance(mistake, dict)],
        "heaviest_words": figures.get("heaviest_words") or {},
    }


def _most_frequent(labels: list[str], confusion: list[list[int]]) -> list[dict[str, Any]]:
    """The pairs of a right and another predicted label, those that occur most often first."""
    pairs = [
        (count, right, predicted)
        for right, row in enumerate(confusion)
        for predicted, count in enumerate(row)
        if right != predicted and count
    ]
    return [
        {"label": labels[right], "predicted": labels[predicted], "rows": count, "of": sum(confusion[right])}
        for count, right, predicted in sorted(pairs, key=lambda pair: -pair[0])[:CONFUSIONS]
    ]


def is_small(part: dict[str, Any]) -> bool:
    """Whether the confusion matrix is small enough to be shown in full."""
    return bool(part["confusion"]) and len(part["labels"]) <= MOST_CLASSES
