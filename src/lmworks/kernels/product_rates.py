"""Which provider multiplies matrices fastest on this machine: measured once, in a process of its own, and cached.

Each class of products (kernels/matmul) is timed with each provider, in turn. A provider that fails, or crashes the
process, is left out, and why is kept. Imports no torch: the measuring process does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from lmworks.base import machine, measurements

MEASUREMENT = "matrix products 1"
"""The number is raised when what is measured changes."""
ADVANTAGE = 1.05
"""A provider takes PyTorch's place where it is so many times as fast."""
SHAPES = {  # tokens, inputs, outputs of a linear
    "small": (128, 96, 256),
    "narrow": (512, 576, 48),
    "block": (512, 576, 1536),
    "head": (128, 576, 49152),
}
ROUNDS, BUDGET = 3, 0.03  # turns of each provider, and seconds for a turn
WEIGHT_BYTES = 32 << 20  # weights go round so many bytes: in a model they are read from memory
TIMEOUT = 180.0


@dataclass(frozen=True)
class ProductRates:
    """What was measured.

    Attributes:
        gflops: GFLOP/s in float32 by product class and provider.
        faults: by provider, why it is left out.
    """

    gflops: dict[str, dict[str, float]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def choice(self) -> dict[str, str]:
        """The provider of each class in which another one than PyTorch's own is clearly faster."""
        chosen = {}
        for name, rates in self.gflops.items():
            best = max(rates, key=lambda provider: rates[provider])
            if rates[best] >= ADVANTAGE * rates.get("pytorch", 0.0) and best != "pytorch":
                chosen[name] = best
        return chosen

    def best(self) -> tuple[float, str]:
        """GFLOP/s of the fastest provider in products as a block has them, and which it is; 0 if none was measured."""
        rates: dict[str, float] = {}
        for name, measured in self.gflops.items():
            if name.endswith(" block"):
                for provider, rate in measured.items():
                    rates[provider] = max(rate, rates.get(provider, 0.0))
        provider = max(rates, key=lambda each: rates[each], default="")
        return rates.get(provider, 0.0), provider


def product_rates(refresh: bool = False) -> ProductRates:
    """The rates of this machine, from the cache; measured first, in some seconds, where they are not there.

    Args:
        refresh: measure again.
    """
    cached = None if refresh else measurements.read(MEASUREMENT)
    if cached is not None:
        return ProductRates(**cached)
    rates = _measure_apart()
    measurements.write(MEASUREMENT, asdict(rates))
    return rates


def _measure_apart() -> ProductRates:
    """Measured in a process of its own; where that crashes, in one for each provider beside PyTorch."""
    try:
        return ProductRates(_run(()))
    except _Crashed:
        pass
    rates, faults = ProductRates(), {}
    for provider in ("onednn", "native"):
        try:
            measured = _run(("pytorch", provider))
        except _Crashed as fault:
            faults[provider] = str(fault)
            continue
        for name, own in measured.items():
            rates.gflops.setdefault(name, {}).update(own)
    return ProductRates(rates.gflops, faults)


class _Crashed(Exception):
    """The measuring process ended without a result; says how."""


def _run(providers: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """The rates of some providers, of all if none is named, by class, from a process of its own."""
    command = [sys.executable, "-m", "lmworks.kernels.product_rates", str(machine.threads()), *providers]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise _Crashed(f"the measurement took longer than {TIMEOUT:.0f} s") from None
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        raise _Crashed(lines[-1] if lines else f"the measuring process ended with code {process.returncode}")
    return dict(json.loads(process.stdout.splitlines()[-1]))


def measure(providers: tuple[str, ...] = ()) -> dict[str, dict[str, float]]:
    """GFLOP/s by product class and provider, of the threads that PyTorch has now.

    Args:
        providers: names of kernels/matmul; none: all that are available.
    """
    import torch

    from lmworks.kernels import matmul

    names = list(providers) or matmul.available()
    rates: dict[str, dict[str, float]] = {}
    with torch.inference_mode():
        for size, shape in SHAPES.items():
            for layout in matmul.LAYOUTS:
                call, work = _product(layout, *shape)
                rates[f"{layout} {size}"] = {name: round(work / seconds / 1e9, 1) for name, seconds in _turns(call, names)}
    return rates


def _product(layout: str, tokens: int, inputs: int, outputs: int) -> tuple[Callable[[str], object], float]:
    """A call that multiplies by one provider, with the next of many weights, and its FLOPs."""
    import torch

    from lmworks.kernels.matmul import PROVIDERS

    count = max(1, WEIGHT_BYTES // (4 * inputs * outputs))
    weights = [torch.randn(outputs, inputs) for _ in range(count)]
    x, grad_y = torch.randn(tokens, inputs), torch.randn(tokens, outputs)
    turn = iter(range(sys.maxsize))

    def call(provider: str) -> object:
        weight = weights[next(turn) % count]
        if layout == "forward":
            return PROVIDERS[provider](x, weight.t(), None, 1.0, False)
        if layout == "input_gradient":
            return PROVIDERS[provider](grad_y, weight, None, 1.0, False)
        return PROVIDERS[provider](grad_y.t(), x, weight, 1.0, True)

    return call, 2.0 * tokens * inputs * outputs


def _turns(call: Callable[[str], object], providers: list[str]) -> list[tuple[str, float]]:
    """Seconds of a call by each provider; other programs only slow a call, so the fastest fifth counts."""
    taken: dict[str, list[float]] = {provider: [] for provider in providers}
    for _ in range(ROUNDS):
        for provider, seconds in taken.items():
            call(provider)
            until = time.perf_counter() + BUDGET
            while (started := time.perf_counter()) < until:
                call(provider)
                seconds.append(time.perf_counter() - started)
    return [(provider, sorted(seconds)[len(seconds) // 5]) for provider, seconds in taken.items()]


def main() -> None:
    """Measure, and print the rates as JSON: ``python -m lmworks.kernels.product_rates THREADS [PROVIDER ...]``."""
    import torch

    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps(measure(tuple(sys.argv[2:]))))


if __name__ == "__main__":
    main()
