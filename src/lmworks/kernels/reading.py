"""Measures how fast this machine reads arrays of several sizes: small ones stay in the caches. Imports no torch."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from lmworks.base import measurements
from lmworks.base.contention import ShareMeter
from lmworks.base.processor import threads
from lmworks.kernels.native_module import native_module

MEASUREMENT = "reading 2"
SIZES = (1, 8, 32, 128, 512)  # MB
SECONDS = 0.1  # per size; the fastest pass counts, because other programs can only slow a pass down


@dataclass(frozen=True)
class ReadingRates:
    """The measured rates.

    Attributes:
        gigabytes: GB/s by array size in MB, reading it repeatedly with all threads; empty without native kernels.
        share: of the processor that the measurement got (base/contention).
        tries: measurements of which this is the best.
    """

    gigabytes: dict[str, float] = field(default_factory=dict)
    share: float = 1.0
    tries: int = 1

    def best_of(self, earlier: ReadingRates) -> ReadingRates:
        """The higher rates of both measurements."""
        faster = {size: max(rate, earlier.gigabytes.get(size, 0.0)) for size, rate in self.gigabytes.items()}
        return ReadingRates(faster, max(self.share, earlier.share), earlier.tries + 1)


def reading_rates(refresh: bool = False) -> ReadingRates:
    """The rates of this machine, from the cache; measured if there are none, or if other programs disturbed them.

    Args:
        refresh: measure again.
    """
    module = native_module()
    if module is None:
        return ReadingRates()
    return measurements.best_measurement(MEASUREMENT, ReadingRates, lambda: _measure(module), refresh)


def _measure(module: object) -> ReadingRates:
    meter = ShareMeter(threads())
    return ReadingRates({str(size): _rate(module, size) for size in SIZES}, meter.share())


def _rate(module: object, size: int) -> float:
    numbers = np.ones(size << 18, dtype=np.float32)
    timings: list[float] = []
    while len(timings) < 3 or sum(timings) < SECONDS:
        started = time.perf_counter()
        module.read_memory(numbers)  # type: ignore[attr-defined]
        timings.append(time.perf_counter() - started)
    return float(f"{numbers.nbytes / min(timings) / 1e9:.3g}")
