"""Relative positions as T5 has them: a learned bias of the scores for each distance between query and key.

Near distances have a bias each, farther ones share them in logarithmic steps (Raffel et al. 2020, section 2.1). One
table serves all layers of a stack. Knows nothing of attention's arithmetic.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from lmworks.model.config import ModelConfig
from lmworks.model.masks import Sight


class RelativeBias(nn.Embedding):
    """A bias a distance and head: weight (relative_buckets, H).

    Args:
        config: reads relative_buckets, relative_max_distance and the number of heads.
        causal: keys later than their query are never seen, so all buckets serve the earlier ones.
    """

    def __init__(self, config: ModelConfig, causal: bool) -> None:
        super().__init__(config.relative_buckets, config.num_attention_heads)
        self.causal, self.farthest = causal, config.relative_max_distance

    def of(self, sight: Sight) -> torch.Tensor:
        """The bias of one pass: (B or 1, H, T, S); of the longest document (1, H, L, L) where a row holds several."""
        if sight.spans:
            places = torch.arange(max(sight.spans), device=self.weight.device)[None]
            return self.between(places, places)
        return self.between(_once(sight.query_positions), _once(sight.key_positions))

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


def _once(positions: torch.Tensor) -> torch.Tensor:
    """Rows that are one row repeated count once."""
    return positions[:1] if positions.stride(0) == 0 else positions
