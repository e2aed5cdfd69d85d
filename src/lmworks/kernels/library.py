"""The library of native kernels: is it there, which instruction set it uses. Imports no torch.

It is built by pip where there is a C++ compiler. Where there is none, where it was built for another Python, or where
LMWORKS_KERNELS=off, everything is computed by the PyTorch definitions, and `lmworks doctor` says so.
LMWORKS_KERNELS=avx512|avx2|portable chooses among the instruction sets that the processor has.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any

MEND = "install one (g++), then: pip install --force-reinstall --no-deps lmworks"


def library() -> Any:
    """The module of kernels, its instruction set chosen; None where PyTorch computes."""
    return _loaded()[0]


def fault() -> str:
    """Why the kernels are not used as asked, in a few words; empty where they are."""
    return _loaded()[1]


@cache
def _loaded() -> tuple[Any, str]:
    wanted = os.environ.get("LMWORKS_KERNELS", "auto")
    if wanted == "off":
        return None, "switched off by LMWORKS_KERNELS=off"
    try:
        native = import_module("lmworks.kernels._native")
        sets = native.instruction_sets()
    except ModuleNotFoundError:
        return None, f"they were not built, for want of a C++ compiler; {MEND}"
    except (ImportError, AttributeError) as error:  # of another Python, or damaged
        return None, f"they cannot be loaded ({error}); pip install --force-reinstall --no-deps lmworks"
    if wanted != "auto" and wanted not in sets:
        return native, f"LMWORKS_KERNELS={wanted} is not to be had here, only {', '.join(sets)}; {sets[0]} is used"
    if wanted != "auto":
        native.use(wanted)
    return native, ""


def describe() -> str:
    """One line for people; torch should be imported before, whose threads are then shared."""
    found = library()
    if found is None:
        return f"none: {fault()}"
    said = f"{found.in_use()} of {', '.join(found.instruction_sets())}; {found.threads()} threads ({found.team()})"
    return f"{said}; {fault()}" if fault() else said
