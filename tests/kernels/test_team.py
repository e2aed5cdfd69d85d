"""Without PyTorch the kernels have threads of their own, and any number of them gives the same bits."""

import subprocess
import sys

import pytest

from lmworks.kernels.library import library

ALONE = """
import sys
import numpy as np
from lmworks.kernels.library import library

kernels = library()
assert "torch" not in sys.modules
print(kernels.team())
draw = np.random.default_rng(0)
x, weight = (draw.standard_normal(shape, dtype=np.float32) for shape in ((3000, 40), 40))
row = draw.standard_normal((700, 24), dtype=np.float32)
borders = np.array([0, 300, 301, 700])
found = set()
for threads in (1, 2, 5, 3, 1):
    kernels.use_threads(threads)
    assert kernels.threads() == threads
    for _ in range(20):
        y, scale = np.empty_like(x), np.empty(3000, np.float32)
        kernels.rms_norm(x, weight, y, scale, 1e-5)
        dx, dweight = np.empty_like(x), np.zeros_like(weight)
        kernels.rms_norm_back(x, weight, scale, y, dx, dweight)
        out, log_sum = np.empty_like(row), np.empty((700, 3), np.float32)
        how = (8, 0.3, True, 0.1, 7)
        kernels.attend(row, row, row, borders, borders, out, log_sum, *how)
        slopes = [np.empty_like(row) for _ in range(3)]
        kernels.attend_back(row, row, row, borders, borders, out, log_sum, out, *slopes, *how)
        found.add(b"".join(part.tobytes() for part in (y, scale, dx, dweight, out, log_sum, *slopes)))
print(len(found))
"""


@pytest.mark.skipif(library() is None, reason="the native kernels were not built here")
def test_own_threads():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert done.stdout.split() == ["own", "1"], done.stderr
