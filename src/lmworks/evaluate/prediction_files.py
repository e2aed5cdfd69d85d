"""Files and lists of predictions and references -> rows to be scored: plain text a line each, or columns and fields.

Nothing is left out: an empty line is an empty prediction, and files of other lengths are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.base.errors import InputError, check_type
from lmworks.base.figures import count_of, list_names
from lmworks.base.files import expand_home
from lmworks.evaluate.predicted_rows import LIKELIHOODS, PredictedRows
from lmworks.text import formats
from lmworks.text.rows import BadRows, DataSettings

PREDICTED = ("prediction", "predicted", "predictions", "hypothesis", "output", "generated", "generated_text")
REFERENCE = (
    "references",
    "reference",
    "target",
    "gold",
    "expected",
    "label",
    "answers",
    "answer",
    "tags",
    "completion",
)
ALONE = ("text", "value", "labels")
"""Names of columns that may be either side, in a file of one side alone."""
PROBABILITIES, PROBABILITY_OF, SIGNATURE = "probabilities", "probability_", "signature"
TEXT_FORMATS = ("txt", None)
Source = str | Path | Sequence[Any]
"""A file; or a list of texts, labels or numbers, of lists of tags, or of rows as dictionaries."""


@dataclass(frozen=True)
class Fields:
    """Which columns are read.

    Attributes:
        prediction: of the predictions; None: a usual name.
        references: of the references, several where a row has several; empty: a usual name.
    """

    prediction: str | None = None
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """A file as columns.

    Attributes:
        path: as a person wrote it.
        places: of its rows.
        columns: name -> values; a plain text has one, ``text``.
        is_text: whether it is plain text.
    """

    path: str
    places: list[str]
    columns: dict[str, list[Any]]
    is_text: bool


def read_rows(
    predictions: Source,
    references: Source | Sequence[Path] | None = None,
    fields: Fields | None = None,
    settings: DataSettings | None = None,
) -> tuple[PredictedRows, list[str]]:
    """Predictions with their references.

    Args:
        predictions: plain text (.txt, or an ending that says no format), .csv, .tsv, .json, .jsonl, .parquet, .conll,
            or a list.
        references: likewise; a list of paths has several references of each row. None: columns beside the predictions.
        fields: which columns.
        settings: how files of columns are read.

    Returns:
        The rows, and what a person should know of how they were read.

    Raises:
        InputError: a file cannot be read, has other numbers of rows, no such column, or an empty reference.
    """
    fields, notes = fields or Fields(), list[str]()
    file = _open(predictions, settings, notes, "predictions")
    rows = _predicted(file, fields.prediction, references is not None)
    if empty := sum(not text.strip() for text in rows.predicted):
        notes.append(f"{count_of(empty, 'prediction')} without a text")
    if references is not None:
        files = [_open(each, settings, notes, "references") for each in _several(references)]
        columns = [column for each in files for column in _reference_columns(each, fields.references, ())]
        for each in files:
            _check_length(rows, file, each)
        return _with_references(rows, columns, files[0].places), notes
    if file.is_text:
        return rows, notes
    taken = (_predicted_name(file, fields.prediction, False), "text")
    columns = _reference_columns(file, fields.references, taken)
    return (_with_references(rows, columns, file.places) if columns else rows), notes


def _several(references: Source | Sequence[Path]) -> Sequence[Source]:
    """Several files, or the one file or list."""
    if isinstance(references, (str, Path)) or not len(references) or not isinstance(references[0], Path):
        return [references]
    return list(references)


def read_baseline(
    source: Source, rows: PredictedRows, fields: Fields | None = None, settings: DataSettings | None = None
) -> PredictedRows:
    """Other predictions of the same rows.

    Raises:
        InputError: as of :func:`read_rows`; or there are other numbers of them.
    """
    file = _open(source, settings, [], "baseline")
    other = _predicted(file, (fields or Fields()).prediction, is_alone=bool(rows.references or rows.reference_tags))
    if len(other) != len(rows):
        fault = f"{count_of(len(other), 'prediction')} here, and {len(rows):,} to compare with"
        raise InputError(fault, file.path, "give predictions of the same rows in the same order")
    other = replace(other, references=rows.references, reference_places=rows.reference_places)
    return replace(other, reference_tags=rows.reference_tags)


def _open(source: Source, settings: DataSettings | None, notes: list[str], name: str) -> _File:
    """A file or list as columns; ``name`` is what messages call a list."""
    settings = settings or DataSettings()
    if not isinstance(source, (str, Path)):
        hint = "give a list of texts, or the name of a file"
        return _columns(name, [(f"{name}, row {n}", _row(each, name, hint)) for n, each in enumerate(source, 1)])
    file = expand_home(source)
    if not file.is_file():
        raise InputError("there is no such file", str(source), "lmworks metrics PREDICTIONS REFERENCES")
    if settings.on_bad_row == "skip":
        fault = "a row left out here would stand beside another row there"
        raise InputError(fault, "--data.on_bad_row skip", "correct the row in the file")
    if _format(file, settings) in TEXT_FORMATS:
        lines = formats.text_lines(file)
        if not lines:
            raise InputError("the file is empty", str(source), "give a file with a line for each row")
        return _File(str(source), [f"{source}:{number}" for number in range(1, len(lines) + 1)], {"text": lines}, True)
    rows = formats.records(file, settings, BadRows("stop", may_skip=False), notes)
    return _columns(str(source), [(row.place, row.values) for row in rows])


def _row(value: Any, name: str, hint: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    check_type(value, (str, int, float, list, tuple), name, hint)
    return {"prediction": list(value) if isinstance(value, tuple) else value}


def _columns(path: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> _File:
    if not rows:
        raise InputError("there is no row", path, "give at least one")
    names = dict.fromkeys(name for _, values in rows for name in values)
    columns = {name: [values.get(name) for _, values in rows] for name in names}
    return _File(path, [place for place, _ in rows], columns, False)


def _format(path: Path, settings: DataSettings) -> str | None:
    """The format of a file; None where its name says none, as ``test.de`` and other files of translations."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    known = settings.format or (suffixes and suffixes[-1] in formats.SUFFIXES)
    return formats.format_of(path, settings) if known else None


