"""Tables are read both ways, and say by name what does not fit."""

from __future__ import annotations

import pytest
import torch

from lmworks.base.errors import InputError
from lmworks.families.mapping import (
    ModulePart,
    Rename,
    Row,
    Split,
    expand,
    our_modules,
    their_place,
    to_ours,
    to_theirs,
)

TABLE: list[Row] = [
    Rename("wte.weight", "embed.weight"),
    Rename("h.{i}.out.weight", "layers.{i}.o.weight", transpose=True),
    Split("h.{i}.qkv.weight", tuple(f"layers.{{i}}.{part}.weight" for part in "qkv"), (4, 2, 2), transpose=True),
    Split("h.{i}.qkv.bias", tuple(f"layers.{{i}}.{part}.bias" for part in "qkv"), (4, 2, 2)),
]
ROWS = expand(TABLE, 2)


def theirs() -> dict[str, torch.Tensor]:
    created = {"wte.weight": torch.randn(7, 3)}
    for layer in range(2):
        created[f"h.{layer}.out.weight"] = torch.randn(5, 3)
        created[f"h.{layer}.qkv.weight"] = torch.randn(3, 8)
        created[f"h.{layer}.qkv.bias"] = torch.randn(8)
    return created


def test_there_and_back_is_the_same() -> None:
    created = theirs()
    ours = to_ours(ROWS, created)
    assert torch.equal(ours["layers.1.o.weight"], created["h.1.out.weight"].t())
    assert torch.equal(ours["layers.1.k.weight"], created["h.1.qkv.weight"][:, 4:6].t())
    assert torch.equal(ours["layers.0.v.bias"], created["h.0.qkv.bias"][6:])
    assert all(tensor.is_contiguous() for tensor in ours.values())
    back = to_theirs(ROWS, ours)
    assert back.keys() == created.keys()
    assert all(torch.equal(back[name], created[name]) for name in created)


def test_equal_shares_need_equal_parts() -> None:
    row = Split("a", ("x", "y", "z"))
    assert [len(part) for part in to_ours([row], {"a": torch.ones(6)}).values()] == [2, 2, 2]
    with pytest.raises(InputError, match="7 rows"):
        to_ours([row], {"a": torch.ones(7)})


def test_what_does_not_fit_is_named() -> None:
    created = theirs()
    with pytest.raises(InputError, match=r"missing: h\.1\.qkv\.bias"):
        to_ours(ROWS, {name: tensor for name, tensor in created.items() if name != "h.1.qkv.bias"}, place="file")
    with pytest.raises(InputError, match=r"file: .*h\.0\.mask"):
        to_ours(ROWS, created | {"h.0.mask": torch.ones(1)}, place="file")
    assert (
        to_ours(ROWS, created | {"h.0.mask": torch.ones(1)}, ignored=[r".*\.mask"]).keys()
        == to_ours(ROWS, created).keys()
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in to_ours(ROWS, created).items()}
    with pytest.raises(InputError, match=r"wte\.weight has shape \(8, 3\)"):
        to_ours(ROWS, created | {"wte.weight": torch.ones(8, 3)}, shapes)
    with pytest.raises(InputError, match=r"wte\.weight.*x|too many extra"):
        to_theirs(ROWS, to_ours(ROWS, created) | {"extra": torch.ones(1)})


def test_module_names_go_both_ways() -> None:
    assert their_place(ROWS, "layers.1.k") == ModulePart("h.1.qkv", 1, 3, transpose=True)
    assert their_place(ROWS, "embed") == ModulePart("wte")
    assert their_place(ROWS, "nowhere") is None
    assert our_modules(ROWS, "h.1.qkv") == ("layers.1.q", "layers.1.k", "layers.1.v")
    assert our_modules(ROWS, "nowhere") == ()
