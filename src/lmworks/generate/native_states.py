"""Hidden states of whole texts from an encoder in the native engine. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from lmworks.generate.text_vectors import groups_by_length

CALL_TOKENS = 16_384
"""Tokens of the texts of one call: many times what a thread computes at a time (PASS_TOKENS of
native/engine_encoder.cpp), so that none waits long for the others at the end."""


class NativeStates:
    """An encoder in the native engine; the interface is explained in generate/text_vectors.py.

    A text gets the same bits whichever texts are encoded with it.

    Args:
        engine: with its weights (kernels/native/engine.cpp).
        width: E.
        context: tokens that a text may have.
    """

    def __init__(self, engine: Any, width: int, context: int) -> None:
        self._engine, self.width, self.context = engine, width, context

    def of_texts(self, texts: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, np.ndarray]]]:
        """See the interface."""
        sizes = [len(text) for text in texts]
        for group in groups_by_length(sizes, CALL_TOKENS):
            offsets = np.cumsum([0, *(sizes[index] for index in group)], dtype=np.int64)
            tokens = np.fromiter(chain.from_iterable(texts[index] for index in group), np.int64, int(offsets[-1]))
            hidden = np.empty((len(tokens), self.width), np.float32)
            self._engine.encode(tokens, offsets, hidden)
            yield [(index, hidden[offsets[i] : offsets[i + 1]]) for i, index in enumerate(group)]
