"""Which column of a source is which of our fields: by the settings and by usual names; what to say where neither tells.

Knows no file and no token.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.text.delimited import guess_columns
from lmworks.text.rows import DataSettings, Kind, Row, option

TEXT = ("text", "content", "document", "body", "sentence", "sms", "review", "passage")
LABEL = ("label", "class", "category", "sentiment", "target", "intent")
FIRST_TEXT = ("premise", "sentence1", "sentence_1", "text1", "text_a", "question1", *TEXT)
SECOND_TEXT = ("hypothesis", "sentence2", "sentence_2", "text2", "text_b", "question2", "text_pair")
LABELS = ("labels",)
VALUE = ("value", "score", "similarity", "similarity_score")
MESSAGES = ("messages", "conversations", "conversation", "dialog", "dialogue")
PROMPT = ("prompt", "instruction", "question", "query", "input")
COMPLETION = ("completion", "response", "answer", "output", "reply")
CONTEXT = ("context", "input")
SOURCE = ("source", "src", "anchor")
TARGET = ("target", "tgt", "positive")
NEGATIVE = ("negative", "negatives", "hard_negative", "hard_negatives")
TOKENS = ("tokens", "words", "token")
TAGS = ("tags", "ner_tags", "labels", "tag", "ner", "pos_tags", "chunk_tags")
SPANS = ("spans", "entities")
FIELDS: dict[str, tuple[str, ...]] = {
    "chat": ("messages",),
    "completion": ("prompt", "completion"),
    "pairs": ("source", "target"),
    "pair_labels": ("text", "text_pair", "label"),
    "pair_values": ("text", "text_pair", "value"),
    "labels": ("text", "label"),
    "multi_labels": ("text", "labels"),
    "values": ("text", "value"),
    "text_pairs": ("text", "text_pair"),
    "text": ("text",),
    "tags": ("tokens", "tags"),
    "questions": ("question", "context", "answers", "answer_start"),  # see text/questions
}
SPANS_FIELDS = ("text", "entities")  # of kind tags too


class MissingColumns(InputError):
    """The rows lack columns of the kind that they are to be."""


@dataclass(frozen=True)
class Sample:
    """The first rows of a source.

    Attributes:
        rows: in their order.
        first_places: column -> place of the first row where it holds something; columns that are null everywhere are
            left out, unless all of them are.
    """

    rows: Sequence[Row]
    first_places: dict[str, str]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Sample:
        """The sample of these rows, at least one."""
        places: dict[str, str] = {}
        for row in rows:
            for column, value in row.values.items():
                if value is not None:
                    places.setdefault(column, row.place)
        return cls(rows, places or dict.fromkeys(rows[0].values, rows[0].place))

    def has_value(self, column: str, test: Callable[[Any], bool]) -> bool:
        """Whether some row holds such a value."""
        return any(test(row.values.get(column)) for row in self.rows)


def find_fields(available: list[str], column_settings: dict[str, str], settings: DataSettings) -> dict[str, str]:
    """Our fields -> columns: those of the settings, and the usual names for the rest."""
    by_name = {column.strip().lower(): column for column in reversed(available)}
    taken = set(column_settings.values())
    fields = dict(column_settings)

    def find(field: str, names: tuple[str, ...]) -> None:
        column = next((by_name[name] for name in names if name in by_name and by_name[name] not in taken), None)
        if field not in fields and column is not None:
            fields[field] = column
            taken.add(column)

    if (
        column_settings
        and settings.kind is None
        and any(set(column_settings) >= set(needed) for needed in FIELDS.values())
    ):
        return fields  # the settings are complete: nothing else is guessed
    find("tokens", TOKENS)
    find("entities", SPANS)
    if settings.kind == "tags" or "tokens" in fields:
        find("tags", TAGS)
    find("messages", MESSAGES)
    find("completion", COMPLETION)
    find("prompt", PROMPT)
    find("context", CONTEXT)
    if settings.kind == "pairs" or (settings.kind is None and _has_sides(by_name, column_settings, settings)):
        find("source", SOURCE)
        find("target", TARGET)
        find("negative", NEGATIVE)
    if settings.kind not in ("completion", "chat", "pairs"):
        _find_labelled(find, fields, by_name, settings)
    return fields


def _find_labelled(
    find: Callable[[str, tuple[str, ...]], None],
    fields: dict[str, str],
    by_name: dict[str, str],
    settings: DataSettings,
) -> None:
    """Find the fields of kinds with one text or two, and with a label, several or a value."""
    of_pairs = settings.kind in (None, "pair_labels", "pair_values", "text_pairs")
    if of_pairs and any(name in by_name for name in SECOND_TEXT):
        find("text_pair", SECOND_TEXT)
        find("text", FIRST_TEXT)
    find("text", TEXT)
    find("label", LABEL)
    if "label" not in fields:
        find("labels", LABELS)
    if "text_pair" in fields and not {"label", "labels"} & set(fields):
        find("value", VALUE)  # of one text it is named by the settings: a score beside a text may be anything


def one_or_several(fields: dict[str, str], sample: Sample, settings: DataSettings) -> dict[str, str]:
    """The fields with their column of labels as ``label``, or as ``labels`` where a row has any number of them: by
    what most rows hold, since ``labels`` is a usual name of a column of single ones too."""
    column = fields.get("label", fields.get("labels"))
    if column is None:
        return fields
    if settings.kind is not None:
        several = settings.kind == "multi_labels"
    else:
        given = [row.values[column] for row in sample.rows if row.values.get(column) is not None]
        lists = sum(isinstance(value, list) for value in given)
        several = settings.label_separator is not None or 2 * lists > len(given)
    others = {field: name for field, name in fields.items() if field not in ("label", "labels")}
    return {**others, "labels" if several else "label": column}


def _has_sides(by_name: dict[str, str], column_settings: dict[str, str], settings: DataSettings) -> bool:
    """Whether the columns are source and target of a translation. Together with a text column, a source column is the
    origin of the text, and a target column a label."""
    if {"source", "target"} & set(column_settings):
        return True
    both = all(any(name in by_name for name in names) for names in (SOURCE, TARGET))
    return (
        both and settings.text is None and "text" not in column_settings and not any(name in by_name for name in TEXT)
    )


def kind_of(fields: dict[str, str], sample: Sample) -> Kind | None:
    if is_tagged(fields, sample):
        return "tags"
    if "messages" in fields and sample.has_value(fields["messages"], lambda value: isinstance(value, list)):
        return "chat"
    if "prompt" in fields and "completion" in fields:
        return "completion"
    if "source" in fields and "target" in fields:
        return "pairs"
    paired = "text" in fields and "text_pair" in fields
    if paired and "label" in fields:
        return "pair_labels"
    if paired and "value" in fields and _is_numeric(fields["value"], sample):
        return "pair_values"
    if "text" in fields and "label" in fields:
        return "labels"
    if (
        "text" in fields
        and "labels" in fields
        and sample.has_value(fields["labels"], lambda value: isinstance(value, list))
    ):
        return "multi_labels"
    if "text" in fields and "value" in fields and _is_numeric(fields["value"], sample):
        return "values"
    if paired:
        return "text_pairs"
    if "text" in fields:
        return "text"
    return None


def _is_numeric(column: str, sample: Sample) -> bool:
    """Whether most of a column are numbers; what is none is then the fault of its row, and told with its place."""
    given = [row.values.get(column) for row in sample.rows if row.values.get(column) is not None]
    return 2 * sum(number_of(value) is not None for value in given) > len(given)


def number_of(value: object) -> float | None:
    """A finite number, or a text that is one; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def is_tagged(fields: dict[str, str], sample: Sample) -> bool:
    """Whether rows are words with tags: both lists, or texts with lists of entities."""
    lists = {name for name, column in fields.items() if sample.has_value(column, lambda value: isinstance(value, list))}
    if "tokens" in lists and ("tags" in lists or not {"text", "prompt", "source"} & set(fields)):
        return True  # without tags, to be tagged
    return "text" in fields and "entities" in lists and sample.has_value(fields["entities"], are_spans)


