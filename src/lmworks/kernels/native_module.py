"""Loads the compiled module of native kernels and selects its instruction set. Imports no torch.

pip compiles the module where there is a C++ compiler. Without it, or if it was compiled for another Python, or with
LMWORKS_KERNELS=off, lmworks uses the PyTorch definitions, and `lmworks doctor` gives the reason.
LMWORKS_KERNELS=avx512_bf16|avx512|avx2|portable selects one of the instruction sets that the processor has.
"""

from __future__ import annotations

import os
import struct
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

API_VERSION = 15  # of the compiled module's functions: native/module.cpp has the same number
REINSTALL = "pip install --force-reinstall --no-deps lmworks"
# activations that the kernels and fused blocks compute, with their numbers in native/kernel_table.hpp
NATIVE_ACTIVATIONS = {"gelu": 0, "gelu_tanh": 1, "silu": 2, "relu": 3}


def native_module() -> Any:
    """The compiled module with its instruction set selected; None where PyTorch computes."""
    return _load()[0]


def fault() -> str:
    """Why the kernels are not used as LMWORKS_KERNELS asks, as a phrase; empty if they are."""
    return _load()[1]


def describe() -> str:
    """One line for people: instruction set and threads. Import torch before, so that the kernels share its threads."""
    module = native_module()
    if module is None:
        return f"none: {fault()}"
    sets, threads = ", ".join(module.instruction_sets()), f"{module.num_threads()} threads ({module.thread_pool()})"
    line = f"{module.instruction_set()} of {sets}; {threads}"
    return f"{line}; {fault()}" if fault() else line


@cache
def _load() -> tuple[Any, str]:
    """The module or None, and the fault or an empty string."""
    setting = os.environ.get("LMWORKS_KERNELS", "").strip().lower() or "auto"
    if setting == "off":
        return None, "switched off by LMWORKS_KERNELS=off"
    damage = _damage()
    if damage:
        return None, f"{damage}; hint: {REINSTALL}"
    try:
        module = import_module("lmworks.kernels._native")
        sets = module.instruction_sets()
    except ModuleNotFoundError:
        return None, f"not compiled, because there was no C++ compiler; hint: install one (g++), then {REINSTALL}"
    except (ImportError, AttributeError) as error:  # a damaged file, or one that needs a library that is not here
        return None, f"the compiled module cannot be loaded ({error}); hint: {REINSTALL}"
    if getattr(module, "API_VERSION", 1) != API_VERSION:
        return None, f"the compiled module belongs to another version of lmworks; hint: {REINSTALL}"
    if setting not in ("auto", *sets):
        return module, _unknown_setting(setting, sets)
    if setting != "auto":
        module.set_instruction_set(setting)
    return module, ""


def _unknown_setting(setting: str, sets: list[str]) -> str:
    choices = ("auto", "off", *sets)
    near = get_close_matches(setting, choices, 1)
    question = f" (did you mean {near[0]}?)" if near else ""
    return (
        f"LMWORKS_KERNELS={setting} is not available here{question}, {sets[0]} is used; hint: use {', '.join(choices)}"
    )


def _damage() -> str:
    """What is wrong with the module's file, without loading it: loading a truncated file would kill the process."""
    try:
        spec = find_spec("lmworks.kernels._native")
        if spec is None or spec.origin is None:
            modules = sorted(Path(__file__).parent.glob("_native.*"))
            return f"the compiled module is for another Python ({modules[0].name})" if modules else ""
        with open(spec.origin, "rb") as file:
            header = file.read(64)
        if header[:5] != b"\x7fELF\x02":  # not a 64-bit ELF file: the loader reports what it is
            return ""
        # the section headers come last in an ELF file: their offset, the size of each, their number
        offset, size, count = *struct.unpack_from("<Q", header, 40), *struct.unpack_from("<HH", header, 58)
        complete = offset + size * count <= os.path.getsize(spec.origin)
        return "" if complete else f"the compiled module {spec.origin} is truncated"
    except (OSError, struct.error) as error:
        return f"the compiled module cannot be read ({error})"
