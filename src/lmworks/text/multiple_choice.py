"""Multiple-choice questions: a beginning, several continuations, and which is the true one. From a file of the user, or
made from Python's documentation topics that nothing here is trained on.

The questions from the documentation are always the same for one version of Python: the beginning is a paragraph's
sentences before its last one, the true continuation that last one, and the others are last sentences of other topics'
paragraphs, those nearest in length.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.files import expand_home
from lmworks.text import formats, stdlib
from lmworks.text.rows import BadRows, DataSettings, Row

CHOICES = 4
PROMPT, CONTINUATION = (60, 240), (40, 200)  # characters of a beginning, and of a continuation
_SENTENCES = re.compile(r"(?<=[a-z)\"'][.!?])\s+(?=[A-Z])")
_NOT_PROSE = re.compile(r"::|>>>|\.\.\s|[|=_~*+-]{3,}|^\W")
_HINT = 'give rows such as {"prompt": "The sky is", "choices": [" blue.", " sour."], "answer": 0}'


@dataclass(frozen=True)
class ChoiceQuestion:
    """A text with several continuations.

    Attributes:
        prompt: the beginning.
        choices: what may follow it, each with the space before it, where it has one.
        answer: index of the true one.
        place: where it stands.
    """

    prompt: str
    choices: tuple[str, ...]
    answer: int
    place: str


def documentation_questions(count: int | None = None) -> list[ChoiceQuestion]:
    """Questions about the continuation of paragraphs of Python's documentation topics that nothing is trained on.

    Args:
        count: the most questions, spread over all topics; None: all.

    Raises:
        InputError: this interpreter was installed without its documentation topics.
    """
    parts = [
        (topic, *part)
        for topic, text in stdlib.topics().items()
        if stdlib.is_general(topic)
        for paragraph in re.split(r"\n\s*\n", text)
        if (part := _beginning_and_end(paragraph))
    ]
    if len({topic for topic, _, _ in parts}) <= CHOICES:
        hint = "name a file of your own questions, or install the whole standard library"
        raise InputError("this Python has no documentation topics (pydoc_data.topics) to make questions of", hint=hint)
    count = len(parts) if count is None else min(count, len(parts))
    chosen = [number * len(parts) // count for number in range(count)]
    return [_question(number, parts) for number in chosen]


def _beginning_and_end(paragraph: str) -> tuple[str, str] | None:
    """Of a paragraph of prose its last sentence, and the sentences before it; None where they are too short or long."""
    text = " ".join(paragraph.split())
    *sentences, end = _SENTENCES.split(text)
    beginning = ""
    for sentence in reversed(sentences):
        if len(sentence) + 1 + len(beginning) > PROMPT[1]:
            break
        beginning = f"{sentence} {beginning}".rstrip()
    fits = len(beginning) >= PROMPT[0] and CONTINUATION[0] <= len(end) <= CONTINUATION[1]
    return (beginning, end) if fits and end.endswith(".") and not _NOT_PROSE.search(text) else None


def _question(number: int, parts: list[tuple[str, str, str]]) -> ChoiceQuestion:
    topic, beginning, end = parts[number]
    others = {other: None for name, _, other in parts if name != topic and other != end}
    nearest = sorted(others, key=lambda other: (abs(len(other.encode()) - len(end.encode())), _hash(beginning, other)))
    choices = sorted([end, *nearest[: CHOICES - 1]], key=lambda choice: _hash(beginning, choice))
    place = f"topic {topic}: {beginning[:40]}"
    return ChoiceQuestion(beginning, tuple(f" {choice}" for choice in choices), choices.index(end), place)


def _hash(beginning: str, choice: str) -> bytes:
    return hashlib.sha256(f"{beginning}\n{choice}".encode()).digest()


def read_questions(path: str | Path) -> list[ChoiceQuestion]:
    """Questions of a file (JSONL, JSON, Parquet) with the columns ``prompt``, ``choices`` (a list of texts) and
    ``answer`` (the index of the true one, from 0, or its text).

    A space is put between prompt and choice where neither has one.

    Raises:
        InputError: the file cannot be read, or a row is no such question.
    """
    place = expand_home(path)
    if not place.is_file():
        raise InputError("there is no such file", str(path), _HINT)
    questions = [_read(row) for row in formats.records(place, DataSettings(), BadRows("stop"), [])]
    if not questions:
        raise InputError("has no questions", str(path), _HINT)
    return questions


def _read(row: Row) -> ChoiceQuestion:
    values = row.values
    if missing := [name for name in ("prompt", "choices", "answer") if values.get(name) is None]:
        raise InputError(f"a question has no {missing[0]}", row.place, _HINT)
    prompt, choices = values["prompt"], values["choices"]
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError("the prompt of a question is no text", row.place, _HINT)
    if not isinstance(choices, list) or len(choices) < 2 or not all(_is_text(choice) for choice in choices):
        raise InputError("the choices of a question are no list of two texts or more", row.place, _HINT)
    if len(set(choices)) < len(choices):
        raise InputError("two choices of a question are the same", row.place, "make them different")
    answer = _index(values["answer"], choices, row.place)
    joined = tuple(choice if prompt[-1].isspace() or choice[0].isspace() else f" {choice}" for choice in choices)
    return ChoiceQuestion(prompt, joined, answer, row.place)


def _is_text(choice: Any) -> bool:
    return isinstance(choice, str) and bool(choice.strip())


def _index(answer: Any, choices: list[str], place: str) -> int:
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    hint = f"give a number from 0 to {len(choices) - 1}, or the text of a choice"
    raise InputError(f"the answer {answer!r} is none of {len(choices)} choices", place, hint)
