"""Weighted sums of LoRA adapters are those of PEFT, also of different ranks and targets."""

from __future__ import annotations

import math

import pytest
import torch

from lmworks.adapt.lora_files import Factors
from lmworks.adapt.lora_sum import weighted_sum
from lmworks.base.errors import InputError

IN, OUT = {"q_proj": 24, "v_proj": 24, "up_proj": 24}, {"q_proj": 24, "v_proj": 12, "up_proj": 40}
WEIGHTS = {"a": 0.7, "b": -0.4, "c": 1.5}


def adapter(seed: int, scale: float, **ranks: int) -> dict[str, Factors]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: Factors(
            torch.randn(rank, IN[name], generator=generator), torch.randn(OUT[name], rank, generator=generator), scale
        )
        for name, rank in ranks.items()
    }


ADAPTERS = {
    "a": adapter(1, 2.0, q_proj=4, v_proj=4),
    "b": adapter(2, 0.5, q_proj=3, up_proj=3),
    "c": adapter(3, 1.0, v_proj=6),
}


def product(update: Factors) -> torch.Tensor:
    return update.scale * update.b @ update.a


def total(linear: str) -> torch.Tensor:
    return sum(WEIGHTS[name] * product(own[linear]) for name, own in ADAPTERS.items() if linear in own)


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_cat_is_the_sum_of_the_updates():
    result = weighted_sum(ADAPTERS, WEIGHTS, "cat")
    assert {name: update.rank for name, update in result.items()} == {"q_proj": 7, "v_proj": 10, "up_proj": 3}
    for linear, update in result.items():
        same(product(update), total(linear))


@pytest.mark.parametrize("rank", [None, 2, 5, 50])
def test_svd_is_the_nearest_of_a_rank(rank):
    for linear, update in weighted_sum(ADAPTERS, WEIGHTS, "svd", rank).items():
        u, values, v = torch.linalg.svd(total(linear).double(), full_matrices=False)
        kept = 6 if rank is None else rank
        same(product(update), ((u * values)[:, :kept] @ v[:kept]).float())
        assert update.rank <= kept


def theirs(how: str, rank: int | None):
    """PEFT's own sum of the same adapters: the weight of the update of each linear."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    module = torch.nn.ModuleDict({name: torch.nn.Linear(IN[name], OUT[name], bias=False) for name in IN})
    used = {"a": ADAPTERS["a"], "b": ADAPTERS["b"]} if how != "linear" else equal_ranks()
    model = None
    for name, updates in used.items():
        update = next(iter(updates.values()))
        alpha = update.scale * update.rank
        config = peft.LoraConfig(r=update.rank, lora_alpha=alpha, target_modules=list(updates))
        if model is None:
            model = peft.get_peft_model(module, config, adapter_name=name)
        else:
            model.add_adapter(name, config)
        for linear, own in updates.items():
            layer = model.base_model.model[linear]
            layer.lora_A[name].weight.data.copy_(own.a)
            layer.lora_B[name].weight.data.copy_(own.b)
    weights = [WEIGHTS[name] for name in used]
    model.base_model.add_weighted_adapter(list(used), weights, "sum", combination_type=how, svd_rank=rank)
    linears = dict.fromkeys(name for updates in used.values() for name in updates)
    return used, {name: model.base_model.model[name].get_delta_weight("sum") for name in linears}


def equal_ranks() -> dict[str, dict[str, Factors]]:
    return {"a": adapter(1, 2.0, q_proj=4, v_proj=4), "b": adapter(2, 0.5, q_proj=4, up_proj=4)}


@pytest.mark.parametrize(("how", "rank"), [("cat", None), ("svd", None), ("svd", 2), ("linear", None)])
def test_they_are_those_of_peft(how, rank):
    used, deltas = theirs(how, rank)
    ours = weighted_sum(used, {name: WEIGHTS[name] for name in used}, how, rank)
    assert ours.keys() == deltas.keys()
    for linear, delta in deltas.items():
        torch.testing.assert_close(product(ours[linear]), delta, rtol=1e-4, atol=1e-4)


def test_linear_is_no_sum_of_updates_but_of_factors():
    used = equal_ranks()
    (one, other) = (used[name]["q_proj"] for name in "ab")
    update = weighted_sum(used, {"a": 1.0, "b": 1.0}, "linear")["q_proj"]
    same(update.b, math.sqrt(2.0) * one.b + math.sqrt(0.5) * other.b)
    assert not torch.allclose(product(update), product(one) + product(other), atol=1e-2)


@pytest.mark.parametrize(
    ("how", "rank", "words"),
    [("linear", None, "q_proj: a 4, b 3"), ("ties", None, "'ties'"), ("cat", 3, "rank 3"), ("svd", 0, "rank 0")],
)
def test_what_cannot_be_added_so_is_refused(how, rank, words):
    with pytest.raises(InputError, match=words):
        weighted_sum(ADAPTERS, WEIGHTS, how, rank)
