"""AdamW over many tensors, and the sum of their squares, each as one call of a native kernel.

PyTorch's fused AdamW (the definition, which train/optimizers calls without the kernel) starts its threads for each
tensor; a small network has many small tensors, whose updates take less time than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.native_module import native_module


class AdamWScalars(NamedTuple):
    """The scalar arguments of a step, in the order in which the native kernels take them.

    Attributes:
        learning_rate, beta1, beta2, weight_decay, epsilon: of AdamW.
        first_correction, second_correction: 1 - beta1^t and sqrt(1 - beta2^t), the bias corrections of step t.
        gradient_factor: the gradient is multiplied by it (clipping).
    """

    learning_rate: float
    beta1: float
    beta2: float
    weight_decay: float
    epsilon: float
    first_correction: float
    second_correction: float
    gradient_factor: float


def can_run(*tensors: torch.Tensor) -> bool:
    """Whether the kernels are available and accept these tensors: contiguous, float32, in CPU memory."""
    if native_module() is None:
        return False
    return all(tensor.dtype == torch.float32 and tensor.is_cpu and tensor.is_contiguous() for tensor in tensors)


def adamw_step(
    weights: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    first: Sequence[torch.Tensor],
    second: Sequence[torch.Tensor],
    scalars: AdamWScalars,
) -> None:
    """A step of AdamW (Loshchilov & Hutter 2019, algorithm 2) on weights and moments, in place.

    Args:
        weights, gradients, first, second: as many tensors each, of any shape; tensor i of all four has the same shape.
        scalars: of this step.
    """
    arrays = ([to_dlpack(tensor.detach()) for tensor in group] for group in (weights, gradients, first, second))
    native_module().adamw(*arrays, scalars)


def sum_of_squares(tensors: Sequence[torch.Tensor]) -> float:
    """Of all elements of all tensors; the same bits on any number of threads."""
    return native_module().sum_of_squares([to_dlpack(tensor.detach()) for tensor in tensors])
