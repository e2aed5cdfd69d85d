"""The interface that generation asks for logits: rows of token ids that grow by one token at a time.

An implementation computes with PyTorch (generate/torch_stepper.py) or with the native engine
(generate/native_stepper.py); its callers generate one batch (generate/decode.py, generate/beam.py) or schedule rows
that come and go. Imports no torch: ids are plain integers, logits are any array of two dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

RESERVE = 256  # tokens to make room for behind a prompt where the caller does not say how many will follow

Logits = Any  # (B, V): a NumPy array or a torch tensor; sampling.as_array reads both


class RowStart(NamedTuple):
    """What a row begins with.

    Attributes:
        ids: what the decoder continues: the prompt, or the start token of an encoder-decoder's decoder.
        source: what the encoder of an encoder-decoder reads; empty for a decoder.
    """

    ids: Sequence[int]
    source: Sequence[int] = ()


@dataclass
class Usage:
    """Tokens, counted as model servers count them.

    Attributes:
        prompt_tokens: tokens of the prompt, sources included.
        completion_tokens: generated tokens.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Stepper(Protocol):
    """Rows of token ids of different lengths, and for each row the logits of its next token.

    Each row gets the logits that it would get alone, whichever other rows there are, join or leave.
    """

    @property
    def vocab_size(self) -> int:
        """V, the number of logits of a row."""

    @property
    def context(self) -> int | None:
        """Tokens that a row may hold; None: any number."""

    @property
    def has_encoder(self) -> bool:
        """Whether prompts need a source."""

    @property
    def lengths(self) -> list[int]:
        """For each row its tokens so far; a source does not count."""

    @property
    def logits(self) -> Logits:
        """(B, V) logits of the next token of each row."""

    @property
    def usage(self) -> Usage:
        """Tokens that were computed since the stepper was made."""

    def prefill(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        """Read these prompts; earlier rows are dropped.

        Args:
            prompts: of one token or more each.
            reserve: tokens that will probably follow each prompt: room is made for them.
        """

    def add(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        """Read these prompts; they become the last rows, below those that are there."""

    def step(self, tokens: Sequence[int]) -> None:
        """Append one token to each row."""

    def append(self, tokens: Sequence[Sequence[int]]) -> None:
        """Append one token or more to each row; ``logits`` are those after the last."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order and as often as they are named; the others are dropped."""


@runtime_checkable
class ExtensibleStepper(Stepper, Protocol):
    """A stepper whose only row can be extended by several tokens at once, and truncated."""

    def extend(self, tokens: Sequence[int], logits_to_keep: int | None = None) -> Logits:
        """Append tokens to the only row; (N, V): the logits after the last N of them (``logits_to_keep``), or after
        each."""

    def truncate(self, length: int) -> None:
        """Forget all tokens of the only row but the first ``length``; ``logits`` are stale until the next call of
        :meth:`extend` or :meth:`step`."""