def _check_length(rows: PredictedRows, predictions: _File, references: _File) -> None:
    if len(rows) == len(references.places):
        return
    fault = f"{count_of(len(rows), 'prediction')}, and {count_of(len(references.places), 'reference')}"
    hint = "give one reference a prediction, in the same order"
    if predictions.is_text or references.is_text:
        hint += "; texts of several lines: one JSON object a line, in a .jsonl"
    raise InputError(fault, f"{predictions.path} and {references.path}", hint)


# Predictions


def _predicted_name(file: _File, name: str | None, is_alone: bool) -> str:
    """The column of predictions; empty where the file has probabilities or likelihoods instead."""
    if file.is_text:
        return "text"
    if name is not None:
        return _existing(file, name, "--prediction-field")
    has_numbers = "nats" in file.columns or PROBABILITIES in file.columns or bool(_probability_columns(file))
    usual = PREDICTED if not is_alone else (*PREDICTED, *REFERENCE) if has_numbers else (*PREDICTED, *REFERENCE, *ALONE)
    found = next((each for each in usual if each in file.columns), "")
    if found or has_numbers:
        return found
    if len(file.columns) == 1:
        return next(iter(file.columns))
    hint = f"--prediction-field COLUMN, one of {list_names(list(file.columns))}"
    raise InputError("no column of predictions has a usual name", file.path, hint)


def _predicted(file: _File, name: str | None, is_alone: bool) -> PredictedRows:
    column = _predicted_name(file, name, is_alone)
    rows = PredictedRows(places=file.places, probabilities=_probabilities(file), likelihoods=_likelihoods(file))
    if rows.likelihoods:
        rows = replace(rows, scored_by=_scored_by(file))
    if not column:
        likeliest = [max(row, key=lambda label: row[label]) for row in rows.probabilities]
        return replace(rows, predicted=likeliest)
    values = file.columns[column]
    if values and all(isinstance(value, list) for value in values):
        return replace(rows, tags=_tags(values, file.places))
    texts = [_text(value, f"{place}, {column}") for value, place in zip(values, file.places, strict=True)]
    return replace(rows, predicted=texts)


def _text(value: Any, place: str) -> str:
    """A text, label or number as a text."""
    if isinstance(value, (str, int, float)) and not (isinstance(value, float) and math.isnan(value)):
        return str(value)
    shown = "null" if value is None else json.dumps(value, ensure_ascii=False, default=str)[:40]
    raise InputError(f"{shown} is no text", place, "give a text, a label or a number in each row")


