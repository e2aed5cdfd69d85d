"""Matrix multiplications of training and evaluation, each by the provider that is fastest for its shape here.

Which library is fastest differs between processors, and their names do not predict it. MKL, which PyTorch calls in
float32, may choose a code path that leaves half of a processor's units idle. oneDNN, which PyTorch calls in bfloat16,
may run some shapes on one thread. Therefore kernels/product_rates measures the shapes of a model, and each shape gets
the fastest provider.

    pytorch   PyTorch's own choice: MKL in float32 on most machines, oneDNN in bfloat16
    parts     the same, in parts of at most PART_ROWS rows; bfloat16
    onednn    oneDNN in float32; PyTorch's CPU builds contain it
    native    the package's own kernel (native/matmul.inl); float32
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

import torch

from lmworks.base.machine import PRECISIONS
from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.native_module import native_module
from lmworks.kernels.product_shapes import (
    FORWARD,
    INPUT_GRADIENT,
    NATIVE,
    ONEDNN,
    PARTS,
    PYTORCH,
    WEIGHT_GRADIENT,
    ProductShape,
)

Provider = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, float, bool], torch.Tensor]
"""(a, b, addend, scale, in_place) -> addend + scale * a b."""

PART_ROWS = 512  # of the left matrix


def shape_of(a: torch.Tensor, b: torch.Tensor) -> ProductShape:
    """The class of the product a b."""
    return _shape_of(a.dtype, a.shape, a.stride(1) == 1, b.shape, b.stride(1) == 1)


@lru_cache(maxsize=1 << 12)  # a small network calls it for every product, and its own time would count
def _shape_of(
    dtype: torch.dtype, a: torch.Size, a_is_row_major: bool, b: torch.Size, b_is_row_major: bool
) -> ProductShape:
    precision = "float32" if dtype == torch.float32 else "bfloat16"
    if not a_is_row_major and a[0] > 1:
        return ProductShape.of_linear(precision, WEIGHT_GRADIENT, b[1], a[0], a[1])
    if b_is_row_major:
        return ProductShape.of_linear(precision, INPUT_GRADIENT, b[1], b[0], a[0])
    return ProductShape.of_linear(precision, FORWARD, b[0], b[1], a[0])


_choice: dict[ProductShape, Provider] = {}


def matmul(
    a: torch.Tensor, b: torch.Tensor, addend: torch.Tensor | None = None, scale: float = 1.0, in_place: bool = False
) -> torch.Tensor:
    """addend + scale * a b, (M, N), by the chosen provider; with the same choice on the same machine, the same bits.

    Args:
        a: (M, K), row-major or column-major.
        b: (K, N), row-major or column-major, in a's precision.
        addend: (M, N), or (N,) for all rows; None: zeros.
        scale: factor of the product.
        in_place: write the result over the addend, (M, N).
    """
    provider = _choice.get(shape_of(a, b), pytorch) if _choice else pytorch
    return provider(a, b, addend, scale, in_place)


def has_choice() -> bool:
    """Whether providers are chosen for some shapes."""
    return bool(_choice)


@contextmanager
def providers(choice: Mapping[str, str]) -> Iterator[None]:
    """Within this block, the given shapes are computed by the given providers, all others as outside of it.

    Args:
        choice: provider by shape, both as text; providers that are not available here are ignored.
    """
    global _choice
    before, usable = _choice, {name for precision in PRECISIONS for name in available(precision)}
    given = {ProductShape.parse(shape): PROVIDERS[name] for shape, name in choice.items() if name in usable}
    _choice = before | given
    try:
        yield
    finally:
        _choice = before


def available(precision: str) -> list[str]:
    """The providers that can compute here in a precision."""
    if precision != "float32":
        return [PYTORCH, PARTS]
    names = [PYTORCH]
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        names.append(ONEDNN)
    if native_module() is not None:
        names.append(NATIVE)
    return names


def pytorch(
    a: torch.Tensor, b: torch.Tensor, addend: torch.Tensor | None, scale: float, in_place: bool
) -> torch.Tensor:
    """PyTorch's own matmul."""
    if addend is not None:
        return addend.addmm_(a, b, alpha=scale) if in_place else torch.addmm(addend, a, b, alpha=scale)
    product = a @ b
    return product if scale == 1.0 else product.mul_(scale)


def parts(a: torch.Tensor, b: torch.Tensor, addend: torch.Tensor | None, scale: float, in_place: bool) -> torch.Tensor:
    """PyTorch's own matmul over equal parts of a's rows."""
    count = -(-len(a) // PART_ROWS)
    if count == 1:
        return pytorch(a, b, addend, scale, in_place)
    result = addend if in_place and addend is not None else a.new_empty(len(a), b.shape[1])
    for begin, end in ((len(a) * part // count, len(a) * (part + 1) // count) for part in range(count)):
        rows, own = a[begin:end], result[begin:end]
        if addend is None:
            torch.mm(rows, b, out=own)
        else:
            torch.addmm(addend if addend.ndim == 1 else addend[begin:end], rows, b, alpha=scale, out=own)
    return result if addend is not None or scale == 1.0 else result.mul_(scale)


def onednn(a: torch.Tensor, b: torch.Tensor, addend: torch.Tensor | None, scale: float, in_place: bool) -> torch.Tensor:
    """oneDNN's inner product."""
    bias = addend if addend is not None and addend.ndim == 1 and scale == 1.0 else None
    product = torch.ops.mkldnn._linear_pointwise(_dense(a), _dense(b).t(), bias, "none", [], "")
    if addend is None or bias is not None:
        return product if scale == 1.0 else product.mul_(scale)
    return addend.add_(product, alpha=scale) if in_place else product.mul_(scale).add_(addend)


def _dense(x: torch.Tensor) -> torch.Tensor:
    """The matrix without gaps between its rows or columns; with gaps oneDNN is many times slower."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()


def native(a: torch.Tensor, b: torch.Tensor, addend: torch.Tensor | None, scale: float, in_place: bool) -> torch.Tensor:
    """The package's own kernel."""
    result = addend if in_place and addend is not None else a.new_empty(len(a), b.shape[1])
    addend_rows = None if addend is None else to_dlpack(addend.view(-1, b.shape[1]))
    native_module().matmul(to_dlpack(a), to_dlpack(b), to_dlpack(result), addend_rows, scale)
    return result


PROVIDERS: dict[str, Provider] = {PYTORCH: pytorch, PARTS: parts, ONEDNN: onednn, NATIVE: native}
