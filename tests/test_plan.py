"""A plan's figures are those of the model it plans for, and follow from the settings as they should."""

from __future__ import annotations

import json

import pytest

from lmworks import plan
from lmworks.adapt.settings import LoRASettings
from lmworks.base.machine import Rates
from lmworks.model import sizes
from lmworks.model.config import ModelConfig
from lmworks.train.settings import TrainSettings

CONFIG = ModelConfig(
    vocab_size=50,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
LENGTHS = [10, 20, 30, 15, 5]


def _rates(**changes: float) -> Rates:
    values = dict.fromkeys(Rates.__dataclass_fields__, 0)
    return Rates(**(values | {"float32": 100.0, "bfloat16": 0.5, "share": 1.0} | changes))  # type: ignore[arg-type]


def _plan(method: str = "lora", lora: LoRASettings | None = None, **changes: object) -> plan.Plan:
    train = TrainSettings(**({"precision": "float32", "batch_size": 2, "row_tokens": 32} | changes))  # type: ignore[arg-type]
    return plan.make(CONFIG, method, train, lora or LoRASettings(rank=4), LENGTHS, loss_tokens=40, rates=_rates())


def test_adapters_are_those_that_attaching_makes() -> None:
    from lmworks.adapt import attach
    from lmworks.model.transformer import Transformer

    for targets in (["q_proj", "v_proj"], ["all-linear"], ["layers.1.mlp.*"]):
        settings = LoRASettings(rank=4, targets=targets)
        network = Transformer(CONFIG)
        attach.attach(network, settings)
        trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
        assert _plan(lora=settings).trainable == trainable


def test_full_trains_everything() -> None:
    made = _plan("full")
    assert made.trainable == made.parameters == sizes.parameters(CONFIG)["total"]
    assert made.memory["optimizer"] == 8 * made.parameters
    assert made.disk["final"] == 4 * made.parameters + plan.TOKENIZER_BYTES * CONFIG.vocab_size


def test_steps_and_tokens_follow_from_epochs_or_steps() -> None:
    assert (_plan(epochs=2).steps, _plan(epochs=2).tokens) == (6, 160)
    assert (_plan(steps=10).steps, _plan(steps=10).tokens) == (10, 320)
    assert _plan(epochs=2).flops["total"] == 2 * _plan().flops["total"]
    assert _plan().loss_tokens == 40


def test_flops_are_those_of_sizes() -> None:
    made = _plan()
    adapted = plan.adapted_by(CONFIG, LoRASettings(rank=4))
    expected = sizes.training_flops(CONFIG, 80, 40, LENGTHS, adapted=adapted, rank=4)
    assert made.flops == {**vars(expected), "total": expected.total}


def test_time_is_work_over_the_rate_reached() -> None:
    made = _plan()
    assert made.rate == 100e9 * plan.EFFICIENCY["float32"]
    assert made.seconds == {"training": pytest.approx(made.flops["total"] / made.rate)}


def test_a_rate_measured_on_a_busy_machine_is_said_to_be_one() -> None:
    train = TrainSettings(precision="float32")
    quiet, busy = (plan.make(CONFIG, "lora", train, LoRASettings(), LENGTHS, rates=_rates(share=s)) for s in (1.0, 0.2))
    assert "other programs" in busy.note
    assert quiet.note == ""


def test_an_unknown_rate_gives_no_time() -> None:
    train = TrainSettings(precision="float32")
    made = plan.make(CONFIG, "lora", train, LoRASettings(), LENGTHS, rates=_rates(float32=0))
    assert made.seconds == {}
    assert any("not known" in line for line in made.lines())


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({}, 32),  # two documents, cut at row_tokens
        ({"row_tokens": 1024}, 50),  # no more than a step has
        ({"row_tokens": 8}, 30),  # a document is never divided
        ({"packing": False}, 60),  # padded to the longest
    ],
)
def test_largest_row(changes: dict, row: int) -> None:
    train = TrainSettings(**({"batch_size": 2, "row_tokens": 32} | changes))
    assert plan.largest_row(LENGTHS, train) == row


def test_memory_moves_as_it_should() -> None:
    assert _plan(recompute=True).memory["activations"] < _plan().memory["activations"]
    assert _plan(row_tokens=1024).memory["activations"] > _plan().memory["activations"]
    assert _plan("full").memory["total"] > _plan().memory["total"]
    for made in (_plan(), _plan("full")):
        assert made.memory["total"] == sum(size for part, size in made.memory.items() if part != "total")


def test_a_plan_can_be_written_and_read() -> None:
    made = _plan()
    assert json.loads(json.dumps(made.event()))["trainable"] == made.trainable
    text = "\n".join(made.lines())
    for word in ("parameters", "work", "time", "memory", "disk", "activations"):
        assert word in text
