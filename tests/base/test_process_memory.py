"""Pages of mapped files leave the process's memory, and nothing that was written to them is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from lmworks.base import process_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mapped files are found in /proc")

COUNT = 8 << 20  # numbers: 32 MB


def mapped(folder: Path) -> torch.Tensor:
    torch.arange(COUNT, dtype=torch.float32).numpy().tofile(folder / "numbers")
    return torch.from_file(str(folder / "numbers"), shared=False, size=COUNT)


def test_clean_pages_leave_memory_and_come_back(tmp_path: Path) -> None:
    numbers = mapped(tmp_path)
    block = (numbers.data_ptr(), numbers.nbytes)
    assert numbers.sum() > 0
    held = process_memory.resident_memory()
    assert process_memory.are_mapped([block])
    assert process_memory.release_mapped([block]) == numbers.nbytes
    assert process_memory.resident_memory() < held - numbers.nbytes // 2
    assert torch.equal(numbers, torch.arange(COUNT, dtype=torch.float32))


def test_what_was_written_stays(tmp_path: Path) -> None:
    """A page of a private mapping that was written to is no longer the file's."""
    numbers = mapped(tmp_path)
    numbers[5000] = -1.0
    process_memory.release_mapped([(numbers.data_ptr(), numbers.nbytes)])
    assert numbers[5000] == -1.0
    assert numbers[5001] == 5001.0


def test_memory_of_no_file_stays() -> None:
    numbers = torch.ones(COUNT)
    block = (numbers.data_ptr(), numbers.nbytes)
    assert not process_memory.are_mapped([block])
    assert process_memory.release_mapped([block]) == 0
    assert numbers.sum() == COUNT


def test_pages_that_are_dropped_come_back_as_the_file_has_them(tmp_path: Path) -> None:
    numbers = mapped(tmp_path)
    first = float(numbers.sum())
    held = process_memory.resident_memory()
    assert process_memory.drop_mapped([(numbers.data_ptr(), numbers.nbytes)]) == numbers.nbytes
    assert process_memory.resident_memory() < held - numbers.nbytes // 2
    assert float(numbers.sum()) == first
    plain = torch.ones(COUNT)
    assert process_memory.drop_mapped([(plain.data_ptr(), plain.nbytes)]) == 0
    assert bool((plain == 1).all())