def are_spans(value: Any) -> bool:
    """Whether a value is a list of entities by their characters."""
    if not isinstance(value, list) or not value:
        return False
    return all(
        (isinstance(span, dict) and {"start", "start_offset", "begin"} & set(span))
        or (isinstance(span, list) and len(span) == 3 and isinstance(span[0], int))
        for span in value
    )


def check_named_columns(
    column_settings: dict[str, str], patterns: dict[str, str], available: list[str], name: str
) -> None:
    known = {field for needed in FIELDS.values() for field in needed} | {"context", "entities", "negative"}
    for field_name in column_settings:
        if field_name not in known:
            raise InputError(f"unknown field {field_name!r}", "columns", f"fields are {', '.join(sorted(known))}")
    asked = {f"columns.{field_name}": [column] for field_name, column in column_settings.items()}
    asked |= {field_name: names_in(pattern) for field_name, pattern in patterns.items()}
    for place, columns in asked.items():
        for column in columns:
            if column not in available:
                near = get_close_matches(column, available, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise InputError(
                    f"there is no column {column!r} in {name}", place, f"{hint}columns are {list_names(available)}"
                )


def check_patterns(patterns: dict[str, str], available: list[str], count: int) -> None:
    """Refuse a pattern that uses no column where a column is meant, or where all rows come out alike.

    Args:
        patterns: our field -> the pattern it is built from.
        available: columns of the source.
        count: of rows.

    Raises:
        InputError: which pattern; a prompt that is the same for all rows is allowed with a completion that is not.
    """
    for field_name, pattern in patterns.items():
        if names_in(pattern):
            continue
        shares_prompt = field_name == "prompt" and bool(names_in(patterns.get("completion", "{}")))
        if pattern in available or (count > 1 and not shares_prompt):
            near = get_close_matches(pattern, available, n=1)
            hint = f"write {{column}}; columns are {list_names(available)}"
            if near and re.search("[:!{}]", near[0]):  # which mean something else in a pattern
                hint = f"name the column: {option('columns', {field_name: near[0]})}"
            elif near:
                hint = f"did you mean {{{near[0]}}}?"
            raise InputError("holds no {column}, so that all rows are alike", f"--data.{field_name}", hint)


class _Columns(string.Formatter):
    """Patterns whose names are columns as they stand, with dots and brackets in them."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        return kwargs[field_name], field_name


def fill(pattern: str, values: dict[str, Any]) -> str:
    """A pattern with the values of its columns."""
    return _Columns().vformat(pattern, (), values)


def names_in(pattern: str) -> list[str]:
    """The columns that a pattern uses."""
    try:
        return [field for _, field, _, _ in string.Formatter().parse(pattern) if field is not None]
    except ValueError as error:
        hint = "write {column} for a column, and {{ or }} for a brace"
        raise InputError(f"not a pattern: {pattern!r} ({error})", hint=hint) from error


def recognition_error(
    sample: Sample, columns: list[str], name: str, kind: str | None, missing: list[str], taken: set[str]
) -> InputError:
    """Why the columns do not say what a row is, and options that do."""
    first = sample.rows[0]
    listed = list_names([repr(column) for column in columns])
    if kind is not None:
        fault = f"kind {kind} needs {' and '.join(missing)}, and no column of ({listed}) has such a name"
        return MissingColumns(fault, name, _missing_hint(kind, missing, sample, taken))
    if {"chosen", "rejected"} <= set(columns):
        fault = f"the columns ({listed}) are preferences, which is no kind of training data here"
        return InputError(fault, first.place, f"learn the chosen answers alone: {_chosen_option(sample)}")
    fault = f"the columns ({listed}) do not say what a row is"
    advice = f"say what they are, for example {_proposal(sample)}"
    if first.has_header and any(_looks_like_data(column, sample) for column in columns):
        options = f"{option('header', False)} {option('columns', guess_columns([columns]))}"
        advice = f"if that is a row and no header: {options}; or if it names the columns: {_proposal(sample, most=1)}"
    return InputError(fault, first.place, advice)


def _looks_like_data(column: str, sample: Sample) -> bool:
    """Whether the name of a column is rather one of its values: a number, a sentence, or a value of other rows."""
    is_number = column.replace(".", "", 1).isdecimal()
    is_sentence = len(column) > 30 or len(column.split()) > 4
    return is_number or is_sentence or sample.has_value(column, lambda value: value == column)


def _text_columns(sample: Sample) -> list[str]:
    """Columns of texts, else all."""
    texts = [column for column in sample.first_places if sample.has_value(column, lambda value: isinstance(value, str))]
    return texts or list(sample.first_places)


def _proposal(sample: Sample, most: int = 3) -> str:
    """Options that read the rows: by what the columns hold, since their names do not say.

    Of the longest column and one of few values text and label, of the two longest prompt and completion; ``most`` ways.
    """
    columns = _text_columns(sample)
    values = {column: [str(row.values.get(column) or "") for row in sample.rows] for column in columns}
    by_length = sorted(columns, key=lambda column: -sum(map(len, values[column])))
    text, longest = by_length[0], [column for column in columns if column in by_length[:2]]
    repeated = [name for name in by_length[1:] if 1 < len(set(values[name])) <= len(sample.rows) / 2]
    if len(columns) == 1:
        return option("columns", {"text": text})
    shapes = [dict(zip(FIELDS["completion"], longest, strict=True)), {"text": text}]
    if repeated:
        shapes.insert(0, {"text": text, "label": min(repeated, key=lambda name: len(set(values[name])))})
    return "; or ".join(option("columns", shape) for shape in shapes[:most])


def _missing_hint(kind: str, missing: list[str], sample: Sample, taken: set[str]) -> str:
    """Columns for the missing fields of a kind, of those that none of its other fields has taken."""
    if kind == "chat":
        candidates = [column for column in sample.first_places if sample.has_value(column, is_list_of_objects)]
    else:
        candidates = [column for column in _text_columns(sample) if column not in taken]
    if len(candidates) < len(missing):
        return f"give the rows {'such columns' if len(missing) > 1 else 'such a column'}, or leave --data.kind out"
    return f"say which column it is: {option('columns', dict(zip(missing, candidates, strict=False)))}"


def _chosen_option(sample: Sample) -> str:
    if sample.has_value("chosen", is_list_of_objects):
        return option("columns", {"messages": "chosen"})
    prompt = next((column for column in PROMPT if column in sample.first_places), None)
    return option("columns", {"prompt": prompt, "completion": "chosen"} if prompt else {"text": "chosen"})


def is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)
