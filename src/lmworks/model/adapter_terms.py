"""What adapters add to a linear of a fused block: the kinds of terms, and the passes of those that change the input or
the output of a linear. LoRA's products are in model/products, which joins those of several linears.

    LoRA         y = W x + b + s B A x                   (Hu et al. 2021, eq. 3)
    DoRA         y = f (W x + s B A x) + b               (Liu et al. 2024, eq. 5; f: model/row_factors)
    scale        y = l * (W x + b), or W (l * x) + b     (Liu et al. 2022, section 3.3)
    bottleneck   y + U act(D y + d) + u, y = W x + b     (Houlsby et al. 2019, section 2.1)
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.matmul import matmul
from lmworks.kernels.native_module import native_module

NEARLY_ZERO = 1e-20
ROWS = 256


class LoRATerm(NamedTuple):
    """A low-rank update; its tensors are A (r, in) and B (out, r), and with DoRA the magnitude (out,).

    Attributes:
        scale: s.
        dropout: dropout rate of its input.
    """

    scale: float = 0.0
    dropout: float = 0.0


class ScaleTerm(NamedTuple):
    """A scaled input or output; its tensor is l (in,) or (out,).

    Attributes:
        of_input: whether the input is scaled.
    """

    of_input: bool


class BottleneckTerm(NamedTuple):
    """A bottleneck after a linear; its tensors are D (r, out), d (r,), U (out, r) and u (out,).

    Attributes:
        activation: number of a native activation (kernels/native_module).
    """

    activation: int


Term = LoRATerm | ScaleTerm | BottleneckTerm


def scale(x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """x (T, n) times factors (n,), in x's precision; the factors stay float32, so that small changes of them count."""
    return (x * factors).to(x.dtype)


def divisors(factors: torch.Tensor) -> torch.Tensor:
    """The factors of a scale, none of them 0: the gradient of a factor is computed from what was multiplied by it."""
    return torch.where(factors.abs() < NEARLY_ZERO, NEARLY_ZERO, factors)


def scale_gradient(scaled: torch.Tensor, other: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """The gradient (n,) of factors, float32: sums over all tokens of scaled * other, divided by the factors.

    Args:
        scaled: the scaled output, or the gradient of a scaled input (T, n), computed with :func:`divisors`.
        other: the gradient of the output, or the input (T, n).
        factors: (n,).
    """
    sums = torch.zeros_like(factors)
    for begin in range(0, len(scaled), ROWS):  # a part of the products at a time, which stays in the cache
        rows = slice(begin, begin + ROWS)
        sums += (scaled[rows] * other[rows]).sum(0, dtype=torch.float32)
    return sums / divisors(factors)


class BottleneckTensors(NamedTuple):
    """Weights and biases of a bottleneck's two layers, in the precision of the product."""

    down: torch.Tensor
    down_bias: torch.Tensor
    up: torch.Tensor
    up_bias: torch.Tensor


def bottleneck(y: torch.Tensor, tensors: BottleneckTensors, activation: int) -> tuple[torch.Tensor, torch.Tensor]:
    """y (T, out) -> y + U act(D y + d) + u, and D y + d (T, r), which the backward pass reads."""
    low = matmul(y, tensors.down.t(), tensors.down_bias)
    return matmul(_activate(low, activation), tensors.up.t(), tensors.up_bias).add_(y), low


class BottleneckGradients(NamedTuple):
    """Gradients of a bottleneck's input (T, out) and of its inner layer (T, r), and the layer's output (T, r)."""

    y: torch.Tensor
    low: torch.Tensor
    activated: torch.Tensor


def bottleneck_backward(
    low: torch.Tensor, grad: torch.Tensor, tensors: BottleneckTensors, activation: int
) -> BottleneckGradients:
    """The gradients within a bottleneck.

    Args:
        low: of :func:`bottleneck`.
        grad: gradient of its output (T, out); not changed.
        tensors, activation: of :func:`bottleneck`.
    """
    grad_activated, grad_low = matmul(grad, tensors.up), torch.empty_like(low)
    arrays = (to_dlpack(grad_activated), to_dlpack(grad_low), None)
    native_module().activate_backward(activation, to_dlpack(low), None, *arrays)
    grad_y = matmul(grad_low, tensors.down).add_(grad)
    return BottleneckGradients(grad_y, grad_low, _activate(low, activation))


def _activate(low: torch.Tensor, activation: int) -> torch.Tensor:
    y = torch.empty_like(low)
    native_module().activate(activation, to_dlpack(low), None, to_dlpack(y))
    return y
