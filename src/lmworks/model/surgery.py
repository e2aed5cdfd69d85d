"""Change a network from outside: find and replace submodules by name. Knows nothing of what it puts in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase

from torch import nn


def named_linears(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Dotted name and module of everything that multiplies by a matrix (has in_features and out_features)."""
    for name, module in network.named_modules():
        if hasattr(module, "in_features") and hasattr(module, "out_features"):
            yield name, module


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a dotted name, or its last part, matches any of the shell-style patterns."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name.rsplit(".", 1)[-1], pattern) for pattern in patterns)


def replace(network: nn.Module, patterns: Iterable[str], make: Callable[[str, nn.Module], nn.Module]) -> list[str]:
    """Put ``make(name, module)`` in the place of every linear whose name matches; gives the names replaced."""
    wanted = list(patterns)
    found = [(name, module) for name, module in named_linears(network) if matches(name, wanted)]
    for name, module in found:
        put(network, name, make(name, module))
    return [name for name, _ in found]


def put(network: nn.Module, name: str, module: nn.Module) -> None:
    """Set the submodule with this dotted name."""
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
