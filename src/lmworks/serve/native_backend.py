"""Sequences in the native engine: many at a time, prompts read in parts, beginnings of earlier texts reused.

A step computes at most MOST_AT_ONCE sequences at a time, as with more the engine would use other sums on some
processors (serve/prompt_parts.py): so a sequence gets bit for bit the logits that it would get alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from lmworks.generate.engine_sequences import KV_CACHES
from lmworks.generate.prefix_length import SHORTEST
from lmworks.generate.stepper import RESERVE
from lmworks.serve.prompt_parts import FEWEST_TILED, part_end, reusable_length, tiled_length

MOST_AT_ONCE = FEWEST_TILED - 1
MOST_KEPT = 64
"""Sequences that are kept for reuse at most: each is compared with each new prompt."""


@dataclass
class _Text:
    """What a sequence of the engine holds.

    Attributes:
        prompt: all of it.
        ids: tokens that the engine has.
        all_logits: whether the logits after every token of the prompt are wanted.
        adapter: with which it is computed.
    """

    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    all_logits: bool = False
    adapter: str | None = None


class NativeBackend:
    """Implements the interface of serve/backend.py.

    Args:
        engine: with its weights (kernels/native/engine.cpp); nobody else uses it meanwhile.
        vocab_size: V.
        context: tokens that a sequence may hold.
        most: sequences at a time.
        cache_limit: bytes of keys and values up to which ended sequences are kept for reuse.
        fewest: tokens of a part of a prompt from which on the engine multiplies in tiles (serve/prompt_parts.py).
        kv_cache: their precision, one of generate/engine_sequences.KV_CACHES; None: as the weights are.
    """

    scores_prompts = True

    def __init__(
        self,
        engine: Any,
        vocab_size: int,
        context: int,
        most: int,
        cache_limit: int,
        fewest: int = FEWEST_TILED,
        kv_cache: str | None = None,
    ) -> None:
        self._engine, self._cache_limit, self._fewest = engine, cache_limit, fewest
        self._precision = None if kv_cache is None else KV_CACHES[kv_cache]
        self.vocab_size, self.most = vocab_size, most
        self.context: int | None = context
        self._texts: dict[int, _Text] = {}
        self._kept: dict[int, _Text] = {}  # ended ones, the least recently used first

    def opening(self, prompt: Sequence[int]) -> list[int]:
        """The prompt."""
        return list(prompt)

    def add(self, prompt: Sequence[int], all_logits: bool = False, adapter: str | None = None) -> tuple[int, int]:
        """A new sequence; the longest beginning that another one with the same adapter has is copied from it."""
        text = _Text(list(prompt), all_logits=all_logits, adapter=adapter)
        capacity = len(prompt) + RESERVE if self.context is None else min(len(prompt) + RESERVE, self.context)
        source, known = (0, 0) if all_logits else self._longest_beginning(text)
        if known:
            number = self._engine.copy_sequence(source, known, capacity)
            text.ids = text.prompt[:known]
            if source in self._kept:
                self._kept[source] = self._kept.pop(source)
        else:
            number = self._engine.add_sequence(capacity, cache=self._precision, adapter=adapter)
        self._texts[number] = text
        return number, known

    def read(self, number: int, limit: int) -> tuple[int, np.ndarray | None]:
        """Read the next part of a prompt."""
        text = self._texts[number]
        begin = len(text.ids)
        end = part_end(begin, len(text.prompt), max(limit, 2 * self._fewest), self._fewest)
        tokens = text.prompt[begin:end]
        wanted = np.full(len(tokens), text.all_logits, np.int64)
        wanted[-1] |= end == len(text.prompt)
        logits = self._compute([number] * len(tokens), tokens, wanted)
        text.ids += tokens
        return len(tokens), logits if len(logits) else None

    def is_read(self, number: int) -> bool:
        """Whether the whole prompt is read."""
        text = self._texts[number]
        return len(text.ids) >= len(text.prompt)

    def step(self, numbers: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """Append a token to each of these sequences."""
        parts = []
        for begin in range(0, len(numbers), MOST_AT_ONCE):
            part = slice(begin, begin + MOST_AT_ONCE)
            parts.append(self._compute(numbers[part], tokens[part], np.ones(len(numbers[part]), np.int64)))
        for number, token in zip(numbers, tokens, strict=True):
            self._texts[number].ids.append(token)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def remove(self, number: int) -> None:
        """Keep the sequence for reuse while there is room."""
        text = self._texts.pop(number)
        if self._tiled(text) >= SHORTEST:
            self._kept[number] = text
        else:
            self._engine.remove_sequence(number)
        while self._kept and (len(self._kept) > MOST_KEPT or self.cache_bytes() > self._cache_limit):
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._engine.remove_sequence(oldest)

    def forget_adapter(self, adapter: str) -> None:
        """Remove the ended sequences that were kept for reuse."""
        for number in [number for number, text in self._kept.items() if text.adapter == adapter]:
            del self._kept[number]
            self._engine.remove_sequence(number)

    def cache_bytes(self) -> int:
        """Bytes of keys and values."""
        return int(self._engine.sizes()[1])

    def _longest_beginning(self, new: _Text) -> tuple[int, int]:
        """The sequence of which most can be reused, and how many tokens; 0 of sequence 0 where there is none."""
        best = (0, 0)
        for number, text in chain(self._texts.items(), self._kept.items()):
            if text.adapter != new.adapter:
                continue
            shared = _shared(text.ids, new.prompt)
            known = reusable_length(shared, self._tiled(text), len(new.prompt), self._fewest)
            if known > best[1]:
                best = (number, known)
        return best

    def _tiled(self, text: _Text) -> int:
        """The first tokens of a text, which were read in parts that are multiplied in tiles."""
        return min(len(text.ids), tiled_length(len(text.prompt), self._fewest))

    def _compute(self, numbers: Sequence[int], tokens: Sequence[int], wanted: np.ndarray) -> np.ndarray:
        """(number of ``wanted``, V) float32: the logits after these tokens."""
        logits = np.empty((np.count_nonzero(wanted), self.vocab_size), np.float32)
        self._engine.step(np.array(numbers, np.int64), np.array(tokens, np.int64), wanted, logits)
        return logits


def _shared(first: list[int], second: list[int]) -> int:
    """Tokens with which both begin; 0 where these are fewer than SHORTEST."""
    length = min(len(first), len(second))
    if length < SHORTEST or first[:SHORTEST] != second[:SHORTEST]:
        return 0
    differing = np.flatnonzero(np.array(first[:length]) != np.array(second[:length]))
    return int(differing[0]) if len(differing) else length
