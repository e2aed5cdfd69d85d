"""The share of the processor that a measurement got; while other programs run, measured times are unreliable.

Linux counts for each thread how long it ran, and how long it was runnable but waited for a processor. Threads also wait
for other threads of their own process, so the waiting time is limited to the time that other processes ran. Where the
system does not count waiting time, the share is the busy time of all threads divided by elapsed time x threads.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

UNDISTURBED_SHARE = 0.85
"""With a smaller share, a measurement counts as disturbed by other programs."""

_TASKS, _STAT = Path("/proc/self/task"), Path("/proc/stat")


class ShareMeter:
    """Measures the share of the processor that this process gets, from its creation on.

    Args:
        threads: number of computing threads; used only where the system does not count waiting time.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._clock, self._own, self._all = time.perf_counter(), _own_seconds(), _all_seconds()
        self._before = _thread_seconds()

    def share(self) -> float:
        """The share so far: 1 if no other program ran, 0.5 if others had the processor for half of the time."""
        after, own = _thread_seconds(), _own_seconds() - self._own
        others = max(0.0, _all_seconds() - self._all - own)
        ran, waited = 0.0, 0.0
        for thread, (running, waiting) in after.items():
            before = self._before.get(thread, (0.0, 0.0))
            ran, waited = ran + running - before[0], waited + waiting - before[1]
        if ran > 0:
            return round(ran / (ran + min(max(waited, 0.0), others)), 2)
        wall = max(time.perf_counter() - self._clock, 1e-9)
        return round(min(1.0, own / wall / self.threads), 2)


def _own_seconds() -> float:
    """Processor time of this process and of its finished child processes."""
    return sum(os.times()[:4])


def _all_seconds() -> float:
    """Processor time of all processes on the processors that this one may use; 0 where it is not reported."""
    try:
        lines = [line.split() for line in _STAT.read_text().splitlines()]
        used = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return 0.0
    ticks = 0
    for name, *counts in lines:
        if name in used:
            user, nice, system, _idle, _iowait, irq, softirq = map(int, counts[:7])
            ticks += user + nice + system + irq + softirq
    return float(ticks / os.sysconf("SC_CLK_TCK"))


def _thread_seconds() -> dict[str, tuple[float, float]]:
    """(running, waiting) seconds by thread of this process; empty where the system does not report them."""
    seconds = {}
    try:
        for thread in _TASKS.iterdir():
            ran, waited, _ = (thread / "schedstat").read_text().split()
            seconds[thread.name] = int(ran) / 1e9, int(waited) / 1e9
    except (OSError, ValueError):
        return {}
    return seconds