def _tags(values: Sequence[Any], places: Sequence[str]) -> list[list[str]]:
    for value, place in zip(values, places, strict=True):
        if not all(isinstance(tag, str) for tag in value):
            raise InputError("a list of other things than tags", place, "give a list of texts, one a word")
    return [list(value) for value in values]


def _probability_columns(file: _File) -> dict[str, str]:
    """label -> its column, of columns ``probability_LABEL``."""
    return {name.removeprefix(PROBABILITY_OF): name for name in file.columns if name.startswith(PROBABILITY_OF)}


def _probabilities(file: _File) -> list[Mapping[str, float]]:
    of_label = _probability_columns(file)
    rows: list[Mapping[str, Any]]
    if PROBABILITIES in file.columns:
        rows = file.columns[PROBABILITIES]
    elif of_label:
        columns = {label: file.columns[name] for label, name in of_label.items()}
        rows = [{label: column[row] for label, column in columns.items()} for row in range(len(file.places))]
    else:
        return []
    hint = 'give an object of label and number: {"probabilities": {"yes": 0.9, "no": 0.1}}'
    listed: list[Mapping[str, float]] = []
    for row, place in zip(rows, file.places, strict=True):
        if not isinstance(row, Mapping) or not row:
            raise InputError("no probabilities of labels", place, hint)
        listed.append({label: _number(value, f"{place}, {label}", hint) for label, value in row.items()})
    return listed


def _likelihoods(file: _File) -> dict[str, np.ndarray]:
    if "nats" not in file.columns:
        return {}
    hint = "write numbers, as lmworks score MODEL --file TEXT --lines --json does"
    return {
        name: np.array(
            [
                _number(value, f"{place}, {name}", hint)
                for value, place in zip(file.columns[name], file.places, strict=True)
            ]
        )
        for name in LIKELIHOODS
        if name in file.columns
    }


def _scored_by(file: _File) -> str:
    """What computed the likelihoods: the signature of the rows, of texts in several windows that with the windows."""
    signatures = sorted({value for value in file.columns.get(SIGNATURE, []) if isinstance(value, str)}, key=len)
    if not all(signatures[-1].startswith(each) for each in signatures):
        return "several ways"
    return signatures[-1] if signatures else ""


def _number(value: Any, place: str, hint: str) -> float:
    try:
        number = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{json.dumps(value, default=str)[:40]} is no finite number", place, hint)
    return number


# References


def _reference_columns(file: _File, names: Sequence[str], taken: Sequence[str]) -> list[list[Any]]:
    """The columns of references of a file; none where no column has a usual name beside those that are taken."""
    if file.is_text:
        return [file.columns["text"]]
    if names:
        return [file.columns[_existing(file, name, "--reference-field")] for name in names]
    usual = (*REFERENCE, *ALONE) if taken else (*REFERENCE, *ALONE, *PREDICTED)
    found = next((name for name in usual if name in file.columns and name not in taken), None)
    if found is not None:
        return [file.columns[found]]
    if taken:
        return []
    if len(file.columns) == 1:
        return list(file.columns.values())
    hint = f"--reference-field COLUMN, one of {list_names(list(file.columns))}"
    raise InputError("no column of references has a usual name", file.path, hint)


def _with_references(rows: PredictedRows, columns: Sequence[Sequence[Any]], places: Sequence[str]) -> PredictedRows:
    if rows.tags and len(columns) == 1 and all(isinstance(value, list) for value in columns[0]):
        return replace(rows, reference_tags=_tags(columns[0], places), reference_places=places)
    references = [
        [text for column in columns for text in _references(column[row], place)] for row, place in enumerate(places)
    ]
    return replace(rows, references=references, reference_places=places)


def _references(value: Any, place: str) -> list[str]:
    """The references in a field: a text, a list of texts, or SQuAD's answers."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        value = value["text"]
    texts = [_text(each, place) for each in value] if isinstance(value, list) else [_text(value, place)]
    if not texts or not all(text.strip() for text in texts):
        fault = "the reference is empty"
        raise InputError(fault, place, "write it, or take the row out of both files")
    return texts


def _existing(file: _File, name: str, option: str) -> str:
    if name not in file.columns:
        hint = f"one of {list_names(list(file.columns))}"
        raise InputError(f"there is no column {name!r}", f"{file.path}, {option}", hint)
    return name
