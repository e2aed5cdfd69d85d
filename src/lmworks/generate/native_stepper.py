"""The Stepper over the native engine: each row is a sequence with keys and values of its own. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.generate.prefix_length import shared_length
from lmworks.generate.stepper import RESERVE, RowStart, Usage

KV_CACHES = {"float32": 0, "float16": 1, "int8": 2}
"""Precisions of keys and values, as CacheKind of native/engine.hpp."""


class NativeStepper:
    """A batch of rows on its way through the native engine; the interface is explained in generate/stepper.py.

    A call that is interrupted, by Ctrl-C too, leaves the rows as they were.

    Args:
        engine: with its weights (kernels/native/engine.cpp).
        vocab_size: V.
        context: tokens that a row may hold.
        kv_cache: the precision of keys and values, one of :data:`KV_CACHES`; None: float32 where the weights are, else
            float16. In int8 each vector has a scale, and both take about half the memory of float16.
        adapter: the name of the adapter of the rows, one that the engine has; None: none.

    Attributes:
        adapter: of rows that are added from now on; earlier rows keep theirs.

    Raises:
        InputError: there is no such precision.
    """

    def __init__(
        self,
        engine: Any,
        vocab_size: int,
        context: int,
        *,
        kv_cache: str | None = None,
        adapter: str | None = None,
    ) -> None:
        self._engine, self.vocab_size, self.context = engine, vocab_size, context
        self.adapter = adapter
        self.has_encoder = False
        self.usage = Usage()
        self._sequences: list[int] = []  # numbers in the engine, a sequence for each row
        self._lengths: dict[int, int] = {}  # tokens of each sequence, without those of an interrupted step
        self.logits = np.empty((0, vocab_size), np.float32)
        if kv_cache is not None and kv_cache not in KV_CACHES:
            choices = f"one of {', '.join(KV_CACHES)}"
            raise InputError(f"{kv_cache!r} is no precision of the KV cache", "kv_cache", choices)
        self._cache_kind = None if kv_cache is None else KV_CACHES[kv_cache]

    def __del__(self) -> None:
        self._remove(self._sequences)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [self._lengths[number] for number in self._sequences]

    def prefill(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        """Read the prompts, one after the other, in place of earlier rows."""
        earlier, self._sequences, self.logits = self._sequences, [], self.logits[:0]
        self._remove(earlier)
        self.add(prompts, reserve)

    def add(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        """Read the prompts; a prefix that all of them share is read once."""
        rows = [list(prompt.ids) for prompt in prompts]
        if not rows:
            return
        try:
            added, logits = self._read(rows, reserve)
            logits = np.concatenate((self.logits, logits)) if len(self.logits) else logits
        except BaseException:
            self._remove_others()
            raise
        self._sequences, self.logits = [*self._sequences, *added], logits
        self.usage.prompt_tokens += sum(map(len, rows))

    def _read(self, rows: list[list[int]], reserve: int) -> tuple[list[int], np.ndarray]:
        """New sequences with the tokens of the rows, and the logits after them, (number of rows, V) float32."""
        capacities = [min(len(row) + reserve, self.context) for row in rows]
        shared = shared_length(rows)
        if shared:
            prefix = self._add_sequence(shared)
            self._compute([prefix] * shared, rows[0][:shared], [])
            added = [self._copy_sequence(prefix, shared, capacity) for capacity in capacities]
            self._remove([prefix])
        else:
            added = [self._add_sequence(capacity) for capacity in capacities]
        numbers, tokens, wanted = [], [], []
        for number, row in zip(added, rows, strict=True):
            numbers += [number] * (len(row) - shared)
            tokens += row[shared:]
            wanted.append(len(tokens) - 1)
        return added, self._compute(numbers, tokens, wanted)

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

    def extend(self, tokens: Sequence[int], logits_to_keep: int | None = None) -> np.ndarray:
        """Append tokens to the only row; (N, V) float32: the logits after the last N of them, ``logits_to_keep``, or
        after each."""
        (number,) = self._sequences
        count = len(tokens)
        self.usage.completion_tokens += count
        wanted = range(0 if logits_to_keep is None else count - logits_to_keep, count)
        logits = self._compute([number] * count, list(tokens), list(wanted))
        self.logits = logits[-1:]
        return logits

    def truncate(self, length: int) -> None:
        """Forget all tokens of the only row but the first ``length``; :meth:`extend` or :meth:`step` comes next."""
        (number,) = self._sequences
        self._engine.truncate_sequence(number, length)
        self._lengths[number] = length

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order."""
        if list(rows) == list(range(len(self._sequences))):
            return
        sequences, used = [], set()
        for row in rows:
            number = self._sequences[row]
            if number in used:
                length = self._lengths[number]
                number = self._copy_sequence(number, length, min(length + RESERVE, self.context))
            used.add(number)
            sequences.append(number)
        self._sequences, self.logits = sequences, self.logits[list(rows)]
        self._remove_others()

    def _remove_others(self) -> None:
        """Remove the sequences that are no rows; where Ctrl-C interrupts that, it is done again before it is raised."""
        try:
            self._remove([number for number in self._lengths if number not in self._sequences])
        except BaseException:
            self._remove([number for number in self._lengths if number not in self._sequences])
            raise

    def _compute(self, sequences: list[int], tokens: list[int], wanted: list[int]) -> np.ndarray:
        """Append tokens[i] to sequences[i]; (len(wanted), V) float32: the logits after the tokens of these indices."""
        flags = np.zeros(len(tokens), np.int64)
        flags[wanted] = 1
        logits = np.empty((len(wanted), self.vocab_size), np.float32)
        try:
            self._engine.step(np.array(sequences, np.int64), np.array(tokens, np.int64), flags, logits)
        except BaseException:  # Ctrl-C may be raised when the engine has appended the tokens already
            for number in set(sequences):
                self._engine.truncate_sequence(number, self._lengths[number])
            raise
        self._lengths |= {number: self._lengths[number] + count for number, count in Counter(sequences).items()}
        return logits

    def _add_sequence(self, capacity: int) -> int:
        """The number of a new sequence without tokens."""
        number = self._engine.add_sequence(capacity, cache=self._cache_kind, adapter=self.adapter)
        self._lengths[number] = 0
        return number

    def _copy_sequence(self, source: int, length: int, capacity: int) -> int:
        """The number of a new sequence with the first ``length`` tokens of another one."""
        number = self._engine.copy_sequence(source, length, capacity)
        self._lengths[number] = length
        return number

    def _remove(self, sequences: Sequence[int]) -> None:
        for number in sequences:
            self._engine.remove_sequence(number)
            self._lengths.pop(number, None)
