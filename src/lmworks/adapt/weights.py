"""Base class of methods that train some of a model's own weights in place; a subclass names these weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lmworks.adapt.method import AdaptedModel, Method, S
from lmworks.base.errors import InputError

if TYPE_CHECKING:
    import torch

    from lmworks.model.transformer import Transformer


class WeightsMethod(Method[S]):
    """Trains the parameters that :meth:`parameters` names; the result is a whole model."""

    _base: dict[str, torch.Tensor] | None = None

    @abstractmethod
    def parameters(self, network: Transformer) -> Iterable[str]:
        """Names of the parameters that are trained, as ``named_parameters`` gives them.

        Raises:
            InputError: the method does not fit this network.
        """

    def apply(self, network: Transformer, seed: int = 0, keep_base: bool = False) -> None:
        """See :meth:`Method.apply`."""
        self._refuse_stored(network)
        trained = set(self.parameters(network))
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in trained)
        if keep_base:
            self._base = {name: network.get_parameter(name).detach().clone() for name in trained}

    @contextmanager
    def disabled(self, network: Transformer) -> Iterator[None]:
        """See :meth:`Method.disabled`; needs ``keep_base``."""
        base = self._base_weights()
        trained = {name: network.get_parameter(name).data for name in base}
        _set(network, base)
        try:
            yield
        finally:
            _set(network, trained)

    def detach(self, network: Transformer) -> None:
        """See :meth:`Method.detach`; needs ``keep_base``."""
        _set(network, self._base_weights())
        self._base = None
        network.requires_grad_(False)

    def merge(self, network: Transformer) -> None:
        """The trained weights are the model's own: nothing is merged."""
        network.requires_grad_(False)

    def save(self, model: AdaptedModel, folder: Path, base: str) -> None:
        """Write the whole model."""
        model.save(folder)

    def _refuse_stored(self, network: Transformer) -> None:
        """Raise if a weight to be trained is stored in fewer bits than float32."""
        from lmworks.model.stored_layers import stored_layers
        from lmworks.model.trained_parameters import meta_network

        stored = {f"{name}.weight": layer.storage.dtype_name for name, layer in stored_layers(network)}
        if not stored:
            return
        for name in self.parameters(meta_network(network.config)):
            if name in stored:
                raise InputError(
                    f"{self.name} trains {name}, which is held in {stored[name]}",
                    "train.base_precision",
                    "leave it float32, or take --method lora",
                )

    def _base_weights(self) -> dict[str, torch.Tensor]:
        if self._base is None:
            raise InputError(
                f"{self.name} trains the model's own weights, and no copy of them was kept",
                hint="apply it with keep_base=True, or open the base again",
            )
        return self._base


def _set(network: Transformer, tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        network.get_parameter(name).data = tensor
