"""Batch: the treaty between objectives and losses.

Causal, masked, span and instruction training differ only in the numbers inside. A packed batch is one flat
row of whole documents; a padded one is a document a row. The same rule serves both: tokens see each other
when their segments are equal; segment 0 is padding. A decoder's document sees the document of the encoder's row
that has the same segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Example:
    """One document as tokens: what objectives make and packing consumes.

    Without `targets` the next token is predicted (causal models and decoders): `loss` stands at the token that, once
    predicted, counts. With them `targets` and `loss` stand at the place itself (encoders).

    Attributes:
        ids: (T,) int32 token ids; of the decoder, where there are two stacks.
        loss: (T,) bool; True where this token, once predicted, carries loss (aligned with ids, not shifted).
        place: ``file:line`` of the row it came from.
        bytes: UTF-8 bytes of the text whose tokens carry loss (for bits per byte); 0: not known.
        dropped: tokens cut off because the document was too long.
        targets: (T,) int32 id to predict at each place itself; None: each place predicts the next token.
        source: (S,) int32 ids that the encoder of an encoder-decoder reads; None: there is none.
        types: (T,) int32 kind of each token (0 first, 1 second sentence); None: all 0.
        pair: 0 where the second sentence follows the first, 1 where it does not; None: not asked.
        origin: what its objective draws from beside the ids (the document of a window, words, other sentences).
    """

    ids: np.ndarray
    loss: np.ndarray
    place: str = ""
    bytes: int = 0
    dropped: int = 0
    targets: np.ndarray | None = None
    source: np.ndarray | None = None
    types: np.ndarray | None = None
    pair: int | None = None
    origin: object | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def total(self) -> int:
        """Tokens of the source and its own."""
        return len(self.ids) + (len(self.source) if self.source is not None else 0)

    @property
    def width(self) -> int:
        """Of its own tokens, those that pass through the network: nothing is predicted from the last of a text."""
        return len(self.ids) if self.targets is not None else max(1, len(self.ids) - 1)

    @property
    def size(self) -> int:
        """Tokens that pass through the network: those of the source and its own."""
        return self.width + (len(self.source) if self.source is not None else 0)

    @property
    def learned(self) -> int:
        """Tokens whose prediction carries loss; the first of all is predicted from nothing unless targets say so."""
        return int((self.loss if self.targets is not None else self.loss[1:]).sum())


@dataclass(frozen=True)
class Source:
    """What the encoder of an encoder-decoder reads: int64, shape (B, S).

    Attributes:
        ids: token ids.
        positions: position inside its own document, from 0.
        segments: number of the document of the decoder's row that reads it, from 1; 0 is padding.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Token ids and what to predict at each place, all of shape (B, T) but where said.

    Attributes:
        ids: int64 token ids.
        targets: int64 id to predict at each place (for causal models: the next token's).
        weights: float32 weight of each place's loss; 0 where nothing is to be predicted.
        positions: int64 position inside its own document, from 0.
        segments: int64 document number inside its row, from 1; 0 is padding.
        tokens: number of tokens that are not padding, with those of the source.
        types: int64 kind of each token; None: all 0.
        source: what the encoder reads; None: there is no encoder beside.
        pair_places: (D,) int64 place, in the flattened ids, of the first token of each document that has a pair label.
        pair_labels: (D,) int64; 0: its second sentence follows, 1: it does not.
    """

    ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor
    tokens: int
    types: torch.Tensor | None = None
    source: Source | None = None
    pair_places: torch.Tensor | None = None
    pair_labels: torch.Tensor | None = None
