"""Prompts with answers as examples of a decoder: prompt and completion, chats, labels. Only the answers carry loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.data.batch import Example
from lmworks.data.documents import ROWS_AT_ONCE
from lmworks.data.examples import (
    Examples,
    Report,
    count,
    count_specials,
    count_without_loss,
    limit_of,
    note_rows,
    start_report,
)
from lmworks.data.prompts import as_messages, end_of_answer, plain, uses_template
from lmworks.text import chat
from lmworks.text.rows import DataSettings, Row, Table, option
from lmworks.text.tokenizer import Tokenizer

Part = tuple[str, str, bool, str, bool]
"""text, text before it, loss, content, ended: as in chat.Piece"""


def answer_examples(table: Table, tokenizer: Tokenizer, settings: DataSettings, context: int) -> Examples:
    """All rows of a table as examples of at most `settings.max_tokens`, else of `context` tokens and what they predict.

    Args:
        table: of kind completion, chat or labels.
        tokenizer: with a chat template or without.
        settings: how rows are written and cut.
        context: tokens that the model reads at a time.

    Raises:
        InputError: max_tokens is more than the context, a chat without template, a row too long under on_long: stop.
    """
    limit = limit_of(settings, context) if settings.max_tokens else context + 1  # the last passes through no network
    templated = uses_template(table, tokenizer, settings)
    report = start_report(table, "chat template" if templated else "plain")
    items: list[Example] = []
    for begin in range(0, len(table), ROWS_AT_ONCE):
        rows = table.rows[begin : begin + ROWS_AT_ONCE]
        count_specials(rows, tokenizer, report)
        items += _answer_examples(rows, tokenizer, settings, templated, table.labels, limit, report)
    count(items, report)
    _note(table, tokenizer, templated, report)
    return Examples(items, report, table.labels)


def _answer_examples(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    settings: DataSettings,
    templated: bool,
    choices: list[str],
    limit: int,
    report: Report,
) -> list[Example]:
    parts = [_parts(row, tokenizer, settings, templated, choices) for row in rows]
    flat = [part for row_parts in parts for part in row_parts]
    encoded = iter(tokenizer.encode_many([part[0] for part in flat], [part[1] for part in flat]))
    examples = []
    for row, row_parts in zip(rows, parts, strict=True):
        end = [] if templated else end_of_answer(row, tokenizer)
        ids, loss = _join(row_parts, encoded, [] if templated else list(tokenizer.opening), end)
        ended = all(part[4] for part in row_parts if part[2])
        size = sum(len(part[3].encode("utf-8", errors="replace")) for part in row_parts if part[2])
        example = _fit(Example(ids, loss, row.place, size), ended, tokenizer, settings, limit, report)
        if example is not None:
            examples.append(example)
    return examples


def _parts(row: Row, tokenizer: Tokenizer, settings: DataSettings, templated: bool, choices: list[str]) -> list[Part]:
    """A row as stretches of text that are encoded alone."""
    if not templated:
        prompt, answer = plain(row, settings)
        return [(prompt, "", False, "", False), (answer, prompt, True, answer, tokenizer.eos_id is not None)]
    try:
        cut = chat.pieces(tokenizer, as_messages(row, settings, choices), turns=settings.turns)
    except InputError as error:
        fault = f"{error.place}: {error.fault}" if error.place else error.fault
        hint = f"{error.hint}; or leave such rows out with {option('on_bad_row', 'skip')}"
        raise InputError(fault, row.place, hint) from error
    return [(piece.text, piece.after, piece.loss, piece.content, piece.ended) for piece in cut]


def _join(
    parts: list[Part], encoded: Iterator[list[int]], opening: list[int], end: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a row's parts one after the other, between the opening and the end, which is learned."""
    ids, loss = list(opening), [False] * len(opening)
    for part in parts:
        piece = next(encoded)
        ids += piece
        loss += [part[2]] * len(piece)
    return np.array(ids + end, dtype=np.int32), np.array(loss + [True] * len(end), dtype=bool)


def _fit(
    example: Example, ended: bool, tokenizer: Tokenizer, settings: DataSettings, limit: int, report: Report
) -> Example | None:
    """Cut or leave out what is too long, leave out what teaches nothing, and count it."""
    dropped = len(example) - limit
    if dropped > 0:
        if settings.on_long == "stop":
            hint = f"raise data.max_tokens, shorten the row, or cut it: {option('on_long', 'cut')}"
            raise InputError(f"{len(example)} tokens, and there is room for {limit}", example.place, hint)
        if settings.on_long == "skip":
            report.too_long += 1
            return None
        report.truncated += 1
        report.dropped_tokens += dropped
        ids, loss = example.ids[:limit], example.loss[:limit]
        size = len(tokenizer.decode(ids[loss].tolist()).encode("utf-8", errors="replace"))
        example = Example(ids, loss, example.place, size, dropped)
    if not example.loss[1:].any():
        count_without_loss(example, report)
        return None
    if not ended and dropped <= 0:
        report.end_without_loss += 1
        report.first_end_without_loss = report.first_end_without_loss or example.place
    return example


def _without_loss(row: Row | Example, report: Report) -> None:
    report.no_trainable += 1
    report.first_no_trainable = report.first_no_trainable or row.place


def _note(table: Table, tokenizer: Tokenizer, templated: bool, report: Report) -> None:
    note_rows(report, "without a token to learn")
    if templated:
        report.notes.append("written through the model's chat template")
        report.notes += _unwritten(table, tokenizer)
    else:
        why = "as told" if tokenizer.chat_template is not None else "the model has no chat template"
        report.notes.append(f"prompt, answer and end-of-text token, without a template: {why}")
    if report.with_specials:
        report.notes.append(f"special tokens written out in {count_of(report.with_specials, 'row')} are read as such")


def _unwritten(table: Table, tokenizer: Tokenizer) -> list[str]:
    """Keys of messages that the chat template leaves out, with the number of rows that have them."""
    conversations = [row.values["messages"] for row in table.rows if "messages" in row.values]
    counts = Counter(key for messages in conversations for key in chat.unwritten_keys(tokenizer, messages))
    return [
        f"the chat template does not write {key!r} of messages, in {count_of(n, 'row')}" for key, n in counts.items()
    ]
