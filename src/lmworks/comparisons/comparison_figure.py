"""What is compared: one figure of an evaluation on the test part, by row. Reads journals and opens no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.base.journal import RunFolder
from lmworks.evaluate import metrics
from lmworks.tasks.figures import ANSWERS, CLASS_ACCURACY, LOSS, NUMBERS, Figure
from lmworks.tasks.registry import TASKS

Event = dict[str, Any]
LABEL_METRIC = "accuracy"
"""Metric of labels that a model is asked for: the same figure as a classifier's accuracy."""


class FigureByRow(NamedTuple):
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


class Validation(NamedTuple):
    """By what a search chooses.

    Attributes:
        score: the figure on the validation part.
        better: which scores are better: higher or lower.
        loss: of equal scores, that of the lower one is better; None: there is no other loss.
    """

    score: float
    better: str
    loss: float | None = None


def figure_of(event: Event, task: str, rows_digest: str) -> FigureByRow | None:
    """The main figure of an evaluation; None where it has none by row.

    Args:
        event: an ``evaluation`` event of a journal.
        task: what was learned; of a classifier by counts of words ``classify``.
        rows_digest: of the rows, part of the signature.

    Raises:
        InputError: a row's figure is NaN or infinite.
    """
    for figure in _in_order(task, event):
        part = event.get(figure.part) or {}
        numerators = part.get("values") if figure is ANSWERS else part.get(figure.numerators)
        if figure.name not in part or not numerators:
            continue
        denominators = part.get(figure.denominators) if figure.denominators else None
        denominators = list(denominators or [1.0] * len(numerators))
        missing = sum(None in pair for pair in zip(numerators, denominators, strict=True))  # as a journal has NaN
        if missing:
            fault = f"is NaN or infinite on {missing:,} of {count_of(len(numerators), 'row')}"
            raise InputError(fault, figure.title, "lower train.learning_rate, where it is trained")
        scaled = [value / figure.divisor for value in numerators]
        return FigureByRow(_measure(figure, part, rows_digest, len(scaled)), scaled, denominators)
    return None


def _in_order(task: str, event: Event) -> list[Figure]:
    """The figures of a task, the one to compare by first: the right final number, where references end in one."""
    figures = list(TASKS[task].figures) if task in TASKS else [CLASS_ACCURACY]
    if NUMBERS in figures and (event.get(NUMBERS.part) or {}).get(NUMBERS.name) is not None:
        figures.insert(0, NUMBERS)
    return [figure for figure in figures if figure.numerators or figure is ANSWERS]


def _measure(figure: Figure, part: Event, rows_digest: str, count: int) -> dict[str, Any]:
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
        "signature": f"{signature}|rows:{rows_digest}:{count}",
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


def validation_score(event: Event, task: str) -> Validation | None:
    """The task's own figure where it costs no generation, with the loss to choose among equal ones; of other tasks the
    loss. None where a figure is NaN or infinite.

    Raises:
        InputError: nothing was evaluated.
    """
    held_out = event.get(LOSS.part) or {}
    loss = held_out.get(LOSS.name)
    if LOSS.name in held_out and loss is None:
        return None
    figure = figure_of({**event, ANSWERS.part: {}, NUMBERS.part: {}}, task, "")
    if figure is None and loss is None:
        raise InputError("nothing was evaluated on the validation part", "validation", "give more rows")
    if figure is None or figure.measure["key"].startswith("held_out"):
        return Validation(float(loss if loss is not None else figure.value), "lower")  # type: ignore[union-attr]
    return Validation(figure.value, figure.measure["better"], loss)


def average(parts: list[FigureByRow]) -> tuple[list[float], list[float]]:
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
    bootstrap = metrics.bootstrap_interval(numerators, weights=denominators)
    return [bootstrap.low, bootstrap.high]
