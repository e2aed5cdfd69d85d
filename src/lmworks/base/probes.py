"""How fast this machine multiplies matrices, in each precision, and reads memory: a short measurement.

What is timed is the work of a language model: (512, 576) x (576, 1536) products that go round many weights, and a
vector times a matrix too big for the caches. Other programs can only slow a measurement, so the fast calls count.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from lmworks.base.contention import ShareMeter

PROBED_PRECISIONS = ("float32", "bfloat16", "float16")

TOKENS, INPUTS, OUTPUTS, WEIGHTS = 512, 576, 1536, 16
FEW_TOKENS = 4
ROUNDS, BUDGET = 3, 0.2
"""Rounds over all probes, and seconds for a probe in each."""

Probe = tuple[Callable[[], object], float]
"""What is timed, and its amount of work: FLOPs or bytes."""


@dataclass(frozen=True)
class Rates:
    """What was measured.

    Attributes:
        float32, bfloat16, float16: GFLOP/s of matrix products; 0 where PyTorch has none.
        memory: GB/s of reading.
        threads, torch: with how many threads, with which version of PyTorch.
        seconds: that the measurement took.
        share: of the processor that the measurement got (base/contention); the rest went to other programs.
        tries: measurements of which this is the best.
    """

    float32: float
    bfloat16: float
    float16: float
    memory: float
    threads: int
    torch: str
    seconds: float
    share: float
    tries: int = 1

    def best_of(self, earlier: Rates) -> Rates:
        """The higher figures of both measurements."""
        names = (*PROBED_PRECISIONS, "memory", "share")
        best = {name: max(getattr(self, name), getattr(earlier, name)) for name in names}
        return replace(self, **best, tries=earlier.tries + 1)


def measure_apart(threads: int, free: int) -> Rates:
    """Measures in a process of its own, so that the caller's memory stays as it was; arguments of :func:`measure`."""
    command = [sys.executable, "-m", __name__, str(threads), str(free)]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:  # the machine has no room for a second process, or a measurement crashes it
        return measure(threads, free)
    return Rates(**json.loads(process.stdout.splitlines()[-1]))


def measure(threads: int, free: int) -> Rates:
    """Measures now, in this process.

    Args:
        threads: that PyTorch computes with meanwhile.
        free: bytes of memory that may be used; an eighth of it is, at most.
    """
    import torch

    started = time.perf_counter()
    before = torch.get_num_threads()
    best = dict.fromkeys((*PROBED_PRECISIONS, "memory"), 0.0)
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            probes = {name: _product(getattr(torch, name), threads) for name in PROBED_PRECISIONS}
            probes["memory"] = _reading(min(512 << 20, free // 8))
            torch.set_num_threads(threads)
            meter = ShareMeter(threads)
            for _ in range(ROUNDS):
                for name, probe in probes.items():
                    if probe is not None:
                        best[name] = max(best[name], probe[1] / _seconds(probe[0]) / 1e9)
            share = meter.share()
    finally:
        torch.set_num_threads(before)
    float32, bfloat16, float16, reading = (float(f"{best[name]:.4g}") for name in (*PROBED_PRECISIONS, "memory"))
    took = round(time.perf_counter() - started, 2)
    return Rates(float32, bfloat16, float16, reading, threads, torch.__version__, took, share)


def _seconds(call: Callable[[], object]) -> float:
    """How long a call takes: the tenth part of as many calls as fit into the budget is faster."""
    timings: list[float] = []
    while not timings or sum(timings) < BUDGET:
        start = time.perf_counter()
        call()
        timings.append(time.perf_counter() - start)
    return sorted(timings)[len(timings) // 10]


def _product(dtype: Any, threads: int) -> Probe | None:
    """A matrix product; a small one where the precision is emulated and a whole one would take seconds; None: none."""
    import torch

    linear = torch.nn.functional.linear
    weights = torch.randn(OUTPUTS, INPUTS).to(dtype)
    few = torch.randn(FEW_TOKENS, INPUTS).to(dtype)
    timings: list[float] = []
    try:
        while len(timings) < 9 and sum(timings) < 0.1:
            start = time.perf_counter()
            linear(few, weights)
            timings.append(time.perf_counter() - start)
    except RuntimeError:
        return None
    if min(timings) / FEW_TOKENS * TOKENS / threads > 0.5:
        return (lambda: linear(few, weights)), 2.0 * FEW_TOKENS * INPUTS * OUTPUTS
    many = torch.randn(TOKENS, INPUTS).to(dtype)
    layers = [weights.clone() for _ in range(WEIGHTS)]
    turn = iter(range(sys.maxsize))
    return (lambda: linear(many, layers[next(turn) % WEIGHTS])), 2.0 * TOKENS * INPUTS * OUTPUTS


def _reading(size: int) -> Probe:
    """A matrix of so many bytes times a vector."""
    import torch

    matrix = torch.ones(max(1, size // (4096 * 4)), 4096)
    vector = torch.ones(4096)
    return (lambda: torch.mv(matrix, vector)), float(matrix.nbytes)


def main() -> None:
    """Measure, and print the rates: ``THREADS FREE``."""
    print(json.dumps(asdict(measure(int(sys.argv[1]), int(sys.argv[2])))))


if __name__ == "__main__":
    main()
