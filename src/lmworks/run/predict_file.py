"""Predictions of a classifier for the rows of a file; and, where the rows have labels, how good they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.base.files import expand_home
from lmworks.base.journal import JOURNAL, RunFolder
from lmworks.base.notation import read_yaml
from lmworks.base.settings import build, merge
from lmworks.evaluate.classification import evaluate_multi_label, evaluate_single_label
from lmworks.evaluate.prediction import Classifier, PredictedValue, Prediction
from lmworks.evaluate.regression import regression_figures
from lmworks.model.config import ModelConfig
from lmworks.text import corpus, formats
from lmworks.text.row_files import check_format, write_rows
from lmworks.text.rows import BadRows, DataSettings, Row, Table, option

PREDICTION, PROBABILITY = "prediction", "probability"
"""Columns that are added to the rows; ``probability_LABEL`` too."""
KINDS = ("text", "labels", "multi_labels", "values", "text_pairs", "pair_labels", "pair_values")
KEPT = ("columns", "text", "header", "delimiter", "quotes", "label_separator")
"""Settings of a run's data that hold for the rows to predict too."""


@dataclass
class Predictions:
    """What a classifier says of the rows of a table.

    Attributes:
        table: rows of one of KINDS.
        predicted: a prediction for each row.
        right: the right answer of each row, for a person; empty without one.
        classification: the part ``classification`` of an evaluation (evaluate/classification); None without labels.
        regression: the part ``regression`` (evaluate/regression); None without values.
        signature: what computed them, and the formats of its weights; empty of counts of words.
    """

    table: Table
    predicted: Sequence[Prediction | PredictedValue]
    right: list[str]
    classification: dict[str, Any] | None = None
    regression: dict[str, Any] | None = None
    signature: str = ""


def has_head(model: object, name: str) -> bool:
    """Whether a model, of whatever kind, has a head of this name (model/head_requests)."""
    config = getattr(model, "config", None)
    return isinstance(config, ModelConfig) and config.head(name) is not None


def settings_for(model: str | Path, source: str, given: Mapping[str, Any], head: str | None = None) -> DataSettings:
    """How the rows are read: as the settings say, else as the rows of the model's run were, where it is one.

    Args:
        model: what the person named.
        source: the rows.
        given: settings from the command line.
        head: of a run of several tasks.

    Raises:
        InputError: a setting is invalid.
    """
    values: dict[str, Any] = dict(given)
    if data := _data_of_run(model, head):
        kept = {name: data[name] for name in KEPT if data.get(name) is not None}
        values = merge(kept, values)
        if "columns" not in given and kept.get("columns"):
            available = _columns(expand_home(source), values)
            values["columns"] = {k: v for k, v in kept["columns"].items() if not available or str(v) in available}
    path = expand_home(source)
    if "document" not in values and path.suffix.lower() in (".txt", ".text"):
        values["document"] = "line"
    return build(DataSettings, values, "the command line")


def label_names(model: str | Path, head: str | None = None) -> dict[str, str]:
    """The names that the model's run gave to labels, where it is a run and gave some."""
    return dict(_data_of_run(model, head).get("label_names") or {})


def _data_of_run(model: str | Path, head: str | None = None) -> dict[str, Any]:
    """The group ``data`` of a run's recipe, of several tasks that of one; empty where the model is no run."""
    run = expand_home(model)
    if not (run / JOURNAL).is_file() or not (run / "recipe.yaml").is_file():
        return {}
    recipe = read_yaml(run / "recipe.yaml")
    data = next((entry.get("data") for entry in recipe.get("tasks") or [] if entry.get("name") == head), None)
    data = data or recipe.get("data")
    return data if isinstance(data, dict) else {}


def has_trained_on(model: str | Path, source: str, head: str | None = None) -> bool:
    """Whether the model is a run that was trained on rows of this very file or named data set."""
    run, path = expand_home(model), expand_home(source)
    if not (run / JOURNAL).is_file():
        return False
    start = next(iter(RunFolder(run).events("start")), {})
    entries = [entry.get("data") or {} for entry in start.get("tasks") or [] if entry.get("name") == head]
    trained = str(entries[0].get("source") if entries else start.get("data", ""))
    if not path.exists():  # a named data set
        return trained == source
    return Path(str(start.get("working_directory", "")), trained).resolve() == path.resolve()


def notes_of(table: Table, model: str | Path, source: str, head: str | None = None) -> list[str]:
    """The notes on rows that are predicted, and whether the model was trained on them."""
    if not has_trained_on(model, source, head):
        return table.notes
    return [*table.notes, "the model was trained on most of these rows: figures of others will be lower"]


def check_out(out: str | None, source: Any = None) -> None:
    """Refuse a file that cannot be written, or that would replace the rows' own, before anything is predicted.

    Raises:
        InputError: it is such a file.
    """
    if out is None:
        return
    check_format(out)
    read = expand_home(source) if isinstance(source, (str, Path)) else None
    if read is not None and read.is_file() and Path(out).exists() and read.samefile(out):
        fault = "the rows are read from this file, and predictions would replace it"
        raise InputError(fault, f"--out {out}", "write them to another file")


