"""A training step's matrices: gradients added where they are kept, in one pass and without a second matrix for autograd
to add; and weights cast to the precision of the products once a step, not once a row.

Off by default, since autograd knows nothing of what is added here: ``autograd.grad`` would miss it, and so would hooks.
A training step, which calls ``.backward()`` and reads ``.grad``, switches it on round its forward and backward passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

_on = False
_casts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by a weight's id: it, and what was made of it


@contextmanager
def adding() -> Iterator[None]:
    """Within this block, in which no weight may change, gradients of matrices are added to their ``.grad``."""
    global _on
    before, _on = _on, True
    try:
        yield
    finally:
        _on = before
        _casts.clear()


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A weight in another precision; made once within :func:`adding`."""
    if tensor.dtype == dtype:
        return tensor
    return _once(tensor, lambda: tensor.detach().to(dtype)) if tensor.is_leaf else tensor.to(dtype)


def updated(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """weight + scale B A, summed in float32 and rounded once; made once within :func:`adding`.

    Added to a product that was rounded, a small update would be rounded away, and low-rank updates begin small.
    """
    return _once(weight, lambda: torch.addmm(weight.detach().float(), b.detach(), a.detach(), alpha=scale).to(dtype))


def _once(weight: torch.Tensor, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    if not _on:
        return make()
    if id(weight) not in _casts:
        _casts[id(weight)] = (weight, make())
    return _casts[id(weight)][1]


def kept(weight: torch.Tensor) -> torch.Tensor | None:
    """The float32 matrix that a weight's gradients are added to, made of zeros where there is none yet; None where they
    are to be handed to autograd."""
    if not _on or not weight.is_leaf or not weight.requires_grad or weight.dtype != torch.float32:
        return None
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def product(weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> torch.Tensor | None:
    """The gradient of a weight is scale * left^T right: for autograd, or None where it was added to what is there."""
    if weight.grad is not None and left.dtype == torch.float32 and kept(weight) is not None:
        weight.grad.addmm_(left.t(), right, alpha=scale)
        return None
    found = left.t() @ right
    return (found if scale == 1.0 else found.mul_(scale)).to(weight.dtype)


def look_up(weight: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """(words, E) embeddings, (...) ids -> (..., E); where gradients are added, only rows that were read are touched."""
    if torch.is_grad_enabled() and kept(weight) is not None:
        return _LookUp.apply(weight, ids)
    return functional.embedding(ids, weight)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, ids)
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        weight, ids = ctx.saved_tensors
        total = kept(weight)
        found = torch.zeros_like(weight) if total is None else total
        found.index_add_(0, ids.flatten(), grad.flatten(0, -2).to(found.dtype))
        return (found if total is None else None), None
