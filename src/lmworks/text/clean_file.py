"""A data file cleaned step by step: what each step changed, and the same file with cleaned texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.text import formats
from lmworks.text.cleaning import Cleaned, Step, clean_all
from lmworks.text.columns import Sample, find_fields
from lmworks.text.row_files import replace_columns, write_rows
from lmworks.text.rows import BadRows, DataSettings, Row, option

_TEXTS = ("text", "prompt", "context", "completion", "source", "target")
"""Fields that hold texts; of a file with a text column, that one alone is cleaned."""


@dataclass
class CleanedFile:
    """The rows of a file, and their cleaned texts.

    Attributes:
        path: the file.
        settings: how it was read.
        rows: all rows, as they are.
        columns: those that were cleaned.
        cells: (row number, column) of each text, in the order of ``cleaned.texts``.
        before: the texts.
        cleaned: the texts after all steps, and what each step changed.
        skipped: bad rows that were left out, and why.
    """

    path: Path
    settings: DataSettings
    rows: list[Row]
    columns: list[str]
    cells: list[tuple[int, str]]
    before: list[str]
    cleaned: Cleaned
    skipped: list[str]

    def changed(self) -> list[int]:
        """Places in ``cells`` of the texts that are others now."""
        return [n for n, (old, new) in enumerate(zip(self.before, self.cleaned.texts, strict=True)) if old != new]

    def emptied(self) -> list[int]:
        """Places in ``cells`` of the texts of which nothing is left."""
        return [n for n in self.changed() if not self.cleaned.texts[n].strip()]

    def write(self, out: str | Path) -> Path:
        """Write the rows in the same format, other columns as they were.

        Raises:
            InputError: the name of the file says another format, or the place cannot be written.
        """
        out = Path(out)
        kind = formats.format_of(self.path, self.settings)
        check_format(out, self.path, self.settings)
        values = [dict(row.values) for row in self.rows]
        for (number, column), text in zip(self.cells, self.cleaned.texts, strict=True):
            values[number][column] = text
        if kind == "parquet":
            return replace_columns(self.path, out, {name: [row[name] for row in values] for name in self.columns})
        if kind == "txt":
            values = self._with_blank_lines(values)
        return write_rows(out, values, self.settings.model_copy(update={"format": kind}))

    def _with_blank_lines(self, values: list[dict[str, str]]) -> list[dict[str, str]]:
        """Lines of a plain text with the empty ones between them, which are no rows."""
        lines: list[dict[str, str]] = []
        for row, value in zip(self.rows, values, strict=True):
            number = int(row.place.rpartition(":")[2])
            lines += [{"text": ""}] * (number - 1 - len(lines))
            lines.append(value)
        return lines


def check_format(out: Path, path: Path, settings: DataSettings) -> None:
    """Refuse a name that says another format than that of the file.

    Raises:
        InputError: it does.
    """
    kind = formats.format_of(path, settings)
    named = formats.format_of(out, settings.model_copy(update={"format": None}))
    if named != kind:
        fault = f"its name says {named}, and rows are written as they were read: {kind}"
        raise InputError(fault, str(out), "give it a name of that format")


def clean_file(path: str | Path, steps: Sequence[Step], settings: DataSettings | None = None) -> CleanedFile:
    """Clean the texts of a file; of plain text each line.

    Args:
        path: a file.
        steps: of cleaning (text/cleaning.steps_of).
        settings: how it is read; ``columns`` name those to clean, else the usual names do.

    Raises:
        InputError: it cannot be read, or no column holds texts.
    """
    path, settings = Path(path), settings or DataSettings()
    if not path.is_file():
        raise InputError("there is no such file", str(path), "give a data file: CSV, TSV, JSON, JSONL, Parquet or txt")
    if formats.format_of(path, settings) == "txt":
        settings = settings.model_copy(update={"document": "line", "kind": "text"})
    bad = BadRows(settings.on_bad_row)
    rows = list(formats.records(path, settings, bad, []))
    if not rows:
        raise InputError("there is no usable row", str(path), "give a file with at least one row")
    columns = _columns(rows, settings, str(path))
    cells = [(number, column) for number, row in enumerate(rows) for column in columns if _is_text(row, column)]
    before = [rows[number].values[column] for number, column in cells]
    return CleanedFile(path, settings, rows, columns, cells, before, clean_all(before, steps), bad.reasons)


def _is_text(row: Row, column: str) -> bool:
    return isinstance(row.values.get(column), str)


def _columns(rows: Sequence[Row], settings: DataSettings, place: str) -> list[str]:
    """The columns to clean: those that the settings name, else by usual names."""
    available = list(dict.fromkeys(column for row in rows for column in row.values))
    named = [column for field, column in settings.columns.items() if field in _TEXTS]
    if missing := [column for column in named if column not in available]:
        raise InputError(f"there is no column {missing[0]!r}", place, f"columns are {list_names(available)}")
    if named:
        return named
    fields = find_fields(list(Sample.of(rows).first_places), {}, settings.model_copy(update={"kind": None}))
    if "text" in fields:
        return [fields["text"]]
    columns = [fields[field] for field in _TEXTS if field in fields]
    if not columns:
        hint = f"name it: {option('columns', {'text': 'COLUMN'})}; columns are {list_names(available)}"
        raise InputError("no column has the usual name of one with texts", place, hint)
    return columns
