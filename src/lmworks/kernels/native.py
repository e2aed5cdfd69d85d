"""How torch's tensors reach the native kernels, and when kernels may serve."""

from __future__ import annotations

import torch

from lmworks.kernels.library import library

# a tensor as a DLPack capsule: made in C, where Tensor.__dlpack__ is Python
capsule = torch._C._to_dlpack

WIDTHS = (torch.float32, torch.bfloat16)  # that kernels read and write; they compute in float32


def serves(*tensors: torch.Tensor | None) -> bool:
    """Whether kernels are there and can read these: float32 or bfloat16, in the memory of the CPU."""
    if library() is None:
        return False
    return all(one is None or (one.dtype in WIDTHS and one.is_cpu) for one in tensors)


def width(x: torch.Tensor) -> torch.dtype | None:
    """The precision in which kernels would compute with x now: its own, or autocast's; None where they do not serve."""
    if not serves(x):
        return None
    found = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return found if found in WIDTHS else None
