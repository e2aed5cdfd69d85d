"""Decides per call whether the native kernels run or PyTorch does, and passes PyTorch tensors to the kernels."""

from __future__ import annotations

import torch

from lmworks.kernels.native_module import native_module

# A tensor as a DLPack capsule, without a copy. This is the C function; Tensor.__dlpack__ runs Python code first.
to_dlpack = torch._C._to_dlpack

KERNEL_DTYPES = (torch.float32, torch.bfloat16)  # dtypes that kernels load and store; they compute in float32


def supports(*tensors: torch.Tensor | None) -> bool:
    """Whether the kernels are available and accept these tensors: float32 or bfloat16, in CPU memory.

    Args:
        tensors: of any shape; None is accepted.
    """
    if native_module() is None:
        return False
    return all(tensor is None or (tensor.dtype in KERNEL_DTYPES and tensor.is_cpu) for tensor in tensors)


def compute_dtype(x: torch.Tensor) -> torch.dtype | None:
    """The dtype in which the kernels would compute activations from x: autocast's where it is on, else x's; None where
    they cannot run."""
    if not supports(x):
        return None
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return dtype if dtype in KERNEL_DTYPES else None
