"""The largest row of documents that a run will pass through the network at once, and how many rows a step has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmworks.data.sampler import BatchSampler
from lmworks.train.settings import TrainSettings

# Documents of the coming steps that are laid into rows to find the largest; where there are more, the worst is taken.
SIMULATED_DOCUMENTS = 50_000


@dataclass(frozen=True)
class LargestRow:
    """The row that needs the most memory.

    Attributes:
        lengths, sources: tokens of its documents, and of their sources where they have any.
        rows_per_step: rows that a step has.
        longest: tokens of the longest document with its source: no row can be smaller.
    """

    lengths: list[int]
    sources: list[int]
    rows_per_step: int
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], sources: Sequence[int], train: TrainSettings) -> LargestRow:
        """Of documents that are laid into rows as the settings say.

        Args:
            lengths: tokens of each document (of the decoder).
            sources: tokens of each source; empty where there are none.
            train: batch_size, row_tokens, packing, and what decides the order.
        """
        sources_or_none = sources or [0] * len(lengths)
        sizes = [own + source for own, source in zip(lengths, sources_or_none, strict=True)]
        indices = _largest_of_all_steps(sizes, train)
        own, read = [lengths[index] for index in indices], [sources_or_none[index] for index in indices]
        if not train.packing:  # padded to the longest
            own, read = [max(own)] * len(own), [max(read)] * len(read)
        documents = train.batch_size if train.steps else min(train.batch_size, len(sizes))
        rows = math.ceil(sum(sizes) / len(sizes) * documents / train.room) if train.packing else 1
        return cls(own, read if sources else [], rows, max(sizes))

    @property
    def tokens(self) -> int:
        """Of the stack that reads more."""
        return max(sum(self.lengths), sum(self.sources))


def _largest_of_all_steps(sizes: Sequence[int], train: TrainSettings) -> list[int]:
    """The largest row of all steps to come, where these are few enough to be simulated."""
    epochs = train.epochs if train.steps is None else None
    steps = BatchSampler(len(sizes), train.batch_size, train.seed, epochs, train.steps)
    if len(steps) * min(train.batch_size, len(sizes) * steps.repeats) > SIMULATED_DOCUMENTS:
        return largest_possible(sizes, train)
    largest: list[int] = []
    for indices in steps:
        row = _fill(sorted(indices, key=lambda index: -sizes[index]), sizes, train)
        if _tokens(row, sizes, train) > _tokens(largest, sizes, train):
            largest = row
    return largest


def largest_possible(sizes: Sequence[int], train: TrainSettings) -> list[int]:
    """Indices of the documents in the largest row that any order could give: as many as a step has, within
    row_tokens; the longest of all alone where it is longer.

    Args:
        sizes: tokens of each document, with its source where it has one.
        train: how rows are laid.
    """
    repeats = -(-train.batch_size // len(sizes)) if train.steps else 1
    indices = [index for index in range(len(sizes)) for _ in range(repeats)]
    return _fill(sorted(indices, key=lambda index: -sizes[index])[: train.batch_size], sizes, train)


def _fill(longest_first: list[int], sizes: Sequence[int], train: TrainSettings) -> list[int]:
    """One row of a step's documents."""
    if not train.packing:
        return longest_first
    row, room = [longest_first[0]], train.room - sizes[longest_first[0]]
    for index in longest_first[1:]:
        if sizes[index] <= room:
            row.append(index)
            room -= sizes[index]
    return row


def _tokens(row: list[int], sizes: Sequence[int], train: TrainSettings) -> int:
    tokens = [sizes[index] for index in row] or [0]
    return sum(tokens) if train.packing else max(tokens) * len(tokens)
