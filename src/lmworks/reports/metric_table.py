"""Scores of predictions in words and cells: a table, what each score consists of, notes, signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmworks.base.figures import LISTED, interval, number, signed
from lmworks.evaluate.metric_registry import Difference
from lmworks.evaluate.metric_report import MetricReport
from lmworks.evaluate.metric_score import MetricScore

DIGITS = 4


def table(report: MetricReport) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of cells: each score with its interval, and beside a baseline the difference and its test."""
    level = f"{100 * report.scores[0].level:g} % interval"
    heads = ["metric", "score", level, "better"]
    if not report.differences:
        return heads, [_cells(score) for score in report.scores]
    heads += ["baseline", "difference", f"{level} of it", "test", "p"]
    if any(each.adjusted_p_value != each.p_value for each in report.differences):
        heads.append("p, Holm")
    pairs = zip(report.scores, report.differences, strict=True)
    return heads, [(_cells(score) + _compared(difference))[: len(heads)] for score, difference in pairs]


def _cells(score: MetricScore) -> list[str]:
    return [score.title, number(score.value, DIGITS), _interval(score.interval), score.better or "neither"]


def _compared(difference: Difference) -> list[str]:
    return [
        number(difference.baseline.value, DIGITS),
        signed(difference.value),
        _interval(difference.interval, sign=True),
        difference.test or "not tested",
        *(_p_value(value) for value in (difference.p_value, difference.adjusted_p_value)),
    ]


def _interval(ends: tuple[float, float] | None, sign: bool = False) -> str:
    return "" if ends is None else interval(*ends, sign=sign)


def _p_value(value: float | None) -> str:
    return "" if value is None else "< 0.0001" if value < 0.0001 else number(value, 2)


def lines(report: MetricReport) -> list[str]:
    """What stands below the table: details by score, notes, and a signature for each score."""
    details = [text for score in report.scores for text in _details(score).splitlines()]
    notes = [*report.notes]
    for score in report.scores:
        notes += [f"{score.title}: {note}" for note in score.notes]
    for score, each in zip(report.scores, report.differences, strict=False):
        others = [note for note in each.baseline.notes if note not in score.notes]
        notes += [f"{score.title} of the baseline: {note}" for note in others]
    unequal = [
        f"{score.title}: the baseline's signature differs ({'; '.join(differences)})"
        for score, each in zip(report.scores, report.differences, strict=False)
        if (differences := score.signature.differences(each.baseline.signature))
    ]
    signatures = [f"signature: {score.signature}" for score in report.scores]
    shared = dict.fromkeys([*unequal, *notes])
    return [*details, *(f"note: {note}" for note in shared), *signatures]


def _details(score: MetricScore) -> str:
    """``BLEU: precisions 64.1 / 38.9; brevity penalty 0.98``."""
    parts = [f"{name.replace('_', ' ')} {text}" for name, value in score.details.items() if (text := _value(value))]
    return f"{score.title}: {'; '.join(parts)}" if parts else ""


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        more = f" … and {len(value) - LISTED} more" if len(value) > LISTED else ""
        return ", ".join(f"{name} {_value(each)}" for name, each in list(value.items())[:LISTED]) + more
    if isinstance(value, (list, tuple)):
        return _values(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else number(value)


def _values(values: Sequence[Any]) -> str:
    if values and isinstance(values[0], Mapping):
        return "".join(f"\n  {_value(each)}" for each in values)
    return " / ".join(map(_value, values))
