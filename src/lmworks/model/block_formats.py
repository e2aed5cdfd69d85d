"""Quantizers of llama.cpp's formats: a matrix -> BlockStorage (model/storage dequantizes).

Each row is cut into blocks of consecutive columns. A block has a step d, in float16, and a level q for each number:

- Q8_0: blocks of 32, w = d q with q from -127 to 127; d = absmax / 127.
- Q4_0: blocks of 32, w = d (q - 8) with q from 0 to 15. The number of the largest magnitude, sign included, gets level
  0, so that all 16 levels are used: d = that number / -8.
- Q4_1: blocks of 32, w = d q + m with q from 0 to 15; d = (max - min) / 15, m = min.
- TQ1_0, TQ2_0: blocks of 256, w = d q with q in -1, 0, 1; d = absmax. For models that were trained in these three
  levels: of others nearly all numbers become zero.

That is the plain rounding, equal to llama.cpp's to the bit. Of Q4_0 and Q4_1 a search finds steps of a smaller squared
error: each candidate step gives levels, these levels the step (and m) that fits them best by least squares, and of all
candidates, the plain one among them, the one of the smallest error is kept. The error is that of the numbers as they
will be decoded, so the result is never worse than plain rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import gguf
import torch

from lmworks.base.errors import InputError
from lmworks.model.four_bit_blocks import four_bit_blocks
from lmworks.model.storage import BLOCK, BlockStorage, block_sizes
from lmworks.model.ternary_blocks import TERNARY

THREADS = 2
CHUNK = 1 << 16  # elements that are encoded at a time: so few that a cache holds them and their candidates
FORMATS = ("Q8_0", "Q4_0", "Q4_1", "TQ1_0", "TQ2_0")
# Candidates of Q4_0, as steps between zero and the number of the largest magnitude: beyond 8 that number is clipped,
# and all others are rounded more finely.
SYMMETRIC = tuple(7.0 + 0.4 * index for index in range(6))
# Candidates of Q4_1, as steps between the smallest and the largest number; beyond 15 both are clipped.
AFFINE = tuple(13.8 + 0.4 * index for index in range(12))


def divides(columns: int, kind: str) -> bool:
    """Whether a row of so many columns is a whole number of blocks of a format."""
    return columns % block_sizes(kind)[0] == 0


def encode(weight: torch.Tensor, kind: str, search: bool = True, place: str = "") -> BlockStorage:
    """A matrix in one of llama.cpp's formats.

    Args:
        weight: (rows, columns) of any floating-point type.
        kind: one of :data:`FORMATS`.
        search: of Q4_0 and Q4_1: steps of the smallest squared error that is found; False: plain rounding.
        place: names the matrix in errors.

    Raises:
        InputError: an unknown format, rows that are not whole blocks, or numbers that are not finite or too large for a
            step in float16.
    """
    if kind not in FORMATS:
        raise InputError(f"{kind!r} is not a format that is written here", place, f"one of {', '.join(FORMATS)}")
    rows, columns = weight.shape
    block, size = block_sizes(kind)
    if columns % block:
        fault = f"rows of {columns} numbers are not whole blocks of {block}, which {kind} has"
        raise InputError(fault, place, "choose another format, or keep it in float16")
    result = torch.empty(rows, columns // block * size, dtype=torch.uint8)
    step = max(1, CHUNK // columns)

    def encode_rows(begin: int) -> None:
        part = weight[begin : begin + step].detach().to("cpu", torch.float32)
        _check_range(part, place)
        if kind in TERNARY:
            blocks = _ternary(part, kind)
        else:
            blocks = ENCODERS[kind](part.reshape(-1, BLOCK).t().contiguous(), search)
        result[begin : begin + step] = blocks.reshape(len(part), -1)

    with ThreadPoolExecutor(THREADS) as pool:  # chunks are too small for PyTorch to divide them
        for _ in pool.map(encode_rows, range(0, rows, step)):
            pass
    return BlockStorage(result, kind)


def _check_range(part: torch.Tensor, place: str) -> None:
    """A step is at most the largest magnitude, or the range, which must be numbers in float16."""
    if part.numel() and not part.abs().max() <= torch.finfo(torch.float16).max / 2:
        fault = "numbers are not finite, or too large for a step in float16"
        raise InputError(fault, place, "look for what made the weights grow; float32 can be written as they are")


def _ternary(part: torch.Tensor, kind: str) -> torch.Tensor:
    """(rows, columns) -> (rows, bytes of a row), by the gguf library."""
    return torch.from_numpy(gguf.quants.quantize(part.contiguous().numpy(), gguf.GGMLQuantizationType[kind]))


# Below, x is (32, blocks): sums over a block are sums of rows, which PyTorch vectorizes.


def _q8_0(x: torch.Tensor, search: bool) -> torch.Tensor:
    """Plain rounding: with 255 levels a search gains nothing that shows."""
    step = x.abs().amax(0) / 127
    scaled = x * _inverse(step)
    magnitude = scaled.abs()
    whole = magnitude.floor()
    levels = scaled.sign() * (whole + (2 * (magnitude - whole)).floor())  # halves are rounded away from zero
    step_bytes = step.half()[:, None].contiguous().view(torch.uint8)
    return torch.cat((step_bytes, levels.to(torch.int8).view(torch.uint8).t()), 1)


def _q4_0(x: torch.Tensor, search: bool) -> torch.Tensor:
    largest = x.gather(0, x.abs().argmax(0, keepdim=True))[0]
    step = largest / -8
    levels = (x * _inverse(step) + 8.5).trunc().clamp(0, 15)
    best = _Best(x, step.half(), None, levels)
    for outermost in SYMMETRIC if search else ():
        for sign in (-1.0, 1.0):  # whether the number of the largest magnitude is at the end of level -8 or of 7
            centred = _rounded(x, largest / (sign * outermost)).clamp_(-8, 7)
            best_step = (x * centred).sum(0) / (centred * centred).sum(0).clamp_(min=1)
            best.offer(best_step.half(), None)
    return best.blocks()


def _q4_1(x: torch.Tensor, search: bool) -> torch.Tensor:
    least, span = x.amin(0), x.amax(0) - x.amin(0)
    step = span / 15
    levels = ((x - least) * _inverse(step) + 0.5).trunc().clamp(0, 15)
    best = _Best(x, step.half(), least.half(), levels)
    for width in AFFINE if search else ():
        candidate = span / width
        # the range is clipped at both ends alike; least squares moves it afterwards
        trial = _rounded(x - (least + (span - 15 * candidate) / 2), candidate).clamp_(0, 15)
        best_step, smallest = _least_squares(x, trial)
        best.offer(best_step.half(), smallest.half())
    return best.blocks()


class _Best:
    """The encoding of each block that has the smallest squared error so far.

    Args:
        x: (32, blocks).
        step, smallest: (blocks,) float16, what the blocks hold; without smallest levels are centred on 8.
        levels: (32, blocks), whole numbers from 0 to 15.
    """

    def __init__(
        self, x: torch.Tensor, step: torch.Tensor, smallest: torch.Tensor | None, levels: torch.Tensor
    ) -> None:
        self.x, self.step, self.smallest, self.levels = x, step, smallest, levels
        self.error = self._error(step, smallest, levels)

    def offer(self, step: torch.Tensor, smallest: torch.Tensor | None) -> None:
        """Take a candidate, with the nearest levels, where it is better."""
        shifted = self.x if smallest is None else self.x - smallest.float()
        levels = _rounded(shifted, step.float()) + (8 if smallest is None else 0)
        levels.clamp_(0, 15)
        error = self._error(step, smallest, levels)
        better = error < self.error
        self.error = torch.where(better, error, self.error)
        self.step = torch.where(better, step, self.step)
        self.levels = torch.where(better, levels, self.levels)
        if smallest is not None and self.smallest is not None:
            self.smallest = torch.where(better, smallest, self.smallest)

    def blocks(self) -> torch.Tensor:
        """(blocks, bytes of one)."""
        smallest = None if self.smallest is None else self.smallest[:, None]
        return four_bit_blocks(self.levels.t(), self.step[:, None], smallest).blocks

    def _error(self, step: torch.Tensor, smallest: torch.Tensor | None, levels: torch.Tensor) -> torch.Tensor:
        decoded = (levels - 8) * step.float() if smallest is None else levels * step.float() + smallest.float()
        return (self.x - decoded).square_().sum(0)


def _least_squares(x: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Step and smallest value (blocks,) whose multiples at these levels are nearest to x by least squares."""
    mean_level, mean = levels.mean(0), x.mean(0)
    centred = levels - mean_level
    step = (centred * x).sum(0) / centred.square().sum(0).clamp_(min=1e-3)  # levels that are all one: any step
    return step, mean - step * mean_level


def _rounded(x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """The nearest multiples of a step, as whole numbers; of a step of zero all are zero."""
    return (x * _inverse(step)).round_()


def _inverse(step: torch.Tensor) -> torch.Tensor:
    """1 / step; 0 of a step so small that there is no such number."""
    inverse = 1 / step
    return torch.where(inverse.isfinite(), inverse, 0.0)


ENCODERS: dict[str, Callable[[torch.Tensor, bool], torch.Tensor]] = {"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1}
