"""The largest row of documents that a run passes through the network, and the number of rows per step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmworks.data.mixture import Mixture, MixtureSampler, sampler_of
from lmworks.data.sampler import BatchSampler
from lmworks.train.settings import TrainSettings

# Most documents of all steps whose packing is simulated to find the largest row; with more, an upper bound is used.
SIMULATED_DOCUMENTS = 50_000


@dataclass(frozen=True)
class LargestRow:
    """The row that needs the most memory.

    Attributes:
        lengths, sources: tokens of its documents, and of their sources if they have any.
        rows_per_step: number of rows in a step.
        longest: tokens of the longest document with its source: a lower bound of the largest row.
    """

    lengths: list[int]
    sources: list[int]
    rows_per_step: int
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], sources: Sequence[int], train: TrainSettings) -> LargestRow:
        """The largest row of documents that are packed according to the settings.

        Args:
            lengths: tokens of each document (of the decoder).
            sources: tokens of each source; empty if there are none.
            train: batch_size, row_tokens, packing, and the settings that determine the order.
        """
        pairs = length_pairs(lengths, sources)
        sizes = [sum(pair) for pair in pairs]
        indices = _largest_of_all_steps(sizes, train)
        row_lengths, row_sources = ([pairs[index][side] for index in indices] for side in (0, 1))
        if not train.packing:  # padded to the longest
            row_lengths, row_sources = ([max(side)] * len(side) for side in (row_lengths, row_sources))
        documents = train.batch_size if train.steps else min(train.batch_size, len(sizes))
        rows = math.ceil(sum(sizes) / len(sizes) * documents / train.row_capacity) if train.packing else 1
        return cls(row_lengths, row_sources if sources else [], rows, max(sizes))

    @property
    def tokens(self) -> int:
        """Tokens of the row in the stack in which it has more."""
        return max(sum(self.lengths), sum(self.sources))


def length_pairs(lengths: Sequence[int], sources: Sequence[int]) -> list[tuple[int, int]]:
    """For each document its tokens and those of its source; 0 of the source if there are no sources."""
    return list(zip(lengths, sources or [0] * len(lengths), strict=True))


def steps_of(documents: int, train: TrainSettings, mixture: Mixture | None = None) -> BatchSampler | MixtureSampler:
    """The steps of a run, each with the indices of its documents, as the training loop takes them."""
    return sampler_of(documents, train.batch_size, train.seed, train.epochs, train.steps, mixture)


def _largest_of_all_steps(sizes: Sequence[int], train: TrainSettings) -> list[int]:
    """Indices of the documents in the largest row of all steps, by simulation; in an upper bound of it if there are too
    many documents."""
    steps = steps_of(len(sizes), train)
    if len(steps) * min(train.batch_size, len(sizes) * steps.repeats) > SIMULATED_DOCUMENTS:
        return largest_possible(sizes, train)
    largest: list[int] = []
    for indices in steps:
        row = _fill(sorted(indices, key=lambda index: -sizes[index]), sizes, train)
        if _tokens(row, sizes, train) > _tokens(largest, sizes, train):
            largest = row
    return largest


def largest_possible(sizes: Sequence[int], train: TrainSettings) -> list[int]:
    """Indices of the documents in the largest row that any order of the documents could give.

    Args:
        sizes: tokens of each document, with its source where it has one.
        train: settings of packing.
    """
    repeats = -(-train.batch_size // len(sizes)) if train.steps else 1
    indices = [index for index in range(len(sizes)) for _ in range(repeats)]
    return _fill(sorted(indices, key=lambda index: -sizes[index])[: train.batch_size], sizes, train)


def _fill(longest_first: list[int], sizes: Sequence[int], train: TrainSettings) -> list[int]:
    """Indices of the documents in one row of a step: the longest, and further ones that fit into row_tokens."""
    if not train.packing:
        return longest_first
    row, free_tokens = [longest_first[0]], train.row_capacity - sizes[longest_first[0]]
    for index in longest_first[1:]:
        if sizes[index] <= free_tokens:
            row.append(index)
            free_tokens -= sizes[index]
    return row


def _tokens(row: list[int], sizes: Sequence[int], train: TrainSettings) -> int:
    tokens = [sizes[index] for index in row] or [0]
    return sum(tokens) if train.packing else max(tokens) * len(tokens)
