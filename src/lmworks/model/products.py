"""Matrix products of a fused block, there and back: linears with bias and low-rank updates, several of one input.

Gradients are made where they are asked for. Linears that read the same x share one product with all their low-rank
factors (Hu et al. 2021, eq. 3: y = W x + b + s B A x); of each update only A x is kept. In bfloat16 the update is part
of the weight, W + s B A, which is rounded once: added to a rounded W x it would be rounded away while it is small.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn

from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.dropout import draw_seed
from lmworks.kernels.library import library
from lmworks.model import adding

Maybe = torch.Tensor | None
TENSORS = 4  # of a linear: weight, bias, A, B


class Beside(NamedTuple):
    """The numbers of a low-rank update: what it is multiplied by, and the rate of dropout on its input."""

    scale: float = 0.0
    rate: float = 0.0


@runtime_checkable
class Updated(Protocol):
    """A module that is a linear with a low-rank update beside it, as adapt/lora has it."""

    base: nn.Module
    lora_A: nn.Parameter
    lora_B: nn.Parameter
    scale: float
    dropout: float

    @property
    def active(self) -> bool:
        """Whether the update is to be computed: neither switched off nor part of the base's weight."""


class Line(NamedTuple):
    """A linear's tensors: weight (out, in), bias (out,), A (r, in), B (out, r)."""

    weight: torch.Tensor
    bias: Maybe
    a: Maybe
    b: Maybe
    beside: Beside


class Found:
    """Gradients by place, and which of them are asked for."""

    def __init__(self, tensors: list[Maybe], wants: tuple[bool, ...]) -> None:
        self.tensors, self.wants = tensors, wants
        self.gradients: list[Maybe] = [None] * len(wants)

    def reads(self, at: int) -> bool:
        """Whether a gradient of the linear at this place is made from what it read."""
        return self.wants[at] or self.wants[at + 2]

    def product(self, at: int, left: torch.Tensor, right: Maybe, scale: float = 1.0) -> None:
        """The gradient at a place is scale * left^T right."""
        if not self.wants[at]:
            return
        weight = self.tensors[at]
        assert weight is not None
        assert right is not None
        self.gradients[at] = adding.product(weight, left, right, scale)

    def sum(self, at: int, dy: torch.Tensor) -> None:
        """The gradient at a place is the sum over rows."""
        if self.wants[at]:
            self.gradients[at] = dy.sum(0, dtype=torch.float32)


def can_pass(module: nn.Module | None) -> bool:
    """Whether these products serve a module: a plain linear, or one with a low-rank update, without hooks."""
    if module is None:
        return True
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if type(module) is nn.Linear:
        return True
    return isinstance(module, Updated) and can_pass(module.base) and type(module.base) is nn.Linear


def tensors_of(module: nn.Module | None) -> tuple[list[Maybe], Beside]:
    """A linear's weight, bias, A and B, None where it has none of them; and the numbers of its update."""
    if module is None:
        return [None] * TENSORS, Beside()
    if isinstance(module, Updated):
        weight, bias = module.base.weight, module.base.bias
        if not module.active:
            return [weight, bias, None, None], Beside()  # type: ignore[list-item]
        rate = module.dropout if module.training else 0.0
        return [weight, bias, module.lora_A, module.lora_B], Beside(module.scale, rate)  # type: ignore[list-item]
    return [module.weight, module.bias, None, None], Beside()  # type: ignore[list-item]


def forward(x: torch.Tensor, lines: list[Line], seeds: list[int]) -> tuple[list[torch.Tensor], Maybe]:
    """x (T, in) through linears that read the same x.

    Args:
        x: float32 or bfloat16; weights of another precision are cast.
        lines: the linears.
        seeds: receives one seed a line, of the dropout on its update's input.

    Returns:
        Their outputs (T, out), and A x of all updates side by side, to be kept for :func:`backward`.
    """
    seeds += [draw_seed() if line.beside.rate else 0 for line in lines]
    outputs = [_linear(x, line) for line in lines]
    own = seeds[-len(lines) :]
    updated = [one for one in zip(outputs, lines, own, strict=True) if one[1].a is not None]
    if not updated:
        return outputs, None
    if any(own):
        low = torch.cat([_drop(x, line.beside.rate, seed) @ _as(line.a, x).t() for _, line, seed in updated], 1)
    else:
        low = x @ _joined([line for _, line, _ in updated], x).t()
    for (y, line, _), part in zip(updated, _split(low, [line for _, line, _ in updated]), strict=True):
        if not _is_within(line, x):
            y.addmm_(part, _as(line.b, x).t(), alpha=line.beside.scale)
    return outputs, low


