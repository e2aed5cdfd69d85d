"""Measures which provider computes each shape of matrix product fastest on this machine, and caches the result.

A separate process times all providers in turn. A provider that crashes that process is excluded, and the reason is
stored. Imports no torch: the measuring process does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lmworks.base import machine, measurements, preparation, probes
from lmworks.base.contention import UNDISTURBED_SHARE, ShareMeter
from lmworks.base.probes import Rates
from lmworks.base.processor import threads
from lmworks.kernels.product_shapes import (
    FORWARD,
    INPUT_GRADIENT,
    NATIVE,
    ONEDNN,
    PARTS,
    PYTORCH,
    ProductShape,
)

MEASUREMENT = "matrix products 2"
"""Name in the cache; the number is raised when the measurement changes."""
ADVANTAGE = 1.05
"""A provider replaces PyTorch's own matmul where it is at least this many times as fast."""
ROUNDS, SECONDS = 3, 0.01  # rounds over all providers, and seconds of a provider in a round
WEIGHT_BYTES = 32 << 20  # total size of the weights used in turn: as in a model, they are not in the caches
TIMEOUT = 180.0  # seconds of a measuring process


@dataclass(frozen=True)
class ProductRates:
    """The measured rates.

    Attributes:
        gflops: GFLOP/s by shape (kernels/product_shapes.ProductShape as text) and provider.
        faults: by provider, why the last measurement excluded it.
        shares: by shape, the share of the processor that the measuring process got (base/contention).
        tries: by shape, number of measurements; the fastest result is stored.
    """

    gflops: dict[str, dict[str, float]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)

    @classmethod
    def cached(cls) -> ProductRates:
        """The rates measured on this machine so far."""
        return measurements.read(MEASUREMENT, cls) or cls()

    def without(self, shapes: Iterable[str]) -> ProductRates:
        """The rates of all other shapes."""
        gflops, shares, tries = dict(self.gflops), dict(self.shares), dict(self.tries)
        for shape in shapes:
            for by_shape in (gflops, shares, tries):
                by_shape.pop(shape, None)
        return ProductRates(gflops, self.faults, shares, tries)

    def is_disturbed(self, shape: str) -> bool:
        """Whether other programs ran while this shape was measured."""
        return self.shares.get(shape, 1.0) < UNDISTURBED_SHARE

    def is_due(self, shape: str, repeat: bool = True) -> bool:
        """Whether a shape is to be measured: for the first time, or, if ``repeat``, again since the measurement was
        disturbed or a provider failed in it."""
        if not self.gflops.get(shape) or not repeat:
            return not self.gflops.get(shape)
        has_failed = any(provider not in self.gflops[shape] for provider in self.faults)
        return (self.is_disturbed(shape) or has_failed) and self.tries.get(shape, 0) < measurements.TRIES

    def merged_with(self, new: ProductRates) -> ProductRates:
        """The rates of both; for a shape in both, the higher ones, because other programs can only slow a call down."""
        gflops, shares, tries = dict(self.gflops), dict(self.shares), dict(self.tries)
        for shape, rates in new.gflops.items():
            if not rates:  # no process came to its end
                continue
            before = gflops.get(shape, {})
            gflops[shape] = before | {name: max(rate, before.get(name, 0.0)) for name, rate in rates.items()}
            shares[shape] = max(new.shares.get(shape, 1.0), shares.get(shape, 0.0))
            tries[shape] = tries.get(shape, 0) + 1
        return ProductRates(gflops, new.faults, shares, tries)

    def choice(self, shapes: Iterable[str]) -> dict[str, str]:
        """The fastest provider by shape, for the shapes where it is clearly faster than PyTorch's own matmul."""
        chosen = {}
        for shape in shapes:
            rates = self.gflops.get(shape, {})
            best = max(rates, key=lambda provider: rates[provider], default=PYTORCH)
            if best != PYTORCH and rates[best] >= ADVANTAGE * rates.get(PYTORCH, 0.0):
                chosen[shape] = best
        return chosen


def limit_shapes(precision: str) -> list[str]:
    """Products of the sizes that base/probes measures; the highest rate among them is the machine's limit in this
    precision."""
    sizes = probes.INPUTS, probes.OUTPUTS, probes.TOKENS
    return [str(ProductShape.of_linear(precision, layout, *sizes)) for layout in (FORWARD, INPUT_GRADIENT)]


def precisions() -> list[str]:
    """The precisions worth measuring: bfloat16 only where it is faster than float32, since measuring an emulated one
    would take minutes."""
    rates = machine.rates()
    return ["float32", "bfloat16"] if rates.bfloat16 > rates.float32 else ["float32"]


def best_rate(precision: str) -> tuple[float, str]:
    """GFLOP/s of the fastest provider at the shapes of :func:`limit_shapes`, and its name; (0, "") before the first
    measurement."""
    cached = ProductRates.cached().gflops
    rates = [(rate, name) for shape in limit_shapes(precision) for name, rate in cached.get(shape, {}).items()]
    return max(rates, key=lambda pair: pair[0], default=(0.0, ""))


