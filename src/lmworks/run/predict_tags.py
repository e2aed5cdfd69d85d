"""Tags and entities that a model with a head for tokens finds in the rows of a file; and, where the rows have tags, how
good they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.data.word_pieces import Words
from lmworks.evaluate.entities import entity_figures, with_sentences
from lmworks.evaluate.tagging import TaggedText
from lmworks.language_model.model import LanguageModel
from lmworks.run.predict_file import PREDICTION, write_columns
from lmworks.text import corpus, formats
from lmworks.text.rows import DataSettings, Row, Table, option
from lmworks.text.tags import split_tag

ENTITIES = "predicted_entities"
"""Column of the entities: a list of objects of text, label, start, end and probability."""


@dataclass
class TaggedRows:
    """What a model finds in the rows of a table.

    Attributes:
        table: rows of kind tags, or of a kind with a text.
        predicted: the words, tags and entities of each row.
        figures: the part ``entities`` of an evaluation (evaluate/entities); None where the rows have no tags.
    """

    table: Table
    predicted: list[TaggedText]
    figures: dict[str, Any] | None


def tag_rows(model: LanguageModel, source: Any, settings: DataSettings) -> TaggedRows:
    """Tag the words of each row.

    Args:
        model: with a head for tokens.
        source: as of text/corpus.read.
        settings: how to read it.

    Raises:
        InputError: the rows cannot be read or have no text, or one has an entity of a type that the model does not
            know.
    """
    table = corpus.read(source, settings)
    lacking = next((row for row in table.rows if "text" not in row.values), None)
    if lacking is not None:
        hint = f"name the column of the texts: {option('columns', {'text': 'COLUMN'})}"
        raise InputError(f"rows of kind {table.kind} have no text to tag", lacking.place, hint)
    _refuse_unknown(table, model.labels)
    predicted = model.tag_words([_words(row) for row in table.rows])
    if not table.rows or not all("tags" in row.values for row in table.rows):
        return TaggedRows(table, predicted, None)
    right, tags = [row.values["tags"] for row in table.rows], [tagged.tags for tagged in predicted]
    words, places = [tagged.words for tagged in predicted], [row.place for row in table.rows]
    probabilities = [np.array(tagged.probabilities) for tagged in predicted]
    figures = with_sentences(entity_figures(right, tags), right, tags, probabilities, words, places)
    return TaggedRows(table, predicted, figures)


def _words(row: Row) -> Words | str:
    if "tokens" in row.values:
        return Words(row.values["text"], row.values["starts"], row.values["tokens"])
    return str(row.values["text"])


def _refuse_unknown(table: Table, labels: list[str]) -> None:
    """Refuse rows with an entity of a type that the model does not know.

    Raises:
        InputError: there is one; names the first such row.
    """
    known = {split_tag(label)[1] for label in labels}
    unknown = {tag for tag in table.labels if split_tag(tag)[1] not in known}
    row = next((row for row in table.rows if unknown & set(row.values.get("tags", ()))), None)
    if row is not None:
        tag = next(tag for tag in row.values["tags"] if tag in unknown)
        listed = list_names(sorted(known - {""}))
        raise InputError(f"the model does not know {tag!r}; its types are {listed}", row.place, "correct the row")


def write_tags(tagged: TaggedRows, source: Any, settings: DataSettings, out: str | Path) -> Path:
    """Write the rows with their entities and, where they are tokens, the predicted tag of each: all columns of the
    source, ``prediction`` and ``predicted_entities``. CoNLL has of a text the words that were tagged.

    Raises:
        InputError: the name of the file says no format, or the place cannot be written.
    """
    is_conll = formats.format_of(Path(out), DataSettings()) == "conll"
    added = []
    for row, text in zip(tagged.table.rows, tagged.predicted, strict=True):
        columns: dict[str, Any] = {PREDICTION: text.tags} if is_conll or "tokens" in row.values else {}
        if is_conll:
            columns["tokens"] = list(text.words.tokens)
        columns[ENTITIES] = [entity._asdict() for entity in text.entities]
        added.append(columns)
    return write_columns(tagged.table, added, source, settings, out)
