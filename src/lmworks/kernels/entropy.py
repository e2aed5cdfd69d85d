"""Cross-entropy of a chunk of logits and its gradient, in place: the definition in PyTorch, and a native kernel."""

from __future__ import annotations

import torch

from lmworks.kernels.dispatch import supports, to_dlpack
from lmworks.kernels.native_module import native_module


def cross_entropy_(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, write_gradient: bool = True
) -> torch.Tensor:
    """weight * -log softmax(logits)[target] of each row; overwrites the logits with the gradient of the losses' sum.

    The gradient of a row is weight * (softmax(logits) - one_hot(target)).

    Args:
        logits: (N, V) float32 or bfloat16; computed in float32.
        targets: (N,) int64, each in [0, V).
        weights: (N,) float32.
        write_gradient: False: the logits stay as they are.

    Returns:
        (N,) float32 losses in nats.
    """
    if supports(logits, weights) and weights.dtype == torch.float32 and logits.is_contiguous():
        losses = torch.empty_like(weights)
        arrays = (logits, targets.contiguous(), weights.contiguous(), losses)
        native_module().cross_entropy(*map(to_dlpack, arrays), write_gradient)
        return losses
    target, numbers = targets[:, None], logits.float()
    logsumexp = numbers.logsumexp(1, keepdim=True)
    losses = (logsumexp - numbers.gather(1, target)).squeeze(1) * weights
    if write_gradient:
        weight = weights[:, None]
        logits.copy_(numbers.sub(logsumexp).exp_().mul_(weight).scatter_add_(1, target, -weight))
    return losses
