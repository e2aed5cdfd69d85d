"""Classes of matrix products, and the names of the providers that compute them. Imports no torch.

"Product" means matrix product in this file and wherever it is used. The products of a linear have three layouts:

    forward           x W^T, W stored by rows
    input_gradient    dy W
    weight_gradient   dy^T x
"""

from __future__ import annotations

from typing import NamedTuple

PYTORCH, PARTS, ONEDNN, NATIVE = "pytorch", "parts", "onednn", "native"  # providers: kernels/matmul describes them
FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = "forward", "input_gradient", "weight_gradient"
NARROW_SIZES = (16, 32, 64)  # classes of small sizes, such as LoRA ranks
TOKENS = (16, 128, 512, 1024)  # classes of the number of tokens; up to 16: of texts that are generated together


class ProductShape(NamedTuple):
    """A class of the matrix products of a linear; one provider is chosen for each class.

    Attributes:
        precision: float32 or bfloat16.
        layout: forward, input_gradient or weight_gradient.
        inputs, outputs: of the linear; small sizes are rounded up to the next of ``NARROW_SIZES``.
        tokens: rounded up to the next of ``TOKENS``; larger numbers count as the last.
    """

    precision: str
    layout: str
    inputs: int
    outputs: int
    tokens: int

    @classmethod
    def of_linear(cls, precision: str, layout: str, inputs: int, outputs: int, tokens: int) -> ProductShape:
        """The class of a product of a linear, from the linear's sizes."""
        return cls(precision, layout, _size_class(inputs), _size_class(outputs), token_class(tokens))

    @classmethod
    def parse(cls, text: str) -> ProductShape:
        """Inverse of ``str``."""
        precision, layout, inputs, outputs, tokens = text.split()
        return cls(precision, layout, int(inputs), int(outputs), int(tokens))

    def __str__(self) -> str:
        return " ".join(map(str, self))


def _size_class(size: int) -> int:
    return next((narrow for narrow in NARROW_SIZES if size <= narrow), size)


def token_class(tokens: int) -> int:
    """The class of a number of tokens."""
    return next((size for size in TOKENS if tokens <= size), TOKENS[-1])