def backward(
    x: Maybe,
    lines: list[Line],
    low: Maybe,
    slopes: list[torch.Tensor],
    seeds: list[int],
    found: Found,
    places: list[int],
    wanted: bool = True,
) -> Maybe:
    """The gradient of x (T, in), from those of the outputs (T, out); those of the weights go to ``found``.

    Args:
        x, lines, low, seeds: of :func:`forward`; x may be None where :meth:`Found.reads` says that nobody reads it.
        slopes: gradients of the outputs.
        found: receives the gradients of what is trained.
        places: of each line's weight; bias, A and B follow it.
        wanted: False where nobody needs the gradient of x.
    """
    dx: Maybe = None
    for line, dy, at in zip(lines, slopes, places, strict=True):
        found.product(at, dy, x)
        found.sum(at + 1, dy)
        if wanted:
            weight = _weight(line, dy)
            dx = dy @ weight if dx is None else dx.addmm_(dy, weight)
    updated = [one for one in zip(lines, slopes, seeds, places, strict=True) if one[0].a is not None]
    if low is None or not updated:
        return dx
    for (line, dy, _, at), part in zip(updated, _split(low, [line for line, *_ in updated]), strict=True):
        found.product(at + 3, dy, part, line.beside.scale)
    falls = [(dy @ _as(line.b, dy)).mul_(line.beside.scale) for line, dy, _, _ in updated]  # gradients of A x
    if any(seed for _, _, seed, _ in updated):
        for (line, _, seed, at), fall in zip(updated, falls, strict=True):
            found.product(at + 2, fall, _drop(x, line.beside.rate, seed) if found.wants[at + 2] else None)
            if dx is not None and not _is_within(line, fall):
                dx += _drop(fall @ _as(line.a, fall), line.beside.rate, seed)
        return dx
    for (_, _, _, at), fall in zip(updated, falls, strict=True):
        found.product(at + 2, fall, x)
    if dx is None or _is_within(updated[0][0], dx):
        return dx
    fall = falls[0] if len(falls) == 1 else torch.cat(falls, 1)
    return dx.addmm_(fall, _joined([line for line, *_ in updated], fall))


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, beside: Beside, *tensors: Maybe) -> torch.Tensor:
        (y,), low = forward(x, [_line(tensors, beside)], [])
        ctx.beside = beside
        ctx.save_for_backward(x, low, *tensors)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
        x, low, *tensors = ctx.saved_tensors
        found = Found(tensors, ctx.needs_input_grad[2:])
        dx = backward(x, [_line(tensors, ctx.beside)], low, [dy.contiguous()], [0], found, [0], ctx.needs_input_grad[0])
        return dx, None, *found.gradients


def _line(tensors: Any, beside: Beside) -> Line:
    weight, bias, a, b = tensors
    return Line(weight, bias, a, b, beside)


def rounded(x: torch.Tensor, module: Updated) -> torch.Tensor:
    """x (..., in), bfloat16, through a linear whose low-rank update is part of its weight: (..., out)."""
    tensors, beside = tensors_of(module)  # type: ignore[arg-type]
    with torch.autocast(x.device.type, enabled=False):
        return _Rounded.apply(x.flatten(0, -2), beside, *tensors).unflatten(0, x.shape[:-1])


def _linear(x: torch.Tensor, line: Line) -> torch.Tensor:
    weight = _weight(line, x).t()
    return x @ weight if line.bias is None else torch.addmm(_as(line.bias, x), x, weight)


def _is_within(line: Line, x: torch.Tensor) -> bool:
    """Whether a line's update is part of the weight that x is multiplied by."""
    return line.a is not None and x.dtype != torch.float32 and not line.beside.rate


def _weight(line: Line, x: torch.Tensor) -> torch.Tensor:
    if line.a is None or line.b is None or not _is_within(line, x):
        return _as(line.weight, x)
    return adding.updated(line.weight, line.a, line.b, line.beside.scale, x.dtype)


def _as(tensor: Maybe, x: torch.Tensor) -> torch.Tensor:
    """In x's precision."""
    assert tensor is not None
    return adding.cast(tensor, x.dtype)


def _joined(lines: list[Line], x: torch.Tensor) -> torch.Tensor:
    """All A one above another: (sum of r, in)."""
    return _as(lines[0].a, x) if len(lines) == 1 else torch.cat([_as(line.a, x) for line in lines])


def _split(low: torch.Tensor, lines: list[Line]) -> list[torch.Tensor]:
    """(T, sum of r) -> (T, r) of each."""
    return list(low.split([len(line.a) for line in lines], 1))  # type: ignore[arg-type]


def _drop(x: Maybe, rate: float, seed: int) -> torch.Tensor:
    assert x is not None
    if not rate:
        return x
    y = torch.empty_like(x)
    library().dropout(to_dlpack(x.contiguous()), to_dlpack(y), rate, seed)
    return y
