"""Losses: pure functions of a network and a batch. They know no optimizer, no loop and no task.

A loss is a sum of named terms, each a cross-entropy: that of the language head, which causal, masked, span and
instruction training share, and one for each classification head that has labels in the batch. The language head runs
only where a weight is not zero, and only a few hundred rows of logits exist at any time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from lmworks.data.batch import LANGUAGE, Batch
from lmworks.kernels.entropy import cross_entropy_
from lmworks.model.accumulation import cast, gradient_buffer
from lmworks.model.forward import hidden_states
from lmworks.model.transformer import Transformer

CHUNK = 128  # rows of logits that exist at a time: 25 MB in float32 at 49,152 words; more is no faster
SMALL = 1 << 20  # so many logits may always exist: a small vocabulary is not cut into pieces for nothing


class Term(NamedTuple):
    """One named term of a loss. A sum, so that several batches make one step.

    Attributes:
        total: sum of weight * -log p(target) in nats, a float32 scalar with gradient.
        weight: sum of the weights; of a classification head the number of labels.
    """

    total: torch.Tensor
    weight: float


def terms(network: Transformer, batch: Batch) -> dict[str, Term]:
    """The terms of a batch's loss: that of the language head first, then those of classification heads, by name.

    A term without any target in this batch is left out.

    Args:
        network: a decoder, an encoder, or both with the batch's source in front.
        batch: on the network's device.
    """
    hidden = hidden_states(network, batch).flatten(0, 1)
    weights, targets = batch.weights.flatten(), batch.targets.flatten()
    places = weights.nonzero().squeeze(1)
    by_name: dict[str, Term] = {}
    if len(places):
        picked = hidden
        if len(places) < len(weights):
            weights, targets, picked = weights[places], targets[places], hidden.index_select(0, places)
        by_name[LANGUAGE] = Term(language_loss(network, picked, targets, weights), float(weights.sum()))
    for name, labels in batch.labels.items():
        logits = network.head_logits(name, hidden.index_select(0, labels.places)).float()
        total = functional.cross_entropy(logits, labels.classes, reduction="sum")
        by_name[name] = Term(total, len(labels.classes))
    return by_name


def weights_of(batches: Iterable[Batch]) -> dict[str, float]:
    """By term, the sum of its weights over all batches of a step: what its total is divided by."""
    weights = {LANGUAGE: 0.0}
    for batch in batches:
        weights[LANGUAGE] += float(batch.weights.sum())
        for name, labels in batch.labels.items():
            weights[name] = weights.get(name, 0.0) + len(labels.classes)
    return weights


def language_loss(
    network: Transformer, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sum of weight * -log p(target) over picked places.

    Args:
        network: whose head it is, with all that stands before and after its matrix.
        hidden: (N, E) hidden states.
        targets: (N,) int64 ids.
        weights: (N,) float32.
    """
    if network.lm_head is None or (type(network.lm_head) is nn.Linear and network.lm_head.bias is None):
        rows = network.before_head(hidden)
        if torch.is_autocast_enabled(rows.device.type):
            rows = rows.to(torch.get_autocast_dtype(rows.device.type))
        cap = network.config.logit_softcap
        return _ChunkedCrossEntropy.apply(rows, network.head_weight, network.head_bias, cap, targets, weights)
    # A head that is more than a matrix (an adapter on it, say): autograd has to know what is in it.
    losses = functional.cross_entropy(network.head(hidden).float(), targets, reduction="none")
    return (losses * weights).sum()


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of softmax(cap(hidden W^T + b)), chunk by chunk, its gradient made in the same pass.

    With p the softmax of a row and y its one-hot target, d loss / d logits = weight * (p - y): it is known as soon as
    the logits are, so each chunk is turned into its gradients and forgotten. A soft cap c * tanh(z / c) multiplies it
    by 1 - tanh(z / c)^2. Products run in the precision of ``hidden``; softmax, sums and the gradients of matrix and
    bias are float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        matrix: torch.Tensor,
        bias: torch.Tensor | None,
        cap: float | None,
        targets: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        wants_hidden, wants_matrix, wants_bias = ctx.needs_input_grad[:3]
        total = torch.zeros((), device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if wants_hidden else None
        ctx.matrix_added = (
            wants_matrix and gradient_buffer(matrix) is not None
        )  # a training step: nothing scales this loss
        matrix_grad = None
        if wants_matrix:
            matrix_grad = gradient_buffer(matrix) if ctx.matrix_added else torch.zeros_like(matrix, dtype=torch.float32)
        bias_grad = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wants_bias else None
        most = max(CHUNK, SMALL // len(matrix))
        size = -(-len(hidden) // max(1, -(-len(hidden) // most)))  # chunks of one size: a small rest is a slow product
        with torch.autocast(hidden.device.type, enabled=False):
            words = cast(matrix, hidden.dtype)
            offset = None if bias is None else bias.to(hidden.dtype)
            for start in range(0, len(hidden), max(1, size)):
                part = slice(start, start + size)
                rows, target, weight = hidden[part], targets[part], weights[part]
                logits = functional.linear(rows, words, offset).float()
                bend = None
                if cap is not None:
                    turned = torch.tanh(logits / cap)
                    logits, bend = turned * cap, 1 - turned.square()
                wants = wants_hidden or wants_matrix or wants_bias
                total += cross_entropy_(logits, target, weight, write_gradient=wants).sum()
                if not wants:
                    continue
                slope = logits if bend is None else logits.mul_(bend)
                if bias_grad is not None:
                    bias_grad += slope.sum(0)
                slope = slope.to(rows.dtype)
                if hidden_grad is not None:
                    torch.mm(slope, words, out=hidden_grad[part])
                if matrix_grad is not None:
                    if rows.dtype == torch.float32:
                        matrix_grad.addmm_(slope.t(), rows)
                    else:
                        matrix_grad += slope.t() @ rows
        ctx.save_for_backward(hidden_grad, None if ctx.matrix_added else matrix_grad, bias_grad)
        ctx.dtypes = (hidden.dtype, matrix.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale = float(grad)
        if ctx.matrix_added and scale != 1.0:
            raise RuntimeError("a loss whose gradients are added as it is computed was scaled afterwards")
        grads = [None if one is None else one if scale == 1.0 else one.mul_(scale) for one in ctx.saved_tensors]
        typed = [one if one is None else one.to(kind) for one, kind in zip(grads, ctx.dtypes, strict=True)]
        return *typed, None, None, None
