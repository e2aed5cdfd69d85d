"""Tensors in a file that is mapped into memory: between two uses they take room on the disk, not in memory.

The file has no name, so that the system removes it when the process ends, however it ends. What is released stays in
the system's cache of files as long as no program needs that memory, and is read from there without the disk.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from math import prod
from pathlib import Path

import torch

from lmworks.base.files import check_disk_space

FILLED = bytes(1 << 20)  # written at a time where the system cannot reserve room


def paged_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes that a tensor takes in the file: whole pages."""
    return -(-prod(shape) * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE


class PagedMemory:
    """Room for tensors in a file.

    Args:
        folder: where the file lies.
        size: sum of :func:`paged_bytes` of all tensors.
        content: what they are, for the error.

    Raises:
        InputError: there is no room on the disk.
    """

    def __init__(self, folder: Path, size: int, content: str) -> None:
        check_disk_space(folder, size, content)
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), size)  # a write to a page without room would kill the process
            self._map = mmap.mmap(file.fileno(), size)
        self._used = 0

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A new tensor of zeros in the file."""
        begin = self._used
        self._used += paged_bytes(shape, dtype)
        return torch.frombuffer(self._map, dtype=dtype, count=prod(shape), offset=begin).view(shape)

    def release(self) -> None:
        """Take the tensors out of this process's memory; the next use of each brings it back."""
        self._map.madvise(mmap.MADV_DONTNEED)  # of a shared mapping: what was written stays


def is_available() -> bool:
    """Whether this system takes pages out of memory on demand."""
    return hasattr(mmap, "MADV_DONTNEED")


def _reserve(file: int, size: int) -> None:
    """Give a file its room on the disk."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    for begin in range(0, size, len(FILLED)):
        os.write(file, FILLED[: size - begin])
