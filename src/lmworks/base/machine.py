"""Which computer is this: processor, threads, and how fast it really multiplies and reads.

Processors differ more than their names say (one runs bfloat16 at a thousandth of another's speed), so what ``auto``
settings choose and every share of the machine's limit rest on a short measurement, made once and kept in the cache.
Knows nothing of models. PyTorch is imported only where something is measured or set.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import sys
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lmworks.base.contention import UNDISTURBED_SHARE
from lmworks.base.control_groups import control_groups
from lmworks.base.energy import Energy, EnergyMeter
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, cache_folder
from lmworks.base.probes import PRECISIONS, Rates, measure
from lmworks.base.process_memory import memory

__all__ = [
    "Energy",
    "EnergyMeter",
    "Processor",
    "Rates",
    "choose_precision",
    "describe",
    "identity",
    "processor",
    "rates",
    "threads",
    "use_threads",
]

INSTRUCTIONS = (
    *(
        "sse4_2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx_vnni",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512_vnni",
        "avx512_vbmi",
    ),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "avx10_1"),
    *("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""The instruction sets that matter to matrix products, as Linux names them."""

TRIES = 3
"""A measurement that other programs disturbed is repeated by the next processes, at most so often."""

MIN_ADVANTAGE = 1.2
"""How much faster bfloat16 products must be before auto gives up float32's digits for them."""


@dataclass(frozen=True)
class Processor:
    """The processor.

    Attributes:
        name, vendor: as it calls itself.
        kind: "x86_64", "aarch64" ...
        instructions: those of INSTRUCTIONS that it has.
        cores: physical cores that this process may use (affinity and cgroup quota counted), at least 1.
        logical: hardware threads that it may use.
    """

    name: str
    vendor: str
    kind: str
    instructions: tuple[str, ...]
    cores: int
    logical: int


@cache
def processor() -> Processor:
    """The processor of this machine."""
    info = _cpuinfo()
    name = info.get("model name") or info.get("Hardware") or info.get("brand_raw", "")
    flags = set((info.get("flags") or info.get("Features") or "").split())
    logical = _allowed()
    quota = _quota()
    cores = len({_siblings(cpu) for cpu in logical}) if logical else (os.cpu_count() or 1)
    return Processor(
        name=" ".join(name.split()) or platform.processor() or "unknown",
        vendor=info.get("vendor_id") or info.get("CPU implementer") or info.get("vendor_id_raw", ""),
        kind=platform.machine(),
        instructions=tuple(word for word in INSTRUCTIONS if word in flags),
        cores=max(1, min(cores, quota or cores)),
        logical=len(logical) or os.cpu_count() or 1,
    )


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; elsewhere what py-cpuinfo finds (it takes a second)."""
    place = Path("/proc/cpuinfo")
    if place.is_file():
        lines = place.read_text(errors="replace").split("\n\n")[0].splitlines()
        pairs = (line.partition(":") for line in lines)
        return {key.strip(): value.strip() for key, _, value in pairs}
    import cpuinfo

    info = cpuinfo.get_cpu_info()
    return {**{key: str(value) for key, value in info.items()}, "flags": " ".join(info.get("flags", ()))}


def _allowed() -> list[int]:
    """The hardware threads that this process may run on; empty where the system does not report it."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _siblings(cpu: int) -> str:
    """The hardware threads of one core, as text; the thread itself where the system does not report it."""
    place = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return place.read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> int | None:
    """Whole cores that the control groups grant, or None where they set no limit."""
    shares = []
    for group in control_groups("cpu"):
        try:
            if (group / "cpu.max").is_file():
                granted, period = (group / "cpu.max").read_text().split()
            else:
                granted = (group / "cpu.cfs_quota_us").read_text().strip()
                period = (group / "cpu.cfs_period_us").read_text().strip()
            if granted not in ("max", "-1"):
                shares.append(math.ceil(int(granted) / int(period)))
        except (OSError, ValueError):
            continue
    return max(1, min(shares)) if shares else None


