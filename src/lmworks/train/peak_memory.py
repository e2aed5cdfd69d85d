"""The peak of the process's memory: its parts, and the stage in which it was reached. Called when a stage ends."""

from __future__ import annotations

from typing import Any

from torch import nn

from lmworks.base import process_memory
from lmworks.model.stored_layers import weight_bytes

NEGLIGIBLE = 0.01  # a smaller relative increase does not move the peak to another stage
BEFORE = "opening and evaluation before"


class PeakMemory:
    """The process's peak memory, tracked from stage to stage.

    Args:
        network: the model.
        original_bytes: bytes of float32 weights that stay in memory together with their copies in another precision.
        library_bytes: bytes that the process uses besides the model; None: resident memory minus weights, measured now.

    Attributes:
        stage: in which the peak so far was reached; :data:`BEFORE` is everything before training.
    """

    def __init__(self, network: nn.Module, original_bytes: int = 0, library_bytes: int | None = None) -> None:
        self.weights = original_bytes + weight_bytes(network)
        if library_bytes is None:
            library_bytes = max(0, process_memory.resident_memory() - self.weights)
        self.library_bytes = library_bytes
        self.stage, self.before, self.peak = BEFORE, process_memory.peak_memory(), 0

    def end_stage(self, stage: str) -> None:
        """A stage has ended; if the peak has risen, it was reached in this stage."""
        peak = process_memory.peak_memory()
        if peak > (1 + NEGLIGIBLE) * max(self.peak, self.before):
            self.stage = stage
        self.peak = max(peak, self.before)

    def parts(self, network: nn.Module, moments: int) -> dict[str, Any]:
        """``peak_memory``, and ``peak_parts``: bytes of library, weights, optimizer (its moments, and gradients), and
        activations (the rest); and the ``stage``.

        Args:
            network: the model.
            moments: bytes of the optimizer's moments.
        """
        self.end_stage("training")
        optimizer_bytes = 0
        if self.stage != BEFORE:
            gradients = sum(weight.nbytes for weight in network.parameters() if weight.requires_grad)
            optimizer_bytes = moments + gradients
        library = min(self.library_bytes, self.peak - self.weights)
        weights = min(self.weights, self.peak)
        optimizer_bytes = max(0, min(optimizer_bytes, self.peak - weights - library))
        parts = {"library": library, "weights": weights, "optimizer": optimizer_bytes}
        activations = self.peak - sum(parts.values())
        return {"peak_memory": self.peak, "peak_parts": {**parts, "activations": activations, "stage": self.stage}}
