"""How fast this machine reads memory, by the size of what is read: caches are faster than memory. Imports no torch."""

from __future__ import annotations

import time

import numpy as np

from lmworks.base import measurements
from lmworks.kernels.library import library

MEASUREMENT = "reading 1"
SIZES = (1, 8, 32, 128, 512)  # MB
SECONDS = 0.1  # of a size; other programs only slow a pass, so the fastest counts


def reading_rates(refresh: bool = False) -> dict[int, float]:
    """GB/s by MB that are read again and again, with all threads; empty without native kernels.

    Args:
        refresh: measure again.
    """
    cached = None if refresh else measurements.read(MEASUREMENT)
    if cached is None:
        module = library()
        if module is None:
            return {}
        cached = {str(size): _rate(module, size) for size in SIZES}
        measurements.write(MEASUREMENT, cached)
    return {int(size): float(rate) for size, rate in cached.items()}


def _rate(module: object, size: int) -> float:
    numbers = np.ones(size << 18, dtype=np.float32)
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < SECONDS:
        started = time.perf_counter()
        module.read_memory(numbers)  # type: ignore[attr-defined]
        taken.append(time.perf_counter() - started)
    return float(f"{numbers.nbytes / min(taken) / 1e9:.3g}")
