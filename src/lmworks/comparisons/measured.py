"""What is compared: one figure of an evaluation on the test part, by row. Reads journals and opens no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.evaluate import metrics
from lmworks.tasks.figures import ANSWERS, CLASS_ACCURACY, LOSS, NUMBERS, Figure
from lmworks.tasks.registry import TASKS

Event = dict[str, Any]
LABEL_METRIC = "accuracy"
"""Metric of labels that a model is asked for: the same figure as a classifier's accuracy."""


class Measured(NamedTuple):
    """A figure by row: sum(numerators) / sum(denominators) is its value.

    Attributes:
        measure: "key", "title", "unit", "better", "signature".
        numerators, denominators: by row.
    """

    measure: dict[str, Any]
    numerators: list[float]
    denominators: list[float]

    @property
    def value(self) -> float:
        """The figure over all rows."""
        return sum(self.numerators) / (sum(self.denominators) or 1.0)


def measured(event: Event, task: str, rows: str) -> Measured | None:
    """The main figure of an evaluation; None where it has none by row.

    Args:
        event: an ``evaluation`` event of a journal.
        task: what was learned; of a classifier by counts of words ``classify``.
        rows: a digest of the rows, part of the signature.
    """
    for figure in _in_order(task, event):
        part = event.get(figure.part) or {}
        numerators = part.get("values") if figure is ANSWERS else part.get(figure.numerators)
        if figure.name not in part or not numerators:
            continue
        denominators = part.get(figure.denominators) if figure.denominators else None
        scaled = [value / figure.divisor for value in numerators]
        return Measured(_measure(figure, part, rows, len(scaled)), scaled, list(denominators or [1.0] * len(scaled)))
    return None


def _in_order(task: str, event: Event) -> list[Figure]:
    """The figures of a task, the one to compare by first: the right final number, where references end in one."""
    figures = list(TASKS[task].figures) if task in TASKS else [CLASS_ACCURACY]
    if NUMBERS in figures and (event.get(NUMBERS.part) or {}).get(NUMBERS.name) is not None:
        figures.insert(0, NUMBERS)
    return [figure for figure in figures if figure.numerators or figure is ANSWERS]


def _measure(figure: Figure, part: Event, rows: str, count: int) -> dict[str, Any]:
    signature, key, title = figure.name, figure.key, figure.title
    if figure is ANSWERS:
        signature = key = str(part.get("signature") or part.get("metric"))
        title = str(part.get("metric"))
        if signature.partition("|")[0] == LABEL_METRIC or "references" in part:
            signature, key, title = CLASS_ACCURACY.name, CLASS_ACCURACY.key, CLASS_ACCURACY.title
    return {
        "key": key,
        "title": title,
        "unit": figure.unit,
        "better": figure.better,
        "own_denominators": figure.own_denominators,
        "signature": f"{signature}|rows:{rows}:{count}",
    }


def final_evaluation(run: Path) -> Event:
    """The evaluation after training that a run's journal has.

    Raises:
        InputError: it has none.
    """
    events = [event for event in RunFolder(run).events("evaluation") if event.get("when") == "after"]
    if not events:
        raise InputError("the run has no evaluation after training", str(run), "lmworks resume it")
    return events[-1]


def task_of(run: Path) -> str:
    """The task that a run's journal names; empty where it names none."""
    started = RunFolder(run).events("start")
    return str((started[0].get("task") or {}).get("name", "")) if started else ""


def evaluation_before(run: Path) -> Event:
    """The evaluation before training that a run's journal has; empty where it has none."""
    return next((event for event in RunFolder(run).events("evaluation") if event.get("when") == "before"), {})


def validation_score(event: Event, task: str) -> float:
    """By what a search chooses: more is better. The task's own figure where it costs no generation, and less than one
    step of it the loss, of which ties are rare; of other tasks the loss alone.

    Raises:
        InputError: nothing was evaluated.
    """
    loss = (event.get(LOSS.part) or {}).get(LOSS.name)
    own = measured({**event, ANSWERS.part: {}, NUMBERS.part: {}}, task, "")
    if own is None and loss is None:
        raise InputError("nothing was evaluated on the validation part", "validation", "give more rows")
    if own is None or own.measure["key"].startswith("held_out"):
        return -float(loss if loss is not None else own.value)  # type: ignore[union-attr]
    sign = 1.0 if own.measure["better"] == "higher" else -1.0
    tie = -float(loss or 0.0) / (1.0 + abs(float(loss or 0.0))) / (2 * max(1, len(own.numerators)))
    return sign * own.value + tie


def average(parts: list[Measured]) -> tuple[list[float], list[float]]:
    """Means of numerators and denominators by row, over the runs with several seeds."""
    count = len(parts)
    return (
        [sum(values) / count for values in zip(*(part.numerators for part in parts), strict=True)],
        [sum(values) / count for values in zip(*(part.denominators for part in parts), strict=True)],
    )


def interval(numerators: list[float], denominators: list[float]) -> list[float] | None:
    """The ends of the 95 % bootstrap interval; None with too few rows."""
    if len(numerators) < metrics.FEWEST_ROWS:
        return None
    found = metrics.bootstrap_interval(numerators, weights=denominators)
    return [found.low, found.high]
