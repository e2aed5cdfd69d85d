"""Block-wise quantization to 8 bits, a scale per block: AdamW's moments in a quarter of the memory.

Dettmers, Lewis, Shleifer & Zettlemoyer 2022, "8-bit Optimizers via Block-wise Quantization", section 2.2: each block is
divided by its element of largest magnitude, and each quotient, from -1 to 1, is quantized to one of 256 levels, which
are spaced more closely near zero (the dynamic map of Dettmers 2016). Three things differ from the paper.

1. A block's scale has the sign of its largest element, so that this element's quotient is always 1, which is a level;
   -1 is not.
2. The second moment has no level zero. An element that is small compared with the rest of its block would become zero,
   and the update, which is divided by its square root, enormous (the zero-point problem of Li, Chen & Zhu 2023, "Memory
   Efficient Optimizers with 4-bit States").
3. Each decade is divided into intervals of equal length, and a number is quantized to the middle of its interval. At
   the lower edge of a decade this is not the nearest level, but the native kernel (kernels/native/eight_bit.inl) can
   compute levels and codes without a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from lmworks.kernels.adamw import AdamWScalars
from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.native_module import native_module

BLOCK = 256  # numbers that share a scale
DECADES = 7  # powers of ten below 1 that the levels cover


class Levels:
    """256 levels, one for each interval of the numbers from -1 to 1, and a table that quantizes numbers to them.

    The table is indexed by a number's 16 bits as float16, which is much faster than a search. A number
    within float16's rounding (a relative 1/2048) of the edge between two intervals may be quantized to either level.

    Args:
        values: the levels, in ascending order.
        edges: (255,) between the intervals, in ascending order; an edge belongs to the interval above it.
        device: where they are used.

    Attributes:
        values: (256,) float32.
        codes: (65536,) uint8: index of the level, by the bits of a float16.
    """

    def __init__(self, values: torch.Tensor, edges: torch.Tensor, device: torch.device) -> None:
        bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)  # wraps: 32768 is the first negative number
        numbers = bits.view(torch.float16).double().nan_to_num(0.0)
        self.values = values.float().to(device)
        self.codes = torch.bucketize(numbers, edges, right=True).to(torch.uint8).to(device)


@cache
def signed(device: torch.device) -> Levels:
    """For numbers of both signs: 0, 1, and 2^n levels of each sign between 10^(n-7) and 10^(n-6), for n from 0 to 6."""
    above, edges = _decades(0)
    values = torch.cat((-above.flip(0), torch.zeros(1), above, torch.ones(1)))
    return Levels(values, torch.cat((-edges[:-1].flip(0), edges)), device)


@cache
def unsigned(device: torch.device) -> Levels:
    """For numbers that are not negative: 10^-7 / 2, 1, and twice as many levels per decade as :func:`signed`."""
    above, edges = _decades(1)
    return Levels(torch.cat((edges[:1] / 2, above, torch.ones(1))), edges, device)


def _decades(extra_bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Decade n of the numbers below 1 is divided into 2^(n + extra_bits) equal intervals: the middles of all intervals,
    and their edges, the last of which is 1; both in ascending order."""
    middles, edges = [], []
    for decade in range(DECADES):
        ends = torch.linspace(0.1, 1.0, 2 ** (decade + extra_bits) + 1, dtype=torch.float64) * 10.0 ** (
            decade + 1 - DECADES
        )
        middles.append((ends[1:] + ends[:-1]) / 2)
        edges.append(ends[:-1])
    return torch.cat(middles), torch.cat((*edges, torch.ones(1)))


def num_scales(count: int) -> int:
    """Number of scales of ``count`` elements: one per block; the last block may be shorter."""
    return -(-count // BLOCK)


def quantize(values: torch.Tensor, levels: Levels, codes: torch.Tensor, scales: torch.Tensor) -> None:
    """Quantize numbers to codes of levels, and scales.

    Args:
        values: (n,) float32, finite.
        levels: :func:`signed` or :func:`unsigned`.
        codes: (n,) uint8; overwritten.
        scales: (ceil(n / 256),) float32; overwritten.
    """
    full = len(values) // BLOCK * BLOCK
    for begin, end in ((0, full), (full, len(values))):
        if begin == end:
            continue
        blocks = values[begin:end].view(-1, min(BLOCK, end - begin))
        high, low = blocks.amax(1), blocks.amin(1)
        largest = torch.where(high >= -low, high, low)
        scales[begin // BLOCK : num_scales(end)] = largest
        fractions = torch.empty(blocks.shape, dtype=torch.float16, device=values.device)
        torch.div(blocks, torch.where(largest == 0, 1.0, largest)[:, None], out=fractions)
        bits = fractions.view(-1).view(torch.uint16).int()
        torch.index_select(levels.codes, 0, bits, out=codes[begin:end])


def dequantize(codes: torch.Tensor, levels: Levels, scales: torch.Tensor) -> torch.Tensor:
    """Dequantize: codes (n,) and scales (ceil(n / 256),) -> numbers (n,) float32."""
    values = torch.index_select(levels.values, 0, codes.int())
    full = len(codes) // BLOCK * BLOCK
    values[:full].view(-1, BLOCK).mul_(scales[: full // BLOCK, None])
    if full < len(codes):
        values[full:].mul_(scales[-1])
    return values


def adamw_step(
    weights: torch.Tensor,
    gradient: torch.Tensor,
    moments: Sequence[tuple[torch.Tensor, torch.Tensor]],
    scalars: AdamWScalars,
) -> None:
    """A whole step of AdamW by the native kernel, in place.

    Args:
        weights, gradient: (n,) float32.
        moments: codes and scales of the first moment (levels of :func:`signed`) and the second (:func:`unsigned`).
        scalars: of this step.
    """
    arrays = [(to_dlpack(codes), to_dlpack(scales)) for codes, scales in moments]
    native_module().adamw_8bit(to_dlpack(weights), to_dlpack(gradient), *arrays, scalars)
