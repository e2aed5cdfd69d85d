"""The energy that a piece of work took: read from processor and GPU if possible, else estimated; the result says which.

Intel's and AMD's processors count the energy of the whole package (RAPL); Linux shows the count under
/sys/class/powercap, in most places to root alone. What other programs take meanwhile is in it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lmworks.base.figures import count_of
from lmworks.base.gpu_energy import COUNTED, NOT_COUNTED, energy_counter, gpu_uuids

POWERCAP = Path("/sys/class/powercap")

WATTS_PER_CORE = 10.0
"""The assumption of an estimate: what a busy core and its share of the machine take."""

ESTIMATED = f"an assumed {WATTS_PER_CORE:g} W for a busy core; nothing was measured"
MEASURED = "counted by the processor for its whole package, other programs included"

SAMPLE_EVERY = 30.0
"""Seconds between readings: the counters begin anew after minutes to hours."""


@dataclass(frozen=True)
class Energy:
    """Energy of a piece of work.

    Attributes:
        joules: how much.
        how: "measured" or "estimated".
        assumption: what an estimate assumes, or what a measurement counts, as a sentence.
    """

    joules: float
    how: str
    assumption: str


class EnergyMeter:
    """Counts from start() to stop().

    Args:
        powercap: folder of the processor's counters.
        device: the torch device that does the work; of a GPU of NVIDIA the energy is counted too.
    """

    def __init__(self, powercap: Path = POWERCAP, device: object = None) -> None:
        self._gpus = [energy_counter(uuid) for uuid in gpu_uuids(device)]
        self._gpu_joules = 0.0
        self._counters = [place for place in sorted(powercap.glob("*:*")) if _is_package(place)]
        self._joules = 0.0
        self._last: list[int] = []
        self._busy = 0.0
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begins to count."""
        self._joules, self._busy = 0.0, time.process_time()
        self._last = [_read(place / "energy_uj") for place in self._counters]
        self._gpu_joules = self._count_gpus()
        if self._counters:
            self._stopped.clear()
            threading.Thread(target=self._watch, name="energy meter", daemon=True).start()

    def stop(self) -> Energy:
        """Ends counting; the energy since start()."""
        self._stopped.set()
        processor = self._of_processor()
        if not self._gpus:
            return processor
        if None in self._gpus:
            return Energy(processor.joules, "estimated", f"{processor.assumption}; {NOT_COUNTED}")
        joules = processor.joules + self._count_gpus() - self._gpu_joules
        return Energy(joules, processor.how, f"{processor.assumption}; {COUNTED}")

    def _of_processor(self) -> Energy:
        if self._counters:
            self._add()
            return Energy(self._joules, "measured", MEASURED)
        seconds = time.process_time() - self._busy
        work = count_of(round(seconds), "core-second")
        return Energy(seconds * WATTS_PER_CORE, "estimated", f"{work} at {ESTIMATED}")

    def _count_gpus(self) -> float:
        """Joules of all GPUs so far; one that counts none adds nothing."""
        return sum(read() for read in self._gpus if read is not None)

    def _watch(self) -> None:
        while not self._stopped.wait(SAMPLE_EVERY):
            self._add()

    def _add(self) -> None:
        """Adds what the counters moved since the last reading; one that became smaller has begun anew."""
        with self._lock:
            now = [_read(place / "energy_uj") for place in self._counters]
            for place, before, after in zip(self._counters, self._last, now, strict=True):
                moved = after - before if after >= before else after + _read(place / "max_energy_range_uj") - before
                self._joules += moved / 1e6
            self._last = now


def _is_package(place: Path) -> bool:
    """Whether a counter is of a whole package and may be read."""
    try:
        _read(place / "energy_uj")
        return (place / "name").read_text().startswith("package")
    except (OSError, ValueError):
        return False


def _read(place: Path) -> int:
    return int(place.read_text())
