"""The native kernels: are they there, which instruction set they use, and when they may serve.

They are built by pip where there is a C++ compiler. Where there is none, where they were built for another Python, or
where LMWORKS_KERNELS=off, everything is computed by the PyTorch definitions beside them, and `lmworks doctor` says so.
LMWORKS_KERNELS=avx512|avx2|portable chooses among the instruction sets that the processor has.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any

import torch

# float32 tensors reach a kernel as DLPack capsules: made in C, where Tensor.__dlpack__ is Python
capsule = torch._C._to_dlpack


@cache
def library() -> Any:
    """The module of kernels, its instruction set chosen; None where PyTorch computes."""
    return _loaded()[0]


def fault() -> str:
    """Why the kernels are not used, in a few words; empty where they are."""
    return _loaded()[1]


@cache
def _loaded() -> tuple[Any | None, str]:
    wanted = os.environ.get("LMWORKS_KERNELS", "auto")
    if wanted == "off":
        return None, "switched off by LMWORKS_KERNELS=off"
    try:
        _native = import_module("lmworks.kernels._native")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        why = "they were not built: there was no C++ compiler" if missing else f"they cannot be loaded: {error}"
        return None, f"{why}; install one (g++), then: pip install --force-reinstall --no-deps lmworks"
    sets = _native.instruction_sets()
    if wanted != "auto" and wanted not in sets:
        return _native, f"LMWORKS_KERNELS={wanted} is not to be had here, only {', '.join(sets)}; {sets[0]} is used"
    if wanted != "auto":
        _native.use(wanted)
    return _native, ""


def serves(*tensors: torch.Tensor | None) -> bool:
    """Whether kernels are there and can read these: float32, in the memory of the CPU, not inside autocast."""
    if library() is None or torch.is_autocast_enabled("cpu"):
        return False
    return all(one is None or (one.dtype == torch.float32 and one.is_cpu) for one in tensors)


def describe() -> str:
    """One line for people."""
    found = library()
    if found is None:
        return f"none: {fault()}"
    said = f"{found.in_use()} of {', '.join(found.instruction_sets())}; {found.threads()} threads ({found.team()})"
    return f"{said}; {fault()}" if fault() else said
