"""Sequence to sequence: rows of source and target -> examples of encoder-decoders, teacher-forced.

The encoder reads the source, the decoder learns the target, each with the special tokens of the tokenizer. Knows no
network; nothing here is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.data.documents import ROWS_AT_ONCE, Frame
from lmworks.data.examples import Report
from lmworks.text.rows import Row, Table, option
from lmworks.text.tokenizer import Tokenizer

SIDES = {"pairs": ("source", "target"), "completion": ("prompt", "completion"), "labels": ("text", "label")}
"""Source and target field of each kind of rows."""


@dataclass(frozen=True)
class SequenceFormat:
    """How rows become examples.

    Attributes:
        frame: special tokens around sources and targets.
        start: the decoder's start token.
        prefix: text before each source.
        limit: most tokens of a source, and of a decoder's sequence.
        on_long: cut, skip or stop.
    """

    frame: Frame
    start: int
    prefix: str
    limit: int
    on_long: str


def examples(table: Table, tokenizer: Tokenizer, layout: SequenceFormat, report: Report) -> list[Example]:
    """All rows of a table; what is cut, left out or empty is counted in the report.

    Raises:
        InputError: the rows have no source and target, or one is too long under on_long: stop.
    """
    if table.kind not in SIDES:
        fault = f"rows of kind {table.kind} have no source and target"
        raise InputError(fault, table.name, "name the columns: --columns '{source: COLUMN, target: COLUMN}'")
    if layout.limit <= max(len(layout.frame), len(layout.frame.opening) + 1):
        raise InputError(f"a context of {layout.limit} tokens has no room for a text", "max_tokens", "raise it")
    built = []
    for begin in range(0, len(table), ROWS_AT_ONCE):
        rows = table.rows[begin : begin + ROWS_AT_ONCE]
        sources, targets = encode_rows(rows, SIDES[table.kind], tokenizer, layout.prefix)
        for row, source, target in zip(rows, sources, targets, strict=True):
            size = len(row.values[SIDES[table.kind][1]].encode("utf-8", errors="replace"))
            example = _example(row, source, target, size, tokenizer, layout, report)
            if example is not None:
                built.append(example)
    return built


def encode_rows(
    rows: Sequence[Row], fields: tuple[str, str], tokenizer: Tokenizer, prefix: str
) -> tuple[list[list[int]], list[list[int]]]:
    """The ids of sources (with their prefix) and targets, without special tokens."""
    sources = tokenizer.encode_many([prefix + row.values[fields[0]] for row in rows])
    return sources, tokenizer.encode_many([row.values[fields[1]] for row in rows])


def _example(
    row: Row,
    source: list[int],
    target: list[int],
    size: int,
    tokenizer: Tokenizer,
    layout: SequenceFormat,
    report: Report,
) -> Example | None:
    if not source or not target:
        report.no_trainable += 1
        report.first_no_trainable = report.first_no_trainable or row.place
        return None
    frame, limit = layout.frame, layout.limit
    over = max(len(source) + len(frame) - limit, 0), max(len(target) + len(frame) + 1 - limit, 0)
    if any(over):
        if layout.on_long == "stop":
            fault = f"its {'source' if over[0] else 'target'} is {max(over)} tokens too long for a context of {limit}"
            raise InputError(
                fault, row.place, f"raise data.max_tokens, shorten the row, or cut it: {option('on_long', 'cut')}"
            )
        if layout.on_long == "skip":
            report.too_long += 1
            return None
        report.truncated += 1
        report.dropped_tokens += sum(over)
    decoder_ids = [layout.start, *frame.opening, *target, *frame.closing]
    if over[1]:  # a text that was cut has no end
        decoder_ids = decoder_ids[:limit]
        remaining = decoder_ids[1 + len(frame.opening) :][: len(target)]
        size = len(tokenizer.decode(remaining).encode("utf-8", errors="replace"))
    source_ids = frame.around(np.array(source[: len(source) - over[0]], dtype=np.int32))
    loss = np.ones(len(decoder_ids), dtype=bool)
    loss[0] = False
    return Example(np.array(decoder_ids, dtype=np.int32), loss, row.place, size, sum(over), source=source_ids)
