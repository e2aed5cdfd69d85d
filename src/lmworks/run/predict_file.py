"""Predictions of a classifier for the rows of a file; and, where the rows have labels, how good they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.base.files import expand_home
from lmworks.base.journal import JOURNAL, RunFolder
from lmworks.base.notation import read_yaml
from lmworks.base.settings import build, merge
from lmworks.evaluate.classification import evaluate_predictions
from lmworks.evaluate.prediction import Classifier, Prediction
from lmworks.text import corpus, formats
from lmworks.text.row_files import write_rows
from lmworks.text.rows import BadRows, DataSettings, Table, option

PREDICTION, PROBABILITY = "prediction", "probability"
"""Columns that are added to the rows; ``probability_LABEL`` too."""
KEPT = ("columns", "text", "header", "delimiter", "quotes")
"""Settings of a run's data that hold for the rows to predict too."""


@dataclass
class Predictions:
    """What a classifier says of the rows of a table.

    Attributes:
        table: rows of kind labels or text.
        predicted: a prediction for each row.
        right: the right label of each row; empty without labels.
        classification: the part ``classification`` of an evaluation (evaluate/classification); None without labels.
    """

    table: Table
    predicted: list[Prediction]
    right: list[str]
    classification: dict[str, Any] | None


def settings_for(model: str | Path, source: str, given: Mapping[str, Any]) -> DataSettings:
    """How the rows are read: as the settings say, else as the rows of the model's run were, where it is one.

    Args:
        model: what the person named.
        source: the rows.
        given: settings from the command line.

    Raises:
        InputError: a setting is invalid.
    """
    values: dict[str, Any] = dict(given)
    if data := _data_of_run(model):
        kept = {name: data[name] for name in KEPT if data.get(name) is not None}
        values = merge(kept, values)
        if "columns" not in given and kept.get("columns"):
            available = _columns(expand_home(source), values)
            values["columns"] = {k: v for k, v in kept["columns"].items() if not available or str(v) in available}
    path = expand_home(source)
    if "document" not in values and path.suffix.lower() in (".txt", ".text"):
        values["document"] = "line"
    return build(DataSettings, values, "the command line")


def label_names(model: str | Path) -> dict[str, str]:
    """The names that the model's run gave to labels, where it is a run and gave some."""
    return dict(_data_of_run(model).get("label_names") or {})


def _data_of_run(model: str | Path) -> dict[str, Any]:
    """The group ``data`` of a run's recipe; empty where the model is no run."""
    run = expand_home(model)
    if not (run / JOURNAL).is_file() or not (run / "recipe.yaml").is_file():
        return {}
    data = read_yaml(run / "recipe.yaml").get("data")
    return data if isinstance(data, dict) else {}


def has_trained_on(model: str | Path, source: str) -> bool:
    """Whether the model is a run that was trained on rows of this very file or named data set."""
    run, path = expand_home(model), expand_home(source)
    if not (run / JOURNAL).is_file():
        return False
    start = next(iter(RunFolder(run).events("start")), {})
    if not path.exists():  # a named data set
        return bool(start.get("data") == source)
    return Path(str(start.get("working_directory", "")), str(start.get("data", ""))).resolve() == path.resolve()


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
    """Predict the label of each row.

    Args:
        model: a classifier.
        source: as of text/corpus.read.
        settings: how to read it.
        names: of labels that the classifier knows under another name.

    Raises:
        InputError: the rows cannot be read or have no texts, or a row has a label that the classifier does not know.
    """
    table = corpus.read(source, settings)
    if table.kind not in ("labels", "text"):
        hint = f"name the column of the texts: {option('columns', {'text': 'COLUMN'})}"
        raise InputError(f"rows of kind {table.kind} have no text to classify", table.name, hint)
    texts = [row.values["text"] for row in table.rows]
    if table.kind == "text":
        return Predictions(table, model.predict(texts), [], None)
    known = list(model.labels)
    right = [(names or {}).get(row.values["label"], row.values["label"]) for row in table.rows]
    for label, row in zip(right, table.rows, strict=True):
        if label not in known:
            hint = f"labels are {list_names(known)}; name it as one of them, {option('label_names', {label: known[0]})}"
            raise InputError(f"label {label!r} is not one that the classifier knows", row.place, hint)
    predicted = model.predict(texts)
    places = [row.place for row in table.rows]
    return Predictions(table, predicted, right, evaluate_predictions(predicted, right, known, texts, places))


def write(predictions: Predictions, source: Any, settings: DataSettings, out: str | Path) -> Path:
    """Write the rows with their predictions: all columns of the source, the label, its probability, and that of each
    label.

    Raises:
        InputError: the name of the file says no format, or the place cannot be written.
    """
    originals = originals_of(source, settings)
    rows = []
    for row, prediction in zip(predictions.table.rows, predictions.predicted, strict=True):
        added = {PREDICTION: prediction.label, PROBABILITY: prediction.probabilities[prediction.label]}
        added |= {f"{PROBABILITY}_{label}": value for label, value in prediction.probabilities.items()}
        rows.append({**originals.get(row.place, row.values), **added})
    return write_rows(out, rows)


def originals_of(source: Any, settings: DataSettings) -> dict[str, dict[str, Any]]:
    """Place -> values of a file's rows, all columns; empty where the source is no file."""
    if not isinstance(source, (str, Path)) or not expand_home(source).is_file():
        return {}
    return {row.place: row.values for row in formats.records(expand_home(source), settings, BadRows("skip"), [])}
