"""What the columns of a raw row mean: recognised by their usual names, or told. Knows no file and no token."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeGuard

from lmworks.base.errors import InputError
from lmworks.text import chat
from lmworks.text.rows import DataSettings, Kind, Row

TEXT = ("text", "content", "document", "body", "sentence", "sms", "review", "passage")
LABEL = ("label", "class", "category", "sentiment", "target", "intent")
MESSAGES = ("messages", "conversations", "conversation", "dialog", "dialogue")
PROMPT = ("prompt", "instruction", "question", "query", "input")
COMPLETION = ("completion", "response", "answer", "output", "reply")
CONTEXT = ("context", "input")
SOURCE = ("source", "src")
TARGET = ("target", "tgt")
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
FIELDS: dict[str, tuple[str, ...]] = {
    "chat": ("messages",),
    "completion": ("prompt", "completion"),
    "pairs": ("source", "target"),
    "labels": ("text", "label"),
    "text": ("text",),
}


class BadRow(Exception):
    """This row cannot be used; whoever reads it knows its place."""

    def __init__(self, fault: str, hint: str) -> None:
        super().__init__(fault)
        self.fault, self.hint = fault, hint


@dataclass(frozen=True)
class Shape:
    """How raw rows become rows of a kind.

    Attributes:
        kind: text, labels, completion, pairs or chat.
        columns: our field -> the column or pattern it is made from.
        used: columns of the source that are read.
        notes: how this was decided.
        build: raw values -> our values; raises BadRow.
    """

    kind: Kind
    columns: dict[str, str]
    used: set[str]
    notes: list[str]
    build: Callable[[dict[str, Any]], dict[str, Any]]


def recognise(first: Row, settings: DataSettings, name: str) -> Shape:
    """Decide from the first row (and what is told) what all rows are.

    Raises:
        InputError: a told column or a name in a pattern does not exist, or the columns say nothing.
    """
    available = list(first.values)
    told = {field: str(column) for field, column in settings.columns.items()}
    patterns = {key: value for key in ("text", "prompt", "completion") if (value := getattr(settings, key)) is not None}
    _check_told(told, patterns, available, name)
    guessed = {field: column for field, column in _guess(available, told, settings).items() if field not in patterns}
    kind = settings.kind or _kind_of({**guessed, **patterns}, first.values)
    if kind is None and {"source", "target"} & set(told):
        kind = "pairs"  # one side is told; the refusal names the other
    needed = FIELDS.get(kind or "", ())
    missing = [field for field in needed if field not in guessed and field not in patterns]
    if kind is None or missing:
        raise _refusal(first, name, kind, missing)
    columns = {field: guessed[field] for field in needed if field not in patterns}
    if kind == "completion" and "context" in guessed and "prompt" in columns:
        columns["context"] = guessed["context"]
    wanted = {field: pattern for field, pattern in patterns.items() if field in needed or field == "prompt"}
    used = set(columns.values()) | {column for pattern in wanted.values() for column in _names_in(pattern)}
    how = "told" if settings.kind or told or patterns else "recognised by its columns"
    made = {**columns, **wanted}
    if available == ["text"] and how != "told":
        notes = ["kind text"]
    else:
        notes = [f"kind {kind}, {how}: " + ", ".join(f"{field} = {source!r}" for field, source in made.items())]
    if kind == "pairs" and _is_texts(first.values.get(columns["source"])):
        notes.append("sources that are lists of texts are joined by spaces")
    if kind == "pairs" and _is_texts(first.values.get(columns["target"])):
        notes.append("of targets that are lists of texts the first is learned; all are kept as references")

    def build(values: dict[str, Any]) -> dict[str, Any]:
        return _build(kind, columns, wanted, values, settings)

    return Shape(kind, made, used, notes, build)


def _guess(available: list[str], told: dict[str, str], settings: DataSettings) -> dict[str, str]:
    """Our fields -> columns: the told ones, and the usual names for the rest."""
    by_name = {column.strip().lower(): column for column in reversed(available)}
    taken = set(told.values())
    fields = dict(told)

    def find(field: str, names: tuple[str, ...]) -> None:
        column = next((by_name[name] for name in names if name in by_name and by_name[name] not in taken), None)
        if field not in fields and column is not None:
            fields[field] = column
            taken.add(column)

    if told and settings.kind is None and any(set(told) >= set(needed) for needed in FIELDS.values()):
        return fields  # enough was told: nothing is guessed beside it
    find("messages", MESSAGES)
    find("completion", COMPLETION)
    find("prompt", PROMPT)
    find("context", CONTEXT)
    if settings.kind == "pairs" or (settings.kind is None and _has_sides(by_name, told, settings)):
        find("source", SOURCE)
        find("target", TARGET)
    if settings.kind not in ("completion", "chat", "pairs"):
        find("text", TEXT)
        find("label", LABEL)
    return fields


def _has_sides(by_name: dict[str, str], told: dict[str, str], settings: DataSettings) -> bool:
    """Whether the columns are source and target: beside a text, source is where it came from, and target a label."""
    if {"source", "target"} & set(told):
        return True
    both = all(any(name in by_name for name in names) for names in (SOURCE, TARGET))
    return both and settings.text is None and "text" not in told and not any(name in by_name for name in TEXT)


def _kind_of(fields: dict[str, str], values: dict[str, Any]) -> Kind | None:
    if "messages" in fields and isinstance(values.get(fields["messages"], []), list):
        return "chat"
    if "prompt" in fields and "completion" in fields:
        return "completion"
    if "source" in fields and "target" in fields:
        return "pairs"
    if "text" in fields and "label" in fields:
        return "labels"
    if "text" in fields:
        return "text"
    return None


def _check_told(told: dict[str, str], patterns: dict[str, str], available: list[str], name: str) -> None:
    known = {field for needed in FIELDS.values() for field in needed} | {"context"}
    for field in told:
        if field not in known:
            raise InputError(f"unknown field {field!r}", "columns", f"fields are {', '.join(sorted(known))}")
    asked = {f"columns.{field}": [column] for field, column in told.items()}
    asked |= {field: _names_in(pattern) for field, pattern in patterns.items()}
    for place, columns in asked.items():
        for column in columns:
            if column not in available:
                near = get_close_matches(column, available, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise InputError(
                    f"there is no column {column!r} in {name}", place, f"{hint}columns are {', '.join(available)}"
                )


def _names_in(pattern: str) -> list[str]:
    """The columns that a pattern uses."""
    try:
        return [field for _, field, _, _ in string.Formatter().parse(pattern) if field is not None]
    except ValueError as error:
        hint = "write {column} for a column, and {{ or }} for a brace"
        raise InputError(f"not a pattern: {pattern!r} ({error})", hint=hint) from error


def _refusal(first: Row, name: str, kind: str | None, missing: list[str]) -> InputError:
    columns = list(first.values)
    listed = ", ".join(repr(column if len(column) < 40 else column[:37] + "...") for column in columns)
    if kind is not None:
        fault = f"kind {kind} needs {' and '.join(missing)}, and no column of ({listed}) has such a name"
        return InputError(fault, name, f"tell it: --columns '{{{missing[0]}: COLUMN}}'")
    fault = f"the columns ({listed}) do not say what a row is"
    examples = (
        "{prompt: COLUMN, completion: COLUMN}",
        "{source: COLUMN, target: COLUMN}",
        "{text: COLUMN, label: COLUMN}",
        "{text: COLUMN}",
    )
    hint = (
        "tell it: --columns with one of "
        + " or ".join(f"'{example}'" for example in examples)
        + '; or build fields from columns: --prompt "{COLUMN} ..." --completion "{COLUMN}", --text "{COLUMN} ..."'
    )
    if {"chosen", "rejected"} <= set(columns):
        fault = f"the columns ({listed}) are preferences, which is no kind of training data here"
        hint = "learn the chosen answers alone: --columns '{text: chosen}', or with a prompt that is a text"
    numbers = columns == [str(number) for number in range(1, len(columns) + 1)]
    if numbers:
        hint = "tell the columns by number, e.g. --columns '{text: 2, label: 1}'"
    elif len(columns) <= 3 and any(" " in column or len(column) > 30 for column in columns):
        longest = max(range(len(columns)), key=lambda index: len(columns[index])) + 1
        other = 1 if longest != 1 else 2
        hint = f"if that is a row and no header: --header false --columns '{{text: {longest}, label: {other}}}'"
    return InputError(fault, first.place, hint)


def _build(
    kind: Kind, columns: dict[str, str], patterns: dict[str, str], values: dict[str, Any], settings: DataSettings
) -> dict[str, Any]:
    if kind == "chat":
        return {"messages": _messages(values, columns["messages"])}
    if kind == "pairs":
        return _pair(values, columns["source"], columns["target"])
    row = {field: _text(values, column) for field, column in columns.items() if field not in ("label", "context")}
    for field, pattern in patterns.items():
        used = _names_in(pattern)
        absent = next((column for column in used if values.get(column) is None), None)
        if absent is not None:
            raise BadRow(f"field {absent!r} is missing", "give every row this field")
        row[field] = pattern.format(**values)
    if "context" in columns:
        context = values.get(columns["context"])
        if isinstance(context, str) and context.strip():
            row["prompt"] = f"{row['prompt']}\n\n{context}"
    if kind == "labels":
        label = values.get(columns["label"])
        if label is None or isinstance(label, (list, dict)) or not str(label).strip():
            raise BadRow(f"field {columns['label']!r} holds no label", "give every row a label")
        row["label"] = settings.label_names.get(str(label).strip(), str(label).strip())
    return row


def _text(values: dict[str, Any], column: str) -> str:
    """A field that must be a text with something in it."""
    if column not in values:
        raise BadRow(f"field {column!r} is missing", "give every row this field")
    value = values[column]
    if value is None:
        raise BadRow(f"field {column!r} is null", "give every row a text in this field")
    if not isinstance(value, str):
        raise BadRow(f"field {column!r} is a {type(value).__name__}, not a text", "write it as text, in quotes")
    if not value.strip():
        raise BadRow(f"field {column!r} is empty", "give every row a text in this field")
    return value


def _pair(values: dict[str, Any], source: str, target: str) -> dict[str, Any]:
    """Source and target. Where they are lists of texts, the source is all of its sentences, the target the first of
    several that say the same; all of them are kept as references."""
    read, said = values.get(source), values.get(target)
    row: dict[str, Any] = {}
    if _is_texts(read):
        values = {**values, source: " ".join(read)}
    if _is_texts(said):
        values = {**values, target: next((text for text in said if text.strip()), "")}
        row["references"] = list(said)
    return {"source": _text(values, source), "target": _text(values, target), **row}


def _is_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def _messages(values: dict[str, Any], column: str) -> list[dict[str, str]]:
    given = values.get(column)
    messages: list[Any] = [_message(message) for message in given] if isinstance(given, list) else []
    try:
        chat.validate(messages)
    except InputError as error:
        where = f"{error.place}: " if error.place else ""
        raise BadRow(f"field {column!r}: {where}{error.fault}", error.hint or "write a list of messages") from error
    spoken = [message for message in messages if message["role"] == "assistant"]
    if not spoken:
        raise BadRow(f"field {column!r} has no assistant message", "give each conversation a turn to learn")
    if not all(message["content"].strip() for message in spoken):
        raise BadRow(f"field {column!r} has an empty assistant message", "write what the assistant is to say")
    return messages


def _message(message: Any) -> Any:
    """A message as role and content; from and value are the other usual names. Further keys (weights ...) fall away."""
    if not isinstance(message, dict):
        return message
    if "from" in message and "value" in message:
        speaker = str(message["from"])
        return {"role": SPEAKERS.get(speaker, speaker), "content": message["value"]}
    return {key: message[key] for key in ("role", "content", "name", "tool_calls") if message.get(key) is not None}
