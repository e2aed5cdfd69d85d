"""Measures how fast this machine reads arrays of several sizes: small ones stay in the caches. Imports no torch."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field

import numpy as np

from lmworks.base import machine, measurements
from lmworks.base.contention import UNDISTURBED_SHARE, ShareMeter
from lmworks.kernels.library import library

MEASUREMENT = "reading 2"
SIZES = (1, 8, 32, 128, 512)  # MB
SECONDS = 0.1  # per size; the fastest pass counts, because other programs can only slow a pass down


@dataclass(frozen=True)
class ReadingRates:
    """The measured rates.

    Attributes:
        gigabytes: GB/s by array size in MB, reading it repeatedly with all threads; empty without native kernels.
        share: of the processor that the measurement got (base/contention).
    """

    gigabytes: dict[str, float] = field(default_factory=dict)
    share: float = 1.0

    @property
    def is_disturbed(self) -> bool:
        """Whether other programs ran during the measurement."""
        return self.share < UNDISTURBED_SHARE


def reading_rates(refresh: bool = False) -> ReadingRates:
    """The rates of this machine, from the cache; measured if there are none, or if other programs disturbed them.

    Args:
        refresh: measure again.
    """
    module = library()
    if module is None:
        return ReadingRates()
    earlier = None if refresh else measurements.read(MEASUREMENT, ReadingRates)
    if earlier is not None and not earlier.is_disturbed:
        return earlier
    meter = ShareMeter(machine.threads())
    measured = {str(size): _rate(module, size) for size in SIZES}
    rates = ReadingRates(measured, meter.share())
    if earlier is not None:
        faster = {size: max(rate, earlier.gigabytes.get(size, 0.0)) for size, rate in measured.items()}
        rates = ReadingRates(faster, max(rates.share, earlier.share))
    measurements.write(MEASUREMENT, asdict(rates))
    return rates


def _rate(module: object, size: int) -> float:
    numbers = np.ones(size << 18, dtype=np.float32)
    timings: list[float] = []
    while len(timings) < 3 or sum(timings) < SECONDS:
        started = time.perf_counter()
        module.read_memory(numbers)  # type: ignore[attr-defined]
        timings.append(time.perf_counter() - started)
    return float(f"{numbers.nbytes / min(timings) / 1e9:.3g}")
