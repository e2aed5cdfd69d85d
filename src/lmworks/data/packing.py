"""Examples -> batches: whole documents in flat rows, or a document a row with padding.

Targets are shifted here and nowhere else, and only of examples without targets: the target of a place is then the next
token of the same document, so no token is predicted from another document. Knows no text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lmworks.data.batch import Batch, Example, HeadLabels, Source

SHARE, LEAST = 32, 16
"""A row that is filled up is at most a share of its power of two longer, and a multiple of so many tokens."""


def filled_length(tokens: int) -> int:
    """Tokens of a row that is filled up: 32 lengths between a power of two and the next.

    Providers of matrix products build code for each shape that they meet, which takes half a millisecond: as long as a
    product of a small model, whose rows hardly ever have the same length twice.
    """
    step = max(LEAST, (1 << (tokens.bit_length() - 1)) // SHARE)
    return -(-tokens // step) * step


def pack(examples: Sequence[Example], row_tokens: int, fill: bool = False, virtual: int = 0) -> list[Batch]:
    """Fill flat rows with whole documents.

    Longest first, each into the first row that has room (first-fit decreasing: Johnson 1973, at most 11/9 of the fewest
    rows). Documents of one row keep their order. A document counts with its source: both pass through the network.

    Args:
        examples: documents; all with a source, or none.
        row_tokens: most tokens of a row and its source together; a longer document gets a row of its own.
        fill: fill rows up with padding (segment 0, without loss) to one of few lengths: :func:`filled_length`.
        virtual: tokens that the network puts before each document; they count, and are not in the batch.

    Returns:
        Batches of shape (1, T) with segments 1, 2, ... and positions that begin at 0 in each document; their source of
        shape (1, S) has the same documents in the same order under the same segments.
    """
    rows: list[list[int]] = []
    free_tokens: list[int] = []  # of each row
    for index in sorted(range(len(examples)), key=lambda index: -examples[index].size):
        size = examples[index].size + virtual
        place = next((row for row, left in enumerate(free_tokens) if left >= size), None)
        if place is None:
            rows.append([])
            free_tokens.append(row_tokens)
            place = len(rows) - 1
        rows[place].append(index)
        free_tokens[place] -= size
    return [_flat([examples[index] for index in sorted(row)], fill, virtual) for row in rows]


def collate(examples: Sequence[Example]) -> Batch:
    """All documents as one batch without padding: one per row where all have the same length, else one flat row."""
    first = examples[0]
    shape = (first.width, first.size)
    if all((example.width, example.size, example.lengths) == (*shape, ()) for example in examples):
        return pad(examples, 0)
    (batch,) = pack(examples, sum(example.size for example in examples))
    return batch


def _flat(documents: Sequence[Example], fill: bool, virtual: int) -> Batch:
    columns = [_columns(example) for example in documents]
    ids, targets, weights, types = (np.concatenate(column)[None] for column in zip(*columns, strict=True))
    lengths = [example.width for example in documents]
    positions, segments = _numbered([text for example in documents for text in example.lengths or (example.width,)])
    source = None
    if _has_sources(documents):
        source_ids = np.concatenate([_source_of(example) for example in documents])[None]
        source = (source_ids, *_numbered([len(_source_of(example)) for example in documents]))
    begins = np.cumsum([0, *lengths[:-1]])
    if fill:
        added = virtual * len(documents)
        ids, targets, weights, types, positions, segments = (
            _filled(row, added) for row in (ids, targets, weights, types, positions, segments)
        )
        source = source and (_filled(source[0]), _filled(source[1]), _filled(source[2]))
    return _batch(documents, ids, targets, weights, types, positions, segments, begins, source)


def _filled(row: np.ndarray, added: int = 0) -> np.ndarray:
    """(1, T) with zeros up to :func:`filled_length`, of which ``added`` tokens are put in later."""
    tokens = row.shape[1] + added
    return np.pad(row, ((0, 0), (0, filled_length(tokens) - tokens)))


def _numbered(lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and segments, (1, T) each, of concatenated documents."""
    positions = np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])
    segments = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int64), lengths)
    return positions[None], segments[None]


