"""llama.cpp's ternary blocks, converted to the format that the native engine multiplies: TQ1_0, with five numbers a
byte, to TQ2_0, with four a byte (https://github.com/ggml-org/ggml, ggml-quants.c)."""

from __future__ import annotations

import torch

from lmworks.base.errors import InputError
from lmworks.model.storage import BlockStorage, block_sizes

TERNARY = ("TQ1_0", "TQ2_0")
# A TQ1_0 block has three parts: so many bytes with so many numbers each. A part's numbers are first those at place 0 of
# all its bytes, then those at place 1, and so on.
BYTES_AND_NUMBERS = ((32, 5), (16, 5), (4, 4))


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
    if (blocks & blocks.bitwise_right_shift(1) & 0b01010101).any():  # both bits of a code are set: 3
        fault = "a block of TQ2_0 holds a number that is none of -1, 0 and 1"
        raise InputError(fault, place, "the file is damaged: fetch it again")
    return storage


def _from_tq1_0(storage: BlockStorage) -> BlockStorage:
    blocks = storage.blocks.reshape(-1, block_sizes(storage.kind)[1])
    parts, begin = [], 0
    for width, count in BYTES_AND_NUMBERS:
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
    """The first ternary digits of bytes (n, m), fractions of 256: (n, count * m) uint8, first digit 0 of all bytes.

    Digit k of x is the integer part of 3 (3^k x mod 1); a product in uint8 is modulo 1 by itself.
    """
    powers = torch.tensor([3**index for index in range(count)], dtype=torch.uint8)
    scaled = numbers[:, None] * powers[:, None]
    return (scaled.to(torch.int16) * 3).bitwise_right_shift(8).to(torch.uint8).flatten(1)
