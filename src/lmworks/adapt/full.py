"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lmworks.adapt.method import NoSettings
from lmworks.adapt.weights import WeightsMethod

if TYPE_CHECKING:
    from lmworks.model.transformer import Transformer


class Full(WeightsMethod[NoSettings]):
    """Trains every weight."""

    name = "full"
    summary = "every weight"
    default_for = frozenset({"new"})
    learning_rate = 2e-5
    head_learning_rate = 1e-4
    pretraining_learning_rate = 5e-4

    def parameters(self, network: Transformer) -> Iterable[str]:
        """All parameters."""
        return [name for name, _ in network.named_parameters()]
