"""What the peak of memory was made of, and in which stage it came. Knows no loop: it is asked when a stage ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lmworks.base import machine

NOTHING = 0.01  # a rise of so small a share is no peak of its own


class Peaks:
    """The process's peak of memory, followed from stage to stage.

    Args:
        library: bytes that the process holds beside the model; None: measured now, as what is not weights.
        network: the model.

    Attributes:
        stage: in which the highest peak came by now; "opening and measuring before" is all before training.
    """

    def __init__(self, library: int | None, network: nn.Module) -> None:
        # beside frozen weights in half width, step.frozen_in keeps the float32 ones
        aside = sum(4 * weight.numel() for weight in network.parameters() if weight.dtype == torch.bfloat16)
        self.weights = aside + sum(weight.nbytes for weight in network.parameters())
        self.library = max(0, machine.resident_memory() - self.weights) if library is None else library
        self.stage, self.before, self.peak = "opening and measuring before", machine.peak_memory(), 0

    def passed(self, stage: str) -> None:
        """A stage is done; the peak came in it if it is higher than what it was."""
        peak = machine.peak_memory()
        if peak > (1 + NOTHING) * max(self.peak, self.before):
            self.stage = stage
        self.peak = max(peak, self.before)

    def told(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """``peak_memory``, and ``peak_parts``: bytes of library, weights, optimizer (what it remembers, and gradients),
        and activations (the rest); and the ``stage``."""
        self.passed("training")
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        states = [state.values() for state in optimizer.state.values()]
        kept = sum(one.nbytes for values in states for one in values if isinstance(one, torch.Tensor))
        late = self.stage != "opening and measuring before"
        kept = (kept + sum(weight.nbytes for weight in trained)) if late else 0
        library = min(self.library, self.peak - self.weights)
        weights = min(self.weights, self.peak)
        kept = max(0, min(kept, self.peak - weights - library))
        parts = {"library": library, "weights": weights, "optimizer": kept}
        rest = self.peak - sum(parts.values())
        return {"peak_memory": self.peak, "peak_parts": {**parts, "activations": rest, "stage": self.stage}}
