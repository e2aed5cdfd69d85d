"""Timings of small networks: positive, on a line, kept; for every method and architecture. Never how long they are."""

from __future__ import annotations

import pytest

from lmworks.adapt.last_layers import LastLayersSettings
from lmworks.adapt.registry import METHODS, make
from lmworks.base.files import cache_folder
from lmworks.model import sizes
from lmworks.model.config import ModelConfig
from lmworks.model.stored_layers import stored_layers
from lmworks.run import timing
from lmworks.run.base_weights import WeightFormat
from lmworks.run.footprint import DataStatistics, ProcessMemory, TrainingSetup
from lmworks.train.settings import TrainSettings

SIZES = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
DECODER = ModelConfig(**SIZES, num_hidden_layers=5, max_position_embeddings=64)
UNTIED = DECODER.model_copy(update={"tie_word_embeddings": False})  # a head that can be trained alone
ENCODER = DECODER.model_copy(update={"architecture": "encoder", "positions": "learned"})
BOTH = DECODER.model_copy(update={"architecture": "encoder-decoder", "num_decoder_layers": 4})


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path))
    monkeypatch.setattr(timing, "MOST_SECONDS", 0.0)


def _setup(config: ModelConfig, method: str = "lora", sources: list[int] | None = None) -> TrainingSetup:
    documents = DataStatistics([9, 12, 30, 7], sources or [], loss_tokens=29)
    train = TrainSettings(precision="float32", batch_size=2)
    return TrainingSetup.of(
        config, make(method).trained_parameters(config), train, "float32", documents, ProcessMemory()
    )


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.trains])
def test_every_method_is_timed(method):
    config = UNTIED.model_copy(update={"hidden_size": 32})  # whole blocks, for the methods that round weights in blocks
    result = timing.read_or_measure(_setup(config, method), make(method), answer_rows=3)
    assert result is not None
    assert min(result.step, result.evaluation, result.answer) > 0
    assert result.step_tokens == 9 + 30  # two documents, spread over the lengths


@pytest.mark.parametrize(("config", "sources"), [(ENCODER, None), (BOTH, [4, 8, 15, 16])])
def test_every_architecture_is_timed(config, sources):
    writes = config.architecture != "encoder"
    result = timing.read_or_measure(_setup(config, "full", sources), make("full"), answer_rows=2 * writes)
    assert result is not None
    assert result.step > 0
    assert (result.answer > 0) == writes


@pytest.mark.parametrize("weights", [WeightFormat("bfloat16"), WeightFormat("stored", block_format="Q4_1")])
def test_the_timed_network_has_the_weights_of_the_run(weights, monkeypatch):
    formats = []
    original = timing._step_seconds

    def step_seconds(network, *rest):
        formats.append({layer.storage.dtype_name for _, layer in stored_layers(network)})
        return original(network, *rest)

    monkeypatch.setattr(timing, "_step_seconds", step_seconds)
    monkeypatch.setattr(timing, "UNDISTURBED_SHARE", 0.0)
    wide = DECODER.model_copy(update={"hidden_size": 32, "num_attention_heads": 4})
    result = timing.read_or_measure(_setup(wide).with_weights(weights), make("lora"), answer_rows=2)
    assert result is not None
    assert formats == [{weights.block_format or weights.precision}] * 2
    timing.read_or_measure(_setup(wide), make("lora"), answer_rows=2)
    assert formats[2:] == [set()] * 2  # not the cached one of other weights


def _refuse_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_measure_step", "_measure_inference"):
        monkeypatch.setattr(timing, name, lambda *_, name=name: pytest.fail(f"measured again: {name}"))


def test_a_quiet_measurement_is_kept_for_this_run_and_no_other(monkeypatch):
    monkeypatch.setattr(timing, "UNDISTURBED_SHARE", 0.0)
    first = timing.read_or_measure(_setup(DECODER), make("lora"))
    assert timing.read_or_measure(_setup(DECODER), make("lora")) == first
    _refuse_to_measure(monkeypatch)
    assert timing.read_or_measure(_setup(DECODER), make("lora")) == first
    with pytest.raises(pytest.fail.Exception, match="measured again: _measure_step"):
        timing.read_or_measure(_setup(DECODER, "full"), make("full"))
    (cache_folder() / "measurements.json").unlink()
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        timing.read_or_measure(_setup(DECODER), make("lora"))


