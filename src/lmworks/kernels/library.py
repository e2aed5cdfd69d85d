"""The library of native kernels: is it there, which instruction set it uses. Imports no torch.

It is built by pip where there is a C++ compiler. Where there is none, where it was built for another Python, or where
LMWORKS_KERNELS=off, everything is computed by the PyTorch definitions, and `lmworks doctor` says so.
LMWORKS_KERNELS=avx512|avx2|portable chooses among the instruction sets that the processor has.
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

EDITION = 2  # of the functions that the module offers
AGAIN = "pip install --force-reinstall --no-deps lmworks"
HINT = f"install one (g++), then: {AGAIN}"
WORDS = ("auto", "off")
NATIVE_ACTIVATIONS = {"gelu": 0, "gelu_tanh": 1, "silu": 2, "relu": 3}  # those the kernels have, by their number there


def library() -> Any:
    """The module of kernels, its instruction set chosen; None where PyTorch computes."""
    return _loaded()[0]


def fault() -> str:
    """Why the kernels are not used as asked, in a few words; empty where they are."""
    return _loaded()[1]


@cache
def _loaded() -> tuple[Any, str]:
    wanted = os.environ.get("LMWORKS_KERNELS", "").strip().lower() or "auto"
    if wanted == "off":
        return None, "switched off by LMWORKS_KERNELS=off"
    damage = _damage()
    if damage:
        return None, f"{damage}; {AGAIN}"
    try:
        native = import_module("lmworks.kernels._native")
        sets = native.instruction_sets()
    except ModuleNotFoundError:
        return None, f"they were not built, for want of a C++ compiler; {HINT}"
    except (ImportError, AttributeError) as error:  # damaged, or linked to what is not here
        return None, f"they cannot be loaded ({error}); {AGAIN}"
    if getattr(native, "EDITION", 1) != EDITION:
        return None, f"they were built for another version of lmworks; {AGAIN}"
    if wanted not in ("auto", *sets):
        known = (*WORDS, *sets)
        near = get_close_matches(wanted, known, 1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        return (
            native,
            f"LMWORKS_KERNELS={wanted} is not to be had here{meant}, only {', '.join(known)}; {sets[0]} is used",
        )
    if wanted != "auto":
        native.use(wanted)
    return native, ""


def _damage() -> str:
    """What is wrong with the library's file, seen without loading it: a torn one would end the process."""
    try:
        found = find_spec("lmworks.kernels._native")
        if found is None or found.origin is None:
            others = sorted(Path(__file__).parent.glob("_native.*"))
            return f"they were built for another Python ({others[0].name})" if others else ""
        with open(found.origin, "rb") as file:
            head = file.read(64)
        if head[:5] != b"\x7fELF\x02":  # of another system, or no library: loading it will tell
            return ""
        table, entry, entries = *struct.unpack_from("<Q", head, 40), *struct.unpack_from("<HH", head, 58)
        whole = table + entry * entries <= os.path.getsize(found.origin)
        return "" if whole else f"{found.origin} is torn: its end is missing"
    except (OSError, struct.error) as error:
        return f"they cannot be read ({error})"


def describe() -> str:
    """One line for people; torch should be imported before, whose threads are then shared."""
    found = library()
    if found is None:
        return f"none: {fault()}"
    said = f"{found.in_use()} of {', '.join(found.instruction_sets())}; {found.threads()} threads ({found.team()})"
    return f"{said}; {fault()}" if fault() else said
