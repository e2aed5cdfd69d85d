"""Linears repacked for one token at a time.

One new token multiplies each matrix by a single row, so its speed is that of reading weights. In bfloat16 they are
half as many bytes, but PyTorch's plain product then reads them far below the memory's rate; oneDNN's blocked layout
does not. For inference only: a packed network can no longer be trained or saved.
"""

from __future__ import annotations

import torch
from torch import nn

from lmworks.model.surgery import put
from lmworks.model.transformer import Transformer


class PackedLinear(nn.Module):
    """A frozen linear whose bfloat16 weight lies in oneDNN's own layout.

    Args:
        weight: (out_features, in_features).
        bias: (out_features,) or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        # a hidden attribute, not a buffer: the packed layout has no strides that a state_dict could carry
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16().contiguous(), 1)
        self._bias = None if bias is None else bias.detach().bfloat16()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")


def can_pack() -> bool:
    """Whether this PyTorch has oneDNN's packed bfloat16 product for this processor."""
    try:
        probe = PackedLinear(torch.ones(32, 32), None)
        return bool((probe(torch.ones(1, 32, dtype=torch.bfloat16)) == 32).all())
    except (RuntimeError, AttributeError):
        return False


def pack(network: Transformer) -> int:
    """Repack every plain linear, and the tied head, of a bfloat16 network in place; gives how many."""
    found = [(name, module) for name, module in network.named_modules() if type(module) is nn.Linear]
    for name, module in found:
        put(network, name, PackedLinear(module.weight, module.bias))
    if network.lm_head is None:
        network.lm_head = PackedLinear(network.embed_tokens.weight, None)
    return len(found)
