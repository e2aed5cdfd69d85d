"""Runs of classifiers by counts of words: the same rows, journal, report card and folder as a run of a network.

Such a model trains in seconds, so that a killed run is begun again. The majority class is evaluated on the same rows
and stands where a network's evaluation before training stands.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmworks.base.energy import EnergyMeter
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, list_names
from lmworks.base.journal import RunFolder
from lmworks.baselines.tfidf import TextClassifier
from lmworks.baselines.tfidf_settings import TfidfSettings, settings_of
from lmworks.evaluate.classification import evaluate_single_label
from lmworks.evaluate.prediction import Prediction
from lmworks.run import classical_recipe, comparison_origin, contamination, quick_runs
from lmworks.run.classical_recipe import ClassicalRecipe
from lmworks.run.result import Run, Say
from lmworks.text import corpus
from lmworks.text.cleaning import clean_all, steps_of
from lmworks.text.labels import FEWEST_ROWS, are_continuous, rare_labels
from lmworks.text.rows import DataSettings, Table, option

MAJORITY = "majority"
TASK = {"name": "classify", "learns": "the label of a text"}


@dataclass
class Setup:
    """Everything that a run needs.

    Attributes:
        recipe: its settings.
        train, held_out: rows of texts and labels.
        notes: what a person should know of them.
    """

    recipe: ClassicalRecipe
    train: Table
    held_out: Table
    notes: list[str] = field(default_factory=list)


def run_recipe(recipe: ClassicalRecipe, say: Say | None = None, rows: list[dict[str, Any]] | None = None) -> Run:
    """Start a new run; see run/quick_runs."""
    return quick_runs.start(recipe, set_up, _run_stages, say, rows)


def resume(folder: str | Path, say: Say | None = None) -> Run:
    """Finish a run that was killed: it is begun again."""
    return quick_runs.begin_again(folder, lambda path: classical_recipe.resolve(path, {}), set_up, _run_stages, say)


def is_classical(folder: str | Path) -> bool:
    """Whether a run folder is one of a classifier by counts of words."""
    recipe = Path(folder) / "recipe.yaml"
    return recipe.is_file() and classical_recipe.is_classifier(str(recipe))


def set_up(recipe: ClassicalRecipe, rows: list[dict[str, Any]] | None = None) -> Setup:
    """Read the rows and divide them.

    Raises:
        InputError: they cannot be read, or have no labels that are classes.
    """
    train, held_out = labelled_rows(recipe.data.source if rows is None else rows, recipe.data)
    if recipe.tfidf.classifier != MAJORITY and len(set(_labels(train))) == 1:
        fault = f"every row to train on has the label {train.rows[0].values['label']!r}: there is nothing to learn"
        raise InputError(fault, train.name, "add rows with other labels")
    notes = [*train.notes, *_label_notes(train, held_out), *_cleaning_notes(train, recipe.tfidf)]
    notes += contamination.check(train, held_out, recipe.data)
    return Setup(recipe, train, held_out, notes)


def labelled_rows(source: Any, settings: DataSettings) -> tuple[Table, Table]:
    """Rows of texts and labels to train on, and held out.

    Raises:
        InputError: they cannot be read, or have no labels that are classes.
    """
    table = corpus.read(source, settings)
    if table.kind != "labels":
        if table.kind == "multi_labels":
            fault = "counts of words learn one label of a text, and these rows have any number of labels"
            raise InputError(fault, table.name, "take a network: lmworks tune minilm-l6")
        hint = f"name both columns: {option('columns', {'text': 'COLUMN', 'label': 'COLUMN'})}"
        raise InputError(f"rows of kind {table.kind} have no text with a label to learn", table.name, hint)
    if are_continuous(table.labels):
        fault = f"the labels are numbers on a scale, not classes: {len(table.labels):,} different ones"
        hint = "write classes instead of numbers (low, high), or take a network for regression: lmworks tune minilm-l6"
        raise InputError(fault, f"{table.name}, column {table.columns.get('label', 'label')!r}", hint)
    return corpus.split(table, settings)


def _label_notes(train: Table, held_out: Table) -> list[str]:
    """Labels of which there are too few rows to train on, or none to measure."""
    trained, measured = (Counter(_labels(part)) for part in (train, held_out))
    absent = [label for label in train.labels if not trained[label]]
    few = rare_labels(trained, train.labels)
    unmeasured = [label for label in train.labels if trained[label] and not measured[label]]
    notes = []
    if absent:
        notes.append(f"labels without a row to train on, which are never predicted: {list_names(absent)}")
    if few:
        notes.append(f"labels with fewer than {FEWEST_ROWS} rows to train on: {list_names(few)}")
    if unmeasured and len(held_out):
        notes.append(f"labels without a held-out row, which no figure measures: {list_names(unmeasured)}")
    return notes


def _cleaning_notes(train: Table, settings: TfidfSettings) -> list[str]:
    """How many texts each step of cleaning changed."""
    if settings.classifier == MAJORITY or not settings.cleaning:
        return []
    changed = clean_all(_texts(train), steps_of(settings.cleaning)).changed
    listed = ", ".join(f"{name} {count:,}" for name, count in changed.items())
    return [f"texts to train on that each step of cleaning changed, of {len(train):,}: {listed}"]


def _texts(table: Table) -> list[str]:
    return [row.values["text"] for row in table.rows]


def _labels(table: Table) -> list[str]:
    return [row.values["label"] for row in table.rows]


def _run_stages(run: RunFolder, setup: Setup, say: Say) -> Run:
    started, meter = time.monotonic(), EnergyMeter()
    meter.start()
    recipe, train = setup.recipe, setup.train
    if not run.events("start"):
        entries = quick_runs.start_event(recipe, recipe.tfidf.classifier.replace("_", " "), TASK)
        run.write("start", **entries, **comparison_origin.start_entries(recipe.comparison))
        run.write("data", **_data_event(setup))
    if len(setup.held_out) and recipe.tfidf.classifier != MAJORITY:
        majority = TextClassifier.fit(_texts(train), _labels(train), settings_of(MAJORITY))
        part = _evaluate(majority.predict(_texts(setup.held_out)), setup.held_out)
        run.write("evaluation", when="before", step=0, name="majority class", classification=part)
    say(f"training {recipe.model} on {count_of(len(train), 'text')}, into {run.path}")
    began = time.monotonic()
    model = TextClassifier.fit(_texts(train), _labels(train), recipe.tfidf)
    trained = time.monotonic()
    for note in model.notes:
        say(note)
    shutil.rmtree(run.final, ignore_errors=True)  # of a killed session
    model.save(run.final)
    predicting = time.monotonic()
    predicted = model.predict(_texts(setup.held_out))
    seconds = time.monotonic() - predicting
    if predicted:
        part = _evaluate(predicted, setup.held_out)
        run.write("evaluation", when="after", classification=part | {"heaviest_words": model.heaviest_words()})
    texts_per_second = len(predicted) / seconds if predicted and seconds else None
    return quick_runs.finish(
        run,
        started,
        meter,
        model.parameters,
        training_seconds=trained - began,
        texts_per_second=texts_per_second,
        notes=model.notes,
    )


def _evaluate(predicted: list[Prediction], table: Table) -> dict[str, Any]:
    places = [row.place for row in table.rows]
    return evaluate_single_label(predicted, _labels(table), table.labels, _texts(table), places)


def _data_event(setup: Setup) -> dict[str, Any]:
    return {
        "rows": len(setup.train),
        "skipped": len(setup.train.skipped),
        "held_out": len(setup.held_out),
        "labels": dict(Counter(_labels(setup.train)).most_common()),
        "notes": setup.notes,
    }
