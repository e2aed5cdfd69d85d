"""Which provider multiplies each shape of matrices fastest on this machine: measured once, and cached.

All providers are timed in turn, in a process of its own. One that fails there, or crashes that process, is left out,
and why is kept. Imports no torch: the measuring process does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lmworks.base import machine, measurements
from lmworks.base.contention import QUIET, ShareMeter

MEASUREMENT = "matrix products 2"
"""The number is raised when what is measured changes."""
ADVANTAGE = 1.05
"""A provider takes PyTorch's place where it is so many times as fast."""
ROUNDS, SECONDS = 3, 0.01  # turns of each provider, and seconds of a turn
WEIGHT_BYTES = 32 << 20  # weights go round so many bytes: in a model they are read from memory
TIMEOUT = 180.0  # seconds of a measuring process
TRIES = 2
"""A shape whose measurement other programs disturbed is measured again by a later process, until there are so many."""


@dataclass(frozen=True)
class ProductRates:
    """What was measured.

    Attributes:
        gflops: GFLOP/s by shape (kernels/matmul.ProductShape as text) and provider.
        faults: by provider, why it is left out.
        shares: by shape, the share of the processor that its measurement got (base/contention).
        tries: by shape, measurements of which these are the fastest.
    """

    gflops: dict[str, dict[str, float]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)

    @classmethod
    def cached(cls) -> ProductRates:
        """What was measured on this machine."""
        return cls(**(measurements.read(MEASUREMENT) or {}))

    def is_disturbed(self, shape: str) -> bool:
        """Whether other programs ran while this shape was measured."""
        return self.shares.get(shape, 1.0) < QUIET

    def with_measured(self, new: ProductRates) -> ProductRates:
        """These with others beside them; of a shape that both have the faster, as other programs only slow a call."""
        gflops, shares, tries = dict(self.gflops), dict(self.shares), dict(self.tries)
        for shape, rates in new.gflops.items():
            before = gflops.get(shape, {})
            gflops[shape] = before | {name: max(rate, before.get(name, 0.0)) for name, rate in rates.items()}
            shares[shape] = max(new.shares.get(shape, 1.0), shares.get(shape, 0.0))
            tries[shape] = tries.get(shape, 0) + 1
        return ProductRates(gflops, self.faults | new.faults, shares, tries)

    def choice(self, shapes: Iterable[str]) -> dict[str, str]:
        """The provider of each of these shapes for which another one than PyTorch's own is clearly faster."""
        chosen = {}
        for shape in shapes:
            rates = self.gflops.get(shape, {})
            best = max(rates, key=lambda provider: rates[provider], default="pytorch")
            if best != "pytorch" and rates[best] >= ADVANTAGE * rates.get("pytorch", 0.0):
                chosen[shape] = best
        return chosen


LIMIT_LAYOUTS = ("forward", "input_gradient")


def limit_shapes(precision: str) -> list[str]:
    """Products of a small model's blocks: the fastest of them is what the machine reaches in this precision."""
    return [f"{precision} {layout} 576 1536 512" for layout in LIMIT_LAYOUTS]


def precisions() -> list[str]:
    """The precisions whose products are worth a measurement: an emulated bfloat16 would take minutes for it."""
    rates = machine.rates()
    return ["float32", *["bfloat16"] * (rates.bfloat16 > rates.float32)]


def best_rate(precision: str) -> tuple[float, str]:
    """GFLOP/s of the fastest provider in products of a block, and its name; (0, "") where that was not measured yet."""
    known = ProductRates.cached().gflops
    rates: dict[str, float] = {}
    for shape in limit_shapes(precision):
        rates |= {name: max(rate, rates.get(name, 0.0)) for name, rate in known.get(shape, {}).items()}
    provider = max(rates, key=lambda name: rates[name], default="")
    return rates.get(provider, 0.0), provider


def fastest_rates() -> machine.Rates:
    """The machine's rates with matrix products by the fastest provider, which training uses; measured where they were
    not yet."""
    product_rates([shape for precision in precisions() for shape in limit_shapes(precision)])
    rates = machine.rates()
    return replace(
        rates, **{precision: max(getattr(rates, precision), best_rate(precision)[0]) for precision in precisions()}
    )


def limit(precision: str, refresh: bool = False) -> float:
    """FLOP/s that this machine reaches in matrix products, by the fastest provider that was measured.

    Args:
        precision: of the products.
        refresh: measure PyTorch's own rate again.
    """
    return 1e9 * max(float(getattr(machine.rates(refresh), precision)), best_rate(precision)[0])


