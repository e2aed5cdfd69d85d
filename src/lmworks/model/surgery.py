"""Changes to a network from outside: find its linears, replace submodules, take changes back and make them again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
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


ABSENT = object()


class Entry(NamedTuple):
    """One attribute, submodule, parameter or buffer of a module, before a change and after it; ABSENT where it has none
    of this name.

    Attributes:
        entries: the module's dictionary that has it.
    """

    entries: dict[str, Any]
    name: str
    before: Any
    after: Any


Snapshot = list[tuple[dict[str, Any], dict[str, Any]]]


def snapshot(network: nn.Module) -> Snapshot:
    """What each module of a network consists of: its dictionaries of attributes, submodules, parameters and buffers,
    each with a copy. No tensor is copied."""
    dictionaries = (
        entries
        for module in network.modules()
        for entries in (vars(module), module._modules, module._parameters, module._buffers)
    )
    return [(entries, dict(entries)) for entries in dictionaries]


class Change:
    """What was changed in the modules of a network: it can be taken back and made again.

    Changes of the same network can take turns, as long as each is taken back before another is made. Both ways only
    references are set, however large the modules are. Numbers that were changed inside of a tensor are not noticed.

    Args:
        before: the network's snapshot before it was changed.
    """

    def __init__(self, before: Snapshot) -> None:
        self.entries = [
            Entry(entries, name, earlier.get(name, ABSENT), entries.get(name, ABSENT))
            for entries, earlier in before
            for name in {**earlier, **entries}
            if earlier.get(name, ABSENT) is not entries.get(name, ABSENT)
        ]

    @property
    def modules(self) -> list[nn.Module]:
        """The modules that it puts into the network."""
        return [entry.after for entry in self.entries if isinstance(entry.after, nn.Module)]

    def undo(self, device: torch.device) -> None:
        """Take it back; what comes back into the network goes to its device."""
        for entries, name, before, _ in self.entries:
            _set(entries, name, before, device)

    def redo(self, device: torch.device) -> None:
        """Make it again; what it puts into the network goes to the network's device."""
        for entries, name, _, after in self.entries:
            _set(entries, name, after, device)


def _set(entries: dict[str, Any], name: str, value: Any, device: torch.device) -> None:
    if value is ABSENT:
        del entries[name]
        return
    if isinstance(value, nn.Module):
        parameter = next(value.parameters(), None)
        if parameter is not None and parameter.device != device:
            value.to(device)
    elif isinstance(value, torch.Tensor) and value.device != device:
        value.data = value.data.to(device)
    entries[name] = value
