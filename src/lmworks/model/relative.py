"""Relative positions of T5: a learned bias of the attention scores for each distance between query and key.

Each near distance has its own bias; farther ones share biases in logarithmic buckets (Raffel et al. 2020, section 2.1).
All layers of a stack share one table.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from lmworks.model.config import ModelConfig
from lmworks.model.masks import AttentionMask


class RelativeBias(nn.Embedding):
    """One bias for each bucket of distances and head: weight (relative_buckets, H).

    Args:
        config: reads relative_buckets, relative_max_distance and the number of heads.
        causal: keys are never later than their query, so all buckets are for earlier ones.
    """

    def __init__(self, config: ModelConfig, causal: bool) -> None:
        super().__init__(config.relative_buckets, config.num_attention_heads)
        self.causal, self.farthest = causal, config.relative_max_distance

    def bias_of(self, mask: AttentionMask) -> torch.Tensor:
        """The bias of one pass: (B or 1, H, T, S); with packed documents (1, H, L, L), where L is the longest one."""
        if mask.lengths:
            places = torch.arange(max(mask.lengths), device=self.weight.device)[None]
            return self.between(places, places)
        return self.between(_without_repeats(mask.query_positions), _without_repeats(mask.key_positions))

    def between(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Positions (B, T) and (B, S) -> (B, H, T, S)."""
        return self(self.buckets(keys[:, None, :] - queries[:, :, None])).permute(0, 3, 1, 2)

    def buckets(self, distances: torch.Tensor) -> torch.Tensor:
        """Key position minus query position, int64 -> number of the bucket."""
        count, offset = self.num_embeddings, torch.zeros_like(distances)
        if not self.causal:
            count //= 2
            offset = (distances > 0) * count
        distances = -distances.clamp(max=0) if self.causal else distances.abs()
        near = count // 2
        steps = torch.log(distances.clamp(min=1).float() / near) / math.log(self.farthest / near) * (count - near)
        far = (near + steps.long()).clamp(max=count - 1)
        return offset + torch.where(distances < near, distances, far)


def _without_repeats(positions: torch.Tensor) -> torch.Tensor:
    """Positions (B, T) -> (1, T) if they are one row expanded to B rows."""
    return positions[:1] if positions.stride(0) == 0 else positions
