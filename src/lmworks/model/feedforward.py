"""The feed-forward layer, which computes each token independently. Activations by name; plain or gated.

plain: down(act(up(x))) (Vaswani et al. 2017, eq. 2, with any activation).
gated: down(act(gate(x)) * up(x)) (Shazeer 2020: SwiGLU is silu, GEGLU gelu, GLU sigmoid).
"""

from __future__ import annotations

import torch
from torch import nn

from lmworks.kernels.activations import activate
from lmworks.kernels.dropout import dropout
from lmworks.model.config import ModelConfig
from lmworks.model.linear import Linear


class FeedForward(nn.Module):
    """(B, T, E) -> (B, T, E)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation, self.dropout = config.activation, config.mlp_dropout
        inner, bias = config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(config.hidden_size, inner, bias=bias) if config.gated else None
        self.up_proj = Linear(config.hidden_size, inner, bias=bias)
        self.down_proj = Linear(inner, config.hidden_size, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, E) -> (B, T, E)."""
        if self.gate_proj is None:
            inner = activate(self.activation, self.up_proj(x))
        else:
            inner = activate(self.activation, self.gate_proj(x), self.up_proj(x))
        return self.down_proj(dropout(inner, self.dropout) if self.training else inner)
