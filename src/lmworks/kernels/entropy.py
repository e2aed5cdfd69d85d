"""Cross-entropy of a chunk of logits and its gradient in one place: the definition in PyTorch, and a kernel."""

from __future__ import annotations

import torch

from lmworks.kernels.library import library
from lmworks.kernels.native import capsule, serves


def cross_entropy_(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, slopes: bool = True
) -> torch.Tensor:
    """weight * -log softmax(logits)[target] of each row; the logits become its gradient, weight * (softmax - one-hot).

    Args:
        logits: (N, V) float32, overwritten.
        targets: (N,) int64.
        weights: (N,) float32.
        slopes: False: no gradient is wanted; logits are left as they are.

    Returns:
        (N,) float32 losses in nats.
    """
    if serves(logits, weights) and logits.dtype == weights.dtype == torch.float32 and logits.is_contiguous():
        losses = torch.empty_like(weights)
        library().cross_entropy(
            capsule(logits), capsule(targets.contiguous()), capsule(weights.contiguous()), capsule(losses), slopes
        )
        return losses
    target = targets[:, None]
    normaliser = logits.logsumexp(1, keepdim=True)
    losses = (normaliser - logits.gather(1, target)).squeeze(1) * weights
    if slopes:
        weight = weights[:, None]
        logits.sub_(normaliser).exp_().mul_(weight).scatter_add_(1, target, -weight)
    return losses
