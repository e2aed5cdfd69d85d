"""Rounding a matrix to few values, without data: each rule as it is published, and what it costs on a given matrix.

Every rule gives the level of each weight and the scale of each group, so that

    weight = level * scale + offset,    or, where levels are indices of a table,    table[level] * scale.

    symmetric  scale = absmax / (2^(b-1) - 1); level = round(w / scale)            (Dettmers et al. 2022, section 2.1)
    affine     scale = (max - min) / (2^b - 1); zero = round(-min / scale); level = round(w / scale) + zero
                                                                                   (Jacob et al. 2018, equation 1)
    q4_0       symmetric with 16 levels: the weight of largest magnitude becomes -8 (llama.cpp)
    q4_1       affine with the minimum itself as a number in place of a zero point (llama.cpp)
    nf4        16 quantiles of the normal distribution times the absmax            (Dettmers et al. 2023, section 3)
    ternary    scale = mean |w|; level = round(w / scale), at most 1               (Ma et al. 2024, equations 1 to 3)

Scales, and minima, are rounded to float16 before levels are chosen, since they are stored so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import functional

from lmworks.model.blockwise import QuantizedAbsmax, nf4_levels
from lmworks.model.quant_types import ABSMAX_BLOCK, BLOCK

GROUP = 32  # weights with one scale in llama.cpp's formats
SCALE_BITS = 16
SMALLEST_SCALE = 2.0**-20
"""Scales below it count as zero: float16 has so few digits there that levels would no longer be what they stand for."""
LARGEST_SCALE = 65504.0  # float16's largest number


class Rounded(NamedTuple):
    """A rounded matrix (rows, columns); n groups of g weights a row, the last filled up with zeros.

    Attributes:
        levels: (rows, n, g) whole numbers, as float32.
        scales: (rows, n, 1) float32, or (1, 1, 1) of the whole matrix.
        offsets: (rows, n, 1) float32, or 0.
        columns: of the matrix.
        bits: of a weight, with its share of scales and offsets.
        table: (levels,) float32, of which levels are indices; None: they are numbers.
    """

    levels: torch.Tensor
    scales: torch.Tensor
    offsets: torch.Tensor | float
    columns: int
    bits: float
    table: torch.Tensor | None = None

    def dequantized(self) -> torch.Tensor:
        """(rows, columns) float32."""
        values = self.levels if self.table is None else self.table[self.levels.int()]
        return (values * self.scales + self.offsets).flatten(1)[:, : self.columns]


Rule = Callable[[torch.Tensor], Rounded]
"""A matrix (rows, columns) of any floating-point type -> the same, rounded."""


def symmetric(weight: torch.Tensor, bits: int, group: int | None = None) -> Rounded:
    """Absmax quantization: as many levels on either side of zero, which is one of them.

    Args:
        weight: (rows, columns).
        bits: of a level.
        group: weights of a row with one scale; None: the whole row.
    """
    groups = _groups(weight, group)
    most = 2 ** (bits - 1) - 1
    scales = as_stored(groups.abs().amax(-1, keepdim=True) / most)
    levels = (groups / _divisor(scales)).round_().clamp_(-most, most)
    return Rounded(levels, scales, 0.0, weight.shape[1], bits + SCALE_BITS / groups.shape[-1])


def affine(weight: torch.Tensor, bits: int, group: int | None = None) -> Rounded:
    """Quantization with a zero point, a whole number between the levels 0 and 2^bits - 1.

    The formula as it is published needs a range that contains zero: of weights from 5 to 6 the zero point would be far
    outside of the levels, and, kept in as many bits as they have, would move every weight. So the range is extended to
    zero; :func:`q4_1` needs no such extension, and takes more bits.

    Args: as of :func:`symmetric`.
    """
    groups = _groups(weight, group)
    most = 2**bits - 1
    lowest, highest = groups.amin(-1, keepdim=True).clamp_max_(0.0), groups.amax(-1, keepdim=True).clamp_min_(0.0)
    scales = as_stored((highest - lowest) / most)
    zeros = (-lowest / _divisor(scales)).round_().clamp_(0, most)
    levels = (groups / _divisor(scales)).round_().add_(zeros).clamp_(0, most)
    return Rounded(levels, scales, -zeros * scales, weight.shape[1], bits + (SCALE_BITS + bits) / groups.shape[-1])


def q4_0(weight: torch.Tensor) -> Rounded:
    """Levels 0 to 15 in groups of 32, of which 8 stands for zero; what it gives, it does not change again."""
    groups = _groups(weight, GROUP)
    lowest, highest = groups.aminmax(dim=-1, keepdim=True)
    scales = as_stored(torch.where(highest > -lowest, highest, lowest) / -8.0)
    levels = (groups / _divisor(scales)).round_().add_(8.0).clamp_(0, 15)
    return Rounded(levels, scales, -8.0 * scales, weight.shape[1], 4 + SCALE_BITS / GROUP)


def q4_1(weight: torch.Tensor) -> Rounded:
    """Levels 0 to 15 in groups of 32, with equal distances from the smallest weight to the largest."""
    groups = _groups(weight, GROUP)
    lowest, highest = groups.aminmax(dim=-1, keepdim=True)
    offsets = lowest.clamp(-LARGEST_SCALE, LARGEST_SCALE).half().float()
    scales = as_stored((highest - lowest) / 15)
    levels = ((groups - offsets) / _divisor(scales)).round_().clamp_(0, 15)
    return Rounded(levels, scales, offsets, weight.shape[1], 4 + 2 * SCALE_BITS / GROUP)


def nf4(weight: torch.Tensor) -> Rounded:
    """The nearest of NF4's levels in groups of 64; the absmax of each group has 8 bits (double quantization)."""
    groups = _groups(weight, BLOCK)
    absmax = groups.abs().amax(-1)
    levels = nf4_levels()
    codes = torch.bucketize(groups / _divisor(absmax[..., None]), (levels[:-1] + levels[1:]) / 2)
    scales = QuantizedAbsmax.quantize(absmax).dequantized()[..., None]
    bits = 4 + (8 + 32 / ABSMAX_BLOCK) / BLOCK
    return Rounded(codes.float(), scales, 0.0, weight.shape[1], bits, levels)


