"""BitFit: biases and norms alone are trained, all matrices frozen (Ben Zaken et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lmworks.adapt.method import NoSettings
from lmworks.adapt.weights import WeightsMethod

if TYPE_CHECKING:
    from lmworks.model.config import ModelConfig
    from lmworks.model.transformer import Transformer


class BitFit(WeightsMethod[NoSettings]):
    """Trains every parameter that is a vector, and a task's head: biases and norms' weights, which in a model without
    biases (Llama) are all vectors that there are."""

    name = "bitfit"
    summary = "biases and norms, and a task's head"
    learning_rate = 1e-3
    head_learning_rate = 1e-3
    pretraining_learning_rate = 1e-3

    def parameters(self, network: Transformer) -> Iterable[str]:
        """All vectors, and the parameters of a task's head."""
        from lmworks.adapt.head_weights import head_parameters

        vectors = [name for name, parameter in network.named_parameters() if parameter.ndim == 1]
        return dict.fromkeys([*vectors, *head_parameters(network)])

    def notes(self, config: ModelConfig) -> list[str]:
        """Which vectors this model has."""
        own = self.trained_parameters(config).own
        vectors = [name.rpartition(".")[2] for name, shape in own.items() if len(shape) == 1]
        biases = sum("bias" in name for name in vectors)  # of recurrent cells they are bias_ih_l0, bias_hh_l0
        counts = {"bias": biases, "norm weight": len(vectors) - biases}
        listed = [f"{count:,} x {what}" for what, count in counts.items() if count]
        head = " and the task's head" if any(len(shape) > 1 for shape in own.values()) else ""
        without = "" if biases else "; this model has no biases"
        return [f"bitfit trains {', '.join(listed)}{head}{without}"]
