"""Rows -> files in the formats that are read: CSV, TSV, JSON, JSONL, Parquet, plain text; whole or not at all."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.text import conll, formats
from lmworks.text.rows import DataSettings


def check_format(path: str | Path | None) -> None:
    """Refuse a file that rows of several columns cannot be written to, before they are computed.

    Raises:
        InputError: its name says no format, or plain text.
    """
    if path is not None and formats.format_of(Path(path), DataSettings()) == "txt":
        raise InputError("plain text has no columns", str(path), "name it .csv or .jsonl")


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]], settings: DataSettings | None = None) -> Path:
    """Write rows in the format that the name of the file says (with ``.gz``: compressed).

    Args:
        path: .csv, .tsv, .json, .jsonl, .parquet, or .txt for rows of one column.
        rows: column -> value; a column that a row lacks is empty.
        settings: how they would be read: header, delimiter, quotes.

    Raises:
        InputError: the name says no format, or the place cannot be written.
    """
    path, settings = Path(path), settings or DataSettings()
    kind = formats.format_of(path, settings)
    if kind == "parquet":
        content = _parquet(rows)
    else:
        content = _text(rows, kind, settings, str(path)).encode("utf-8")
    atomic_write(path, gzip.compress(content, mtime=0) if path.suffix.lower() == ".gz" else content)
    return path


def _text(rows: Sequence[Mapping[str, Any]], kind: str, settings: DataSettings, place: str) -> str:
    if kind in ("csv", "tsv"):
        return _delimited(rows, kind, settings)
    if kind == "jsonl":
        return "".join(_json(row) + "\n" for row in rows)
    if kind == "json":
        return "[\n" + ",\n".join(map(_json, rows)) + "\n]\n"
    columns = columns_of(rows)
    if kind == "conll":
        if conll.TOKENS not in columns:
            raise InputError("rows without tokens are no CoNLL", place, "name it .csv or .jsonl")
        return "".join(conll.lines_of(rows))
    if len(columns) > 1:
        raise InputError(f"plain text has no columns ({', '.join(columns)})", place, "name it .csv or .jsonl")
    return "".join(f"{_one_line(value)}\n" for row in rows for value in row.values())


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All columns, in the order in which they appear."""
    return list(dict.fromkeys(column for row in rows for column in row))


def _delimited(rows: Sequence[Mapping[str, Any]], kind: str, settings: DataSettings) -> str:
    """With quotes where a field needs them; where the format has none, ends of lines and delimiters are spaces."""
    delimiter = settings.delimiter or ("," if kind == "csv" else "\t")
    has_quotes = settings.quotes if settings.quotes is not None else kind == "csv"
    columns = columns_of(rows)
    table = [[_field(row.get(column)) for column in columns] for row in rows]
    table = [columns, *table] if settings.header else table
    if not has_quotes:
        return "".join(delimiter.join(_one_line(cell).replace(delimiter, " ") for cell in row) + "\n" for row in table)
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, lineterminator="\n").writerows(table)
    return written.getvalue()


def _field(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else _json(value)


def _one_line(value: Any) -> str:
    return str(value).replace("\r", " ").replace("\n", " ")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    columns = columns_of(rows)
    table = pyarrow.table({column: [row.get(column) for row in rows] for column in columns})
    return _parquet_bytes(table, parquet)


def replace_columns(source: Path, out: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """A Parquet file with other values in some columns; the types of all columns stay."""
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(source)
    for name, values in columns.items():
        place = table.column_names.index(name)
        kind = table.schema.field(name)
        table = table.set_column(place, kind, pyarrow.array(values, kind.type))
    atomic_write(out, _parquet_bytes(table, parquet))
    return out


def _parquet_bytes(table: Any, parquet: Any) -> bytes:
    written = io.BytesIO()
    parquet.write_table(table, written)
    return written.getvalue()
