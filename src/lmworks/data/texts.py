"""Whole texts as examples: causal chunks, and the documents and windows that masked and damaged texts are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.data.batch import Example
from lmworks.data.documents import ROWS_AT_ONCE, Document, Window, encode_documents, split_windows
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
from lmworks.text.rows import DataSettings, Row, Table
from lmworks.text.tokenizer import Tokenizer

# Causal chunks


def causal_examples(table: Table, tokenizer: Tokenizer, settings: DataSettings, context: int) -> Examples:
    """The texts of a table, each token once: long texts in chunks of `settings.max_tokens`, else of `context` tokens
    and the one that they predict last.

    Raises:
        InputError: max_tokens is more than the context.
    """
    limit = limit_of(settings, context) if settings.max_tokens else context + 1  # the last passes through no network
    report = start_report(table, "plain")
    items: list[Example] = []
    for begin in range(0, len(table), ROWS_AT_ONCE):
        rows = table.rows[begin : begin + ROWS_AT_ONCE]
        count_specials(rows, tokenizer, report)
        items += _chunks(rows, tokenizer, limit, report)
    count(items, report)
    note_rows(report, "without a token to learn")
    if not _end_tokens(tokenizer):
        report.notes.append("the tokenizer has no end-of-text token: texts end without one")
    if not report.chunked:
        note_short(report.longest, limit_of(settings, context), report)
    return Examples(items, report)


def _chunks(rows: Sequence[Row], tokenizer: Tokenizer, limit: int, report: Report) -> list[Example]:
    """Each text begins and ends as the family's do. A chunk after the first begins with the last token of the one
    before as its context, so every token is learned once."""
    examples = []
    opening, closing = tokenizer.opening, _end_tokens(tokenizer)
    num_context = max(len(opening), 1)  # nothing predicts the first token
    texts = [row.values["text"] for row in rows]
    for row, text, (ids, starts) in zip(rows, texts, tokenizer.spans(texts), strict=True):
        whole = _int32(opening, ids, closing)
        if len(whole) <= num_context:
            count_without_loss(row, report)
            continue
        report.chunked += len(whole) > limit
        characters = _int32([0] * len(opening), starts, [len(text)] * len(closing))
        document = Document(whole, characters, text, row.place)
        for begin in range(0, max(len(whole) - 1, 1), limit - 1):
            examples.append(chunk(Window(document, begin, min(begin + limit, len(whole))), num_context))
    return examples


def _int32(*parts: Sequence[int] | np.ndarray) -> np.ndarray:
    """One after the other."""
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])


def chunk(window: Window, num_context: int) -> Example:
    """A stretch of a text as an example: its first token carries no loss, and neither do the text's first
    ``num_context`` tokens."""
    document, num_context = window.document, max(1, num_context - window.begin)
    ids = document.ids[window.begin : window.end]
    loss = np.ones(len(ids), dtype=bool)
    loss[:num_context] = False
    size = document.bytes(window.begin + num_context, window.end)
    return Example(ids, loss, document.place, size, origin=window)


def _end_tokens(tokenizer: Tokenizer) -> list[int]:
    """The tokens that end a text: those that the tokenizer adds, else its end-of-text token, else none."""
    if tokenizer.closing:
        return tokenizer.closing
    return [tokenizer.eos_id] if tokenizer.eos_id is not None else []


# Documents and windows


def read_documents(table: Table, tokenizer: Tokenizer, report: Report, words: bool = False) -> list[Document]:
    """The texts of a table that have tokens; empty ones are counted in the report."""
    read = []
    for document in encode_documents(table.rows, tokenizer, words):
        if len(document):
            read.append(document)
        else:
            report.no_trainable += 1
            report.first_no_trainable = report.first_no_trainable or document.place
    if report.no_trainable:
        report.notes.append(f"{count_of(report.no_trainable, 'text')} without a token left out")
    unknown = sum(int((document.ids == tokenizer.unk_id).sum()) for document in read)
    if unknown and tokenizer.unk_id is not None:
        total = sum(len(document) for document in read)
        report.notes.append(f"{unknown:,} of {total:,} tokens are unknown to the tokenizer")
    return read


def cut(documents: list[Document], size: int, report: Report) -> list[Window]:
    """All documents in windows of at most `size` tokens; the report notes where no document is long enough."""
    report.chunked = sum(len(document) > size for document in documents)
    note_short(max((len(document) for document in documents), default=0), size, report)
    return [window for document in documents for window in split_windows(document, size)]


def note_short(longest: int, size: int, report: Report) -> None:
    """Note that no text fills a context."""
    if 0 < longest < size:
        report.notes.append(f"no text fills a context: there is room for {size} tokens, the longest text has {longest}")


def sampled_examples(
    items: list[Example], report: Report, measure: Callable[[Example, np.random.Generator], Example]
) -> Examples:
    """Examples with the counts of one sample of their random part."""
    rng = np.random.default_rng(0)
    count([measure(example, rng) for example in items], report)
    return Examples(items, report)


def available_tokens(context: int, special: int, least: int) -> int:
    """Tokens of a context that are left for a text between its special tokens.

    Raises:
        InputError: fewer than `least`.
    """
    if context < special + least:
        fault = f"a context of {context} tokens has no room for a text and {special} special tokens"
        raise InputError(fault, "max_tokens", f"give at least {special + least}")
    return context - special
