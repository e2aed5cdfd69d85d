"""Sequences in the native engine that grow by tokens, each known by a number. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmworks.base.errors import InputError

KV_CACHES = {"float32": 0, "float16": 1, "int8": 2}
"""Precisions of keys and values, with their numbers in native/engine.hpp."""


class EngineSequences:
    """Sequences of one owner: the engine forgets them with this object.

    Args:
        engine: with its weights (kernels/native/engine.cpp).
        vocab_size: V.
        context: tokens that a sequence may hold.
        kv_cache: the precision of keys and values, one of :data:`KV_CACHES`; None: float16, or float32 where the
            weights are. In int8 each has a scale, and both take about half the memory of float16.
        adapter: the name of the adapter of new sequences; None: none.

    Attributes:
        lengths: the tokens of each sequence whose logits the caller could get.

    Raises:
        InputError: there is no such precision.
    """

    def __init__(
        self, engine: Any, vocab_size: int, context: int, *, kv_cache: str | None = None, adapter: str | None = None
    ) -> None:
        if kv_cache is not None and kv_cache not in KV_CACHES:
            choices = f"one of {', '.join(KV_CACHES)}"
            raise InputError(f"{kv_cache!r} is no precision of the KV cache", "kv_cache", choices)
        self._engine, self.vocab_size, self.context, self.adapter = engine, vocab_size, context, adapter
        self._cache = None if kv_cache is None else KV_CACHES[kv_cache]
        self.lengths: dict[int, int] = {}

    def __del__(self) -> None:
        self.remove(list(getattr(self, "lengths", ())))

    def new(self, capacity: int) -> int:
        """The number of a new sequence without tokens."""
        number = self._engine.add_sequence(capacity, cache=self._cache, adapter=self.adapter)
        self.lengths[number] = 0
        return number

    def copy(self, source: int, length: int, capacity: int) -> int:
        """The number of a new sequence that begins with the first ``length`` tokens of another one."""
        number = self._engine.copy_sequence(source, length, capacity)
        self.lengths[number] = length
        return number

    def append(self, numbers: Sequence[int], tokens: Sequence[int], wanted: Sequence[int]) -> np.ndarray:
        """Append tokens to sequences, in order; what is interrupted, by Ctrl-C too, leaves the sequences as they were.

        Args:
            numbers: the sequence of each token.
            tokens: their ids.
            wanted: indices of the tokens after which logits are wanted, ascending.

        Returns:
            (number of ``wanted``, V) float32.
        """
        flags = np.zeros(len(tokens), np.int64)
        flags[list(wanted)] = 1
        logits = np.empty((len(wanted), self.vocab_size), np.float32)
        try:
            self._engine.step(np.array(numbers, np.int64), np.array(tokens, np.int64), flags, logits)
        except BaseException:  # Ctrl-C may come when the step is done
            for number in set(numbers):
                self._engine.truncate_sequence(number, self.lengths[number])
            raise
        self.lengths |= {number: self.lengths[number] + count for number, count in Counter(numbers).items()}
        return logits

    def truncate(self, number: int, length: int) -> None:
        """Forget all tokens of a sequence but the first ``length``."""
        self._engine.truncate_sequence(number, length)
        self.lengths[number] = length

    def remove(self, numbers: Sequence[int]) -> None:
        """Forget these sequences."""
        for number in numbers:
            self._engine.remove_sequence(number)
            self.lengths.pop(number, None)

    def cache_bytes(self) -> int:
        """Bytes of the keys and values of all sequences of the engine."""
        return int(self._engine.sizes()[1])
