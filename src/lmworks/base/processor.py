"""The processor: its name, instructions, cores and threads. PyTorch is imported only where its threads are set."""

from __future__ import annotations

import math
import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lmworks.base.control_groups import control_groups
from lmworks.base.errors import InputError

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

    threads = processor().cores if count is None else count
    if threads < 1:
        raise InputError(
            f"{threads} threads cannot compute", "threads", "give a number from 1 on, or null for all cores"
        )
    torch.set_num_threads(threads)
    return threads


def identity() -> str:
    """What a measurement of this machine depends on: processor, instructions, threads, version of PyTorch."""
    chip = processor()
    return "; ".join((chip.name, " ".join(chip.instructions), f"{threads()} threads", f"torch {_torch_version()}"))


@cache
def _torch_version() -> str:
    """As it is installed, without importing it. It is kept: its metadata takes ten milliseconds to read, and a short
    run asks thirty times."""
    from importlib.metadata import version

    return version("torch")


def threads() -> int:
    """Threads that PyTorch computes with, or will, once it is imported."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch else processor().cores
