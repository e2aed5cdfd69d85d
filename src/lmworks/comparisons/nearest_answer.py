"""A baseline of every task with written answers: the answer of the training row whose prompt is the most similar one.

Similarity is the cosine of TF-IDF vectors of words. Nothing is learned, so whatever a trained model adds to copying
shows beside it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmworks.base import machine, process_memory
from lmworks.base.energy import Energy, EnergyMeter
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.base.settings import build, to_yaml
from lmworks.evaluate import metrics
from lmworks.run.task_entries import RecipeData
from lmworks.tasks.registry import TASKS
from lmworks.text import corpus
from lmworks.text.rows import Table

FIELDS = {"completion": ("prompt", "completion"), "pairs": ("source", "target")}


def nearest_answers(prompts: Sequence[str], answers: Sequence[str], asked: Sequence[str]) -> list[str]:
    """For each of the texts asked, the answer that belongs to the most similar prompt."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=r"\w+")
    try:
        known = vectorizer.fit_transform(prompts)
    except ValueError:  # no words at all
        return [answers[0]] * len(asked)
    similar = vectorizer.transform(asked) @ known.T
    return [answers[int(row)] for row in similar.toarray().argmax(axis=1)]


def run(data: dict[str, Any], task: str, rows: int, samples: int, out: Path) -> None:
    """Answer the held-out rows so, and write the folder of a run with its figures.

    Args:
        data: the group ``data`` of a recipe.
        task: what models learn from these rows, which gives the metric.
        rows: at most so many held-out rows are answered.
        samples: answers that are kept to be shown.
        out: the run's folder.

    Raises:
        InputError: the rows have no prompts with answers.
    """
    began, meter = time.monotonic(), EnergyMeter()
    meter.start()
    settings = build(RecipeData, data, "the comparison")
    train, held_out = corpus.split(corpus.read(settings.source, settings), settings)
    if train.kind not in FIELDS:
        fault = f"rows of kind {train.kind} have no prompts with answers"
        raise InputError(fault, settings.source, "leave nearest-answer out")
    prompts, answers = _columns(train)
    asked, references = (column[:rows] for column in _columns(held_out))
    predictions = nearest_answers(prompts, answers, asked)
    energy = meter.stop()
    journal = RunFolder.create(out, to_yaml(settings))
    _write_start(journal, settings.source, task)
    shown = zip(asked[:samples], references, predictions, strict=False)
    items = [{"prompt": prompt, "reference": right, "answer": answer} for prompt, right, answer in shown]
    journal.write("samples", when="after", step=0, items=items)
    journal.write("evaluation", when="after", step=0, **_figures(task, predictions, references))
    size = sum(len(text.encode()) for text in (*prompts, *answers))
    _write_finish(journal, settings.source, size, time.monotonic() - began, energy)
    journal.sync()


def _write_start(journal: RunFolder, source: str, task: str) -> None:
    """The event of a run that trains nothing."""
    journal.write(
        "start",
        model="nearest-answer",
        new=True,
        method="nearest",
        task={"name": task},
        data=source,
        machine=machine.describe(),
        parameters={"total": 0, "trainable": 0},
    )


def _write_finish(journal: RunFolder, source: str, size: int, seconds: float, energy: Energy) -> None:
    """The event of the run's end; the rows of its source, of so many bytes, are what must be kept."""
    journal.write(
        "finish",
        seconds=seconds,
        training_seconds=seconds,
        peak_memory=process_memory.peak_memory(),
        energy={"joules": energy.joules, "how": energy.how, "assumption": energy.assumption},
        artefact={"path": source, "bytes": size},
        stopped="finished",
    )


def _columns(table: Table) -> tuple[list[str], list[str]]:
    """Prompts and answers of rows."""
    prompt, answer = FIELDS[table.kind]
    return [row.values[prompt] for row in table.rows], [row.values[answer].strip() for row in table.rows]


def _figures(task: str, predictions: list[str], references: list[str]) -> dict[str, Any]:
    """The parts of an ``evaluation`` event that a model's answers have (run/evaluation)."""
    metric = metrics.metric(TASKS[task].metric)
    values = [metric.row(prediction, right) for prediction, right in zip(predictions, references, strict=True)]
    figures: dict[str, Any] = {
        "task": {
            "metric": metric.title,
            "signature": metric.signature,
            "value": sum(values) / len(values),
            "n": len(values),
            "values": values,
        }
    }
    if TASKS[task].metric == "chrf" and metrics.end_in_numbers(references):
        numbers = metrics.metric("number_match")
        right = [
            numbers.row(prediction, reference) for prediction, reference in zip(predictions, references, strict=True)
        ]
        figures["numbers"] = {
            "name": numbers.signature,
            "share": sum(right) / len(right),
            "row_right": right,
            "row_weights": [1.0] * len(right),
        }
    return figures
