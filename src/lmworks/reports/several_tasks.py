"""The card's parts about a run of several tasks: for each what a run of it alone has, and the two beside each other.

Terminal and page draw the parts as they draw a card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.journal import JOURNAL, RunFolder
from lmworks.reports import classification, entities, questions
from lmworks.reports.measures import measures

Event = dict[str, Any]
ALONE = "alone"
"""The folder in a run's folder with a run of each task alone."""


def task_parts(folder: Path, start: Event, first: Event, last: Event) -> list[dict[str, Any]]:
    """A part of the card for each task; an empty list for a run of one task.

    Args:
        folder: of the run.
        start: its ``start`` event.
        first, last: the evaluations that are compared.
    """
    return [_part(folder, entry, first, last) for entry in start.get("tasks") or []]


def curves(parts: list[dict[str, Any]], steps: list[Event]) -> dict[str, list[list[float]]]:
    """Points (step, training loss) of each task: a step has the loss of one, and each loss a size of its own."""
    points = {part["name"]: [[e["step"], e.get(f"{part['name']}_loss")] for e in steps] for part in parts}
    return {name: [point for point in own if point[1] is not None] for name, own in points.items()}


def kind_parts(evaluation: Event) -> dict[str, Any]:
    """The parts that only a classifier, a tagger or a model that answers questions has; None for what it is not."""
    return {
        "classification": classification.card_part(evaluation),
        "entities": entities.card_part(evaluation),
        "questions": questions.card_part(evaluation),
    }


def _part(folder: Path, entry: dict[str, Any], first: Event, last: Event) -> dict[str, Any]:
    name, task = str(entry["name"]), str((entry.get("task") or {}).get("name"))
    before, after = ((event.get("tasks") or {}).get(name) or {} for event in (first, last))
    alone = _evaluation_alone(folder / ALONE / name)
    compared = {"before": first.get("when"), "after": last.get("when"), "step": last.get("step")}
    return {
        "name": name,
        "task": task,
        "data": (entry.get("data") or {}).get("source"),
        "weight": entry.get("weight"),
        "compared": {**compared, "before_name": before.get("name")},
        "measures": measures(before, after, task),
        "alone": {
            "compared": {**compared, "before_name": ALONE, "after_name": "together"},
            "measures": measures(alone, after, task) if alone else [],
        },
        **kind_parts(after or before),
    }


def _evaluation_alone(folder: Path) -> Event:
    """The evaluation after training of the task alone; {} where there is none."""
    if not (folder / JOURNAL).is_file():
        return {}
    try:
        evaluations = RunFolder(folder).events("evaluation")
    except InputError:
        return {}
    return next((event for event in reversed(evaluations) if event.get("when") == "after"), {})
