"""The prefix that several texts share, such as an instruction and examples: its keys and values are computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from lmworks.model.cache import Cache
from lmworks.model.config import ModelConfig
from lmworks.model.sizes import key_value_bytes
from lmworks.model.transformer import Transformer

CACHE_BYTES = 1 << 27
"""Largest KV cache of the rows that are computed at a time after a prefix."""


def keeps_keys(network: Transformer) -> bool:
    """Whether what a network caches of a prefix stays the same whatever follows: a decoder with attention whose rotary
    positions do not depend on the length of the whole text, and without virtual tokens, which stand before each text.
    Not under autocast, in which keys have another precision than the cache."""
    config = network.config
    if torch.is_autocast_enabled(network.device.type) or network.num_virtual_tokens:
        return False
    if config.architecture != "decoder" or config.layer != "attention":
        return False
    return not any(rotary is not None and rotary.depends_on_length for rotary in (network.rotary, network.local_rotary))


@torch.no_grad()
def read_prefix(network: Transformer, ids: Sequence[int]) -> Cache:
    """The cache of one row with these tokens; no logits are computed.

    Args:
        network: in evaluation mode.
        ids: of the prefix, one or more.
    """
    cache = Cache(network.config, 1, len(ids), network.dtype, network.device)
    network.hidden_states(torch.tensor([list(ids)], device=network.device), cache=cache)
    return cache


def cached_tokens(config: ModelConfig) -> int:
    """Tokens of all rows that a cache of CACHE_BYTES holds."""
    return CACHE_BYTES // max(1, key_value_bytes(config, 1))


def groups_after_prefix(
    config: ModelConfig, lengths: Sequence[int], begin: int, row_tokens: int, copies: Sequence[int] = ()
) -> Iterator[list[int]]:
    """Groups of indices of rows of similar lengths, longest first; each has one row or as many as a pass and the cache
    hold.

    Args:
        config: of the model.
        lengths: tokens of the rows, prefix included.
        begin: tokens of the prefix, which the pass does not compute again, but the cache holds for each row.
        row_tokens: tokens of a pass, padding included.
        copies: for each row the number of rows of the cache that continue it; default: one.
    """
    most, group, rows = cached_tokens(config), list[int](), 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        longest, count = lengths[group[0] if group else index], copies[index] if copies else 1
        if group and ((len(group) + 1) * (longest - begin) > row_tokens or (rows + count) * longest > most):
            yield group
            group, rows = [], 0
        group.append(index)
        rows += count
    if group:
        yield group


def pad_rows(
    rows: Sequence[Sequence[int] | np.ndarray], begins: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, positions and segments of rows, (B, T) int64 each, padded on the right: padding is of segment 0.

    Args:
        rows: ids of each.
        begins: the position of each row's first token.
    """
    width = max(map(len, rows))
    ids, positions, segments = (torch.zeros(len(rows), width, dtype=torch.int64) for _ in range(3))
    for number, (row, begin) in enumerate(zip(rows, begins, strict=True)):
        ids[number, : len(row)] = torch.as_tensor(row, dtype=torch.int64)
        positions[number, : len(row)] = torch.arange(begin, begin + len(row))
        segments[number, : len(row)] = 1
    return ids, positions, segments
