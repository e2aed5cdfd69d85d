"""Activations, plain and gated: their definitions in PyTorch, and kernels that make one pass each way.

For training, the kernels keep what they read and compute the activation again on the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from lmworks.kernels.library import NATIVE_ACTIVATIONS, library
from lmworks.kernels.native import capsule, serves


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
        name: of the activation.
        x: of any shape.
        up: of the same shape.
    """
    if name in NATIVE_ACTIVATIONS and torch.is_grad_enabled() and serves(x, up) and (up is None or up.dtype == x.dtype):
        return _Native.apply(NATIVE_ACTIVATIONS[name], x, up)
    y = ACTIVATIONS[name](x)
    return y if up is None else y * up


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kind: int, x: torch.Tensor, up: torch.Tensor | None) -> torch.Tensor:
        x = x.contiguous()
        up = None if up is None else up.contiguous()
        y = torch.empty_like(x)
        library().activate(kind, capsule(x), None if up is None else capsule(up), capsule(y))
        ctx.kind = kind
        ctx.save_for_backward(x, up)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, torch.Tensor, torch.Tensor | None]:
        x, up = ctx.saved_tensors
        grad, x_grad = grad.contiguous(), torch.empty_like(x)
        if up is None:
            library().activate_back(ctx.kind, capsule(x), None, capsule(grad), capsule(x_grad), None)
            return None, x_grad, None
        up_grad = torch.empty_like(up)
        library().activate_back(ctx.kind, capsule(x), capsule(up), capsule(grad), capsule(x_grad), capsule(up_grad))
        return None, x_grad, up_grad
