"""An n-gram model behind the interface that generation asks for logits (generate/stepper)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmworks.baselines.ngram import NgramModel
from lmworks.generate.stepper import RESERVE, RowStart, Usage


class NgramStepper:
    """Rows of token ids, and log p of each row's next token in place of logits; the softmax of log p is p."""

    def __init__(self, model: NgramModel) -> None:
        self.model = model
        self.usage = Usage()
        self._rows: list[list[int]] = []

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.model.vocab_size

    @property
    def context(self) -> int | None:
        """None: a row may be of any length, although only its last n - 1 tokens matter."""
        return None

    @property
    def has_encoder(self) -> bool:
        """False."""
        return False

    @property
    def lengths(self) -> list[int]:
        """For each row its tokens so far."""
        return [len(row) for row in self._rows]

    @property
    def logits(self) -> np.ndarray:
        """(B, V) float32."""
        with np.errstate(divide="ignore"):
            rows = [np.log(self.model.next_distribution(row)).astype(np.float32) for row in self._rows]
        return np.stack(rows) if rows else np.zeros((0, self.vocab_size), dtype=np.float32)

    def prefill(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        """Read these prompts; earlier rows are dropped."""
        self._rows = []
        self.add(prompts, reserve)

    def add(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        """Read these prompts; they become the last rows."""
        self._rows += [list(prompt.ids) for prompt in prompts]
        self.usage.prompt_tokens += sum(len(prompt.ids) for prompt in prompts)

    def step(self, tokens: Sequence[int]) -> None:
        """Append one token to each row."""
        self.append([[token] for token in tokens])

    def append(self, tokens: Sequence[Sequence[int]]) -> None:
        """Append one token or more to each row."""
        for row, added in zip(self._rows, tokens, strict=True):
            row.extend(added)
        self.usage.completion_tokens += sum(map(len, tokens))

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order and as often as they are named."""
        self._rows = [list(self._rows[row]) for row in rows]
