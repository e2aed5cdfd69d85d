"""The processor, its threads and its measured rates.

Processors differ more than their names say (one runs bfloat16 at a thousandth of another's speed), so what ``auto``
settings choose and every share of the machine's limit rest on a short measurement, made once and kept in the cache.
Knows nothing of models. PyTorch is imported only where something is measured or set.
"""

from __future__ import annotations

import platform
from typing import Any

from lmworks.base import measurements, preparation
from lmworks.base.contention import UNDISTURBED_SHARE
from lmworks.base.errors import InputError
from lmworks.base.probes import Rates, measure_apart
from lmworks.base.process_memory import memory
from lmworks.base.processor import identity, processor, threads

MEASUREMENT = "rates"

PRECISIONS = ("float32", "bfloat16")
"""Of matrix products in training, evaluation and generation."""

MIN_ADVANTAGE = 1.2
"""How much faster bfloat16 products must be before auto gives up float32's digits for them."""


def rates(refresh: bool = False) -> Rates:
    """How fast this machine multiplies and reads, from the cache; measured first (some seconds) where it is not there.

    One that other programs disturbed is used, and improved by the next processes that ask.

    Args:
        refresh: measure again.
    """
    key = identity()
    if refresh or key not in _known:
        _known[key] = measurements.best_measurement(MEASUREMENT, Rates, _measure, refresh)
    return _known[key]


_known: dict[str, Rates] = {}


def _measure() -> Rates:
    with preparation.timed(preparation.MEASURING):
        return measure_apart(threads(), memory()[1])


def choose_precision(setting: str = "auto", device: str = "cpu", machine_rates: Rates | None = None) -> tuple[str, str]:
    """The precision of matrix products, and the reason as a sentence with the numbers that decided.

    Args:
        setting: "auto", "float32" or "bfloat16".
        device: "cpu", "cuda", "mps", with or without an index.
        machine_rates: rates of the processor; None: this machine's.
    """
    if setting in PRECISIONS:
        return setting, f"{setting}, as asked"
    if setting != "auto":
        raise InputError(f"{setting!r} is no precision", "precision", f"one of: auto, {', '.join(PRECISIONS)}")
    if device.startswith("cuda"):
        import torch

        has = torch.cuda.is_bf16_supported()
        precision = "bfloat16" if has else "float32"
        return precision, f"{precision}: this GPU {'multiplies' if has else 'does not multiply'} bfloat16 natively"
    if device != "cpu":
        return "float32", f"float32: bfloat16 was not measured on {device}"
    speeds = machine_rates or rates()
    precision = "bfloat16" if speeds.bfloat16 >= MIN_ADVANTAGE * speeds.float32 else "float32"
    numbers = f"bfloat16 {speeds.bfloat16:,.4g} and float32 {speeds.float32:,.4g} GFLOP/s in matrix products"
    disturbed = "" if speeds.share >= UNDISTURBED_SHARE else " while other programs ran"
    return precision, f"{precision}: {numbers}, as measured on this machine with {speeds.threads} threads{disturbed}"


def describe() -> dict[str, Any]:
    """The machine in a few words and numbers, for results; memory in bytes."""
    from importlib.metadata import version

    chip = processor()
    values = {"name": chip.name, "vendor": chip.vendor, "kind": chip.kind, "cores": chip.cores}
    values |= {"instructions": list(chip.instructions), "memory": memory()[0], "system": platform.system()}
    return {**values, "python": platform.python_version(), "torch": version("torch")}
