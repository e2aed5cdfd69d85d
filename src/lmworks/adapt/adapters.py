"""Adapter modules around the linears of a network: find, disable, merge and detach them.

Independent of any method and of the kinds of the network's modules.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lmworks.base.errors import InputError
from lmworks.model.storage import WeightStorage
from lmworks.model.stored_layers import StoredLinear, stored_layers
from lmworks.model.surgery import put
from lmworks.model.transformer import Transformer


class Adapter(nn.Module, ABC):
    """A module that wraps a linear of the base model, which is frozen.

    A subclass implements ``forward``, which adds its update if :attr:`active`, and :meth:`merged_weight`.

    Args:
        base: the linear: any module with ``in_features``, ``out_features`` and ``forward``.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.in_features: int = int(base.in_features)  # type: ignore[arg-type]
        self.out_features: int = int(base.out_features)  # type: ignore[arg-type]
        self.base = base
        self.enabled = True
        self._unmerged: nn.Parameter | None = None
        self._stored: StoredLinear | None = None  # the base, while a plain linear holds the merged weight
        base.requires_grad_(False)

    @property
    def merged(self) -> bool:
        """Whether the base's weight contains the update."""
        return self._unmerged is not None

    @property
    def active(self) -> bool:
        """Whether ``forward`` computes the update: neither disabled nor merged into the base's weight."""
        return self.enabled and not self.merged

    @abstractmethod
    def merged_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """The base's weight plus the update, (out_features, in_features) in float64."""

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the base's weight; the original weight is kept, so that unmerge is exact.

        Raises:
            TypeError: the base has no plain weight to add to.
        """
        if self.merged:
            return
        if isinstance(self.base, StoredLinear):
            self._stored, self.base = self.base, self.base.widened()
        weight = getattr(self.base, "weight", None)
        if not isinstance(weight, nn.Parameter) or not weight.dtype.is_floating_point:
            raise TypeError(f"an update cannot be merged into a {type(self.base).__name__}")
        self._unmerged = weight
        self.base.weight = nn.Parameter(self.merged_weight(weight).to(weight.dtype), requires_grad=False)

    def unmerge(self) -> None:
        """Restore the base's original weight, bit for bit."""
        if self._unmerged is not None:
            self.base.weight, self._unmerged = self._unmerged, None
        if self._stored is not None:
            self.base, self._stored = self._stored, None


def adapters(network: nn.Module) -> Iterator[tuple[str, Adapter]]:
    """Dotted name (the wrapped linear's) and module of every adapter."""
    for name, module in network.named_modules():
        if isinstance(module, Adapter):
            yield name, module


def refuse_second(network: nn.Module) -> None:
    """Raise if a network has an adapter already.

    Raises:
        InputError: it has.
    """
    if next(adapters(network), None) is not None:
        raise InputError("this network has an adapter already", hint="merge or detach it first")


def refuse_cells(network: Transformer, method: str) -> None:
    """Raise if a network's layers are recurrent cells or convolutions, which have no linears to adapt.

    Raises:
        InputError: they are.
    """
    layer = network.config.layer
    if layer != "attention":
        fault = f"{method} updates linears, and {layer} layers have none"
        raise InputError(fault, "method", "--method full trains such a model whole, last_layers or bitfit a part of it")


@contextmanager
def disabled(network: nn.Module) -> Iterator[None]:
    """Within this block the network computes exactly as its base: adapters are disabled, merged ones are unmerged."""
    before = [(module, module.enabled, module.merged) for _, module in adapters(network)]
    for module, _, _ in before:
        module.enabled = False
        module.unmerge()
    try:
        yield
    finally:
        for module, enabled, was_merged in before:
            module.enabled = enabled
            if was_merged:
                module.merge()


def merge(network: nn.Module) -> None:
    """Merge all adapters and replace them with their plain linears."""
    for name, module in list(adapters(network)):
        module.merge()
        put(network, name, module.base)


@contextmanager
def merged(network: nn.Module) -> Iterator[None]:
    """Within this block all adapters are merged and replaced with their plain linears, as in a plain model."""
    present = [(name, module, module.merged) for name, module in adapters(network)]
    for name, module, _ in present:
        module.merge()
        put(network, name, module.base)
    try:
        yield
    finally:
        for name, module, was_merged in present:
            put(network, name, module)
            if not was_merged:
                module.unmerge()


def detach(network: nn.Module) -> None:
    """Remove all adapters, which restores the base bit for bit."""
    for name, module in list(adapters(network)):
        module.unmerge()
        put(network, name, module.base)


def fingerprint(network: nn.Module) -> str:
    """A short hash of a few elements of each base weight; independent of storage format and adapters."""
    own: dict[str, torch.Tensor | WeightStorage] = {
        f"{name}.weight".replace(".base.", "."): module.storage for name, module in stored_layers(network)
    }
    own |= {name.replace(".base.", "."): tensor for name, tensor in _base_parameters(network)}
    config = getattr(network, "config", None)
    if config is not None and not config.language_head:  # the head of a task is trained with the adapter
        own = {name: weight for name, weight in own.items() if not name.startswith(("heads.", "pooler."))}
    digest = hashlib.sha256()
    for name, weight in sorted(own.items()):
        sample = _sample(weight).to(device="cpu", dtype=torch.bfloat16)
        digest.update(f"{name} {tuple(weight.shape)}".encode() + sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def _sample(weight: torch.Tensor | WeightStorage, count: int = 16) -> torch.Tensor:
    """Up to ``count`` elements at equal intervals, in row-major order."""
    if isinstance(weight, torch.Tensor):
        flat = weight.detach().flatten()
        return flat[:: max(len(flat) // count, 1)][:count]
    rows, columns = weight.shape
    places = torch.arange(0, rows * columns, max(rows * columns // count, 1))[:count]
    return weight.rows(places // columns).dequantized().gather(1, (places % columns)[:, None]).flatten()


def _base_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    added = {id(own) for _, module in adapters(network) for own in module.parameters(recurse=False)}
    for name, parameter in network.named_parameters():
        if id(parameter) not in added:
            yield name, parameter