def fastest_rates() -> Rates:
    """The machine's rates, with the matrix products of the fastest provider, which training uses; measured first if
    necessary."""
    product_rates([shape for precision in precisions() for shape in limit_shapes(precision)])
    rates = machine.rates()
    fastest: dict[str, Any] = {precision: _fastest_rate(rates, precision) for precision in precisions()}
    return replace(rates, **fastest)


def _fastest_rate(rates: Rates, precision: str) -> float:
    """GFLOP/s of the fastest provider, PyTorch's own rate counted."""
    return max(float(getattr(rates, precision)), best_rate(precision)[0])


def limit(precision: str, refresh: bool = False) -> float:
    """The highest measured FLOP/s of matrix products on this machine, over all providers.

    Args:
        precision: of the products.
        refresh: measure it again, PyTorch's own rate and the providers'.
    """
    if refresh:
        product_rates(limit_shapes(precision), refresh=True)
    return 1e9 * _fastest_rate(machine.rates(refresh), precision)


def product_rates(shapes: Iterable[str], refresh: bool = False) -> ProductRates:
    """The rates of these shapes on this machine, from the cache; missing ones are measured first.

    Args:
        shapes: kernels/product_shapes.ProductShape as text.
        refresh: measure these shapes again, those measured by this process too; the rates of all others are kept.
    """
    rates, requested = ProductRates.cached(), set(shapes)
    if refresh:
        rates = rates.without(requested)
        _measured.difference_update(requested)
    is_recent = measurements.is_recent(MEASUREMENT)
    missing = sorted(shape for shape in requested - _measured if rates.is_due(shape, repeat=not is_recent))
    if missing:
        with preparation.timed(preparation.MEASURING):
            rates = rates.merged_with(_measure_apart(missing))
        _measured.update(missing)
        measurements.write(MEASUREMENT, asdict(rates))
    return rates


_measured: set[str] = set()
"""Shapes measured by this process, which does not repeat them: disturbing programs are probably still running."""


def forget() -> None:
    """Forget the rates of all shapes: each is measured again when it is next needed."""
    measurements.write(MEASUREMENT, asdict(ProductRates()))
    _measured.clear()


def _measure_apart(shapes: list[str]) -> ProductRates:
    """Rates from one separate process; if it crashes, from one process per provider, each compared with PyTorch."""
    try:
        return _run(shapes, ())
    except _Crashed:
        pass
    gflops: dict[str, dict[str, float]] = {shape: {} for shape in shapes}
    shares, faults = dict.fromkeys(shapes, 1.0), {}
    for provider in (PARTS, ONEDNN, NATIVE):
        try:
            latest = _run(shapes, (PYTORCH, provider))
        except _Crashed as fault:
            faults[provider] = str(fault)
            continue
        for shape, by_provider in latest.gflops.items():
            gflops[shape] |= by_provider
            shares[shape] = min(shares[shape], latest.shares[shape])
    return ProductRates(gflops, faults, shares)


class _Crashed(Exception):
    """The measuring process ended without a result; the message says how."""


def _run(shapes: list[str], providers: tuple[str, ...]) -> ProductRates:
    """The rates of the named providers, or of all where none is named, from a separate process."""
    command = [sys.executable, "-m", __name__, str(threads()), *providers]
    try:
        process = subprocess.run(command, input=json.dumps(shapes), capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise _Crashed(f"the measurement took longer than {TIMEOUT:.0f} s") from None
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        raise _Crashed(lines[-1] if lines else f"the measuring process ended with code {process.returncode}")
    return ProductRates(**json.loads(process.stdout.splitlines()[-1]))


def measure(shapes: Iterable[str], providers: tuple[str, ...] = ()) -> ProductRates:
    """Rates by shape and provider, with PyTorch's current number of threads.

    Args:
        shapes: as text.
        providers: names from kernels/product_shapes; empty: all that are available.
    """
    import torch

    from lmworks.kernels.matmul import available

    gflops = {}
    meter = ShareMeter(torch.get_num_threads())
    with torch.inference_mode():
        for text in shapes:
            shape = ProductShape.parse(text)
            names = [name for name in available(shape.precision) if name in providers or not providers]
            call, work = _product(shape), 2e-9 * shape.tokens * shape.inputs * shape.outputs
            gflops[text] = {name: round(work / seconds, 1) for name, seconds in _turns(call, names).items()}
    return ProductRates(gflops, shares=dict.fromkeys(gflops, meter.share()))


def _product(shape: ProductShape) -> Callable[[str], object]:
    """A function of a provider's name that computes one product of this shape, with the next weight each time."""
    import torch

    from lmworks.kernels.matmul import PROVIDERS

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
    """Seconds of a call by provider: the 20th percentile, because other programs can only slow a call down."""
    timings: dict[str, list[float]] = {provider: [] for provider in providers}
    for _ in range(ROUNDS):
        for provider, seconds in timings.items():
            call(provider)
            end = time.perf_counter() + SECONDS
            while (started := time.perf_counter()) < end:
                call(provider)
                seconds.append(time.perf_counter() - started)
    return {provider: sorted(seconds)[len(seconds) // 5] for provider, seconds in timings.items()}


def main() -> None:
    """Measure the shapes on standard input, and print the rates: ``THREADS [PROVIDER ...]``."""
    import torch

    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps(asdict(measure(json.load(sys.stdin), tuple(sys.argv[2:])))))


if __name__ == "__main__":
    main()
