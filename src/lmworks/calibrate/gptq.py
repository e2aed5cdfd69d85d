"""GPTQ: a matrix rounded to four bits column after column, each error spread over the columns still to come.

Frantar, Ashkboos, Hoefler & Alistarh 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers" (arXiv 2210.17323), algorithm 1. What is minimised is the error of a linear's outputs on the rows of a
calibration, ||X (W - Q)^T||^2, whose second derivative is the same for every row of W: X^T X.

Groups of 32 columns have their own scale, and in Q4_1 their own minimum, as llama.cpp's blocks have. They are chosen
when the procedure comes to the group, from the weights as they are corrected by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from lmworks.model.four_bit_blocks import FourBitKind, four_bit_blocks
from lmworks.model.rounding_rules import GROUP, LARGEST_SCALE, as_stored
from lmworks.model.storage import BlockStorage

COLUMNS = 128
"""Columns whose errors are applied to all later columns in one product; the result does not depend on it."""
DAMPING = 0.01
"""What is added to the diagonal of X^T X, as a share of its mean (section 3.3)."""
RANGES = (1.0, 1.07, 0.96, 0.92, 0.88, 0.84, 0.8)
"""Ranges of a group that are tried, as shares of that from its smallest weight to its largest: a narrower one moves the
outermost weights and has finer levels. Above 1, Q4_0's levels reach further to the side where they are seven."""
LEVELS = 15


class GroupLevels(NamedTuple):
    """The levels of one group of columns: weight = level * scale + smallest.

    Attributes:
        scales: (rows,), numbers of float16.
        smallest: (rows,) value of level 0.
    """

    scales: torch.Tensor
    smallest: torch.Tensor

    def levels(self, weight: torch.Tensor) -> torch.Tensor:
        """(rows,) or (rows, n) -> the nearest level of each."""
        scales, smallest = self._shaped(weight)
        divisor = scales.where(scales != 0, 1.0)
        return ((weight - smallest) / divisor).round_().clamp_(0, LEVELS)

    def values(self, levels: torch.Tensor) -> torch.Tensor:
        """What levels stand for."""
        scales, smallest = self._shaped(levels)
        return levels * scales + smallest

    def _shaped(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (self.scales, self.smallest) if like.ndim == 1 else (self.scales[:, None], self.smallest[:, None])


def quantize_matrix(
    weight: torch.Tensor,
    products: torch.Tensor,
    kind: FourBitKind = "Q4_1",
    damping: float = DAMPING,
    columns_at_once: int = COLUMNS,
    ranges: Sequence[float] = RANGES,
) -> BlockStorage:
    """A matrix in four bits.

    Args:
        weight: (rows, columns) of any floating-point type, columns a multiple of 32; unchanged.
        products: (columns, columns) X^T X of the inputs (tokens, columns), summed over all tokens.
        kind: of the blocks.
        damping: see :data:`DAMPING`.
        columns_at_once: a multiple of 32; see :data:`COLUMNS`.
        ranges: see :data:`RANGES`.
    """
    rest, columns = weight.detach().double().clone(), weight.shape[1]
    factor = inverse_factor(products, damping)
    levels, groups = torch.empty_like(rest), []
    for begin in range(0, columns, columns_at_once):
        end = min(begin + columns_at_once, columns)
        part, errors = rest[:, begin:end], torch.empty(len(rest), end - begin, dtype=torch.float64)
        block = factor[begin:end, begin:end]
        for column in range(end - begin):
            if column % GROUP == 0:
                in_group = slice(column, column + GROUP)
                groups.append(choose_levels(part[:, in_group], kind, block.diagonal()[in_group] ** -2, ranges))
            exact = part[:, column]
            level = groups[-1].levels(exact)
            error = (exact - groups[-1].values(level)) / block[column, column]
            part[:, column:].addr_(error, block[column, column:], alpha=-1.0)
            levels[:, begin + column], errors[:, column] = level, error
        rest[:, end:].addmm_(errors, factor[begin:end, end:], alpha=-1.0)
    scales, smallest = (torch.stack([group[index] for group in groups], 1) for index in (0, 1))
    return four_bit_blocks(levels, scales, smallest if kind == "Q4_1" else None)


def inverse_factor(products: torch.Tensor, damping: float = DAMPING) -> torch.Tensor:
    """The upper triangular U, float64, of which U^T U is the inverse of X^T X with damping (algorithm 1, step 3).

    Row i of U has what the inverse of the products of the columns from i on has in its first row, divided by the root
    of its first element: so no inverse is computed twice. A column that was always zero depends on no other.
    """
    damped = products.double().clone()
    diagonal = damped.diagonal()
    mean = float(diagonal.mean())
    diagonal.add_(damping * mean if mean > 0 else 1.0)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)


def choose_levels(
    group: torch.Tensor, kind: FourBitKind, importance: torch.Tensor, ranges: Sequence[float] = RANGES
) -> GroupLevels:
    """Scale and smallest value of each row of a group, from the range with the smallest error.

    Args:
        group: (rows, 32).
        kind: Q4_0 has the smallest value -8 scales; in Q4_1 it is a number of its own.
        importance: (32,) weights of the squared errors of the columns.
        ranges: to try.
    """
    make = _symmetric_levels if kind == "Q4_0" else _affine_levels
    best, least = make(group, ranges[0]), None
    if len(ranges) == 1:
        return best
    for share in ranges:
        candidate = make(group, share)
        error = (candidate.values(candidate.levels(group)) - group).square_() @ importance
        if least is None:
            best, least = candidate, error
            continue
        better = error < least
        best = GroupLevels(*(torch.where(better, new, old) for new, old in zip(candidate, best, strict=True)))
        least = torch.minimum(error, least)
    return best


def _symmetric_levels(group: torch.Tensor, share: float) -> GroupLevels:
    """Q4_0: the weight of largest magnitude, times the share, becomes level 0."""
    lowest, highest = group.aminmax(dim=1)
    scales = as_stored(torch.where(highest > -lowest, highest, lowest) * (share / -8.0)).to(group)
    return GroupLevels(scales, -8.0 * scales)


def _affine_levels(group: torch.Tensor, share: float) -> GroupLevels:
    """Q4_1: level 0 and level 15 are the ends of the range, narrowed to the share on both sides."""
    lowest, highest = group.aminmax(dim=1)
    cut = (highest - lowest) * (0.5 * (1.0 - share))
    smallest = (lowest + cut).clamp(-LARGEST_SCALE, LARGEST_SCALE).half().to(group)
    return GroupLevels(as_stored((highest - lowest) * (share / LEVELS)).to(group), smallest)
