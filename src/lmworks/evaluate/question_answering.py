"""Figures of answers to questions as SQuAD's official scripts give them: exact match and F1 in percent.

Rajpurkar et al. 2016, section 6.1, for the two metrics and what is left aside before texts are compared; Rajpurkar et
al. 2018 for questions without an answer, of which "no answer" alone is right. Knows no model.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lmworks.evaluate.metric_score import Signature
from lmworks.evaluate.prediction import SHOWN_MISTAKES

NO_ANSWER = "(no answer)"
"""How a person is shown that a context does not answer the question."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class AnsweredQuestion(NamedTuple):
    """A question with its right answers and the predicted one.

    Attributes:
        question, place: the question and where it stands.
        gold: all right answers; empty: the context does not answer it.
        predicted: the best span, as text.
        probability: of it.
        null_margin: score of "no answer" minus that of the span.
    """

    question: str
    place: str
    gold: Sequence[str]
    predicted: str
    probability: float
    null_margin: float


def normalize(text: str) -> str:
    """A text in lower case without ASCII punctuation and English articles, its words separated by single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(predicted: str, gold: str) -> float:
    """1.0 where both are the same text but for what :func:`normalize` leaves aside."""
    return float(normalize(predicted) == normalize(gold))


def f1(predicted: str, gold: str) -> float:
    """Harmonic mean of precision and recall of the words, each counted as often as it occurs; 0..1.

    Where one of the texts has no word, 1.0 if the other has none either.
    """
    ours, theirs = normalize(predicted).split(), normalize(gold).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


def scores(predicted: str, gold: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1) of an answer, the greatest over all right ones; "" says that there is none."""
    right = [answer for answer in gold if normalize(answer)] or [""]
    return max(exact_match(predicted, answer) for answer in right), max(f1(predicted, answer) for answer in right)


def signature(name: str, references: str) -> Signature:
    """How the exact match (``squad_exact_match``) or F1 (``token_f1``) of answers is computed.

    Args:
        name: one of the two.
        references: right answers of a question: a number, or ``var``.
    """
    return Signature(name).with_settings(nrefs=references, case="lc", tok="white-space", norm="squad")


def figures_of_answers(answered: Sequence[AnsweredQuestion], threshold: float | None = None) -> dict[str, Any]:
    """The part ``questions`` of an evaluation.

    Args:
        answered: N questions, at least one.
        threshold: of the null margin, above which "no answer" is the answer; None: every question is answered.

    Returns:
        ``exact`` and ``f1`` in percent, ``has_answer`` and ``no_answer`` (numbers of questions) and the same figures of
        each (``has_answer_f1`` ...); where there are questions without answer, ``best_f1`` and ``best_exact``, which
        the thresholds ``best_f1_threshold`` and ``best_exact_threshold`` would give on these very questions;
        ``mistakes``; by question ``row_exact`` and ``row_f1``; ``signatures``.
    """
    given = ["" if threshold is not None and row.null_margin > threshold else row.predicted for row in answered]
    rows = 100 * np.array([scores(text, row.gold) for text, row in zip(given, answered, strict=True)])
    has = np.array([bool(row.gold) for row in answered])
    figures: dict[str, Any] = {"rows": len(answered), "threshold": threshold}
    figures |= {"exact": float(rows[:, 0].mean()), "f1": float(rows[:, 1].mean())}
    names = {"exact": "squad_exact_match", "f1": "token_f1"}
    figures["signatures"] = {
        key: str(signature(name, "var").with_settings(unit="percent")) for key, name in names.items()
    }
    for name, which in (("has_answer", has), ("no_answer", ~has)):
        figures[name] = int(which.sum())
        if which.any() and not which.all():
            exact, mean_f1 = rows[which].mean(axis=0).tolist()
            figures |= {f"{name}_exact": exact, f"{name}_f1": mean_f1}
    if not has.all():
        for column, name in enumerate(("exact", "f1")):
            figures[f"best_{name}"], figures[f"best_{name}_threshold"] = _best_threshold(answered, column)
    figures["mistakes"] = _mistakes(answered, given, rows[:, 1])
    return {**figures, "row_exact": rows[:, 0].tolist(), "row_f1": rows[:, 1].tolist()}


def _best_threshold(answered: Sequence[AnsweredQuestion], column: int) -> tuple[float, float]:
    """(the best figure in percent, its threshold): answers are given in the order of their margins, as long as that
    adds to the figure."""
    ordered = sorted(answered, key=lambda row: row.null_margin)
    margins = [row.null_margin for row in ordered]
    right = sum(not row.gold for row in ordered)  # of answering nothing
    best, threshold = float(right), margins[0] - 1.0
    total = best
    for number, row in enumerate(ordered):
        total += scores(row.predicted, row.gold)[column] if row.gold else -float(bool(normalize(row.predicted)))
        if total > best and margins[number] not in margins[number + 1 : number + 2]:
            best, threshold = total, margins[number]
    return 100 * best / len(ordered), threshold


def _mistakes(answered: Sequence[AnsweredQuestion], given: Sequence[str], row_f1: np.ndarray) -> list[dict[str, Any]]:
    """Questions with no word right, those first whose answer had the greatest probability."""
    wrong = sorted(np.flatnonzero(row_f1 == 0.0).tolist(), key=lambda number: -answered[number].probability)
    return [
        {
            "place": answered[number].place,
            "question": answered[number].question,
            "gold": list(answered[number].gold),
            "predicted": given[number],
            "probability": answered[number].probability if given[number] else None,
        }
        for number in wrong[:SHOWN_MISTAKES]
    ]
