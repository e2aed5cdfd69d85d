"""The Stepper over the native engine: each row is a sequence with keys and values of its own. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from lmworks.generate.engine_sequences import EngineSequences
from lmworks.generate.prefix_length import shared_length
from lmworks.generate.stepper import RESERVE, RowStart, Usage


class NativeStepper:
    """A batch of rows on its way through the native engine; the interface is explained in generate/stepper.py.

    A call that is interrupted, by Ctrl-C too, leaves the rows as they were.

    Args:
        engine: with its weights (kernels/native/engine.cpp).
        vocab_size: V.
        context: tokens that a row may hold.
        kv_cache: the precision of keys and values (generate/engine_sequences).
        adapter: the name of the adapter of the rows; None: none.

    Attributes:
        sequences: in the engine, those of the rows among them.

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
        self.sequences = EngineSequences(engine, vocab_size, context, kv_cache=kv_cache, adapter=adapter)
        self.vocab_size, self.context = vocab_size, context
        self.has_encoder = False
        self.usage = Usage()
        self._numbers: list[int] = []  # of the rows' sequences
        self.logits = np.empty((0, vocab_size), np.float32)

    @property
    def adapter(self) -> str | None:
        """The adapter of rows that are added from now on; those that are there keep theirs."""
        return self.sequences.adapter

    @adapter.setter
    def adapter(self, adapter: str | None) -> None:
        self.sequences.adapter = adapter

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [self.sequences.lengths[number] for number in self._numbers]

    def prefill(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        """Read the prompts, one after the other, in place of earlier rows."""
        earlier, self._numbers, self.logits = self._numbers, [], self.logits[:0]
        self.sequences.remove(earlier)
        self.add(prompts, reserve)

    def add(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        """Read the prompts; what all of them begin with is read once."""
        rows = [list(prompt.ids) for prompt in prompts]
        if not rows:
            return
        try:
            added, logits = self._read(rows, reserve)
            logits = np.concatenate((self.logits, logits)) if len(self.logits) else logits
        except BaseException:
            self._remove_others()
            raise
        self._numbers, self.logits = [*self._numbers, *added], logits
        self.usage.prompt_tokens += sum(map(len, rows))

    def _read(self, rows: list[list[int]], reserve: int) -> tuple[list[int], np.ndarray]:
        """New sequences with the tokens of the rows, and the logits after them."""
        capacities = [min(len(row) + reserve, self.context) for row in rows]
        known = shared_length(rows)
        if known:
            first = self.sequences.new(known)
            self._compute([first] * known, rows[0][:known], [])
            added = [self.sequences.copy(first, known, capacity) for capacity in capacities]
            self.sequences.remove([first])
        else:
            added = [self.sequences.new(capacity) for capacity in capacities]
        numbers, tokens, wanted = [], [], []
        for number, row in zip(added, rows, strict=True):
            numbers += [number] * (len(row) - known)
            tokens += row[known:]
            wanted.append(len(tokens) - 1)
        return added, self._compute(numbers, tokens, wanted)

    def step(self, tokens: Sequence[int]) -> None:
        """Append one token to each row."""
        self.usage.completion_tokens += len(tokens)
        self.logits = self._compute(self._numbers, list(tokens), list(range(len(tokens))))

    def append(self, tokens: Sequence[Sequence[int]]) -> None:
        """Append one token or more to each row, all in one pass over the weights."""
        numbers = [number for number, row in zip(self._numbers, tokens, strict=True) for _ in row]
        flat = [token for row in tokens for token in row]
        self.usage.completion_tokens += len(flat)
        self.logits = self._compute(numbers, flat, [end - 1 for end in accumulate(map(len, tokens))])

    def extend(self, tokens: Sequence[int], logits_to_keep: int | None = None) -> np.ndarray:
        """Append tokens to the only row; (N, V) float32: the logits after the last N of them, ``logits_to_keep``, or
        after each."""
        (number,) = self._numbers
        count = len(tokens)
        self.usage.completion_tokens += count
        wanted = range(0 if logits_to_keep is None else count - logits_to_keep, count)
        logits = self._compute([number] * count, list(tokens), list(wanted))
        self.logits = logits[-1:]
        return logits

    def truncate(self, length: int) -> None:
        """Forget all tokens of the only row but the first ``length``; :meth:`extend` or :meth:`step` comes next."""
        (number,) = self._numbers
        self.sequences.truncate(number, length)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order."""
        if list(rows) == list(range(len(self._numbers))):
            return
        numbers, used = [], set()
        for row in rows:
            number = self._numbers[row]
            if number in used:
                length = self.sequences.lengths[number]
                number = self.sequences.copy(number, length, min(length + RESERVE, self.context))
            used.add(number)
            numbers.append(number)
        self._numbers, self.logits = numbers, self.logits[list(rows)]
        self._remove_others()

    def _remove_others(self) -> None:
        """Sequences that are no rows; an interruption comes when they are gone."""
        try:
            self.sequences.remove([number for number in self.sequences.lengths if number not in self._numbers])
        except BaseException:
            self.sequences.remove([number for number in self.sequences.lengths if number not in self._numbers])
            raise

    def _compute(self, numbers: list[int], tokens: list[int], wanted: list[int]) -> np.ndarray:
        """(number of ``wanted``, V) float32: the logits after these tokens."""
        return self.sequences.append(numbers, tokens, wanted)
