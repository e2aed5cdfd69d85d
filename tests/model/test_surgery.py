"""Changes of a network are taken back and made again; what they leave alone is not touched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lmworks.model.surgery import Change, put, snapshot

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"inner": nn.Sequential(nn.Linear(3, 3), nn.ReLU()), "last": nn.Linear(3, 2)})


def changed(module: nn.Module) -> Change:
    before = snapshot(module)
    put(module, "inner.0", nn.Sequential(module["inner"][0], nn.Tanh()))
    module["last"].bias = None
    module["last"].scale = 3
    del module["inner"][1]
    return Change(before)


def test_back_and_forth_gives_the_same_modules():
    module = network()
    names, modules = set(module.state_dict()), dict(module.named_modules())
    change = changed(module)
    after = dict(module.named_modules())
    change.undo(CPU)
    assert dict(module.named_modules()) == modules
    assert set(module.state_dict()) == names
    assert not hasattr(module["last"], "scale")
    change.redo(CPU)
    assert dict(module.named_modules()) == after
    assert module["last"].bias is None
    assert module["last"].scale == 3
    assert [type(part) for part in change.modules] == [nn.Sequential]


def test_nothing_changed_is_no_change():
    module = network()
    before = snapshot(module)
    module.requires_grad_(False)
    with torch.no_grad():
        module["last"].weight.zero_()
    assert Change(before).entries == []


@pytest.mark.parametrize("moved", ["undo", "redo"])
def test_what_comes_back_goes_to_the_device_of_the_rest(moved):
    module = network()
    before = snapshot(module)
    put(module, "inner.0", nn.Sequential(module["inner"][0], nn.Tanh()))
    change = Change(before)
    if moved == "redo":
        change.undo(CPU)
    getattr(change, moved)(torch.device("meta"))
    part = module["inner"][0] if moved == "undo" else module["inner"][0][0]
    assert part.weight.device.type == "meta"
