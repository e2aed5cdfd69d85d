"""The feed-forward layer: what happens to each token alone. Activations by name; plain or gated.

plain: down(act(up(x))) (Vaswani et al. 2017, eq. 2, with any activation).
gated: down(act(gate(x)) * up(x)) (Shazeer 2020: SwiGLU is silu, GEGLU gelu, GLU sigmoid).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from lmworks.model.config import ModelConfig
from lmworks.model.dropout import dropout


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": functional.silu,
}


class FeedForward(nn.Module):
    """(B, T, E) -> (B, T, E)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation, self.dropout = ACTIVATIONS[config.activation], config.mlp_dropout
        inner, bias = config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(config.hidden_size, inner, bias=bias) if config.gated else None
        self.up_proj = nn.Linear(config.hidden_size, inner, bias=bias)
        self.down_proj = nn.Linear(inner, config.hidden_size, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.gate_proj is None:
            inner = self.activation(self.up_proj(x))
        else:
            inner = self.activation(self.gate_proj(x)) * self.up_proj(x)
        if self.dropout and self.training:
            inner = dropout(inner, self.dropout)
        return self.down_proj(inner)
