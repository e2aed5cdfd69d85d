"""Joules that NVIDIA's GPUs have counted since the driver was loaded: through NVML (nvidia-ml-py, the extra gpu)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

MILLI = 1e-3
NOT_COUNTED = (
    "the energy of the GPU is not counted: pip install 'lmworks[gpu]', for GPUs that count it (Volta and later)"
)
COUNTED = "the GPU by its own counter, other programs included"


def energy_counter(uuid: str) -> Callable[[], float] | None:
    """A function that reads the joules of a GPU; None where NVML is not installed or the GPU counts none.

    Args:
        uuid: of the GPU, as PyTorch and nvidia-smi show it, with or without GPU- before it.
    """
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None

    def read() -> float:
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * MILLI

    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
        read()
    except nvml.NVMLError:
        return None
    return read


def gpu_uuids(device: object) -> list[str]:
    """The UUID of a torch device, where it is a GPU of NVIDIA; else none."""
    if getattr(device, "type", "cpu") != "cuda":
        return []
    import torch

    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)  # type: ignore[arg-type]
    return [] if uuid is None else [str(uuid)]
