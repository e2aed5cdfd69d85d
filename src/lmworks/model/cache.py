"""The KV cache: keys and values of earlier tokens; of recurrent layers, their states. It is an argument of forward
passes, never stored in modules.

With gradients enabled, appending concatenates, so that gradients flow through the cache to a learned prefix (prefix
tuning). Otherwise it writes in place into a buffer that doubles when it is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from lmworks.model.config import ModelConfig


class LayerCache:
    """One layer's keys and values, each (B, K, S, D), and those of cross-attention, computed once."""

    def __init__(self, batch: int, heads: int, size: int, capacity: int, dtype: torch.dtype, device: torch.device):
        self._keys = torch.empty(batch, heads, capacity, size, dtype=dtype, device=device)
        self._values = torch.empty_like(self._keys)
        self.length = 0
        self.cross: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def keys_and_values(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All so far, each (B, K, S, D)."""
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values (B, K, T, D); returns all so far (B, K, S, D)."""
        begin, end = self.length, self.length + keys.shape[2]
        self.length = end
        if torch.is_grad_enabled():
            self._keys = torch.cat((self._keys[:, :, :begin], keys), dim=2)
            self._values = torch.cat((self._values[:, :, :begin], values), dim=2)
            return self._keys, self._values
        if end > self._keys.shape[2]:
            self._keys, self._values = (_grown(part, begin, end) for part in (self._keys, self._values))
        self._keys[:, :, begin:end] = keys
        self._values[:, :, begin:end] = values
        return self._keys[:, :, :end], self._values[:, :, :end]

    def join(self, other: LayerCache, length: int, capacity: int) -> None:
        """Append the rows of another cache; both are cut or padded with zeros on the left to ``length`` tokens."""
        self._keys = _end_aligned((self._keys, self.length), (other._keys, other.length), length, capacity)
        self._values = _end_aligned((self._values, self.length), (other._values, other.length), length, capacity)
        self.length = length
        if self.cross is not None and other.cross is not None:
            keys, values = (
                pad_sequence([*mine.transpose(1, 2), *theirs.transpose(1, 2)], batch_first=True)
                for mine, theirs in zip(self.cross, other.cross, strict=True)
            )
            self.cross = (keys.transpose(1, 2), values.transpose(1, 2))

    def of_rows(self, rows: torch.Tensor, reserve: int) -> LayerCache:
        """A new cache of these rows, in this order and as often as they are named, with room for further tokens."""
        _, heads, _, size = self._keys.shape
        capacity, length = self.length + reserve, self.length
        other = LayerCache(len(rows), heads, size, capacity, self._keys.dtype, self._keys.device)
        other._keys[:, :, :length] = self._keys[rows, :, :length]
        other._values[:, :, :length] = self._values[rows, :, :length]
        other.length = length
        if self.cross is not None:
            other.cross = (self.cross[0][rows], self.cross[1][rows])
        return other

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Keep only these rows of the batch, in this order (finished rows are removed; beam search reorders)."""
        self._keys, self._values = self._keys[rows], self._values[rows]
        if self.cross is not None:
            self.cross = (self.cross[0][rows], self.cross[1][rows])


State = tuple[torch.Tensor, ...]  # of a recurrent cell, each part (rows, E): h, and of an lstm c too; empty: zeros


class LayerState:
    """One recurrent layer's state of each row of a batch, which does not grow with the tokens read."""

    def __init__(self, batch: int, size: int, parts: int, dtype: torch.dtype, device: torch.device) -> None:
        self.parts: State = tuple(torch.zeros(batch, size, dtype=dtype, device=device) for _ in range(parts))

    def of_rows(self, rows: torch.Tensor) -> State:
        """The states of these rows, in this order."""
        return tuple(part[rows] for part in self.parts)

    def put(self, rows: torch.Tensor, state: State) -> None:
        """Replace the states of these rows."""
        self.parts = tuple(
            old.index_copy(0, rows, new.to(old.dtype)) for old, new in zip(self.parts, state, strict=True)
        )

    def join(self, other: LayerState) -> None:
        """Append the rows of another batch."""
        self.parts = tuple(torch.cat(pair) for pair in zip(self.parts, other.parts, strict=True))


class Cache:
    """Keys and values, or states, and positions and segments of the tokens before a forward pass.

    Args:
        config: sizes of the model.
        batch: B, rows.
        capacity: tokens to allocate for; the buffers grow when they are full.
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
        layers = range(config.num_decoder_layers or config.num_hidden_layers)
        self.layers: list[LayerCache] = []
        self.states: list[LayerState] = []
        if config.is_recurrent:
            parts = 2 if config.layer == "lstm" else 1
            self.states = [LayerState(batch, config.hidden_size, parts, dtype, place) for _ in layers]
        else:
            heads, size = config.key_value_heads, config.head_size
            self.layers = [LayerCache(batch, heads, size, capacity, dtype, place) for _ in layers]
        self.positions = torch.zeros(batch, 0, dtype=torch.int64, device=place)
        self.segments: torch.Tensor | None = None

    @property
    def length(self) -> int:
        """S, the number of tokens held."""
        return self.positions.shape[1]

    @property
    def width(self) -> int:
        """Tokens from the first column on that is not padding in every row."""
        if self.segments is None:
            return self.length
        return self.length - int((self.segments != 0).any(dim=0).int().argmax())

    def append_positions(self, positions: torch.Tensor, segments: torch.Tensor | None) -> None:
        """Append positions (B, T) and segments of the tokens that the layers append next."""
        if segments is not None or self.segments is not None:
            before = torch.ones_like(self.positions) if self.segments is None else self.segments
            now = torch.ones_like(positions) if segments is None else segments
            self.segments = torch.cat((before, now), dim=1)
        self.positions = torch.cat((self.positions, positions), dim=1)

    def join(self, other: Cache, length: int, reserve: int = 0) -> None:
        """Append the rows of another cache. All rows end at the same place: shorter ones are padded on the left.

        Args:
            other: of the same model.
            length: the larger :attr:`width` of both; columns before it, which are padding in every row, are dropped.
            reserve: number of further tokens to allocate for.
        """
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.join(theirs, length, length + reserve)
        for own, joining in zip(self.states, other.states, strict=True):
            own.join(joining)
        segments = [
            torch.ones_like(cache.positions) if cache.segments is None else cache.segments for cache in (self, other)
        ]
        joined = _rows_end_aligned(segments, length)
        self.segments = joined if bool((joined == 0).any()) else None
        self.positions = _rows_end_aligned([self.positions, other.positions], length)

    def of_rows(self, rows: torch.Tensor, reserve: int) -> Cache:
        """A new cache of these rows, in this order and as often as they are named; this one stays as it is.

        Args:
            rows: (B,) numbers of rows of this cache, which is none of recurrent layers.
            reserve: number of further tokens to allocate for.
        """
        other = copy(self)
        other.layers = [layer.of_rows(rows, reserve) for layer in self.layers]
        other.positions = self.positions[rows]
        other.segments = None if self.segments is None else self.segments[rows]
        return other

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Keep only these rows of the batch, in this order."""
        for layer in self.layers:
            layer.keep_rows(rows)
        for state in self.states:
            state.parts = state.of_rows(rows)
        self.positions = self.positions[rows]
        self.segments = None if self.segments is None else self.segments[rows]


def _grown(part: torch.Tensor, used: int, needed: int) -> torch.Tensor:
    batch, heads, capacity, size = part.shape
    bigger = part.new_empty(batch, heads, max(needed, 2 * capacity), size)
    bigger[:, :, :used] = part[:, :, :used]
    return bigger


def _end_aligned(
    first: tuple[torch.Tensor, int], second: tuple[torch.Tensor, int], length: int, capacity: int
) -> torch.Tensor:
    """The rows of two buffers (B, K, S, D) in a new buffer; the used tokens of each row end at ``length``."""
    rows = len(first[0]) + len(second[0])
    _, heads, _, size = first[0].shape
    joined = first[0].new_zeros(rows, heads, capacity, size)
    begin = 0
    for part, used in (first, second):
        count = min(used, length)
        joined[begin : begin + len(part), :, length - count : length] = part[:, :, used - count : used]
        begin += len(part)
    return joined


def _rows_end_aligned(parts: Sequence[torch.Tensor], length: int) -> torch.Tensor:
    """Rows of several (B, S), cut or padded with zeros on the left to ``length``."""
    return torch.cat([functional.pad(part, (length - part.shape[1], 0)) for part in parts])
