"""A block: attention and feed-forward with residual connections; in the decoder of an encoder-decoder, cross-attention
between them.

pre-norm block                          post-norm block
x -+- norm - attention -- + -           x -+- attention -- + - norm -
   +----------------------+                +---------------+
"both": a norm before each part and one after it, before the residual is added.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from lmworks.kernels.dropout import dropout_add
from lmworks.model import fused
from lmworks.model.attention import Attention, Rotation
from lmworks.model.cache import LayerCache
from lmworks.model.config import ModelConfig
from lmworks.model.feedforward import FeedForward
from lmworks.model.fusion import is_fusable
from lmworks.model.masks import AttentionMask
from lmworks.model.norm import make_norm
from lmworks.model.virtual_tokens import LayerPrefix


class BlockInputs(NamedTuple):
    """The inputs of the blocks of one forward pass besides x; all share them, but each has its own prefix.

    With a prefix the mask is that of the rows with virtual tokens.
    """

    mask: AttentionMask
    rotation: Rotation = Rotation()
    local_rotation: Rotation = Rotation()
    bias: torch.Tensor | None = None
    relative: torch.Tensor | None = None
    memory: torch.Tensor | None = None
    memory_mask: AttentionMask | None = None
    prefix: LayerPrefix | None = None


class Block(nn.Module):
    """Attention and feed-forward with residual connections, and cross-attention between them if ``cross``."""

    def __init__(self, config: ModelConfig, layer: int, cross: bool = False) -> None:
        super().__init__()
        self.pre_norm, after = config.norm_position != "post", config.norm_position == "both"
        self.dropout, self.local = config.hidden_dropout, config.is_local(layer)
        self.fusable = is_fusable(config)
        self.input_layernorm = make_norm(config)
        self.self_attn = Attention(config, window=config.window_of(layer))
        self.attention_output_layernorm = make_norm(config) if after else None
        self.cross_attention_layernorm = make_norm(config) if cross else None
        self.cross_attn = Attention(config, cross=True) if cross else None
        self.post_attention_layernorm = make_norm(config)
        self.mlp = FeedForward(config)
        self.mlp_output_layernorm = make_norm(config) if after else None

    def forward(self, x: torch.Tensor, shared: BlockInputs, cache: LayerCache | None = None) -> torch.Tensor:
        """(B, T, E) -> (B, T, E)."""
        attend, cross = self.self_attn, self.cross_attn
        rotation = shared.local_rotation if self.local else shared.rotation
        if self._is_fusable(shared, cache) and fused.can_run(x, attend, self.mlp, self.norms, shared.mask):
            settings = (self.pre_norm, self.dropout, self.training)
            return fused.run(x, attend, self.mlp, self.norms, shared.mask, rotation, *settings, shared.prefix)
        x = self._residual(
            x,
            self.input_layernorm,
            lambda y: attend(y, shared.mask, rotation, shared.bias, shared.relative, cache, prefix=shared.prefix),
            self.attention_output_layernorm,
        )
        if cross is not None and self.cross_attention_layernorm is not None:
            mask = shared.memory_mask
            assert mask is not None, "a block with cross-attention needs memory"
            x = self._residual(
                x, self.cross_attention_layernorm, lambda y: cross(y, mask, cache=cache, memory=shared.memory)
            )
        return self._residual(x, self.post_attention_layernorm, self.mlp, self.mlp_output_layernorm)

    @property
    def norms(self) -> tuple[nn.Module, nn.Module]:
        """The norm of attention and that of the feed-forward."""
        return self.input_layernorm, self.post_attention_layernorm

    def _is_fusable(self, shared: BlockInputs, cache: LayerCache | None) -> bool:
        """Whether this pass has no inputs and no layers that the fused block does not compute."""
        unsupported = (self.cross_attn, cache, shared.bias, shared.relative, shared.rotation.keys)
        return self.fusable and all(part is None for part in unsupported)

    def _residual(
        self,
        x: torch.Tensor,
        norm: nn.Module,
        part: Callable[[torch.Tensor], torch.Tensor],
        output_norm: nn.Module | None = None,
    ) -> torch.Tensor:
        y = part(norm(x)) if self.pre_norm else part(x)
        if output_norm is not None:
            y = output_norm(y)
        x = dropout_add(x, y, self.dropout if self.training else 0.0)
        return x if self.pre_norm else norm(x)
