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
