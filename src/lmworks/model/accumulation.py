"""In-place gradient accumulation for a training step, and a cache of casts that lives as long as the step.

Autograd accumulates the gradient of a reused weight by allocating a second matrix and adding it to ``.grad``. Within
:func:`accumulate_in_place` the backward passes of this package add each gradient to ``.grad`` directly, and each weight
is cast to the precision of the matrix products once per step instead of once per row.

It is off by default because autograd does not see these additions: ``autograd.grad`` and hooks on parameters would miss
them. A training step, which calls ``.backward()`` and reads ``.grad``, enables it for its forward and backward passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from lmworks.kernels.matmul import matmul
from lmworks.model.row_factors import row_factors
from lmworks.model.sparse_gradients import is_sparse

_enabled = False
# The key consists of the ids of the tensors that a cast is computed from, and of its other inputs. The entry holds
# these tensors, so that no id is reused while the entry exists.
_casts: dict[tuple[Any, ...], tuple[tuple[torch.Tensor, ...], torch.Tensor]] = {}


@contextmanager
def accumulate_in_place() -> Iterator[None]:
    """Within this block, in which no weight may change, gradients of matrices are added to ``.grad`` in place."""
    global _enabled
    before, _enabled = _enabled, True
    try:
        yield
    finally:
        _enabled = before
        _casts.clear()


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A weight in another precision; cached within :func:`accumulate_in_place`."""
    if tensor.dtype == dtype:
        return tensor
    if not tensor.is_leaf:
        return tensor.to(dtype)
    return _cached((tensor,), (dtype,), lambda: tensor.detach().to(dtype))


class Update(NamedTuple):
    """A low-rank update of a weight (out, in): scale * b @ a with b (out, r) and a (r, in); with a magnitude (out,),
    the lengths of the updated rows (model/row_factors)."""

    a: torch.Tensor
    b: torch.Tensor
    magnitude: torch.Tensor | None
    scale: float

    def added_to(self, weight: torch.Tensor) -> torch.Tensor:
        """weight + scale B A in float32, before the magnitude."""
        return torch.addmm(weight.detach().float(), self.b.detach(), self.a.detach(), alpha=self.scale)

    def merged_into(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The updated weight, computed in float32 and rounded once."""
        merged = self.added_to(weight)
        if self.magnitude is not None:
            merged *= row_factors(self.magnitude.detach(), merged)[:, None]
        return merged.to(dtype)

    def row_factors(self, weight: Callable[[], torch.Tensor]) -> torch.Tensor:
        """(out,) what the magnitude multiplies the rows of the updated weight by; cached within
        :func:`accumulate_in_place`.

        Args:
            weight: gives the frozen weight, which is always the same for one update.
        """
        assert self.magnitude is not None
        magnitude = self.magnitude.detach()
        return _cached(self.tensors, ("factors", self.scale), lambda: row_factors(magnitude, self.added_to(weight())))

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """A, B, and the magnitude if there is one."""
        return (self.a, self.b) if self.magnitude is None else (self.a, self.b, self.magnitude)


def merged_weight(weight: torch.Tensor, update: Update, dtype: torch.dtype) -> torch.Tensor:
    """:meth:`Update.merged_into`, cached within :func:`accumulate_in_place`.

    LoRA's update is small at first: rounding would remove it if it were added to an output already rounded to bfloat16.
    """
    return _cached((weight, *update.tensors), (update.scale, dtype), lambda: update.merged_into(weight, dtype))


def scaled_weight(weight: torch.Tensor, scale: torch.Tensor, factors: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """weight * factors, computed in float32 and rounded once; cached within :func:`accumulate_in_place`.

    Args:
        weight: (out, in).
        scale: the parameter that the factors are computed from.
        factors: (in,) or (out, 1).
        dtype: of the result.
    """
    return _cached((weight, scale), (dtype,), lambda: scale_weight(weight, factors, dtype))


def scale_weight(weight: torch.Tensor, factors: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As :func:`scaled_weight`, without the cache."""
    return (weight.detach().float() * factors).to(dtype)


def _cached(
    tensors: tuple[torch.Tensor, ...], settings: tuple[Any, ...], compute: Callable[[], torch.Tensor]
) -> torch.Tensor:
    if not _enabled:
        return compute()
    key = (*map(id, tensors), *settings)
    if key not in _casts:
        _casts[key] = (tensors, compute())
    return _casts[key][1]


def gradient_buffer(weight: torch.Tensor) -> torch.Tensor | None:
    """The float32 ``.grad`` to which a weight's gradients are added in place, allocated as zeros if there is none; None
    if gradients must be returned to autograd instead."""
    if not _accumulates(weight):
        return None
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    elif weight.grad.is_sparse:  # an embedding that is the language head too
        weight.grad = weight.grad.to_dense()
    return weight.grad


def _accumulates(weight: torch.Tensor) -> bool:
    return _enabled and weight.is_leaf and weight.requires_grad and weight.dtype == torch.float32


def weight_gradient(
    weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0
) -> torch.Tensor | None:
    """A weight's gradient scale * left^T right, to be returned to autograd; None if it was added to ``.grad``."""
    if weight.grad is not None and left.dtype == torch.float32 and gradient_buffer(weight) is not None:
        matmul(left.t(), right, weight.grad, scale, in_place=True)
        return None
    return matmul(left.t(), right, scale=scale).to(weight.dtype)


def added_gradient(weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor | None:
    """A weight's gradient, to be returned to autograd; None if it was added to ``.grad``."""
    if weight.grad is not None and gradient_buffer(weight) is not None:
        weight.grad.add_(gradient)
        return None
    return gradient.to(weight.dtype)


def embed(weight: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """(V, E) embeddings, (...) ids -> (..., E).

    In-place accumulation writes only the gradients of the rows that were read. Where these are few, ``.grad`` is a
    sparse tensor of them, unless something else gives the other rows gradients too.
    """
    if torch.is_grad_enabled() and _accumulates(weight):
        return _Embed.apply(weight, ids)
    return functional.embedding(ids, weight)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, ids)
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        weight, ids = ctx.saved_tensors
        rows, gradients = ids.flatten(), grad_output.flatten(0, -2).to(weight.dtype)
        is_dense = weight.grad is not None and not weight.grad.is_sparse
        if _accumulates(weight) and not is_dense and is_sparse(len(weight), weight.shape[1], len(rows)):
            sparse = torch.sparse_coo_tensor(rows[None], gradients, weight.shape, check_invariants=False)
            weight.grad = sparse if weight.grad is None else weight.grad + sparse
            return None, None
        buffer = gradient_buffer(weight)
        gradient = torch.zeros_like(weight) if buffer is None else buffer
        gradient.index_add_(0, rows, gradients)
        return (gradient if buffer is None else None), None