def _columns(path: Path, values: dict[str, Any]) -> list[str]:
    """The columns of a file, by its first row; none where it is no file."""
    if not path.is_file():
        return []
    settings = build(DataSettings, values, "the command line")
    first = next(formats.records(path, settings, BadRows("skip"), []), None)
    return list(first.values) if first else []


def predict_rows(
    model: Classifier, source: Any, settings: DataSettings, names: Mapping[str, str] | None = None
) -> Predictions:
    """Predict the label, or the value, of each row.

    Args:
        model: a classifier.
        source: as of text/corpus.read.
        settings: how to read it.
        names: of labels that the classifier knows under another name.

    Raises:
        InputError: the rows cannot be read or have no texts, or a row has a label that the classifier does not know.
    """
    table = corpus.read(source, settings)
    if table.kind not in KINDS:
        hint = f"name the column of the texts: {option('columns', {'text': 'COLUMN'})}"
        raise InputError(f"rows of kind {table.kind} have no text to classify", table.name, hint)
    texts = [row.texts for row in table.rows]
    inputs = [parts[0] if len(parts) == 1 else parts for parts in texts]
    predictions_of = partial(Predictions, table, signature=getattr(model, "signature", ""))
    if table.kind in ("text", "text_pairs"):
        return predictions_of(model.predict(inputs), [])
    if table.kind in ("values", "pair_values"):
        values = np.array([row.values["value"] for row in table.rows])
        predicted_values = [value for value in model.predict(inputs) if isinstance(value, PredictedValue)]
        if len(predicted_values) < len(inputs):
            raise InputError("the model gives labels, and these rows have values", table.name, "give rows with labels")
        figures = regression_figures(np.array([predicted.value for predicted in predicted_values]), values)
        return predictions_of(predicted_values, [f"{value:g}" for value in values], regression=figures)
    known = list(model.labels)
    right = [_labels_of(row, names or {}, known) for row in table.rows]
    predicted = [label for label in model.predict(inputs) if isinstance(label, Prediction)]
    if len(predicted) < len(inputs):
        raise InputError("the model gives values, and these rows have labels", table.name, "give rows with values")
    places, shown = [row.place for row in table.rows], [" · ".join(parts) for parts in texts]
    if table.kind == "multi_labels":
        part = evaluate_multi_label(predicted, right, known, shown, places)
        return predictions_of(predicted, [", ".join(labels) for labels in right], part)
    single = [labels[0] for labels in right]
    return predictions_of(predicted, single, evaluate_single_label(predicted, single, known, shown, places))


def _labels_of(row: Row, names: Mapping[str, str], known: Sequence[str]) -> list[str]:
    """The right labels of a row by the classifier's names.

    Raises:
        InputError: it does not know one of them.
    """
    labels = [names.get(label, label) for label in row.values.get("labels", [row.values.get("label")])]
    for label in labels:
        if label not in known:
            if not known:  # a head for values has none, and neither has a model without a head
                fault = f"the rows have labels, as {label!r}, and the model gives none"
                raise InputError(fault, row.place, "give a model with a head for labels, which lmworks tune trains")
            hint = f"labels are {list_names(known)}; name it as one of them, {option('label_names', {label: known[0]})}"
            raise InputError(f"label {label!r} is not one that the classifier knows", row.place, hint)
    return labels


def write_predictions(predictions: Predictions, source: Any, settings: DataSettings, out: str | Path) -> Path:
    """Write the rows with their predictions: all columns of the source; the label and the probability of each label,
    or the value.

    Raises:
        InputError: the name of the file says no format, or the place cannot be written.
    """
    return write_columns(predictions.table, map(_columns_of, predictions.predicted), source, settings, out)


def _columns_of(predicted: Prediction | PredictedValue) -> dict[str, Any]:
    """The columns that are added to a row."""
    if isinstance(predicted, PredictedValue):
        return {PREDICTION: predicted.value}
    added: dict[str, Any] = {PREDICTION: predicted.label}
    if predicted.label in predicted.probabilities:
        added[PROBABILITY] = predicted.probabilities[predicted.label]
    return added | {f"{PROBABILITY}_{label}": value for label, value in predicted.probabilities.items()}


def write_columns(
    table: Table, added: Iterable[Mapping[str, Any]], source: Any, settings: DataSettings, out: str | Path
) -> Path:
    """Write rows with all columns of their source and further ones.

    Args:
        table: the rows.
        added: by row, the further columns.
        source, settings: of the rows.
        out: the file.

    Raises:
        InputError: the name of the file says no format, or the place cannot be written.
    """
    originals = _originals(source, settings)
    pairs = zip(table.rows, added, strict=True)
    return write_rows(out, [{**originals.get(row.place, row.values), **columns} for row, columns in pairs])


def _originals(source: Any, settings: DataSettings) -> dict[str, dict[str, Any]]:
    """Place -> values of a file's rows, all columns; empty where the source is no file."""
    if not isinstance(source, (str, Path)) or not expand_home(source).is_file():
        return {}
    return {row.place: row.values for row in formats.records(expand_home(source), settings, BadRows("skip"), [])}
