"""Rows given in Python: lists of dictionaries, data frames, tables. Needs none of their libraries.

A run writes them into its folder, where it finds them again when it goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.text.rows import refuse_duplicate_columns

NAME = "the rows given"
FILE = "data.jsonl"
"""In a run's folder: the rows that were given in Python."""


def rows_of(data: Any) -> list[dict[str, Any]]:
    """The rows of a list of dictionaries, a pandas or Polars data frame, a pyarrow table or a `datasets` table.

    Numbers of NumPy become Python's, NaN and missing values None, arrays and tuples lists, dates texts.

    Raises:
        InputError: it is none of these.
    """
    names = class_names(data)
    columns = getattr(data, "column_names", getattr(data, "columns", ()))  # pyarrow, datasets; pandas, Polars
    if not isinstance(data, Mapping) and isinstance(columns, Iterable):
        refuse_duplicate_columns(columns, NAME)
    for method, arguments in (("to_pylist", ()), ("to_dicts", ()), ("to_list", ()), ("to_dict", ("records",))):
        if not isinstance(data, Mapping) and hasattr(data, method):  # pyarrow, Polars, datasets, pandas
            data = getattr(data, method)(*arguments)
            break
    if isinstance(data, (str, bytes, Mapping)) or not isinstance(data, Iterable):
        hint = 'give a list of dictionaries: [{"prompt": "...", "completion": "..."}], or a data frame'
        raise InputError(f"a {type(data).__name__} holds no rows", NAME, hint)
    rows = []
    for number, row in enumerate(data, 1):
        if not isinstance(row, Mapping):
            hint = 'give each row as a dictionary: {"prompt": "...", "completion": "..."}'
            raise InputError(f"a {type(row).__name__}, not a dictionary", f"row {number}", hint)
        rows.append(named({str(column): plain(value) for column, value in row.items()}, names))
    return rows


def class_names(table: Any) -> dict[str, list[str]]:
    """Columns of a `datasets` table that hold numbers of classes, or lists of them -> the names of these classes."""
    features = getattr(table, "features", None)
    features = features if isinstance(features, Mapping) else {}
    listed = ((column, getattr(getattr(kind, "feature", kind), "names", None)) for column, kind in features.items())
    return {column: names for column, names in listed if names}


def named(row: dict[str, Any], classes: dict[str, list[str]]) -> dict[str, Any]:
    """A row with names in place of the numbers of classes; a negative number is no class."""
    return {**row, **{column: _named(row.get(column), names) for column, names in classes.items()}}


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(number, names) for number in value]
    return names[value] if isinstance(value, int) and value >= 0 else None


def plain(value: Any) -> Any:
    """A value as JSON has it; what JSON cannot hold stays as it is."""
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers
        return plain(value.tolist())
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas
        return None
    return value.isoformat() if isinstance(value, date) else value


def save(data: Any, path: Path) -> None:
    """Write rows as JSON lines that read as the same rows; what JSON cannot hold is written as text.

    Raises:
        InputError: the data hold no rows.
    """
    lines = (json.dumps(row, default=str) + "\n" for row in rows_of(data))
    atomic_write(path, "".join(lines))
