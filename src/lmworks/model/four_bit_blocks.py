"""Levels of four bits that were chosen by any procedure, as blocks of llama.cpp's Q4_0 and Q4_1 (model/storage)."""

from __future__ import annotations

from typing import Literal

import torch

from lmworks.model.storage import BLOCK, BlockStorage

FourBitKind = Literal["Q4_0", "Q4_1"]


def four_bit_blocks(levels: torch.Tensor, scales: torch.Tensor, smallest: torch.Tensor | None = None) -> BlockStorage:
    """A matrix of blocks; the inverse of :meth:`BlockStorage.four_bit_groups`.

    Args:
        levels: (rows, columns) whole numbers from 0 to 15, columns a multiple of 32.
        scales: (rows, columns / 32), numbers of float16.
        smallest: of the same shape: weight = level * scale + smallest (Q4_1); None: (level - 8) * scale (Q4_0).
    """
    rows = len(levels)
    first, second = levels.to(torch.uint8).reshape(-1, 2, BLOCK // 2).unbind(1)
    numbers = [scales] if smallest is None else [scales, smallest]
    halves = torch.stack([number.flatten() for number in numbers], 1).half().contiguous()
    blocks = torch.cat((halves.view(torch.uint8), first | second << 4), 1)
    return BlockStorage(blocks.view(rows, -1), "Q4_0" if smallest is None else "Q4_1")
