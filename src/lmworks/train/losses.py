"""Losses: pure functions of a network and a batch. They know no optimizer, no loop and no objective.

Causal, masked, span and instruction training are one weighted cross-entropy; what differs stands in the batch. The
head runs only where a weight stands, and no more than a few hundred rows of logits exist at any time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lmworks.data.batch import Batch
from lmworks.model.transformer import Transformer

CHUNK = 256  # rows of logits that exist at a time: 50 MB in float32 at 49,152 words


def next_token_loss(network: Transformer, batch: Batch) -> tuple[torch.Tensor, float]:
    """Weighted cross-entropy of a batch's targets, summed.

    Args:
        network: gives hidden states (B, T, E) and a head.
        batch: on the network's device.

    Returns:
        The sum of weight * -log p(target) in nats, a float32 scalar with gradient; and the sum of weights.
    """
    hidden = network.hidden_states(batch.ids, positions=batch.positions, segments=batch.segments)
    weights = batch.weights.flatten()
    places = weights.nonzero().squeeze(1)
    weights = weights[places]
    picked = hidden.flatten(0, 1).index_select(0, places)
    return head_loss(network, picked, batch.targets.flatten()[places], weights), float(weights.sum())


def head_loss(network: Transformer, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sum of weight * -log p(target) over picked places.

    Args:
        hidden: (N, E) hidden states.
        targets: (N,) int64 ids.
        weights: (N,) float32.
    """
    if network.lm_head is None or (type(network.lm_head) is nn.Linear and network.lm_head.bias is None):
        if torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        return _ChunkedCrossEntropy.apply(hidden, network.head_weight, targets, weights)
    # A head that is more than a matrix (an adapter on it, say): autograd has to know what is in it.
    losses = functional.cross_entropy(network.head(hidden).float(), targets, reduction="none")
    return (losses * weights).sum()


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of softmax(hidden W^T), chunk by chunk, its gradient made in the same pass.

    With p the softmax of a row and y its one-hot target, d loss / d logits = weight * (p - y): it is known as soon as
    the logits are, so each chunk is turned into its gradients and forgotten. Products run in the precision of
    ``hidden``; softmax, sums and the matrix's gradient are float32.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, matrix: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        wants_hidden, wants_matrix = ctx.needs_input_grad[:2]
        total = torch.zeros((), device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if wants_hidden else None
        matrix_grad = torch.zeros_like(matrix, dtype=torch.float32) if wants_matrix else None
        with torch.autocast(hidden.device.type, enabled=False):
            words = matrix.to(hidden.dtype)
            for start in range(0, len(hidden), CHUNK):
                part = slice(start, start + CHUNK)
                rows, target, weight = hidden[part], targets[part, None], weights[part, None]
                logits = functional.linear(rows, words).float()
                normaliser = logits.logsumexp(1, keepdim=True)
                total += ((normaliser - logits.gather(1, target)) * weight).sum()
                if not (wants_hidden or wants_matrix):
                    continue
                slope = logits.sub_(normaliser).exp_().mul_(weight).scatter_add_(1, target, -weight).to(rows.dtype)
                if hidden_grad is not None:
                    torch.mm(slope, words, out=hidden_grad[part])
                if matrix_grad is not None:
                    matrix_grad += slope.t() @ rows
        ctx.save_for_backward(hidden_grad, matrix_grad)
        ctx.matrix_dtype = matrix.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_grad, matrix_grad = ctx.saved_tensors
        return (
            None if hidden_grad is None else hidden_grad * grad.to(hidden_grad.dtype),
            None if matrix_grad is None else (matrix_grad * grad).to(ctx.matrix_dtype),
            None,
            None,
        )
