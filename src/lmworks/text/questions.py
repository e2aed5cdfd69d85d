"""Questions about a context whose answers are spans of it: their columns, SQuAD's JSON, and the check of each answer.

A row's answers are those of Hugging Face's squad: ``{"text": [...], "answer_start": [...]}``, characters from 0; a
question that its context does not answer has none (SQuAD 2.0, Rajpurkar et al. 2018). Knows no file and no token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lmworks.base.errors import InputError
from lmworks.text.columns import Sample
from lmworks.text.rows import DataSettings, Row

NAMES = {
    "question": ("question",),
    "context": ("context", "passage"),
    "answers": ("answers", "answer"),
    "answer_start": ("answer_start",),
}
KEPT = ("id", "is_impossible")  # columns that are read under these very names
EMPTY_HINT = "write an empty list where the context does not answer the question"


def is_squad(value: Any) -> bool:
    """Whether a JSON value is that of a SQuAD file: articles under ``data``, each with its paragraphs."""
    articles = value.get("data") if isinstance(value, dict) else None
    return isinstance(articles, list) and any(isinstance(entry, dict) and "paragraphs" in entry for entry in articles)


def squad_rows(value: dict[str, Any], name: str) -> Iterator[Row]:
    """The questions of a SQuAD file as raw rows.

    Args:
        value: of the file.
        name: of the file, for places.

    Raises:
        InputError: something stands in the place of a list or of an object.
    """
    number = 0
    for article, at in _objects(value["data"], "article", f"{name}: ", "paragraphs"):
        for paragraph, within in _objects(article["paragraphs"], "paragraph", f"{at}, ", "qas", "context"):
            context = paragraph["context"]
            for asked, _ in _objects(paragraph["qas"], "question", f"{within}, ", "question"):
                number += 1
                known = {key: asked[key] for key in ("question", "answers", *KEPT) if key in asked}
                key = context if isinstance(context, str) else ""
                yield Row({**known, "context": context}, f"{name}: row {number}", key)


def _objects(value: Any, about: str, place: str, *keys: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a list, all of which have these keys, each with its place."""
    hint = "write it as SQuAD's files have it"
    if not isinstance(value, list):
        raise InputError(f"a {type(value).__name__} stands where a list is expected", f"{place}{about}s", hint)
    for number, entry in enumerate(value, 1):
        missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise InputError(f"has no {missing[0]!r}", f"{place}{about} {number}", hint)
        yield entry, f"{place}{about} {number}"


def find_columns(sample: Sample, settings: DataSettings) -> dict[str, str] | None:
    """Our field -> column, of rows that are questions about a context; None: they are none.

    Rows of question, context and an answer that is a plain text are such rows only where the settings say so: a model
    that writes learns them as prompts and completions.

    Args:
        sample: the first rows.
        settings: may name the kind and the columns.
    """
    named = settings.columns
    if settings.kind not in (None, "questions") or settings.text or settings.prompt or settings.completion:
        return None
    by_name = {column.strip().lower(): column for column in reversed(list(sample.first_places))}
    columns = {
        field: named.get(field) or next(by_name[name] for name in names if name in by_name)
        for field, names in NAMES.items()
        if field in named or any(name in by_name for name in names)
    }
    if settings.kind == "questions":
        return columns
    if not set(named) <= set(NAMES) or not {"question", "context", "answers"} <= set(columns):
        return None
    has_places = "answer_start" in columns or sample.has_value(columns["answers"], _has_places)
    return columns if has_places or {"question", "answers"} <= set(named) else None


def _has_places(value: Any) -> bool:
    if isinstance(value, dict):
        return "text" in value
    return isinstance(value, list) and any(isinstance(entry, dict) and "text" in entry for entry in value)


def is_unplaced(value: Any) -> bool:
    """Whether these answers do not say where they begin."""
    if isinstance(value, dict):
        return bool(value.get("text")) and value.get("answer_start") is None
    entries = value if isinstance(value, list) else [value]
    return any(isinstance(entry, str) or (isinstance(entry, dict) and "answer_start" not in entry) for entry in entries)


def answers_of(values: dict[str, Any], columns: dict[str, str], context: str) -> dict[str, list[Any]] | None:
    """The answers of a row, each at its place in the context; None: the source has no answers.

    Args:
        values: of the raw row.
        columns: as :func:`find_columns` gives them.
        context: of the question.

    Raises:
        InputError: without a place: an answer is not in the context, or not where it is said to be.
    """
    if "answers" not in columns:
        return None
    given, start = values.get(columns["answers"]), values.get(columns.get("answer_start", ""))
    texts, starts = _parts(given, start, columns["answers"])
    impossible = values.get("is_impossible")
    if isinstance(impossible, bool) and impossible == bool(texts):
        answers = "has answers" if texts else "has no answer"
        fault = f"is_impossible is {str(impossible).lower()}, and the question {answers}"
        raise InputError(fault, "", "correct one of the two")
    placed = [_place(text, start, context) for text, start in zip(texts, starts, strict=True)]
    return {"text": texts, "answer_start": placed}


def _parts(given: Any, start: Any, column: str) -> tuple[list[str], list[int | None]]:
    """Texts of the answers, and where they are said to begin; None: it is not said."""
    if isinstance(given, dict):
        texts, starts = _list(given.get("text")), _list(given.get("answer_start"))
    elif isinstance(given, list) and any(isinstance(entry, dict) for entry in given):
        entries = [entry if isinstance(entry, dict) else {"text": entry} for entry in given]
        texts, starts = [entry.get("text") for entry in entries], [entry.get("answer_start") for entry in entries]
    elif given is None:
        raise InputError(f"field {column!r} is null", "", EMPTY_HINT)
    else:
        texts, starts = [] if given == "" else _list(given), _list(start)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"field {column!r}: an answer is a {type(text).__name__}, not a text", "", "quote it")
        if not text.strip():
            raise InputError(f"field {column!r}: an answer is empty", "", EMPTY_HINT)
    starts = starts or [None] * len(texts)
    if len(starts) != len(texts):
        fault = f"field {column!r}: {len(texts)} answers, and {len(starts)} places where they begin"
        raise InputError(fault, "", "give each answer its answer_start, or leave all of them out")
    return texts, [_number(value) for value in starts]


def _list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _number(value: Any) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InputError(f"answer_start is {value!r}, no number of a character", "", "count characters from 0")


def _place(text: str, start: int | None, context: str) -> int:
    """Where an answer begins; without a place, at its first occurrence."""
    if start is None:
        start = context.find(text)
        if start < 0:
            raise InputError(f"the answer {_short(text)} is not in its context", "", _nearest(text, None, context))
        return start
    if start < 0 or context[start : start + len(text)] != text:
        there = _short(context[start : start + len(text)]) if 0 <= start < len(context) else "nothing"
        fault = f"the answer {_short(text)} is not at character {start} of its context; {there} is there"
        raise InputError(fault, "", _nearest(text, start, context))
    return start


def _nearest(text: str, start: int | None, context: str) -> str:
    """Where the answer is, else what to do."""
    found, begin = [], context.find(text)
    while begin >= 0:
        found.append(begin)
        begin = context.find(text, begin + 1)
    if found:
        return f"it is at {min(found, key=lambda place: abs(place - (start or 0)))}: correct answer_start"
    other = context.lower().find(text.lower())
    if other >= 0 and len(context.lower()) == len(context):
        return f"at {other} stands {_short(context[other : other + len(text)])}: copy the answer from the context"
    return "copy the answer from the context"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
