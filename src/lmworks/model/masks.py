"""Who may look at whom. One rule, said once: a query sees a key when both lie in the same segment, when the key
is not later (causal models), and when it is not further back than the window (sliding layers).

Segment 0 is padding; padding sees only padding, so no row of a softmax is ever empty. Knows nothing of attention
or caches: it takes positions and segments of queries and keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Sight:
    """Who sees whom in one forward pass, in the cheapest form that says it exactly.

    Attributes:
        causal: whether a key must not be later than its query.
        spans: lengths of the documents that lie one after another in a flat row (B = 1); each sees itself alone.
        key_spans: lengths of what each of them sees, where that is another row (cross-attention); else as spans.
        query_positions, key_positions: (B, T) and (B, S) position inside the own document.
        query_segments, key_segments: (B, T) and (B, S) document numbers; None when all tokens are one document.
        step: True when every query may see every key: nothing needs masking (one new token after a plain cache).
    """

    causal: bool
    query_positions: torch.Tensor
    key_positions: torch.Tensor
    query_segments: torch.Tensor | None = None
    key_segments: torch.Tensor | None = None
    spans: tuple[int, ...] = ()
    key_spans: tuple[int, ...] = ()
    step: bool = False
    _masks: dict[int | None, torch.Tensor] = field(default_factory=dict, repr=False)
    _borders: list[torch.Tensor] = field(default_factory=list, repr=False)

    @property
    def aligned(self) -> bool:
        """Masks need no matrix, only order: queries and keys are the same tokens, or every key may be seen."""
        if self.query_segments is not None or self.step:
            return bool(self.spans)
        return not self.causal or self.query_positions.shape[1] == self.key_positions.shape[1]

    def within(self, window: int | None) -> bool:
        """Whether a sliding window of that many tokens hides nothing here."""
        if window is None:
            return True
        longest = max(self.spans) if self.spans else self.key_positions.shape[1]
        return longest <= window

    def borders(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where documents begin among all queries and among all keys, and where the last ends; int64. They are the
        spans of a flat row, or the rows of a batch."""
        if not self._borders:
            rows = [(part.shape[1],) * len(part) for part in (self.query_positions, self.key_positions)]
            both = (self.spans, self.key_spans or self.spans) if self.spans else rows
            self._borders.extend(torch.tensor((0, *spans)).cumsum(0) for spans in both)
        queries, keys = self._borders
        return queries, keys

    def mask(self, window: int | None = None) -> torch.Tensor:
        """(B, 1, T, S) bool: True where the query may look at the key. Kept for the other layers of the pass."""
        key = None if self.within(window) else window
        if key not in self._masks:
            self._masks[key] = self._build(key)
        return self._masks[key]

    def _build(self, window: int | None) -> torch.Tensor:
        query, keys = self.query_positions[:, :, None], self.key_positions[:, None, :]
        seen = torch.ones_like(query == keys)
        if self.query_segments is not None and self.key_segments is not None:
            seen = self.query_segments[:, :, None] == self.key_segments[:, None, :]
        if self.causal:
            seen = seen & (keys <= query)
        if window is not None:
            seen = seen & (query - keys < window)
            if not self.causal:
                seen = seen & (keys - query < window)
        return seen[:, None]


def spans_of(segments: torch.Tensor) -> tuple[int, ...]:
    """Lengths of the runs of equal numbers in a flat row (1, T) of whole documents."""
    _, counts = torch.unique_consecutive(segments[0], return_counts=True)
    return tuple(counts.tolist())
