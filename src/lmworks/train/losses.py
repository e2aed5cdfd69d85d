"""Losses: pure functions of a network and a batch, independent of optimizer, loop and task.

A loss is a sum of named terms: the cross-entropy of the language head, which causal, masked, span and instruction
training share, one for each head that has labels in the batch (model/heads), and that of vectors of texts
(model/contrastive). The language head runs
only at tokens whose weight is not zero, and only a chunk of their logits exists at a time (model/chunks).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from lmworks.data.batch import CONTRASTIVE, LANGUAGE, Batch
from lmworks.kernels.entropy import cross_entropy_
from lmworks.kernels.matmul import matmul
from lmworks.model.accumulation import cast, gradient_buffer
from lmworks.model.chunks import trained_logits
from lmworks.model.contrastive import contrastive_losses, text_vectors
from lmworks.model.forward import hidden_states
from lmworks.model.heads import head_losses
from lmworks.model.linear import PLAIN_LINEARS
from lmworks.model.storage import DenseStorage, WeightStorage
from lmworks.model.stored_layers import StoredLinear, product, transposed_product
from lmworks.model.token_rows import TokenRows, base_bias, rows_of
from lmworks.model.transformer import Transformer


class Term(NamedTuple):
    """One named term of a loss, as a sum and a weight, so that the terms of several batches can be added.

    Attributes:
        total: sum of weight * -log p(target) in nats, a float32 scalar with gradient.
        weight: sum of the weights; of other heads the number of labels, or of documents with a span.
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
    weighted = weights.nonzero().squeeze(1)
    by_name: dict[str, Term] = {}
    if len(weighted):
        head_input = hidden
        if len(weighted) < len(weights):
            weights, targets, head_input = weights[weighted], targets[weighted], hidden.index_select(0, weighted)
        by_name[LANGUAGE] = Term(language_loss(network, head_input, targets, weights), float(weights.sum()))
    for name, labels in batch.labels.items():
        if name == CONTRASTIVE:
            nats, _ = contrastive_losses(text_vectors(hidden, batch, labels), labels.scale)
            by_name[name] = Term(nats.sum(), labels.weight)
            continue
        logits = network.head_logits(name, hidden.index_select(0, labels.places)).float()
        losses = head_losses(network.heads.configs[name], logits, labels, batch.document_of(labels.places))
        by_name[name] = Term(losses.loss.sum(), labels.weight)
    return by_name


def weights_of(batches: Iterable[Batch]) -> dict[str, float]:
    """By term, the sum of its weights over all batches of a step, by which the term's total is divided."""
    weights = {LANGUAGE: 0.0}
    for batch in batches:
        weights[LANGUAGE] += float(batch.weights.sum())
        for name, labels in batch.labels.items():
            weights[name] = weights.get(name, 0.0) + labels.weight
    return weights


