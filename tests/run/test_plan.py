"""A plan's figures are those of the model it plans for, and follow from the settings as they should."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lmworks.adapt.lora import LoRASettings
from lmworks.adapt.method import Method
from lmworks.adapt.registry import make
from lmworks.base.probes import Rates
from lmworks.data.sampler import BatchSampler
from lmworks.model import sizes, training_cost
from lmworks.model.config import ModelConfig
from lmworks.run import plan
from lmworks.run import timing as timing_module
from lmworks.run.footprint import DataStatistics, ProcessMemory
from lmworks.run.largest_row import LargestRow, largest_possible
from lmworks.run.timing import Timing
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
LORA = LoRASettings(rank=4)
LENGTHS = [10, 20, 30, 15, 5]
TIMING = Timing(step=0.1, step_tokens=40, evaluation=0.001, answer=0.0, answer_rows=0)


def _rates(**changes: float) -> Rates:
    values = dict.fromkeys(Rates.__dataclass_fields__, 0)
    return Rates(**(values | {"float32": 100.0, "bfloat16": 0.5, "share": 1.0} | changes))  # type: ignore[arg-type]


def _plan(method: str = "lora", lora: LoRASettings | None = LORA, **changes: object) -> plan.Plan:
    train = TrainSettings(**({"precision": "float32", "batch_size": 2, "row_tokens": 32} | changes))  # type: ignore[arg-type]
    return _make(
        CONFIG, train, DataStatistics(LENGTHS, loss_tokens=40), method=make(method, lora if method == "lora" else None)
    )


def _make(
    config: ModelConfig,
    train: TrainSettings,
    documents: DataStatistics,
    rates: Rates | None = None,
    method: Method | None = None,
) -> plan.Plan:
    return plan.make(config, method or make("full"), train, documents, ProcessMemory(), rates or _rates(), TIMING)


def test_adapters_are_those_that_attaching_makes() -> None:
    from lmworks.adapt.lora import LoRA
    from lmworks.model.transformer import Transformer

    for targets in (["q_proj", "v_proj"], ["all-linear"], ["layers.1.mlp.*"]):
        settings = LoRASettings(rank=4, target_modules=targets)
        network = Transformer(CONFIG)
        LoRA(settings).apply(network)
        trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
        assert _plan(lora=settings).trainable == trainable


def test_full_trains_everything() -> None:
    created = _plan("full")
    assert created.trainable == created.parameters == sizes.parameters(CONFIG)["total"]
    assert created.memory["optimizer"] == 8 * created.parameters
    assert created.disk["final"] == 4 * created.parameters + plan.TOKENIZER_BYTES * CONFIG.vocab_size


def test_steps_and_tokens_follow_from_epochs_or_steps() -> None:
    assert (_plan(epochs=2).steps, _plan(epochs=2).tokens) == (6, 160)
    assert (_plan(steps=9).steps, _plan(steps=9).tokens) == (9, 240)
    assert _plan(steps=3, batch_size=10).tokens == 3 * 2 * 80  # a step sees every document twice
    taken = [index for step in BatchSampler(len(LENGTHS), 2, steps=2) for index in step]
    assert _plan(steps=2).tokens == sum(LENGTHS[index] for index in taken)  # exactly, where an epoch ends early
    assert _plan(epochs=1e-9).steps == 1
    assert _plan(epochs=1e-9).tokens == sum(LENGTHS[index] for index in taken[:2])
    assert _plan(epochs=2).flops["total"] == 2 * _plan().flops["total"]
    assert _plan().loss_tokens == 40


def test_flops_are_those_of_sizes() -> None:
    created = _plan()
    expected = training_cost.training_flops(CONFIG, make("lora", LORA).trained_parameters(CONFIG), 80, 40, LENGTHS)
    assert created.flops == {**vars(expected), "total": expected.total}


def test_time_is_what_the_timed_documents_took_for_all_tokens() -> None:
    train = TrainSettings(precision="float32", batch_size=2, row_tokens=32)
    documents = DataStatistics(LENGTHS, evaluation_tokens=25, held_out_tokens=20, answer_rows=4, answer_steps=15)
    timing = Timing(step=0.2, step_tokens=40, evaluation=0.001, answer=0.01, answer_rows=4)
    created = plan.make(CONFIG, make("full"), train, documents, ProcessMemory(), _rates(), timing)
    measuring = {"before": 0.175, "during": 0.0, "after": 0.175, "evaluation": 0.35}
    assert created.seconds == pytest.approx({"training": 0.4, **measuring, "total": 0.75})
    assert created.rate == pytest.approx(created.flops["total"] / 0.4)
    often = train.model_copy(update={"evaluate_every": 2})  # of 3 steps: after the second, and the last
    created = plan.make(CONFIG, make("full"), often, documents, ProcessMemory(), _rates(), timing)
    assert created.seconds["during"] == pytest.approx(2 * 20 * 0.001)
    (line,) = (line for line in created.lines() if line.startswith("time"))
    assert "0.79 s: training 0.40 s, evaluation before 0.17 s, during 0.040 s, after 0.17 s (float32" in line


def test_a_time_measured_on_a_busy_machine_is_said_to_be_one() -> None:
    train = TrainSettings(precision="float32")
    notes = [
        plan.make(
            CONFIG,
            make("full"),
            train,
            DataStatistics(LENGTHS),
            ProcessMemory(),
            _rates(),
            replace(TIMING, is_undisturbed=is_undisturbed),
        ).note
        for is_undisturbed in (True, False)
    ]
    assert notes[0] == ""
    assert "other programs" in notes[1]
    assert "unreliable" in notes[1]


def test_a_model_too_large_to_be_tried_takes_the_time_of_its_products_at_least(monkeypatch) -> None:
    monkeypatch.setattr(timing_module, "LARGEST_NETWORK_BYTES", 1)
    monkeypatch.setattr(plan.product_rates, "fastest_rates", lambda: _rates(bfloat16=400.0))
    documents = DataStatistics(LENGTHS, evaluation_tokens=48)
    token = sizes.forward_flops(CONFIG, 16, 16).total / 16  # of a document of the mean length
    for precision, rate in (("float32", 100e9), ("bfloat16", 400e9)):
        train = TrainSettings(precision=precision)
        created = plan.make(CONFIG, make("full"), train, documents, ProcessMemory(), _rates())
        assert created.seconds["training"] == pytest.approx(created.flops["total"] / rate)
        assert created.seconds["before"] == pytest.approx(48 * token / 100e9)  # in float32
        assert "at least" in created.note


@pytest.mark.parametrize("unknown", ["float32", "bfloat16"])
def test_a_time_without_a_rate_is_not_known(unknown: str, monkeypatch) -> None:
    monkeypatch.setattr(timing_module, "LARGEST_NETWORK_BYTES", 1)
    rates = _rates(**({"float32": 100.0, "bfloat16": 400.0} | {unknown: 0}))
    monkeypatch.setattr(plan.product_rates, "fastest_rates", lambda: rates)
    train = TrainSettings(precision="bfloat16")
    created = plan.make(CONFIG, make("full"), train, DataStatistics(LENGTHS), ProcessMemory())
    assert created.seconds == {}
    assert [line for line in created.lines() if line.startswith("time        not known (bfloat16, ")]


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({}, [2]),  # the longest; nothing of its step has room beside it
        ({"row_tokens": 1024}, [2, 1]),  # no more than a step has
        ({"row_tokens": 8}, [2]),  # a document is never divided
        ({"row_tokens": 37, "batch_size": 5}, [2, 4]),
        ({"packing": False}, [2, 1]),
        ({"steps": 1, "batch_size": 10, "row_tokens": 60}, [2, 2]),  # a document comes again
    ],
)
def test_largest_row(changes: dict, row: list[int]) -> None:
    train = TrainSettings(**({"batch_size": 2, "row_tokens": 32} | changes))
    assert largest_possible(LENGTHS, train) == row


BOTH = CONFIG.model_copy(update={"architecture": "encoder-decoder", "num_decoder_layers": 2, "positions": "relative"})
ENCODER = CONFIG.model_copy(update={"architecture": "encoder", "norm_position": "post", "head_transform": True})
SOURCES = [12, 8, 30, 9, 5]


@pytest.mark.parametrize(("config", "sources"), [(CONFIG, []), (ENCODER, []), (BOTH, SOURCES)])
def test_every_kind_from_scratch(config: ModelConfig, sources: list[int]) -> None:
    train = TrainSettings(precision="float32", batch_size=2, row_tokens=64, epochs=3)
    created = _make(config, train, DataStatistics(LENGTHS, sources, loss_tokens=12, evaluation_tokens=50))
    assert created.trainable == created.parameters == sizes.parameters(config)["total"]
    assert created.tokens == 3 * (sum(LENGTHS) + sum(sources))
    assert created.loss_tokens == 36
    once = training_cost.training_flops(
        config, make("full").trained_parameters(config), sum(LENGTHS), 12, LENGTHS, sources or None
    )
    assert created.flops["total"] == 3 * once.total
    assert created.seconds["total"] > created.seconds["training"] > created.seconds["evaluation"] > 0
    more = _make(config, train, DataStatistics(LENGTHS, sources))
    assert more.flops["head"] > created.flops["head"]
    recomputed = _make(config, train.model_copy(update={"recompute": 9}), DataStatistics(LENGTHS, sources))
    assert created.memory["activations"] > recomputed.memory["activations"] > 0


def test_padded_rows_are_as_long_as_the_longest() -> None:
    train = TrainSettings(precision="float32", batch_size=2, packing=False)
    padded = LargestRow.of(LENGTHS, SOURCES, train)
    assert (padded.lengths, padded.sources, padded.rows_per_step) == ([30, 30], [30, 30], 1)
    packed = LargestRow.of(LENGTHS, [], TrainSettings(batch_size=2, row_tokens=20))
    assert (packed.lengths, packed.sources, packed.rows_per_step) == ([30], [], 2)


def test_a_rate_finder_keeps_the_weights_it_began_with() -> None:
    assert _plan(find_learning_rate=True).memory["rate finder"] == 4 * _plan().trainable
    assert _plan().memory["rate finder"] == 0


def test_memory_moves_as_it_should() -> None:
    assert _plan(recompute=2).memory["activations"] < _plan().memory["activations"]
    assert _plan(row_tokens=1024).memory["activations"] > _plan().memory["activations"]
    assert _plan("full").memory["total"] > _plan().memory["total"]
    for created in (_plan(), _plan("full")):
        assert created.memory["total"] == sum(size for part, size in created.memory.items() if part != "total")


def test_a_plan_can_be_written_and_read() -> None:
    created = _plan()
    assert json.loads(json.dumps(created.event()))["trainable"] == created.trainable
    text = "\n".join(created.lines())
    for word in ("parameters", "work", "time", "memory", "disk", "activations"):
        assert word in text


def test_a_limit_of_time_shortens_the_plan():
    plan = _plan()
    seconds = {"training": 40.0, "before": 1.0, "after": 1.0, "evaluation": 2.0, "total": 42.0}
    whole = replace(plan, seconds=seconds)
    half = whole.within(20.0)
    assert (half.seconds["training"], half.seconds["total"]) == (20.0, 22.0)
    assert half.steps == round(plan.steps / 2)
    assert half.flops["total"] == round(plan.flops["total"] / 2)
    assert whole.within(None) == whole.within(50.0) == whole