def product_rates(shapes: Iterable[str], refresh: bool = False) -> ProductRates:
    """The rates of these shapes on this machine, from the cache; what is not there is measured first.

    Args:
        shapes: kernels/matmul.ProductShape as text.
        refresh: measure again.
    """
    rates, wanted = ProductRates() if refresh else ProductRates.cached(), set(shapes)
    again = {shape for shape in wanted - _measured if rates.is_disturbed(shape) and rates.tries[shape] < TRIES}
    if missing := sorted(wanted - set(rates.gflops) | again):
        rates = rates.with_measured(_measure_apart(missing))
        _measured.update(missing)
        measurements.write(MEASUREMENT, asdict(rates))
    return rates


_measured: set[str] = set()
"""Shapes that this process had measured: the programs that disturbed it are likely to run on."""


def _measure_apart(shapes: list[str]) -> ProductRates:
    """Measured in a process of its own; where that crashes, in one for each provider beside PyTorch."""
    try:
        return _run(shapes, ())
    except _Crashed:
        pass
    gflops: dict[str, dict[str, float]] = {shape: {} for shape in shapes}
    shares, faults = dict.fromkeys(shapes, 1.0), {}
    for provider in ("parts", "onednn", "native"):
        try:
            measured = _run(shapes, ("pytorch", provider))
        except _Crashed as fault:
            faults[provider] = str(fault)
            continue
        for shape, by_provider in measured.gflops.items():
            gflops[shape] |= by_provider
            shares[shape] = min(shares[shape], measured.shares[shape])
    return ProductRates(gflops, faults, shares)


class _Crashed(Exception):
    """The measuring process ended without a result; says how."""


def _run(shapes: list[str], providers: tuple[str, ...]) -> ProductRates:
    """The rates of some providers, of all if none is named, from a process of its own."""
    command = [sys.executable, "-m", __name__, str(machine.threads()), *providers]
    try:
        process = subprocess.run(command, input=json.dumps(shapes), capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise _Crashed(f"the measurement took longer than {TIMEOUT:.0f} s") from None
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        raise _Crashed(lines[-1] if lines else f"the measuring process ended with code {process.returncode}")
    return ProductRates(**json.loads(process.stdout.splitlines()[-1]))


def measure(shapes: Iterable[str], providers: tuple[str, ...] = ()) -> ProductRates:
    """The rates of the threads that PyTorch has now.

    Args:
        shapes: as text.
        providers: names of kernels/matmul; none: all that are available.
    """
    import torch

    from lmworks.kernels.matmul import ProductShape, available

    gflops = {}
    meter = ShareMeter(torch.get_num_threads())
    with torch.inference_mode():
        for text in shapes:
            shape = ProductShape.parse(text)
            names = [name for name in available(shape.precision) if name in providers or not providers]
            call, work = _product(shape), 2e-9 * shape.tokens * shape.inputs * shape.outputs
            gflops[text] = {name: round(work / seconds, 1) for name, seconds in _turns(call, names).items()}
    return ProductRates(gflops, shares=dict.fromkeys(gflops, meter.share()))


def _product(shape: Any) -> Callable[[str], object]:
    """A call that multiplies by the provider that it is given, with the next of many weights."""
    import torch

    from lmworks.kernels.matmul import FORWARD, INPUT_GRADIENT, PROVIDERS

    dtype = getattr(torch, shape.precision)
    count = max(1, WEIGHT_BYTES // (dtype.itemsize * shape.inputs * shape.outputs))
    weight = torch.randn(shape.outputs, shape.inputs).to(dtype)
    weights = [weight, *(weight.clone() for _ in range(count - 1))]
    x, grad_y = (torch.randn(shape.tokens, size).to(dtype) for size in (shape.inputs, shape.outputs))
    number = 0

    def call(provider: str) -> object:
        nonlocal number
        weight, number = weights[number % count], number + 1
        if shape.layout == FORWARD:
            return PROVIDERS[provider](x, weight.t(), None, 1.0, False)
        if shape.layout == INPUT_GRADIENT:
            return PROVIDERS[provider](grad_y, weight, None, 1.0, False)
        return PROVIDERS[provider](grad_y.t(), x, weight, 1.0, True)

    return call


def _turns(call: Callable[[str], object], providers: list[str]) -> Mapping[str, float]:
    """Seconds of a call by each provider; other programs only slow a call, so the fastest fifth counts."""
    taken: dict[str, list[float]] = {provider: [] for provider in providers}
    for _ in range(ROUNDS):
        for provider, seconds in taken.items():
            call(provider)
            end = time.perf_counter() + SECONDS
            while (started := time.perf_counter()) < end:
                call(provider)
                seconds.append(time.perf_counter() - started)
    return {provider: sorted(seconds)[len(seconds) // 5] for provider, seconds in taken.items()}


def main() -> None:
    """Measure the shapes on standard input, and print the rates: ``THREADS [PROVIDER ...]``."""
    import torch

    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps(asdict(measure(json.load(sys.stdin), tuple(sys.argv[2:])))))


if __name__ == "__main__":
    main()
