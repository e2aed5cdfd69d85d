"""The Stepper over the native engine: each row is a sequence with keys and values of its own. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from lmworks.generate.prefix_length import shared_length
from lmworks.generate.stepper import RESERVE, RowStart, Usage


class NativeStepper:
    """A batch of rows on its way through the native engine; the interface is explained in generate/stepper.py.

    Args:
        engine: with its weights (kernels/native/engine.cpp).
        vocab_size: V.
        context: tokens that a row may hold.
    """

    def __init__(self, engine: Any, vocab_size: int, context: int) -> None:
        self._engine, self.vocab_size, self.context = engine, vocab_size, context
        self.has_encoder = False
        self.usage = Usage()
        self._sequences: list[int] = []
        self.logits = np.empty((0, vocab_size), np.float32)

    def __del__(self) -> None:
        self._remove(self._sequences)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [self._engine.length(number) for number in self._sequences]

    def prefill(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        """Read the prompts, one after the other, in place of earlier rows."""
        self._remove(self._sequences)
        self._sequences, self.logits = [], self.logits[:0]
        self.add(prompts, reserve)

    def add(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        """Read the prompts; what all of them begin with is read once."""
        rows = [list(prompt.ids) for prompt in prompts]
        if not rows:
            return
        capacities = [min(len(row) + reserve, self.context) for row in rows]
        known = shared_length(rows)
        if known:
            first = self._engine.add_sequence(known)
            self._compute([first] * known, rows[0][:known], [])
            added = [self._engine.copy_sequence(first, known, capacity) for capacity in capacities]
            self._engine.remove_sequence(first)
        else:
            added = [self._engine.add_sequence(capacity) for capacity in capacities]
        numbers, tokens, wanted = [], [], []
        for number, row in zip(added, rows, strict=True):
            numbers += [number] * (len(row) - known)
            tokens += row[known:]
            wanted.append(len(tokens) - 1)
        logits = self._compute(numbers, tokens, wanted)
        self.usage.prompt_tokens += sum(map(len, rows))
        self._sequences += added
        self.logits = np.concatenate((self.logits, logits)) if len(self.logits) else logits

    def step(self, tokens: Sequence[int]) -> None:
        """Append one token to each row."""
        self.usage.completion_tokens += len(tokens)
        self.logits = self._compute(self._sequences, list(tokens), list(range(len(tokens))))

    def append(self, tokens: Sequence[Sequence[int]]) -> None:
        """Append one token or more to each row, all in one pass over the weights."""
        numbers = [number for number, row in zip(self._sequences, tokens, strict=True) for _ in row]
        flat = [token for row in tokens for token in row]
        self.usage.completion_tokens += len(flat)
        self.logits = self._compute(numbers, flat, [end - 1 for end in accumulate(map(len, tokens))])

    def extend(self, tokens: Sequence[int]) -> np.ndarray:
        """Append tokens to the only row; (number of tokens, V) float32: the logits after each of them."""
        (number,) = self._sequences
        self.usage.completion_tokens += len(tokens)
        logits = self._compute([number] * len(tokens), list(tokens), list(range(len(tokens))))
        self.logits = logits[-1:]
        return logits

    def truncate(self, length: int) -> None:
        """Forget all tokens of the only row but the first ``length``; :meth:`extend` or :meth:`step` comes next."""
        (number,) = self._sequences
        self._engine.truncate_sequence(number, length)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order."""
        if list(rows) == list(range(len(self._sequences))):
            return
        sequences, used = [], set()
        for row in rows:
            number = self._sequences[row]
            if number in used:
                length = self._engine.length(number)
                number = self._engine.copy_sequence(number, length, min(length + RESERVE, self.context))
            used.add(number)
            sequences.append(number)
        self._remove([number for number in self._sequences if number not in used])
        self._sequences, self.logits = sequences, self.logits[list(rows)]

    def _compute(self, sequences: list[int], tokens: list[int], wanted: list[int]) -> np.ndarray:
        """(number of ``wanted``, V) float32: the logits after these tokens."""
        flags = np.zeros(len(tokens), np.int64)
        flags[wanted] = 1
        logits = np.empty((len(wanted), self.vocab_size), np.float32)
        self._engine.step(np.array(sequences, np.int64), np.array(tokens, np.int64), flags, logits)
        return logits

    def _remove(self, sequences: Sequence[int]) -> None:
        for number in sequences:
            self._engine.remove_sequence(number)
