"""Matrix multiplications of training and evaluation, each by the provider that is fastest for its shape here.

Which library is fastest differs between processors, and their names do not predict it. MKL, which PyTorch calls in
float32, may choose a code path that leaves half of a processor's units idle. oneDNN, which PyTorch calls in bfloat16,
may run some shapes on one thread. Therefore kernels/product_rates measures the shapes of a model, and each shape gets
the fastest provider. "Product" means matrix product in this file and wherever it is used.

    pytorch   PyTorch's own choice: MKL in float32 on most machines, oneDNN in bfloat16
    parts     the same, in parts of at most PART_ROWS rows; bfloat16
    onednn    oneDNN in float32; PyTorch's CPU builds contain it
    native    the package's own kernel (native/matmul.inl); float32
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import torch

from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.library import library

Provider = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, float, bool], torch.Tensor]
"""(a, b, addend, scale, in_place) -> addend + scale * a b."""

PRECISIONS = ("float32", "bfloat16")
PYTORCH, PARTS, ONEDNN, NATIVE = "pytorch", "parts", "onednn", "native"
FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = "forward", "input_gradient", "weight_gradient"
PART_ROWS = 512  # of the left matrix
NARROW_SIZES = (16, 32, 64)  # classes of small sizes, such as LoRA ranks
TOKENS = (16, 128, 512, 1024)  # classes of the number of tokens; up to 16: of texts that are generated together


class ProductShape(NamedTuple):
    """A class of the matrix products of a linear; one provider is chosen for each class.

    Attributes:
        precision: float32 or bfloat16.
        layout: forward (x W^T, W stored by rows), input_gradient (dy W) or weight_gradient (dy^T x).
        inputs, outputs: of the linear; small sizes are rounded up to the next of ``NARROW_SIZES``.
        tokens: rounded up to the next of ``TOKENS``; larger numbers count as the last.
    """

    precision: str
    layout: str
    inputs: int
    outputs: int
    tokens: int

    @classmethod
    def of(cls, a: torch.Tensor, b: torch.Tensor) -> ProductShape:
        """The class of the product a b."""
        return _shape_of(a.dtype, a.shape, a.stride(1) == 1, b.shape, b.stride(1) == 1)

    @classmethod
    def of_linear(cls, precision: str, layout: str, inputs: int, outputs: int, tokens: int) -> ProductShape:
        """The class of a product of a linear, from the linear's sizes."""
        return cls(precision, layout, *_sizes(inputs, outputs, tokens))

    @classmethod
    def parse(cls, text: str) -> ProductShape:
        """Inverse of ``str``."""
        precision, layout, inputs, outputs, tokens = text.split()
        return cls(precision, layout, int(inputs), int(outputs), int(tokens))

    def __str__(self) -> str:
        return " ".join(map(str, self))


def _sizes(inputs: int, outputs: int, tokens: int) -> tuple[int, int, int]:
    return _size_class(inputs), _size_class(outputs), token_class(tokens)


def _size_class(size: int) -> int:
    return next((narrow for narrow in NARROW_SIZES if size <= narrow), size)


def token_class(tokens: int) -> int:
    """The class of a number of tokens."""
    return next((size for size in TOKENS if tokens <= size), TOKENS[-1])


@lru_cache(maxsize=1 << 12)  # a small network calls it for every product, and its own time would count
def _shape_of(
    dtype: torch.dtype, a: torch.Size, a_is_row_major: bool, b: torch.Size, b_is_row_major: bool
) -> ProductShape:
    precision = "float32" if dtype == torch.float32 else "bfloat16"
    if not a_is_row_major and a[0] > 1:
        return ProductShape(precision, WEIGHT_GRADIENT, *_sizes(b[1], a[0], a[1]))
    if b_is_row_major:
        return ProductShape(precision, INPUT_GRADIENT, *_sizes(b[1], b[0], a[0]))
    return ProductShape(precision, FORWARD, *_sizes(b[0], b[1], a[0]))


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
    provider = _choice.get(ProductShape.of(a, b), pytorch) if _choice else pytorch
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
    if library() is not None:
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
    library().matmul(to_dlpack(a), to_dlpack(b), to_dlpack(result), addend_rows, scale)
    return result


PROVIDERS: dict[str, Provider] = {PYTORCH: pytorch, PARTS: parts, ONEDNN: onednn, NATIVE: native}
