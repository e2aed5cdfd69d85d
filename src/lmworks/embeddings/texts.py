"""The texts of a source, each with its place and, where the rows have one, its label."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.text import corpus, formats
from lmworks.text.rows import DataSettings, Table

FIELD = {"completion": "prompt", "pairs": "source", "questions": "question"}
"""The field that is read of each kind of rows; of all others ``text``."""
LABEL = {"labels": "label", "pair_labels": "label", "multi_labels": "labels"}


@dataclass(frozen=True)
class TextRows:
    """Texts in the order of their rows.

    Attributes:
        name: of the source.
        texts: one of each row.
        places: ``file:line`` or ``file: row n``, of rows given in Python ``row n``.
        labels: of each row, or None where the rows have none.
        notes: what a person should know of the reading.
    """

    name: str
    texts: list[str]
    places: list[str]
    labels: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def read_texts(source: Any, settings: DataSettings | None = None) -> TextRows:
    """The texts of any source that text/corpus reads.

    A row's text is its ``text``; of prompts with completions the prompt, of pairs the source, which a note says. A
    single file of plain text is read by paragraphs, or by lines where it has one paragraph, unless
    ``settings.document`` is set.

    Raises:
        InputError: as corpus.read, or the rows are conversations.
    """
    settings = settings or DataSettings()
    table = corpus.read(source, settings)
    if table.kind == "chat":
        hint = "--data.text '{COLUMN}' with a column that holds a text"
        raise InputError("a conversation is no single text", table.name, hint)
    table = _in_parts(source, settings, table)
    name, label = FIELD.get(table.kind, "text"), LABEL.get(table.kind)
    notes = list(table.notes)
    if name != "text":
        notes.append(f"of each row the {name} is read; --data.text '{{COLUMN}}' names another")
    if any("text_pair" in row.values for row in table.rows):
        notes.append("of two texts the first is read")
    labels = [_label(row.values[label]) for row in table.rows] if label else None
    texts = [row.values[name] for row in table.rows]
    return TextRows(table.name, texts, [row.place for row in table.rows], labels, notes)


def _label(value: Any) -> str:
    """A label, or several, as text."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _in_parts(source: Any, settings: DataSettings, table: Table) -> Table:
    """A single file of plain text as its paragraphs, or its lines."""
    if len(table) != 1 or "document" in settings.model_fields_set or not _is_plain(source, settings):
        return table
    for document in ("paragraph", "line"):
        parts = corpus.read(source, settings.model_copy(update={"document": document}))
        if len(parts) > 1:
            parts.notes.append(f"a text is a {document} of the file; --data.document decides")
            return parts
    return table


def _is_plain(source: Any, settings: DataSettings) -> bool:
    path = Path(source) if isinstance(source, str | Path) else None
    return path is not None and path.is_file() and formats.format_of(path, settings) == "txt"
