"""One sequence at a time, by any stepper: of a model that PyTorch computes, or of an n-gram model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmworks.generate.sampling import as_array
from lmworks.generate.stepper import RowStart, Stepper


class StepperBackend:
    """Implements the interface of serve/backend.py; a prompt is read as a whole.

    Args:
        stepper: its earlier rows are dropped.
        decoder_start_id: what the decoder of an encoder-decoder begins with; None of a decoder.
    """

    most = 1
    scores_prompts = False

    def __init__(self, stepper: Stepper, decoder_start_id: int | None = None) -> None:
        self._stepper, self._start = stepper, decoder_start_id
        self.context, self.vocab_size = stepper.context, stepper.vocab_size
        self._prompt: RowStart | None = None  # while it is not read
        self._number = 0

    def opening(self, prompt: Sequence[int]) -> list[int]:
        """The prompt, or the start token of an encoder-decoder."""
        return list(prompt) if self._start is None else [self._start]

    def add(self, prompt: Sequence[int], all_logits: bool = False, adapter: str | None = None) -> tuple[int, int]:
        """A new sequence, of which nothing is known."""
        self._prompt = RowStart(self.opening(prompt), () if self._start is None else prompt)
        self._number += 1
        return self._number, 0

    def read(self, number: int, limit: int) -> tuple[int, np.ndarray | None]:
        """Read the whole prompt."""
        assert self._prompt is not None
        self._stepper.prefill([self._prompt])
        read = len(self._prompt.source) or len(self._prompt.ids)
        self._prompt = None
        return read, as_array(self._stepper.logits)

    def is_read(self, number: int) -> bool:
        """Whether the prompt is read."""
        return self._prompt is None

    def step(self, numbers: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """Append a token to the only sequence."""
        self._stepper.step(tokens)
        return as_array(self._stepper.logits)

    def remove(self, number: int) -> None:
        """Forget the sequence."""
        self._prompt = None
        self._stepper.prefill([])

    def forget_adapter(self, adapter: str) -> None:
        """Nothing is kept."""

    def cache_bytes(self) -> int:
        """0: a stepper does not tell."""
        return 0
