"""How fast this machine reads memory, by the size of what is read: caches are faster than memory. Imports no torch."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field

import numpy as np

from lmworks.base import machine, measurements
from lmworks.base.contention import QUIET, ShareMeter
from lmworks.kernels.library import library

MEASUREMENT = "reading 2"
SIZES = (1, 8, 32, 128, 512)  # MB
SECONDS = 0.1  # of a size; other programs only slow a pass, so the fastest counts


@dataclass(frozen=True)
class ReadingRates:
    """What was measured.

    Attributes:
        gigabytes: GB/s by MB that are read again and again, with all threads; empty without native kernels.
        share: of the processor that the measurement got (base/contention).
    """

    gigabytes: dict[str, float] = field(default_factory=dict)
    share: float = 1.0

    @property
    def is_disturbed(self) -> bool:
        """Whether other programs ran meanwhile."""
        return self.share < QUIET


def reading_rates(refresh: bool = False) -> ReadingRates:
    """The rates of this machine, from the cache; measured first where there are none, or other programs disturbed them.

    Args:
        refresh: measure again.
    """
    module = library()
    if module is None:
        return ReadingRates()
    cached = None if refresh else measurements.read(MEASUREMENT)
    known = ReadingRates(**cached) if cached is not None else None
    if known is not None and not known.is_disturbed:
        return known
    meter = ShareMeter(machine.threads())
    measured = {str(size): _rate(module, size) for size in SIZES}
    rates = ReadingRates(measured, meter.share())
    if known is not None:
        faster = {size: max(rate, known.gigabytes[size]) for size, rate in measured.items()}
        rates = ReadingRates(faster, max(rates.share, known.share))
    measurements.write(MEASUREMENT, asdict(rates))
    return rates


def _rate(module: object, size: int) -> float:
    numbers = np.ones(size << 18, dtype=np.float32)
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < SECONDS:
        started = time.perf_counter()
        module.read_memory(numbers)  # type: ignore[attr-defined]
        taken.append(time.perf_counter() - started)
    return float(f"{numbers.nbytes / min(taken) / 1e9:.3g}")