def language_loss(
    network: Transformer, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sum of weight * -log p(target) over the given tokens.

    Args:
        network: its head is used, with what comes before and after the matrix (transform, bias, soft cap).
        hidden: (N, E) hidden states.
        targets: (N,) int64 ids.
        weights: (N,) float32.
    """
    head, table = network.lm_head, network.head_table
    if head is None or (type(table) in (*PLAIN_LINEARS, StoredLinear) and table.bias is None):
        head_input = network.before_head(hidden)
        if torch.is_autocast_enabled(head_input.device.type):
            head_input = head_input.to(torch.get_autocast_dtype(head_input.device.type))
        matrix = network.head_weight if network.head_storage is None else None
        updates = rows_of(network.embed_tokens if head is None else head)
        constants = _HeadConstants(network.head_storage, network.config.logit_softcap, updates)
        rows = None if updates is None else updates.rows
        return _ChunkedCrossEntropy.apply(head_input, matrix, network.head_bias, rows, constants, targets, weights)
    # Autograd computes the gradient of a head that is more than a matrix, for instance with an adapter.
    losses = functional.cross_entropy(network.head(hidden).float(), targets, reduction="none")
    return (losses * weights).sum()


class _HeadConstants(NamedTuple):
    """What a head has besides tensors with gradients: the storage of a frozen matrix, the soft cap of the logits, and
    the rows of some tokens that an adapter puts into the matrix."""

    storage: WeightStorage | None
    cap: float | None
    updates: TokenRows | None


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of softmax(cap(hidden W^T + b)), chunk by chunk; its gradient is computed in the same pass.

    With p the softmax of a row and y its one-hot target, d loss / d logits = weight * (p - y). It follows from the
    logits alone, so each chunk of logits is overwritten with its gradient and then freed. With a soft cap
    c * tanh(z / c), the gradient is multiplied by 1 - tanh(z / c)^2. Matrix products have the precision of ``hidden``;
    softmax and sums are float32, and the gradients of matrix and bias are accumulated in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        matrix: torch.Tensor | None,
        bias: torch.Tensor | None,
        rows: torch.Tensor | None,
        constants: _HeadConstants,
        targets: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        needs_hidden, needs_matrix, needs_bias, needs_rows = ctx.needs_input_grad[:4]
        total = torch.zeros((), device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if needs_hidden else None
        # within a training step, where nothing scales this loss, the gradient is added to .grad immediately
        ctx.is_accumulated = matrix is not None and needs_matrix and gradient_buffer(matrix) is not None
        matrix_grad = None
        if matrix is not None and needs_matrix:
            matrix_grad = (
                gradient_buffer(matrix) if ctx.is_accumulated else torch.zeros_like(matrix, dtype=torch.float32)
            )
        bias_grad = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needs_bias else None
        rows_grad = torch.zeros_like(rows, dtype=torch.float32) if rows is not None and needs_rows else None
        storage, cap, updates = constants
        if storage is None:
            assert matrix is not None
            storage = DenseStorage(cast(matrix, hidden.dtype))
        with torch.autocast(hidden.device.type, enabled=False):
            cast_bias = None if bias is None else bias.to(hidden.dtype)
            for part in _chunks(len(hidden), storage.shape[0], hidden.dtype):
                hidden_part = hidden[part]
                logits, cap_grad = _capped(_logits(hidden_part, storage, cast_bias, updates), cap)
                needs_grad = needs_hidden or needs_matrix or needs_bias or needs_rows
                total += cross_entropy_(logits, targets[part], weights[part], write_gradient=needs_grad).sum()
                if not needs_grad:
                    continue
                logits_grad = logits if cap_grad is None else logits.mul_(cap_grad)
                if bias_grad is not None:
                    bias_grad += logits_grad.sum(0, dtype=torch.float32)
                logits_grad = logits_grad.to(hidden_part.dtype)
                own_grad = None
                if updates is not None:
                    logits_grad, own_grad = updates.take(logits_grad)
                    if rows_grad is not None:
                        rows_grad += own_grad.t() @ hidden_part
                if hidden_grad is not None:
                    hidden_grad[part] = transposed_product(logits_grad, storage)
                    if own_grad is not None and rows is not None:
                        hidden_grad[part] += own_grad @ rows.to(hidden.dtype)
                if matrix_grad is not None:
                    if hidden_part.dtype == torch.float32:
                        matmul(logits_grad.t(), hidden_part, matrix_grad, in_place=True)
                    else:
                        matrix_grad += logits_grad.t() @ hidden_part
        ctx.save_for_backward(hidden_grad, None if ctx.is_accumulated else matrix_grad, bias_grad, rows_grad)
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (hidden, matrix, bias, rows)]
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale = float(grad)
        if ctx.is_accumulated and scale != 1.0:
            raise RuntimeError("the loss was scaled after its gradient had been accumulated")
        grads = [
            saved if saved is None else (saved if scale == 1.0 else saved.mul_(scale)).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *grads, None, None, None


def _logits(
    hidden: torch.Tensor, storage: WeightStorage, bias: torch.Tensor | None, updates: TokenRows | None
) -> torch.Tensor:
    """(N, E) -> (N, W): those of the matrix, or with the rows that an adapter puts into it."""
    logits = product(hidden, storage, base_bias(bias, storage.shape[0]))
    return logits if updates is None else updates.put(logits, hidden, bias)


def _chunks(tokens: int, vocab_size: int, dtype: torch.dtype) -> list[slice]:
    """Tokens whose logits exist at a time. Chunks have equal sizes: a matrix product over a small remainder is slow."""
    max_size = trained_logits(vocab_size, str(dtype).removeprefix("torch."))
    size = max(1, -(-tokens // max(1, -(-tokens // max_size))))
    return [slice(begin, begin + size) for begin in range(0, tokens, size)]


def _capped(logits: torch.Tensor, cap: float | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Soft-capped logits in float32, and the derivative of the cap; None without a cap, and the logits as they are."""
    if cap is None:
        return logits, None
    tanh = torch.tanh(logits.float() / cap)
    return tanh * cap, 1 - tanh.square()
