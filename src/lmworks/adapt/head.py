"""The head alone is trained, a linear probe (Alain & Bengio 2016): what a frozen model's hidden states tell of a task.

No gradient passes through the layers, so that a step takes about as long as a forward pass, and saves no activations.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lmworks.adapt.last_layers import HEAD_PARTS, TIED_HEAD
from lmworks.adapt.method import NoSettings
from lmworks.adapt.weights import WeightsMethod
from lmworks.base.errors import InputError

if TYPE_CHECKING:
    from lmworks.model.transformer import Transformer

OTHERS = "another method: --method lora, bitfit, last_layers or full"


class LinearProbe(WeightsMethod[NoSettings]):
    """Trains a task's head with the pooler that it reads, or a language head that is not tied to the embeddings."""

    name = "head"
    summary = "the head alone, all layers frozen"
    learning_rate = 1e-3
    head_learning_rate = 5e-3
    pretraining_learning_rate = 1e-3

    def parameters(self, network: Transformer) -> Iterable[str]:
        """Parameters of the head.

        Raises:
            InputError: the model has none, or its language head is tied to the embeddings.
        """
        from lmworks.adapt.head_weights import head_parameters

        if network.config.language_head:
            if network.lm_head is None:
                hint = f"{OTHERS}; or a task with a head of its own, such as --task classify"
                raise InputError(TIED_HEAD, "method", hint)
            return [name for name, _ in network.named_parameters() if name.startswith(HEAD_PARTS)]
        names = list(head_parameters(network))
        if not names:
            raise InputError("this task trains the model's hidden states, which no head reads", "method", OTHERS)
        return names
