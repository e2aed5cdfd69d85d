"""The prompts of a file, each as a conversation that a model is to answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.text import columns, formats
from lmworks.text.messages import Message, conversation
from lmworks.text.rows import BadRows, DataSettings, Row

COLUMNS = (*columns.MESSAGES, *columns.PROMPT, *columns.SOURCE, *columns.TEXT)
"""Columns that may hold a prompt, or a conversation as a list; of several, the first of these does."""
PROMPT_HINT = "name the column prompt for texts, or messages for conversations"


def read_prompts(path: str | Path, limit: int | None = None) -> tuple[list[list[Message]], list[str]]:
    """The prompts of a file: a line each of a text file, else a column of a usual name, such as prompt or messages.

    Answers at the end of conversations are left out; of equal prompts there is one.

    Args:
        path: txt, CSV, TSV, JSON, JSONL or Parquet.
        limit: only the first so many; None: all.

    Returns:
        The prompts, messages each, and notes about what was left out.

    Raises:
        InputError: the file cannot be read, or a row has no prompt: names the row.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("there is no such file", str(path), "give a file of prompts: .txt, .csv, .jsonl or .parquet")
    notes: list[str] = []
    prompts: dict[str, list[Message]] = {}
    equal = answered = 0
    for row in formats.records(path, DataSettings(kind="text", document="line"), BadRows("stop"), notes):
        messages = _messages(row)
        prompt = _without_answer(messages, row)
        answered += len(prompt) < len(messages)
        key = json.dumps(prompt, ensure_ascii=False)
        equal += key in prompts
        if len(prompts) == limit and key not in prompts:
            notes.append(f"only the first {count_of(limit, 'prompt')} read (limit)")
            break
        prompts.setdefault(key, prompt)
    if not prompts:
        raise InputError("there is no prompt in it", str(path), "give a file with a prompt in each line")
    notes += [f"{count_of(equal, 'prompt')} equal to an earlier one left out"] if equal else []
    notes += [f"{count_of(answered, 'conversation')} ended with an answer, which is left out"] if answered else []
    return list(prompts.values()), notes


def _messages(row: Row) -> list[Message]:
    """The conversation of a row.

    Raises:
        InputError: it has none.
    """
    for column in COLUMNS:
        value: Any = row.values.get(column)
        if isinstance(value, list):
            try:
                return conversation(value, {})
            except InputError as error:
                raise InputError(f"{error.place}: {error.fault}", row.place, error.hint or PROMPT_HINT) from error
        if value is not None and str(value).strip():
            return [{"role": "user", "content": str(value)}]
    raise InputError(f"has no prompt; its columns are {', '.join(row.values)}", row.place, PROMPT_HINT)


def _without_answer(messages: list[Message], row: Row) -> list[Message]:
    """The messages up to the last one that is not the assistant's.

    Raises:
        InputError: there is none.
    """
    end = max((number for number, message in enumerate(messages, 1) if message["role"] in ("user", "tool")), default=0)
    if end == 0:
        raise InputError("no message is the user's", row.place, 'add one: {"role": "user", "content": "..."}')
    return [{key: value for key, value in message.items() if key != "weight"} for message in messages[:end]]
