"""Adapters of a network: modules around its linears and tables, and virtual tokens; find, disable, merge, detach them.

Independent of any method and of the kinds of the network's modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import nn

from lmworks.base.errors import InputError
from lmworks.model.adapter_terms import Term
from lmworks.model.storage import WeightStorage
from lmworks.model.stored_layers import StoredEmbedding, StoredLinear, stored_layers
from lmworks.model.surgery import put
from lmworks.model.transformer import Transformer
from lmworks.model.virtual_tokens import VirtualTokens

VOCABULARY = ("embed_tokens.weight", "lm_head.weight", "head_bias")
"""Parameters with an element or a row for each token."""
SAMPLE = 64  # elements by which another base is recognized


class Adapter(nn.Module):
    """A module that wraps a linear of the base model, or its embeddings; these are frozen.

    A subclass implements ``forward``, which computes its change of the linear if :attr:`active`, and
    :meth:`merged_weight` (and :meth:`merged_bias`, if that changes too) unless it is not ``mergeable``.

    Args:
        base: any module with ``forward`` and a ``weight``, or a storage of it.

    Class attributes:
        mergeable: whether a plain layer can compute the same.
    """

    mergeable: ClassVar[bool] = True

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.enabled = True
        self._unmerged: nn.Parameter | None = None
        self._unmerged_bias: nn.Parameter | None = None
        # the base, while a plain layer has the merged weight
        self._stored: StoredLinear | StoredEmbedding | None = None
        base.requires_grad_(False)

    @property
    def in_features(self) -> int:
        """Of the linear; embeddings have none."""
        return int(self.base.in_features)  # type: ignore[arg-type]

    @property
    def out_features(self) -> int:
        """Of the linear; embeddings have none."""
        return int(self.base.out_features)  # type: ignore[arg-type]

    @property
    def merged(self) -> bool:
        """Whether the base's weight contains the update."""
        return self._unmerged is not None

    @property
    def active(self) -> bool:
        """Whether ``forward`` computes the update: neither disabled nor merged into the base's weight."""
        return self.enabled and not self.merged

    @property
    def saves_input(self) -> bool:
        """Whether the linear's input is saved for the backward pass."""
        return True

    @property
    def saved_elements(self) -> int:
        """Elements per token that are saved for the backward pass, besides the linear's input."""
        return 0

    def fused_term(self) -> tuple[Term | None, tuple[nn.Parameter, ...]]:
        """Its term in a fused block and the term's tensors (model/linear_parameters); None: it has none, and the block
        runs module by module."""
        return None, ()

    def merged_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight (out_features, in_features), in float64, of a plain linear that computes the same.

        Raises:
            InputError: there is no such linear.
        """
        raise _unmergeable("the adapter of a linear cannot be merged into its weight")

    def merged_bias(self, bias: nn.Parameter) -> torch.Tensor:
        """The bias (out_features,) of a plain linear that computes the same."""
        return bias

    @torch.no_grad()
    def merge(self) -> None:
        """Change the base's weight so that it computes the same without the adapter; the original is kept, so that
        unmerge is exact.

        Raises:
            InputError: it is not ``mergeable``.
            TypeError: the base has no plain weight to change.
        """
        if self.merged:
            return
        if isinstance(self.base, StoredLinear | StoredEmbedding):
            self._stored, self.base = self.base, self.base.widened()
        weight = getattr(self.base, "weight", None)
        if not isinstance(weight, nn.Parameter) or not weight.dtype.is_floating_point:
            raise TypeError(f"an update cannot be merged into a {type(self.base).__name__}")
        bias = getattr(self.base, "bias", None)
        self.base.weight = nn.Parameter(self.merged_weight(weight).to(weight.dtype), requires_grad=False)
        self._unmerged = weight
        if bias is not None and (changed := self.merged_bias(bias)) is not bias:
            self.base.bias, self._unmerged_bias = nn.Parameter(changed.to(bias.dtype), requires_grad=False), bias

    def unmerge(self) -> None:
        """Restore the base's original weight and bias, bit for bit."""
        if self._unmerged is not None:
            self.base.weight, self._unmerged = self._unmerged, None
        if self._unmerged_bias is not None:
            self.base.bias, self._unmerged_bias = self._unmerged_bias, None
        if self._stored is not None:
            self.base, self._stored = self._stored, None


