"""Keys and values of earlier tokens. Passed in, never stored in modules; knows nothing of attention's arithmetic.

With gradients on, appending concatenates, so that a learned prefix (prefix tuning) trains through the cache;
without, it writes in place into room that doubles when it runs out.
"""

from __future__ import annotations

import torch

from lmworks.model.config import ModelConfig


class LayerCache:
    """One layer's keys and values, each (B, K, S, D), and the cross-attention's, computed once."""

    def __init__(self, batch: int, heads: int, size: int, capacity: int, dtype: torch.dtype, device: torch.device):
        self._keys = torch.empty(batch, heads, capacity, size, dtype=dtype, device=device)
        self._values = torch.empty_like(self._keys)
        self.length = 0
        self.cross: tuple[torch.Tensor, torch.Tensor] | None = None

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values (B, K, T, D); give all so far (B, K, S, D)."""
        start, end = self.length, self.length + keys.shape[2]
        self.length = end
        if torch.is_grad_enabled():
            self._keys = torch.cat((self._keys[:, :, :start], keys), dim=2)
            self._values = torch.cat((self._values[:, :, :start], values), dim=2)
            return self._keys, self._values
        if end > self._keys.shape[2]:
            self._keys, self._values = (_grown(part, start, end) for part in (self._keys, self._values))
        self._keys[:, :, start:end] = keys
        self._values[:, :, start:end] = values
        return self._keys[:, :, :end], self._values[:, :, :end]

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Keep only these rows of the batch, in this order (finished rows leave; beams reorder)."""
        self._keys, self._values = self._keys[rows], self._values[rows]
        if self.cross is not None:
            self.cross = (self.cross[0][rows], self.cross[1][rows])


class Cache:
    """Everything a forward pass needs to know of the tokens before it.

    Args:
        config: sizes of the model.
        batch: B, rows.
        capacity: tokens to make room for; it grows when they run out.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        place = torch.device(device)
        layers = config.num_decoder_layers or config.num_hidden_layers
        self.layers = [
            LayerCache(batch, config.key_value_heads, config.head_size, capacity, dtype, place) for _ in range(layers)
        ]
        self.positions = torch.zeros(batch, 0, dtype=torch.int64, device=place)
        self.segments: torch.Tensor | None = None

    @property
    def length(self) -> int:
        """S, the number of tokens held."""
        return self.positions.shape[1]

    def note(self, positions: torch.Tensor, segments: torch.Tensor | None) -> None:
        """Remember positions (B, T) and segments of the tokens that the next appends bring."""
        if segments is not None or self.segments is not None:
            before = torch.ones_like(self.positions) if self.segments is None else self.segments
            now = torch.ones_like(positions) if segments is None else segments
            self.segments = torch.cat((before, now), dim=1)
        self.positions = torch.cat((self.positions, positions), dim=1)

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Keep only these rows of the batch, in this order."""
        for layer in self.layers:
            layer.keep_rows(rows)
        self.positions = self.positions[rows]
        self.segments = None if self.segments is None else self.segments[rows]


def _grown(part: torch.Tensor, used: int, needed: int) -> torch.Tensor:
    batch, heads, capacity, size = part.shape
    bigger = part.new_empty(batch, heads, max(needed, 2 * capacity), size)
    bigger[:, :, :used] = part[:, :, :used]
    return bigger
