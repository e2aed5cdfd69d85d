"""Activation functions, plain and gated: their definitions in PyTorch, and native kernels with one pass over the data.

In training the kernels save their inputs and recompute the activation in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from lmworks.kernels.dispatch import supports, to_dlpack
from lmworks.kernels.native_module import NATIVE_ACTIVATIONS, native_module


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": functional.silu,
}


def activate(name: str, x: torch.Tensor, up: torch.Tensor | None = None) -> torch.Tensor:
    """act(x), or act(x) * up: GELU (Hendrycks & Gimpel 2016), SwiGLU and GEGLU (Shazeer 2020), and others by name.

    Args:
        name: a key of :data:`ACTIVATIONS`.
        x: any shape; the gate where ``up`` is given.
        up: the shape of x, or None.

    Returns:
        The shape and dtype of x.
    """
    native = name in NATIVE_ACTIVATIONS and torch.is_grad_enabled() and supports(x, up)
    if native and (up is None or up.dtype == x.dtype):
        return _NativeActivation.apply(NATIVE_ACTIVATIONS[name], x, up)
    y = ACTIVATIONS[name](x)
    return y if up is None else y * up


class _NativeActivation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kind: int, x: torch.Tensor, up: torch.Tensor | None) -> torch.Tensor:
        x = x.contiguous()
        up = None if up is None else up.contiguous()
        y = torch.empty_like(x)
        native_module().activate(kind, to_dlpack(x), None if up is None else to_dlpack(up), to_dlpack(y))
        ctx.kind = kind
        ctx.save_for_backward(x, up)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[None, torch.Tensor, torch.Tensor | None]:
        x, up = ctx.saved_tensors
        grad_y, grad_x = grad_y.contiguous(), torch.empty_like(x)
        if up is None:
            native_module().activate_backward(ctx.kind, to_dlpack(x), None, to_dlpack(grad_y), to_dlpack(grad_x), None)
            return None, grad_x, None
        grad_up = torch.empty_like(up)
        native_module().activate_backward(ctx.kind, *map(to_dlpack, (x, up, grad_y, grad_x, grad_up)))
        return None, grad_x, grad_up