def device_of(module: nn.Module) -> torch.device:
    """Where the parameters or buffers of a module are; the CPU if it has none."""
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))


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
    if next(adapters(network), None) is not None or _virtual_tokens(network) is not None:
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
    virtual = _virtual_tokens(network)
    were_enabled = virtual is not None and virtual.enabled
    for module, _, _ in before:
        module.enabled = False
        module.unmerge()
    if virtual is not None:
        virtual.enabled = False
    try:
        yield
    finally:
        for module, enabled, was_merged in before:
            module.enabled = enabled
            if was_merged:
                module.merge()
        if virtual is not None:
            virtual.enabled = were_enabled


def refuse_unmergeable(network: nn.Module) -> None:
    """Raise if a network has virtual tokens, or an adapter that no plain linear can replace.

    Raises:
        InputError: it has.
    """
    if _virtual_tokens(network) is not None:
        raise _unmergeable("virtual tokens cannot be merged into weights")
    for name, module in adapters(network):
        if not module.mergeable:
            raise _unmergeable(f"the adapter of {name} cannot be merged into its weight")


def _unmergeable(fault: str) -> InputError:
    hint = "copy the adapter's folder instead (of a run: its folder final); lmworks opens it with its base"
    return InputError(f"{fault}: no plain linear computes the same", hint=hint)


def merge(network: nn.Module) -> None:
    """Merge all adapters and replace them with their plain linears.

    Raises:
        InputError: one of them cannot be merged; nothing is changed.
    """
    refuse_unmergeable(network)
    merge_possible(network)


def merge_possible(network: nn.Module) -> None:
    """Merge the adapters that can be merged; the others stay as they are."""
    for name, module in list(adapters(network)):
        if module.mergeable:
            module.merge()
            put(network, name, module.base)


@contextmanager
def merged(network: nn.Module) -> Iterator[None]:
    """Within this block all adapters are merged and replaced with their plain linears, as in a plain model.

    Raises:
        InputError: one of them cannot be merged; nothing is changed.
    """
    refuse_unmergeable(network)
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
    if isinstance(network, Transformer):
        network.virtual_tokens = None


def _virtual_tokens(network: nn.Module) -> VirtualTokens | None:
    return network.virtual_tokens if isinstance(network, Transformer) else None


def fingerprint(network: nn.Module) -> str:
    """A short hash of a few elements of each base weight; independent of storage format and adapters."""
    digest = hashlib.sha256()
    for name, weight in sorted(_base_weights(network).items()):
        sample = _sample(weight).to(device="cpu", dtype=torch.bfloat16)
        digest.update(f"{name} {tuple(weight.shape)}".encode() + sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def weight_sample(network: nn.Module) -> list[float]:
    """Some elements of the matrices of the base's layers, at most 64; empty where there are none.

    Those of the same model that was rounded or trained further are nearly the same, which a fingerprint does not show:
    see adapter_base.check_base.
    """
    weights = sorted(_base_weights(network).items())
    matrices = [weight for name, weight in weights if "layers." in name and len(weight.shape) == 2]
    matrices = matrices[:: max(len(matrices) // SAMPLE, 1)][:SAMPLE]
    parts = [_sample(weight, -(-SAMPLE // len(matrices))).tolist() for weight in matrices]
    return [float(f"{number:.4g}") for part in parts for number in part][:SAMPLE]


def _base_weights(network: nn.Module) -> dict[str, torch.Tensor | WeightStorage]:
    """The weights of the base by their names, as they are without adapters."""
    own: dict[str, torch.Tensor | WeightStorage] = {
        f"{name}.weight".replace(".base.", "."): module.storage for name, module in stored_layers(network)
    }
    own |= {name.replace(".base.", "."): tensor for name, tensor in _base_parameters(network)}
    config = getattr(network, "config", None)
    if config is not None and not config.language_head:  # the head of a task is trained with the adapter
        own = {name: weight for name, weight in own.items() if not name.startswith(("heads.", "pooler."))}
    if grown_from := getattr(network, "grown_from", None):  # new tokens are no part of the base
        tables = {name: weight for name, weight in own.items() if name in VOCABULARY}
        own |= {name: _first_rows(weight, grown_from) for name, weight in tables.items()}
    return own


def _first_rows(weight: torch.Tensor | WeightStorage, count: int) -> torch.Tensor | WeightStorage:
    return weight[:count] if isinstance(weight, torch.Tensor) else weight.rows(slice(count))


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
    virtual = _virtual_tokens(network)
    if virtual is not None:
        added |= {id(own) for own in virtual.parameters()}
    for name, parameter in network.named_parameters():
        if id(parameter) not in added:
            yield name, parameter
