"""Blocks of ternary numbers in one layout: TQ1_0's, five numbers a byte, as TQ2_0's, four a byte, which the native
engine multiplies (https://github.com/ggml-org/ggml, ggml-quants.c)."""

from __future__ import annotations

import torch

from lmworks.base.errors import InputError
from lmworks.model.storage import BlockStorage, block_sizes

TERNARY = ("TQ1_0", "TQ2_0")
# Bytes of a TQ1_0 block that lie side by side, and the numbers that each has: number k of all of them comes before
# number k + 1 of the first.
RUNS = ((32, 5), (16, 5), (4, 4))


def as_tq2_0(storage: BlockStorage, place: str = "") -> BlockStorage:
    """A matrix in TQ1_0 or TQ2_0 -> the same numbers in TQ2_0.

    Args:
        storage: of a kind in :data:`TERNARY`.
        place: names the matrix in errors.

    Raises:
        InputError: it has numbers other than -1, 0 and 1, which two bits could hold.
    """
    if storage.kind == "TQ1_0":
        return _from_tq1_0(storage)
    blocks = storage.blocks.reshape(-1, block_sizes(storage.kind)[1])[:, :-2]
    if (blocks & blocks.bitwise_right_shift(1) & 0b01010101).any():
        fault = "a block of TQ2_0 holds a number that is none of -1, 0 and 1"
        raise InputError(fault, place, "the file is damaged: fetch it again")
    return storage


def _from_tq1_0(storage: BlockStorage) -> BlockStorage:
    blocks = storage.blocks.reshape(-1, block_sizes(storage.kind)[1])
    parts, begin = [], 0
    for width, count in RUNS:
        parts.append(_digits(blocks[:, begin : begin + width], count))
        begin += width
    # a byte of TQ2_0 has columns i, i + 32, i + 64 and i + 96 of its half of the block, the first in its lowest bits
    levels = torch.cat(parts, 1).view(len(blocks), 2, 4, 32)
    packed = levels[:, :, 0].clone()
    for index in range(1, 4):
        packed |= levels[:, :, index].bitwise_left_shift(2 * index)
    result = torch.cat((packed.view(len(blocks), -1), blocks[:, begin:]), 1)
    return BlockStorage(result.view(len(storage.blocks), -1), "TQ2_0")


def _digits(numbers: torch.Tensor, count: int) -> torch.Tensor:
    """(n, m) bytes, each a ternary fraction of 256 -> their first digits, (n, count * m) uint8: the first of all, and
    so on. Of a fraction times 3^k, modulo 1, digit k is what three times it has before the point."""
    powers = torch.tensor([3**index for index in range(count)], dtype=torch.uint8)
    scaled = numbers[:, None] * powers[:, None]
    return (scaled.to(torch.int16) * 3).bitwise_right_shift(8).to(torch.uint8).flatten(1)
