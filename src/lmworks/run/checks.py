"""Checks of a new run: its folder, its threads, and what makes it slow on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from lmworks.base import processor
from lmworks.base.errors import InputError
from lmworks.base.journal import JOURNAL, RunFolder
from lmworks.base.probes import Rates
from lmworks.kernels import product_rates
from lmworks.train.settings import TrainSettings


def check_folder(folder: Path) -> None:
    """Raise if the run's folder cannot be created.

    Raises:
        InputError: it is a dangling link, a file, not empty, below a file, or not writable.
    """
    if folder.is_symlink() and not folder.exists():
        hint = "make the folder that it names, or choose another --out"
        raise InputError(f"is a link to {os.readlink(folder)}, which is not there", str(folder), hint)
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file, not a folder for a run", str(folder), "choose another --out")
    if folder.exists() and any(folder.iterdir()):
        is_open = (folder / JOURNAL).is_file() and not RunFolder(folder).events("finish")
        resumable = f", or lmworks resume {folder}" if is_open else ""
        raise InputError("is there already and not empty", str(folder), f"choose another --out{resumable}")
    above = next(place for place in (folder, *folder.parents) if place.exists())
    if not above.is_dir():
        raise InputError(f"{above} is a file, so that no folder can lie below it", str(folder), "choose another --out")
    if not os.access(above, os.W_OK):
        raise InputError("may not be written", str(above), "choose another --out")


def check_threads(threads: int | None) -> None:
    """Raise for more threads than the processor runs at a time: they would wait for each other in every matrix product,
    and steps would take many times longer.

    Not called for resumed runs, which keep their number of threads, because their rounding depends on it.

    Raises:
        InputError: there are more threads than hardware threads.
    """
    chip = processor.processor()
    most = max(chip.cores, chip.logical)
    if threads is not None and threads > most:
        raise InputError(
            f"{threads} threads are more than this machine runs at once ({most}): they would wait for each other",
            "train.threads",
            f"leave it out: the default is {chip.cores}, one per core",
        )


def slowdown_notes(settings: TrainSettings, precision: str) -> list[str]:
    """Notes on what makes training slower on this machine than it could be; its rates are measured first if necessary.

    Args:
        settings: of the training.
        precision: of the matrix products, as it was asked for.
    """
    rates = product_rates.fastest_rates()
    return [*_thread_notes(settings.threads), *_provider_notes(), *_precision_notes(precision, rates)]


def _thread_notes(threads: int | None) -> list[str]:
    cores = processor.processor().cores
    if threads is None or threads <= cores:
        return []
    return [
        f"{threads} threads share {cores} cores: matrix products are seldom faster than with one a core, "
        "which is what comes without train.threads"
    ]


def _provider_notes() -> list[str]:
    """Notes on providers of matrix products that failed in their measurement."""
    return [
        f"matrix products by {provider} are left out: {fault} (lmworks doctor --refresh measures again)"
        for provider, fault in product_rates.ProductRates.cached().faults.items()
    ]


def _precision_notes(precision: str, rates: Rates) -> list[str]:
    if precision != "bfloat16" or rates.bfloat16 >= rates.float32:
        return []
    return [
        f"bfloat16 is slower than float32 on this processor: {rates.bfloat16:,.4g} beside {rates.float32:,.4g} "
        "GFLOP/s in matrix products, as measured; train.precision auto chooses the faster"
    ]
