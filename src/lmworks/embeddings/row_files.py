"""Rows of plain values -> CSV, TSV, JSONL or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")


def check_rows_path(path: str | Path) -> Path:
    """A path for rows.

    Raises:
        InputError: its ending is none of ENDINGS.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise InputError(f"{path.name} has no known ending", "--out", f"one of {', '.join(ENDINGS)}")
    return path


def write_rows(path: str | Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows that all have the same columns, at least one row, wholly or not at all.

    Raises:
        InputError: another ending, or the place cannot be written.
    """
    path = check_rows_path(path)
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        content = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), content)
        atomic_write(path, content.getvalue())
    elif path.suffix == ".jsonl":
        atomic_write(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    else:
        text = io.StringIO(newline="")
        delimiter = "," if path.suffix == ".csv" else "\t"
        writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        atomic_write(path, text.getvalue())
    return path
