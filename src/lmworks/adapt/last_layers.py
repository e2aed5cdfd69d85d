"""Only the last layers are trained: the cheapest method, since the backward pass ends at the lowest trained layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from lmworks.adapt.weights import WeightsMethod
from lmworks.base.errors import InputError
from lmworks.base.settings import Settings

if TYPE_CHECKING:
    from lmworks.model.transformer import Transformer

PARTS_ABOVE = ("norm.", "pooler.", "heads.")  # parts above the last layer, besides the language head
HEAD_PARTS = ("lm_head.", "head_transform.", "head_bias")
TIED_HEAD = "the language head is the embeddings' matrix: to train it is to train the first layer of all"


class LastLayersSettings(Settings):
    """Training of the last layers only; all below them, embeddings included, is frozen."""

    layers: int = Field(2, gt=0, description="How many, with the norm and the classification heads above them.")
    head: bool = Field(False, description="Train the language head as well; only where it is not tied to embeddings.")


class LastLayers(WeightsMethod[LastLayersSettings]):
    """Trains the last layers; in an encoder-decoder those of the decoder."""

    name = "last_layers"
    summary = "the last few layers, all below frozen"
    settings_class = LastLayersSettings
    learning_rate = 2e-4
    head_learning_rate = 5e-4
    pretraining_learning_rate = 5e-4

    def parameters(self, network: Transformer) -> Iterable[str]:
        """Parameters of the last layers and of the parts above them.

        Raises:
            InputError: there are fewer layers, they are shared with lower ones, or the head is tied.
        """
        blocks = self._blocks(network)
        if self.settings.head and network.lm_head is None:
            raise InputError(TIED_HEAD, "last_layers.head", "leave it false, or take --method full")
        parts = PARTS_ABOVE + (HEAD_PARTS if self.settings.head else ())
        beginnings = (*(f"layers.{block}." for block in blocks), *parts)
        return [name for name, _ in network.named_parameters() if name.startswith(beginnings)]

    def _blocks(self, network: Transformer) -> set[int]:
        """Indices of the modules that are the last layers."""
        depth, count = network.depth, self.settings.layers
        if count > depth:
            raise InputError(
                f"{count} layers are more than the model's {depth}",
                "last_layers.layers",
                f"--last_layers.layers {max(1, depth // 4)}, or --method full to train all",
            )
        of_layer = [index * len(network.layers) // depth for index in range(depth)]
        last = set(of_layer[depth - count :])
        if shared := last & set(of_layer[: depth - count]):
            raise InputError(
                f"the last {count} layers share their weights (block {min(shared)}) with layers below them",
                "last_layers.layers",
                f"--last_layers.layers {depth - of_layer.index(min(last))}, or another method: full, lora",
            )
        return last
