"""Changes to a network from outside: find its linears, replace submodules."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def named_linears(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Dotted name and module of each linear: whatever has in_features and out_features."""
    for name, module in network.named_modules():
        if hasattr(module, "in_features") and hasattr(module, "out_features"):
            yield name, module


def put(network: nn.Module, name: str, module: nn.Module) -> None:
    """Set the submodule with this dotted name."""
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
