"""Examples -> batches: whole documents in flat rows without padding, or a document a row with it.

Targets are shifted here and nowhere else: the target of a place is the next token of the same document, so no token
is predicted from another document. Knows nothing of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from lmworks.data.batch import Batch, Example


def pack(examples: Sequence[Example], row_tokens: int) -> list[Batch]:
    """Fill flat rows with whole documents.

    Longest first, each into the first row that has room (first-fit decreasing: Johnson 1973, at most 11/9 of the fewest
    rows). Documents of one row keep the order in which they were given.

    Args:
        examples: documents.
        row_tokens: tokens a row may hold; a longer document gets a row of its own.

    Returns:
        Batches of shape (1, T) with segments 1, 2, ... and positions that begin at 0 in each document.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(examples)), key=lambda index: -len(examples[index])):
        size = len(examples[index])
        place = next((row for row, left in enumerate(room) if left >= size), None)
        if place is None:
            rows.append([])
            room.append(row_tokens)
            place = len(rows) - 1
        rows[place].append(index)
        room[place] -= size
    return [_flat([examples[index] for index in sorted(row)]) for row in rows]


def _flat(documents: Sequence[Example]) -> Batch:
    columns = [_columns(example) for example in documents]
    segments = [np.full(len(example), number, dtype=np.int64) for number, example in enumerate(documents, 1)]
    ids, targets, weights, positions = (np.concatenate(column)[None] for column in zip(*columns, strict=True))
    return _batch(ids, targets, weights, positions, np.concatenate(segments)[None])


def pad(examples: Sequence[Example], pad_id: int, side: Literal["left", "right"] = "right") -> Batch:
    """A document a row, filled with `pad_id` to the length of the longest: shape (B, T), segment 0 where filled."""
    shape = (len(examples), max(len(example) for example in examples))
    ids = np.full(shape, pad_id, dtype=np.int64)
    targets, positions, segments = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    weights = np.zeros(shape, dtype=np.float32)
    for row, example in enumerate(examples):
        begin = shape[1] - len(example) if side == "left" else 0
        here = slice(begin, begin + len(example))
        ids[row, here], targets[row, here], weights[row, here], positions[row, here] = _columns(example)
        segments[row, here] = 1
    return _batch(ids, targets, weights, positions, segments)


def _columns(example: Example) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """ids, targets, weights and positions of one document; its last place predicts nothing."""
    length = len(example)
    targets = np.zeros(length, dtype=np.int64)
    weights = np.zeros(length, dtype=np.float32)
    targets[:-1] = example.ids[1:]
    weights[:-1] = example.loss[1:]
    return example.ids.astype(np.int64), targets, weights, np.arange(length, dtype=np.int64)


def _batch(
    ids: np.ndarray, targets: np.ndarray, weights: np.ndarray, positions: np.ndarray, segments: np.ndarray
) -> Batch:
    ready = [torch.from_numpy(np.ascontiguousarray(array)) for array in (ids, targets, weights, positions, segments)]
    return Batch(ready[0], ready[1], ready[2], ready[3], ready[4], int((segments > 0).sum()))
