"""How torch's tensors reach the native kernels, and when kernels may serve."""

from __future__ import annotations

import torch

from lmworks.kernels.library import library

# a tensor as a DLPack capsule: made in C, where Tensor.__dlpack__ is Python
capsule = torch._C._to_dlpack


def serves(*tensors: torch.Tensor | None) -> bool:
    """Whether kernels are there and can read these: float32, in the memory of the CPU, not inside autocast."""
    if library() is None or torch.is_autocast_enabled("cpu"):
        return False
    return all(one is None or (one.dtype == torch.float32 and one.is_cpu) for one in tensors)


def width(x: torch.Tensor) -> torch.dtype | None:
    """The precision in which kernels compute with x now: its own, or autocast's; None where they do not serve."""
    if library() is None or not x.is_cpu:
        return None
    found = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return found if found == torch.float32 else None