def ternary(weight: torch.Tensor) -> Rounded:
    """-1, 0 and 1 times the mean magnitude of the whole matrix (BitNet b1.58)."""
    groups = weight.detach().float()[:, None]
    scales = as_stored(groups.abs().mean().view(1, 1, 1))
    levels = (groups / _divisor(scales)).round_().clamp_(-1, 1)
    return Rounded(levels, scales, 0.0, weight.shape[1], math.log2(3) + SCALE_BITS / weight.numel())


def _rules() -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for bits in (8, 4):
        for group in (None, 32, 64, 128):
            where = "rows" if group is None else f"groups of {group}"
            for rule in (symmetric, affine):
                rules[f"int{bits} {rule.__name__}, {where}"] = partial(rule, bits=bits, group=group)
    return rules | {"Q4_0": q4_0, "Q4_1": q4_1, "NF4, double quantization": nf4, "ternary, absmean": ternary}


RULES: dict[str, Rule] = _rules()
"""Every rule by the name that a table gives it."""


def relative_error(weight: torch.Tensor, rounded: torch.Tensor) -> float:
    """|rounded - weight| / |weight|, of the Frobenius norms."""
    exact = weight.detach().float()
    return float((rounded - exact).norm() / exact.norm())


def as_stored(scales: torch.Tensor) -> torch.Tensor:
    """Scales rounded to float16, as float32; tiny ones are 0."""
    rounded = scales.clamp(-LARGEST_SCALE, LARGEST_SCALE).half().float()
    return rounded.where(rounded.abs() >= SMALLEST_SCALE, 0.0)


def _groups(weight: torch.Tensor, size: int | None) -> torch.Tensor:
    """(rows, columns) -> (rows, groups, size) float32, the last group filled up with zeros."""
    size = size or weight.shape[1]
    return functional.pad(weight.detach().float(), (0, -weight.shape[1] % size)).unflatten(-1, (-1, size))


def _divisor(scales: torch.Tensor) -> torch.Tensor:
    """Scales to divide by: 1 where they are 0, so that levels of zeros are those of zero."""
    return scales.where(scales != 0, 1.0)