def test_evaluation_is_measured_once_for_all_settings_of_training(monkeypatch):
    monkeypatch.setattr(timing, "UNDISTURBED_SHARE", 0.0)
    first = timing.read_or_measure(_setup(DECODER), make("lora"), answer_rows=2)
    monkeypatch.setattr(timing, "_measure_inference", lambda *_: pytest.fail("measured again"))
    recomputed = _setup(DECODER).with_settings(recompute=2, row_tokens=32)
    second = timing.read_or_measure(recomputed, make("lora"), answer_rows=2)
    assert (second.evaluation, second.answer) == (first.evaluation, first.answer)
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        timing.read_or_measure(recomputed, make("lora"), answer_rows=3)


def test_a_disturbed_measurement_is_kept_for_a_short_time(monkeypatch):
    monkeypatch.setattr(timing, "UNDISTURBED_SHARE", 2.0)
    result = timing.read_or_measure(_setup(DECODER), make("lora"))
    assert result is not None
    assert not result.is_undisturbed
    _refuse_to_measure(monkeypatch)
    assert timing.read_or_measure(_setup(DECODER), make("lora")) == result
    monkeypatch.setattr(timing.measurements, "REPEAT_AFTER", 0.0)
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        timing.read_or_measure(_setup(DECODER), make("lora"))


@pytest.mark.parametrize("config", [DECODER, DECODER.model_copy(update={"num_hidden_layers": 3})])
def test_the_timed_step_of_last_layers_is_that_of_the_run(config, monkeypatch):
    """It trains the last layers alone, also of the deeper network, and its FLOPs are those of such a backward pass."""
    method = make("last_layers", LastLayersSettings(layers=2))
    trained = {}
    original = timing.accumulate_gradients

    def accumulate(network, *rest):
        result = original(network, *rest)
        names = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
        trained[network.config.num_hidden_layers] = {name.split(".")[1] for name in names if name.startswith("layers.")}
        return result

    monkeypatch.setattr(timing, "accumulate_gradients", accumulate)
    setup = TrainingSetup.of(
        config,
        method.trained_parameters(config),
        TrainSettings(precision="float32", batch_size=2),
        "float32",
        DataStatistics([9, 12, 30, 7], [], loss_tokens=29),
        ProcessMemory(),
    )
    result = timing.read_or_measure(setup, method)
    assert result is not None
    depth = config.num_hidden_layers
    assert trained == {2: {"0", "1"}, depth: {str(depth - 2), str(depth - 1)}}
    documents = timing._random_documents(setup)
    shallow, deep = (timing._shallow(config, count) for count in (2, depth))
    one = timing._step_flops(setup, method, deep, documents) - timing._step_flops(setup, method, shallow, documents)
    frozen = sizes.forward_flops(deep, 1).total - sizes.forward_flops(shallow, 1).total
    assert one < 1.5 * frozen * sum(example.size for example in documents)  # a backward pass would be twice as much


def test_whole_models_lie_on_the_line_through_shallow_ones():
    assert timing._extended({1: 1.0, 3: 2.0}, {1: 10.0, 3: 30.0}, 100.0) == pytest.approx(1.0 + 0.05 * 90)
    assert timing._extended({1: 2.0, 3: 1.0}, {1: 10.0, 3: 30.0}, 100.0) == 2.0  # noise never makes it shorter
    assert timing._extended({4: 2.0}, {4: 10.0}, 10.0) == 2.0


def test_layers_that_differ_are_shortened_with_the_model():
    kinds = ("sliding", "sliding", "full", "sliding", "full")
    mixed = DECODER.model_copy(update={"layer_kinds": kinds, "sliding_window": 8})
    assert timing._shallow(mixed, 2).layer_kinds == ("sliding", "full")
    assert sizes.parameters(timing._shallow(BOTH, 2))["total"] < sizes.parameters(BOTH)["total"]
