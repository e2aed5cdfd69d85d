"""Matrix products of training, each by the provider that is fastest for its shape on this machine.

Float32 products differ between libraries by a factor of two, in a way that no processor's name tells: MKL, which
PyTorch calls, may take a path that leaves half of a processor idle. So each class of shapes has a provider, which
kernels/product_rates chooses by measuring. Products in other precisions are PyTorch's.

    pytorch   PyTorch's own choice: MKL on most machines
    onednn    oneDNN, which PyTorch's CPU builds contain
    native    the package's own kernel (native/matmul.inl)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.library import library

Provider = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, float, bool], torch.Tensor]
"""(a, b, addend, scale, in place) -> addend + scale a b."""

PYTORCH, ONEDNN, NATIVE = "pytorch", "onednn", "native"
LAYOUTS = ("forward", "input_gradient", "weight_gradient")
"""x W^T, whose second matrix is stored by columns; dy W, both by rows; dy^T x, whose first matrix is stored by columns."""
SIZES = ("small", "narrow", "block", "head")
SMALL_PRODUCT = 1 << 23  # multiplications below which a call costs as much as its arithmetic
NARROW_SIZE = 64  # the smallest of the three sizes of products with LoRA factors is at most this
HEAD_WEIGHT = 1 << 23  # numbers of a matrix that fits in no cache

_choice: dict[str, str] = {}


def matmul(
    a: torch.Tensor, b: torch.Tensor, addend: torch.Tensor | None = None, scale: float = 1.0, in_place: bool = False
) -> torch.Tensor:
    """addend + scale * a b, (M, N); the same machine and the same choice of providers give the same bits.

    Args:
        a: (M, K), stored by rows or by columns.
        b: (K, N), stored by rows or by columns; of a's precision.
        addend: (M, N), or (N,) for all rows; None: zeros.
        scale: of the product.
        in_place: write the result over the addend, (M, N).
    """
    chosen = PYTORCH
    if _choice and a.dtype == torch.float32:
        chosen = _choice.get(product_class(a, b), PYTORCH)
    return PROVIDERS[chosen](a, b, addend, scale, in_place)


def product_class(a: torch.Tensor, b: torch.Tensor) -> str:
    """The class of a product by layout and size, such as "forward block"."""
    layout = "weight_gradient" if a.stride(1) != 1 else "input_gradient" if b.stride(1) == 1 else "forward"
    rows, depth, columns = a.shape[0], *b.shape
    if rows * depth * columns < SMALL_PRODUCT:
        return f"{layout} small"
    if min(rows, depth, columns) <= NARROW_SIZE:
        return f"{layout} narrow"
    is_head = max(depth * columns, rows * columns, rows * depth) >= HEAD_WEIGHT
    return f"{layout} {'head' if is_head else 'block'}"


def available() -> list[str]:
    """The providers that can compute here."""
    names = [PYTORCH]
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        names.append(ONEDNN)
    if library() is not None:
        names.append(NATIVE)
    return names


@contextmanager
def providers(choice: Mapping[str, str]) -> Iterator[None]:
    """Within this block, products of these classes are computed by these providers, all others by PyTorch.

    Args:
        choice: provider by product class; providers that are not available here are passed over.
    """
    global _choice
    before, usable = _choice, available()
    _choice = {key: name for key, name in choice.items() if name in usable}
    try:
        yield
    finally:
        _choice = before


def _pytorch(
    a: torch.Tensor, b: torch.Tensor, addend: torch.Tensor | None, scale: float, in_place: bool
) -> torch.Tensor:
    if addend is not None:
        return addend.addmm_(a, b, alpha=scale) if in_place else torch.addmm(addend, a, b, alpha=scale)
    product = a @ b
    return product if scale == 1.0 else product.mul_(scale)


def _onednn(
    a: torch.Tensor, b: torch.Tensor, addend: torch.Tensor | None, scale: float, in_place: bool
) -> torch.Tensor:
    bias = addend if addend is not None and addend.ndim == 1 and scale == 1.0 else None
    product = torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")
    if addend is None or bias is not None:
        return product if scale == 1.0 else product.mul_(scale)
    return addend.add_(product, alpha=scale) if in_place else product.mul_(scale).add_(addend)


def _native(
    a: torch.Tensor, b: torch.Tensor, addend: torch.Tensor | None, scale: float, in_place: bool
) -> torch.Tensor:
    assert not in_place or addend is not None
    result = addend if in_place and addend is not None else a.new_empty(len(a), b.shape[1])
    first = None if addend is None else to_dlpack(addend.view(-1, b.shape[1]))
    library().matmul(to_dlpack(a), to_dlpack(b), to_dlpack(result), first, scale)
    return result


PROVIDERS: dict[str, Provider] = {PYTORCH: _pytorch, ONEDNN: _onednn, NATIVE: _native}