def use_threads(count: int | None = None) -> int:
    """Sets how many threads PyTorch computes with; None: one for each physical core. Returns the number set."""
    import torch

    chosen = processor().cores if count is None else count
    if chosen < 1:
        raise InputError(
            f"{chosen} threads cannot compute", "threads", "give a number from 1 on, or null for all cores"
        )
    torch.set_num_threads(chosen)
    return chosen


def rates(refresh: bool = False) -> Rates:
    """How fast this machine multiplies and reads, from the cache; measured first (some seconds) where it is not there.

    The measurement holds for this processor, its instructions, the number of threads and the version of PyTorch. One
    that other programs disturbed is used, and improved by the next processes that ask.
    """
    key = identity()
    if key in _known and not refresh:
        return _known[key]
    place = cache_folder() / "machine.json"
    cached: dict[str, Any] = {}
    old: Rates | None = None
    try:
        cached = json.loads(place.read_text(encoding="utf-8"))
        old = Rates(**cached[key]) if not refresh else None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if old is not None and (old.share >= UNDISTURBED_SHARE or old.tries >= TRIES):
        _known[key] = old
        return old
    measured = measure(threads(), memory()[1])
    if old is not None:
        best = {name: max(getattr(old, name), getattr(measured, name)) for name in (*PRECISIONS, "memory", "share")}
        measured = replace(measured, **best, tries=old.tries + 1)
    with contextlib.suppress(OSError, InputError):  # a cache that cannot be written is no reason to stop
        atomic_write(place, json.dumps({**cached, key: asdict(measured)}, indent=1) + "\n")
    _known[key] = measured
    return measured


_known: dict[str, Rates] = {}


def identity() -> str:
    """What a measurement of this machine depends on: processor, instructions, threads, version of PyTorch."""
    from importlib.metadata import version

    chip = processor()
    return "; ".join((chip.name, " ".join(chip.instructions), f"{threads()} threads", f"torch {version('torch')}"))


def threads() -> int:
    """Threads that PyTorch computes with, or will, once it is imported."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch else processor().cores


def choose_precision(setting: str = "auto", device: str = "cpu", measured: Rates | None = None) -> tuple[str, str]:
    """The precision of matrix products, and the reason as a sentence with the numbers that decided.

    Args:
        setting: "auto", "float32", "bfloat16" or "float16".
        device: "cpu", "cuda", "mps", with or without an index.
        measured: rates of the processor; None: this machine's.
    """
    if setting in PRECISIONS:
        return setting, f"{setting}, as asked"
    if setting != "auto":
        raise InputError(f"{setting!r} is no precision", "precision", f"one of: auto, {', '.join(PRECISIONS)}")
    if device.startswith("cuda"):
        import torch

        has = torch.cuda.is_bf16_supported()
        chosen = "bfloat16" if has else "float32"
        return chosen, f"{chosen}: this GPU {'multiplies' if has else 'does not multiply'} bfloat16 natively"
    if device != "cpu":
        return "float32", f"float32: bfloat16 was not measured on {device}"
    speeds = measured or rates()
    chosen = "bfloat16" if speeds.bfloat16 >= MIN_ADVANTAGE * speeds.float32 else "float32"
    numbers = f"bfloat16 {speeds.bfloat16:,.4g} and float32 {speeds.float32:,.4g} GFLOP/s in matrix products"
    disturbed = "" if speeds.share >= UNDISTURBED_SHARE else " while other programs ran"
    return chosen, f"{chosen}: {numbers}, as measured on this machine with {speeds.threads} threads{disturbed}"


def describe() -> dict[str, Any]:
    """The machine in a few words and numbers, for results; memory in bytes."""
    from importlib.metadata import version

    chip = processor()
    values = {"name": chip.name, "vendor": chip.vendor, "kind": chip.kind, "cores": chip.cores}
    values |= {"instructions": list(chip.instructions), "memory": memory()[0], "system": platform.system()}
    return {**values, "python": platform.python_version(), "torch": version("torch")}
