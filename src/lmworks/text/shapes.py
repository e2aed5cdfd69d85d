"""What the columns of raw rows mean: by their usual names, or by the settings. Knows no file and no token."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.text import messages, questions, tagged_rows
from lmworks.text.columns import (
    FIELDS,
    SPANS_FIELDS,
    MissingColumns,
    Sample,
    check_named_columns,
    check_patterns,
    fill,
    find_fields,
    is_list_of_objects,
    kind_of,
    names_in,
    number_of,
    one_or_several,
    recognition_error,
)
from lmworks.text.labels import LabelNames
from lmworks.text.plain_text import text_fault
from lmworks.text.rows import DataSettings, Kind, Row, option


class BadRow(Exception):
    """This row cannot be used; whoever reads it knows its place.

    Args:
        fault: what is wrong.
        hint: what to do.
        absent: the column that the row does not have, where that is the fault.
    """

    def __init__(self, fault: str, hint: str, absent: str = "") -> None:
        super().__init__(fault)
        self.fault, self.hint, self.absent = fault, hint, absent


@dataclass
class Shape:
    """How raw rows become rows of a kind.

    Attributes:
        kind: of the rows.
        columns: our field -> the column or pattern it is built from.
        used: columns of the source that are read.
        notes: how this was decided.
        build: raw values -> our values; raises BadRow.
        labels: how each label is written, of kinds with labels.
        key: our field by which rows are divided: those of one value fall on the same side; empty: by their content.
        first_places: column -> place of the first row where it holds something.
        unused_keys: kind chat: keys of messages that nothing reads.
    """

    kind: Kind
    columns: dict[str, str]
    used: set[str]
    notes: list[str]
    labels: LabelNames
    first_places: dict[str, str]
    build: Callable[[dict[str, Any]], dict[str, Any]] = field(init=False)
    unused_keys: dict[str, None] = field(default_factory=dict)
    key: str = ""

    def hint(self, error: BadRow) -> str:
        """What to do about a bad row; of a column that only other rows have, the first of them is named."""
        place = self.first_places.get(error.absent)
        return f"{error.hint} (as in {place})" if place else error.hint


def recognise(rows: Sequence[Row], settings: DataSettings, name: str) -> Shape:
    """Decide from the first rows and the settings what all rows are.

    Args:
        rows: the first rows of the source; columns that appear in any of them count.

    Raises:
        InputError: a column or a name in a pattern does not exist, or the columns do not say what a row is.
    """
    sample = Sample.of(rows)
    available = list(dict.fromkeys(column for row in rows for column in row.values))
    column_settings = {_plural(field): str(column) for field, column in settings.columns.items()}
    patterns = {key: value for key in ("text", "prompt", "completion") if (value := getattr(settings, key)) is not None}
    check_named_columns(column_settings, patterns, available, name)
    check_patterns(patterns, available, len(rows))
    if (found := questions.find_columns(sample, settings)) is not None:
        return _questions(found, sample, settings, name)
    fields = find_fields(list(sample.first_places), column_settings, settings)
    columns = {field: column for field, column in fields.items() if field not in patterns}
    columns = one_or_several(columns, sample, settings)
    kind = settings.kind or kind_of({**columns, **patterns}, sample)
    if settings.kind is None and settings.label_separator is not None and {"text", "labels"} <= {*columns, *patterns}:
        kind = "multi_labels"
    if kind is None and {"source", "target"} & set(column_settings):
        kind = "pairs"  # the settings name one side; the error names the other
    if kind == "tags" and {"entities", "tokens"} & set(columns):
        return _tagged(columns, sample, settings)
    if kind == "completion" and not patterns and _is_conversation(columns, sample):
        return _chat_of_sides(columns, sample, settings)
    needed = FIELDS.get(kind or "", ())
    missing = [field for field in needed if field not in columns and field not in patterns]
    if kind is None or missing:
        taken = {columns[field] for field in needed if field in columns}
        raise recognition_error(sample, available, name, kind, missing, taken)
    return _shape(kind, columns, patterns, sample, settings)


def _plural(field: str) -> str:
    """A field as it is called here: token and tag, of one column each, are called tokens and tags."""
    return f"{field}s" if f"{field}s" in FIELDS["tags"] else field


def _shape(
    kind: Kind, columns: dict[str, str], patterns: dict[str, str], sample: Sample, settings: DataSettings
) -> Shape:
    """The shape of a known kind, all of whose fields have a column or a pattern."""
    needed = FIELDS[kind]
    read = {field: columns[field] for field in needed if field not in patterns}
    if kind == "completion" and "context" in columns and "prompt" in read:
        read["context"] = columns["context"]
    if kind == "pairs" and "negative" in columns:
        read["negative"] = columns["negative"]
    wanted = {field: pattern for field, pattern in patterns.items() if field in needed or field == "prompt"}
    used = set(read.values()) | {column for pattern in wanted.values() for column in names_in(pattern)}
    by_settings = bool(settings.kind or settings.columns or patterns)
    sources = {**read, **wanted}
    if list(sample.first_places) == ["text"] and not by_settings:
        notes = ["kind text"]
    else:
        notes = [_note(kind, by_settings, sources)]
    if kind == "pairs" and sample.has_value(read["source"], _is_texts):
        notes.append("sources that are lists of texts are joined by spaces")
    if kind == "pairs" and sample.has_value(read["target"], _is_texts):
        notes.append("of targets that are lists of texts the first is learned; all are kept as references")
    # rows that share their first text stay together: a premise with another hypothesis would tell its label
    key = "text" if kind in ("pair_labels", "pair_values") else ""
    shape = Shape(kind, sources, used, notes, LabelNames(settings.label_names), sample.first_places, key=key)

    def build(values: dict[str, Any]) -> dict[str, Any]:
        if kind == "chat":
            return {"messages": _messages(values, read["messages"], shape.unused_keys)}
        if kind == "pairs":
            return _pair(values, read["source"], read["target"]) | _negatives(values, read.get("negative"))
        return _build(read, wanted, values, shape.labels, settings)

    shape.build = build
    return shape


def _note(kind: str, by_settings: bool, sources: dict[str, str]) -> str:
    how = "by the settings" if by_settings else "recognised by its columns"
    return f"kind {kind}, {how}: " + ", ".join(f"{field} = {source!r}" for field, source in sources.items())


def _is_conversation(columns: dict[str, str], sample: Sample) -> bool:
    """Whether prompts or completions are lists of messages (TRL's conversational prompt-completion format)."""
    sides = [columns[field] for field in ("prompt", "completion") if field in columns]
    return len(sides) == 2 and any(sample.has_value(column, is_list_of_objects) for column in sides)


def _chat_of_sides(columns: dict[str, str], sample: Sample, settings: DataSettings) -> Shape:
    """Rows of kind chat whose messages stand in two columns; only those of the completion are learned."""
    sides = {field: columns[field] for field in ("prompt", "completion")}
    notes = [
        _note("chat", bool(settings.kind or settings.columns), sides),
        "prompts and completions are lists of messages: those of the completion are learned",
    ]
    shape = Shape("chat", sides, set(sides.values()), notes, LabelNames({}), sample.first_places)

    def build(values: dict[str, Any]) -> dict[str, Any]:
        prompt, completion = (_present(values, column) for column in sides.values())
        try:
            conversation = messages.joined(prompt, completion, shape.unused_keys)
            messages.check_answers(conversation)
        except InputError as error:
            raise _bad_messages(error, f"fields {sides['prompt']!r} and {sides['completion']!r}") from error
        return {"messages": conversation}

    shape.build = build
    return shape


def _tagged(columns: dict[str, str], sample: Sample, settings: DataSettings) -> Shape:
    """Rows of kind tags: lists of tokens and tags, or texts with entities by their characters."""
    fields = FIELDS["tags"] if "tokens" in columns else SPANS_FIELDS
    read = {field: columns[field] for field in fields if field in columns}
    notes = [_note("tags", bool(settings.kind or settings.columns), read)]
    shape = Shape("tags", read, set(read.values()), notes, LabelNames({}), sample.first_places)
    make = tagged_rows.of_tokens if "tokens" in read else tagged_rows.of_spans
    if len(read) == 1:
        notes.append("the rows have no tags")

    def build(values: dict[str, Any]) -> dict[str, Any]:
        sides = [_present(values, column) for column in read.values()]
        try:
            row = make(*sides, names=settings.label_names)
        except InputError as error:
            raise BadRow(error.fault, error.hint or "write tokens with tags") from error
        _checked(row["text"], f"field {read[fields[0]]!r}")
        return row

    shape.build = build
    return shape


def _questions(columns: dict[str, str], sample: Sample, settings: DataSettings, name: str) -> Shape:
    """Rows of kind questions: those about one context stay together."""
    if missing := [field for field in ("question", "context") if field not in columns]:
        available = list_names([repr(column) for column in sample.first_places])
        fault = f"kind questions needs {' and '.join(missing)}, and no column of ({available}) has such a name"
        hint = f"say which column it is: {option('columns', dict.fromkeys(missing, 'COLUMN'))}"
        raise MissingColumns(fault, name, hint)
    notes = [_note("questions", bool(settings.kind or settings.columns), columns)]
    if "answers" not in columns:
        notes.append("the rows have no answers")
    elif sample.has_value(columns["answers"], questions.is_unplaced) and "answer_start" not in columns:
        notes.append("answers without answer_start: the first occurrence in the context is taken")
    used = {*columns.values(), *questions.KEPT}
    shape = Shape("questions", columns, used, notes, LabelNames({}), sample.first_places, key="context")

    def build(values: dict[str, Any]) -> dict[str, Any]:
        question, context = _text(values, columns["question"]), _text(values, columns["context"])
        try:
            answers = questions.answers_of(values, columns, context)
        except InputError as error:
            raise BadRow(error.fault, error.hint or "correct the row") from error
        known = {key: values[key] for key in ("id",) if values.get(key) is not None}
        return {**known, "question": question, "context": context, **({} if answers is None else {"answers": answers})}

    shape.build = build
    return shape


def is_ambiguous(shape: Shape, sample: Sequence[Row], late: dict[str, str], settings: DataSettings) -> bool:
    """Whether columns that appeared only after the sample would have made the rows another kind."""
    if not late or settings.kind or settings.columns or settings.text or settings.prompt or settings.completion:
        return False
    seen = Sample.of(sample)
    everything = Sample(seen.rows, {**seen.first_places, **late})
    fields = one_or_several(find_fields(list(everything.first_places), {}, settings), everything, settings)
    return kind_of(fields, everything) != shape.kind and not _is_conversation(fields, everything)


LARGEST_VALUE = 1e15  # sums of squares of such values, over rows, fit into float32
NO_TEXTS = ("label", "labels", "value", "context")  # fields that are read in ways of their own


def _build(
    columns: dict[str, str],
    patterns: dict[str, str],
    values: dict[str, Any],
    labels: LabelNames,
    settings: DataSettings,
) -> dict[str, Any]:
    """The fields of a row of kind text or completion, or of a kind with labels or values."""
    row: dict[str, Any] = {field: _text(values, column) for field, column in columns.items() if field not in NO_TEXTS}
    for field_name, pattern in patterns.items():
        used = names_in(pattern)
        absent = next((column for column in used if values.get(column) is None), None)
        if absent is not None:
            raise BadRow(f"field {absent!r} is missing", "give every row this field", absent)
        row[field_name] = _checked(fill(pattern, values), f"field made of {pattern!r}")
    if "context" in columns:
        context = values.get(columns["context"])
        if isinstance(context, str) and context.strip():
            _checked(context, f"field {columns['context']!r}")
            row["prompt"] = f"{row['prompt']}\n\n{context}"
    if "label" in columns:
        column = columns["label"]
        name = labels.name(values.get(column))
        if name is None:
            if column not in values:
                hint = f"learn the texts alone with {option('kind', 'text')}, or give every row a label"
                raise BadRow(f"field {column!r} is missing", hint, column)
            raise BadRow(f"field {column!r} holds no label", "give every row a label")
        row["label"] = _checked(name, f"field {column!r}")
    if "labels" in columns:
        row["labels"] = _labels(values, columns["labels"], labels, settings.label_separator)
    if "value" in columns:
        row["value"] = _value(values, columns["value"], settings.value_range)
    return row


def _labels(values: dict[str, Any], column: str, labels: LabelNames, separator: str | None) -> list[str]:
    """The labels of a row, each once; a row may have none."""
    value = _present(values, column)
    if isinstance(value, str) and separator is not None:
        value = [part for part in value.split(separator) if part.strip()]
    if not isinstance(value, list):
        hint = "write a list of labels, or say what stands between them: --data.label_separator '|'"
        raise BadRow(f"field {column!r} is a {type(value).__name__}, not a list of labels", hint)
    names: dict[str, None] = {}  # each once, in order
    for label in value:
        name = labels.name(label)
        if name is None:
            raise BadRow(f"field {column!r} holds {label!r}, which is no label", "write it as text, or leave it out")
        names[_checked(name, f"field {column!r}")] = None
    return list(names)


def _value(values: dict[str, Any], column: str, limits: tuple[float, float] | None) -> float:
    """The value of a row, a finite number within the limits."""
    value = _present(values, column)
    number = number_of(value)
    if number is None or abs(number) > LARGEST_VALUE:
        fault = "not a finite number" if number is None else "too large to be learned: squared errors would overflow"
        raise BadRow(f"field {column!r} is {value!r}, {fault}", "correct it, or divide all values by one number")
    if limits is not None and not limits[0] <= number <= limits[1]:
        low, high = limits
        raise BadRow(f"field {column!r} is {number:g}, outside {low:g} to {high:g}", "correct it, or the value_range")
    return number


def _present(values: dict[str, Any], column: str) -> Any:
    """The value of a field that must be there."""
    if column not in values:
        raise BadRow(f"field {column!r} is missing", "give every row this field", column)
    value = values[column]
    if value is None or (isinstance(value, float) and value != value):  # NaN is a data frame's null
        raise BadRow(f"field {column!r} is null", "give every row a value in this field")
    return value


def _checked(text: str, name: str) -> str:
    fault = text_fault(text)
    if fault is not None:
        raise BadRow(f"{name}: {fault}", "write whole characters, in UTF-8")
    return text


def _text(values: dict[str, Any], column: str) -> str:
    """A field that must be a text with something in it."""
    value = _present(values, column)
    if not isinstance(value, str):
        raise BadRow(f"field {column!r} is a {type(value).__name__}, not a text", "write it as text, in quotes")
    if not value.strip():
        raise BadRow(f"field {column!r} is empty", "give every row a text in this field")
    return _checked(value, f"field {column!r}")


def _pair(values: dict[str, Any], source: str, target: str) -> dict[str, Any]:
    """Source and target. Where they are lists of texts, the source is all of its sentences, the target the first of
    several that say the same; all of them are kept as references."""
    sources, targets = values.get(source), values.get(target)
    row: dict[str, Any] = {}
    if _is_texts(sources):
        values = {**values, source: " ".join(sources)}
    if _is_texts(targets):
        values = {**values, target: next((text for text in targets if text.strip()), "")}
        row["references"] = list(targets)
    return {"source": _text(values, source), "target": _text(values, target), **row}


def _negatives(values: dict[str, Any], column: str | None) -> dict[str, list[str]]:
    """Texts that do not belong to the source: a text, a list of texts, or nothing."""
    value = values.get(column) if column else None
    if value is None or value == "":
        return {}
    texts = value if isinstance(value, list) else [value]
    return {"negatives": [_text({column or "": text}, column or "") for text in texts]}


def _is_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def _messages(values: dict[str, Any], column: str, unused: dict[str, None]) -> list[messages.Message]:
    try:
        conversation = messages.conversation(_present(values, column), unused)
        messages.check_answers(conversation)
    except InputError as error:
        raise _bad_messages(error, f"field {column!r}") from error
    for number, message in enumerate(conversation, 1):
        _checked(message["content"], f"field {column!r}: message {number}")
        _checked(json.dumps(message, ensure_ascii=False, default=str), f"field {column!r}: message {number}")
    return conversation


def _bad_messages(error: InputError, fields: str) -> BadRow:
    where = f"{fields}: {error.place}:" if error.place else f"{fields}:"
    return BadRow(f"{where} {error.fault}", error.hint or "write a list of messages")
