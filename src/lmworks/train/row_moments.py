"""AdamW on embeddings of which few rows have a gradient: the rest is not read.

Rows without a gradient move on as long as their moments are not zero, so a table's update costs as much as all tokens
that were ever seen, and none that a text's vocabulary lacks. The result is that of a dense step (torch's SparseAdam,
which skips all rows without a gradient, gives another one).
"""

from __future__ import annotations

import torch

from lmworks.kernels.adamw import AdamWScalars
from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.native_module import native_module


def has_moments(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """For each row of two moments (V, E) whether any of its numbers is not zero: (V,) uint8."""
    return ((first != 0).any(1) | (second != 0).any(1)).to(torch.uint8)


def adamw_step(
    weights: torch.Tensor,
    gradient: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    touched: torch.Tensor,
    scalars: AdamWScalars,
) -> None:
    """A step by the native kernel, in place.

    Args:
        weights, first, second: (V, E) float32: the embeddings and their moments.
        gradient: sparse (V, E), coalesced: rows.
        touched: (V,) of :func:`has_moments`; the rows of the gradient are added to it.
        scalars: of this step; without weight decay.
    """
    rows, values = gradient.indices()[0], gradient.values()
    arrays = map(to_dlpack, (weights, values, rows, first, second, touched))
    native_module().adamw_rows(*arrays, scalars)
