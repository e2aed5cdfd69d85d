"""What DoRA multiplies the rows of an updated weight by (Liu et al. 2024, "DoRA", equation 5).

W' = m / ||W + s B A|| (W + s B A): the update gives the direction of each row, one row for each output, and the trained
magnitude m its length. The norm counts as a constant in the backward pass (section 4.3).
"""

from __future__ import annotations

import torch


def row_norms(weight: torch.Tensor) -> torch.Tensor:
    """(out, in) -> (out,) Euclidean norms of the rows, in the weight's precision."""
    return torch.linalg.vector_norm(weight, dim=1)


def row_factors(magnitude: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """magnitude / norm of each row, (out,); autograd takes the norm for a constant.

    A row of zeros has no direction: its factor is 0, so that its output stays 0.

    Args:
        magnitude: (out,).
        weight: (out, in), the update added.
    """
    norms = row_norms(weight.detach())
    return torch.where(norms > 0, magnitude / norms.where(norms > 0, 1.0), 0.0)