def pad(examples: Sequence[Example], pad_id: int) -> Batch:
    """A document a row, filled on the right with `pad_id` to the longest: shape (B, T), segment 0 where filled.

    Sources are filled likewise, to the longest source: shape (B, S).
    """
    slots, shape = _slots([example.width for example in examples])
    ids = np.full(shape, pad_id, dtype=np.int64)
    targets, types, positions, segments = (np.zeros(shape, dtype=np.int64) for _ in range(4))
    weights = np.zeros(shape, dtype=np.float32)
    for row, (example, slot) in enumerate(zip(examples, slots, strict=True)):
        ids[row, slot], targets[row, slot], weights[row, slot], types[row, slot] = _columns(example)
        positions[row, slot], segments[row, slot] = np.arange(example.width), 1
    begins = np.arange(len(slots)) * shape[1]
    source = None
    if _has_sources(examples):
        slots, shape = _slots([len(_source_of(example)) for example in examples])
        source = (np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64))
        for row, (example, slot) in enumerate(zip(examples, slots, strict=True)):
            tokens = _source_of(example)
            source[0][row, slot], source[1][row, slot], source[2][row, slot] = tokens, np.arange(len(tokens)), 1
    return _batch(examples, ids, targets, weights, types, positions, segments, begins, source)


def _slots(lengths: list[int]) -> tuple[list[slice], tuple[int, int]]:
    """The columns of each document in its row, and the shape of all rows."""
    return [slice(0, length) for length in lengths], (len(lengths), max(lengths))


def _columns(example: Example) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """ids, targets, weights and types of one document; without targets each token predicts the next, and the last,
    which predicts nothing, is left out."""
    width = example.width
    types = np.zeros(width, dtype=np.int64) if example.types is None else example.types[:width].astype(np.int64)
    ids = example.ids[:width].astype(np.int64)
    if example.targets is not None:
        return ids, example.targets.astype(np.int64), example.loss.astype(np.float32), types
    targets = np.zeros(width, dtype=np.int64)
    weights = np.zeros(width, dtype=np.float32)
    targets[: len(example) - 1] = example.ids[1:]
    weights[: len(example) - 1] = example.loss[1:]
    return ids, targets, weights, types


def _has_sources(examples: Sequence[Example]) -> bool:
    count = sum(example.source is not None for example in examples)
    if count not in (0, len(examples)):
        raise ValueError("examples with a source and examples without one cannot stand in one batch")
    return count > 0


def _source_of(example: Example) -> np.ndarray:
    assert example.source is not None
    return example.source


def _batch(
    examples: Sequence[Example],
    ids: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    types: np.ndarray,
    positions: np.ndarray,
    segments: np.ndarray,
    begins: np.ndarray,
    source: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
) -> Batch:
    """The arrays as tensors; types and labels only where an example has them."""
    tokens = int((segments > 0).sum()) + (int((source[2] > 0).sum()) if source is not None else 0)
    return Batch(
        ids=_tensor(ids),
        targets=_tensor(targets),
        weights=_tensor(weights),
        positions=_tensor(positions),
        segments=_tensor(segments),
        tokens=tokens,
        types=_tensor(types) if any(example.types is not None for example in examples) else None,
        source=Source(*(_tensor(array) for array in source)) if source is not None else None,
        labels=_labels(examples, begins),
    )


def _labels(examples: Sequence[Example], begins: np.ndarray) -> dict[str, HeadLabels]:
    """By head, the labels of all documents that have some; ``begins``: index of each document's first token."""
    by_head: dict[str, list[tuple[np.ndarray, np.ndarray, int]]] = {}
    for example, begin in zip(examples, begins, strict=True):
        for head, labels in example.labels.items():
            if labels.places.max(initial=0) >= example.width:
                raise ValueError(f"a label of head {head} stands at a token that does not pass through the network")
            by_head.setdefault(head, []).append((begin + labels.places, labels.classes, labels.weight))
    scales = {head: labels.scale for example in examples for head, labels in example.labels.items()}
    joined = {head: tuple(zip(*of_head, strict=True)) for head, of_head in by_head.items()}
    return {
        head: HeadLabels(_tensor(np.concatenate(places)), _tensor(np.concatenate(classes)), sum(weights), scales[head])
        for head, (places, classes, weights) in joined.items()
    }


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
