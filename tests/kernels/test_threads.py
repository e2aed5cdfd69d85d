"""Without PyTorch the kernels start their own threads, and any number of threads gives the same bits."""

import subprocess
import sys

import pytest

from lmworks.kernels.native_module import native_module

ALONE = """
import sys
import numpy as np
from lmworks.kernels.native_module import native_module

kernels = native_module()
assert "torch" not in sys.modules
print(kernels.thread_pool())
draw = np.random.default_rng(0)
x, weight = (draw.standard_normal(shape, dtype=np.float32) for shape in ((3000, 40), 40))
row = draw.standard_normal((700, 24), dtype=np.float32)
cu_seqlens = np.array([0, 300, 301, 700])
results = set()
for threads in (1, 2, 5, 3, 1):
    kernels.set_num_threads(threads)
    assert kernels.num_threads() == threads
    for _ in range(20):
        y, scale = np.empty_like(x), np.empty(3000, np.float32)
        kernels.rms_norm(x, weight, y, scale, 1e-5)
        dx, dweight = np.empty_like(x), np.zeros_like(weight)
        kernels.rms_norm_backward(x, weight, scale, y, dx, dweight)
        out, logsumexp = np.empty_like(row), np.empty((700, 3), np.float32)
        settings = (8, 0.3, True, 0.1, 7)
        inputs = row, row, row, cu_seqlens, cu_seqlens
        kernels.varlen_attention(*inputs, out, logsumexp, *settings)
        gradients = [np.empty_like(row) for _ in range(3)]
        kernels.varlen_attention_backward(*inputs, out, logsumexp, out, *gradients, *settings)
        results.add(b"".join(array.tobytes() for array in (y, scale, dx, dweight, out, logsumexp, *gradients)))
print(len(results))
"""


@pytest.mark.skipif(native_module() is None, reason="the native kernels are not compiled here")
def test_own_threads():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert done.stdout.split() == ["own", "1"], done.stderr
