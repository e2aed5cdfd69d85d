"""Batch: the treaty between objectives and losses.

Causal, masked, span and instruction training differ only in the numbers inside. A packed batch is one flat
row of whole documents; a padded one is a document a row. The same rule serves both: tokens see each other
when their segments are equal; segment 0 is padding.
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

    Attributes:
        ids: (T,) int32 token ids.
        loss: (T,) bool; True where this token, once predicted, carries loss (aligned with ids, not shifted).
        place: ``file:line`` of the row it came from.
        bytes: UTF-8 bytes of the text whose tokens carry loss (for bits per byte).
        dropped: tokens cut off because the document was too long.
    """

    ids: np.ndarray
    loss: np.ndarray
    place: str = ""
    bytes: int = 0
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Batch:
    """Token ids and what to predict at each place, all of shape (B, T).

    Attributes:
        ids: int64 token ids.
        targets: int64 id to predict at each place (for causal models: the next token's).
        weights: float32 weight of each place's loss; 0 where nothing is to be predicted.
        positions: int64 position inside its own document, from 0.
        segments: int64 document number inside its row, from 1; 0 is padding.
        tokens: number of tokens that are not padding.
    """

    ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor
    tokens: int
