"""Matrix products of many sizes hold no memory: no cache of compiled products grows with them."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRODUCTS = """
import random, sys, lmworks, torch
from lmworks.base import process_memory

dtype, sizes = getattr(torch, sys.argv[1]), random.Random(0)
torch.set_num_threads(1)
weights = [torch.randn(rows, 288).to(dtype) for rows in (576, 288, 96)]

def multiply(count):
    for _ in range(count):
        x = torch.randn(sizes.randrange(50, 400), 288).to(dtype)
        for weight in weights:
            (x @ weight.t()) @ weight

multiply(60)
before = process_memory.resident_memory()
multiply(300)
print(process_memory.resident_memory() - before)
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_of_new_sizes_hold_no_memory(dtype):
    done = subprocess.run([sys.executable, "-c", PRODUCTS, dtype], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 30_000_000  # with the caches as large as they come: some 500 MB in bfloat16 with AVX-512
