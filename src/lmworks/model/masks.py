"""Attention masks. A query attends to a key if both are in the same document (segment), if the key is not later than
the query (causal models), and if their distance is within the window (sliding layers).

Segment 0 is padding; padding attends to padding, so that no row of a softmax is empty. Masks are computed from
positions and segments of queries and keys alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class AttentionMask:
    """Which keys each query attends to in one forward pass.

    Attributes:
        causal: whether queries attend only to keys that are not later.
        lengths: lengths of the documents packed one after another in a flat row (B = 1); each attends only to itself.
        key_lengths: with cross-attention, lengths of the documents' sources; else empty, and ``lengths`` applies.
        query_positions, key_positions: (B, T) and (B, S) position inside the document.
        query_segments, key_segments: (B, T) and (B, S) document numbers; None when all tokens are one document.
        all_visible: True when every query attends to every key (one new token after a cache without segments).
    """

    causal: bool
    query_positions: torch.Tensor
    key_positions: torch.Tensor
    query_segments: torch.Tensor | None = None
    key_segments: torch.Tensor | None = None
    lengths: tuple[int, ...] = ()
    key_lengths: tuple[int, ...] = ()
    all_visible: bool = False
    _matrices: dict[int | None, torch.Tensor] = field(default_factory=dict, repr=False)
    _cu_seqlens: list[torch.Tensor] = field(default_factory=list, repr=False)

    @property
    def is_implicit(self) -> bool:
        """Whether the mask follows from ``causal`` and ``lengths`` alone, so that no (T, S) matrix is needed."""
        if self.query_segments is not None or self.all_visible:
            return bool(self.lengths)
        return not self.causal or self.query_positions.shape[1] == self.key_positions.shape[1]

    def fits_window(self, window: int | None) -> bool:
        """Whether a sliding window of ``window`` tokens hides no key of this pass."""
        if window is None:
            return True
        longest = max(self.lengths) if self.lengths else self.key_positions.shape[1]
        return longest <= window

    def cu_seqlens(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Cumulative lengths of documents among queries and among keys, each (documents + 1,) int64 from 0.

        The documents are those of a flat row, or the rows of a batch.
        """
        if not self._cu_seqlens:
            rows = [(part.shape[1],) * len(part) for part in (self.query_positions, self.key_positions)]
            pair = (self.lengths, self.key_lengths or self.lengths) if self.lengths else rows
            self._cu_seqlens.extend(torch.tensor((0, *lengths)).cumsum(0) for lengths in pair)
        queries, keys = self._cu_seqlens
        return queries, keys

    def matrix(self, window: int | None = None) -> torch.Tensor:
        """(B, 1, T, S) bool: True where the query attends to the key. Cached for the other layers."""
        key = None if self.fits_window(window) else window
        if key not in self._matrices:
            self._matrices[key] = self._build(key)
        return self._matrices[key]

    def _build(self, window: int | None) -> torch.Tensor:
        query, keys = self.query_positions[:, :, None], self.key_positions[:, None, :]
        visible = torch.ones_like(query == keys)
        if self.query_segments is not None and self.key_segments is not None:
            visible = self.query_segments[:, :, None] == self.key_segments[:, None, :]
        if self.causal:
            visible = visible & (keys <= query)
        if window is not None:
            visible = visible & (query - keys < window)
            if not self.causal:
                visible = visible & (keys - query < window)
        return visible[:, None]


def document_lengths(segments: torch.Tensor) -> tuple[int, ...]:
    """Lengths of the runs of equal numbers in a flat row (1, T) of whole documents."""
    _, counts = torch.unique_consecutive(segments[0], return_counts=True)
    return tuple(counts.tolist())
