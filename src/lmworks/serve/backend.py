"""The interface through which the scheduler reads prompts and writes tokens: sequences that come and go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Backend(Protocol):
    """Sequences of token ids, each known by a number; one thread calls.

    Each gets the logits that it would get alone, whichever others there are or were.

    Attributes:
        most: how many there may be at a time.
        context: tokens that one may hold; None: any number.
        vocab_size: V, the number of logits.
        scores_prompts: whether it gives the logits after every token of a prompt.
    """

    most: int
    context: int | None
    vocab_size: int
    scores_prompts: bool

    def opening(self, prompt: Sequence[int]) -> list[int]:
        """The ids that the decoder begins with: a decoder's prompt, an encoder-decoder's start token."""

    def add(self, prompt: Sequence[int], all_logits: bool = False, adapter: str | None = None) -> tuple[int, int]:
        """A new sequence that is to begin with a prompt: its number, and how many of the tokens need not be read.

        Args:
            prompt: one token or more, fewer than the context.
            all_logits: :meth:`read` is to give the logits after every token.
            adapter: with which it is computed; None: none.

        Raises:
            Exception: the adapter is not there any more.
        """

    def read(self, number: int, limit: int) -> tuple[int, np.ndarray | None]:
        """Read the next part of a prompt.

        Args:
            number: of the sequence.
            limit: tokens that the part should have at most.

        Returns:
            How many were read, and the logits (n, V) float32 after them: with ``all_logits`` after each, else after the
            prompt's last alone; None where the prompt goes on.
        """

    def is_read(self, number: int) -> bool:
        """Whether the whole prompt is read."""

    def step(self, numbers: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """Append a token to each of these sequences; the logits (n, V) float32 after each."""

    def remove(self, number: int) -> None:
        """Forget a sequence; its number is free."""

    def forget_adapter(self, adapter: str) -> None:
        """Keep nothing of sequences with an adapter that no sequence has any more."""

    def cache_bytes(self) -> int:
        """Bytes of keys and values, of sequences that are kept for reuse, too; 0 where they are not known."""
