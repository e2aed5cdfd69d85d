"""What every method of the registry keeps: the base within, the same logits from disk, counts that are those it makes.

A new method is tested here by its line in the registry.
"""

from __future__ import annotations

import copy
import math
import signal
from pathlib import Path

import pytest
import torch
from tiny_model import save_questions, save_tiny, settings
from torch import nn

import lmworks
from lmworks.adapt.bottleneck import BottleneckSettings
from lmworks.adapt.last_layers import LastLayersSettings
from lmworks.adapt.lora import LoRASettings
from lmworks.adapt.method import Method, NoSettings
from lmworks.adapt.prefix_tuning import PrefixTuningSettings
from lmworks.adapt.prompt_tuning import PromptTuningSettings
from lmworks.adapt.qat import QATSettings
from lmworks.adapt.qlora import QLoRASettings
from lmworks.adapt.registry import METHODS, make, method_of
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.base.settings import Settings, build, describe
from lmworks.language_model.model import LanguageModel
from lmworks.model.config import ModelConfig
from lmworks.model.quant_types import QUANT_TYPES
from lmworks.model.quantization import quantize
from lmworks.model.storage import DenseStorage
from lmworks.model.stored_layers import store, stored_layers
from lmworks.model.trained_parameters import TrainedParameters
from lmworks.model.training_cost import training_flops
from lmworks.model.transformer import Transformer
from lmworks.run.pipeline import Run
from lmworks.run.recipe import Recipe, resolve
from lmworks.train import checkpoint

IDS = torch.arange(1, 15).reshape(2, 7)
SMALLEST: dict[str, Settings] = {"lora": LoRASettings(rank=2), "last_layers": LastLayersSettings(layers=1)}
SMALLEST |= {"qlora": QLoRASettings(rank=2)}
SMALLEST |= {"bottleneck": BottleneckSettings(kind="houlsby", size=3)}
SMALLEST |= {"prompt_tuning": PromptTuningSettings(num_virtual_tokens=2)}
SMALLEST |= {"prefix_tuning": PrefixTuningSettings(num_virtual_tokens=2)}
SMALLEST |= {"qat": QATSettings(target_modules=["self_attn.*", "gate_proj", "up_proj"])}  # down_proj: 48 columns
WHOLE = {"full", "qat"}  # they train every weight
UNMERGEABLE = {"bottleneck", "prompt_tuning", "prefix_tuning"}  # no plain weights compute the same
methods = pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.trains])


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    """Untied: a head that is the embeddings too cannot be trained alone."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", tied=False)


@pytest.fixture(name="model")
def _model(folder) -> LanguageModel:
    return lmworks.load(str(folder))


def applied(name: str, network: Transformer) -> Method:
    """A method that has changed a network, with weights as training might leave them."""
    method = make(name, SMALLEST.get(name))
    method.apply(network, seed=3, keep_base=True)
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return method


def hold_base(name: str, network: Transformer) -> None:
    """Hold the base as the method holds it, as a run does before anything is evaluated."""
    precision = make(name, SMALLEST.get(name)).base_precision
    if precision in QUANT_TYPES:
        quantize(network, precision)


def logits(network: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return network(IDS).logits


@methods
def test_switched_off_and_detached_it_is_the_base_bit_for_bit(name, model):
    network = model.network
    hold_base(name, network)
    base = logits(network)
    weights = copy.deepcopy(network.state_dict())
    method = applied(name, network)
    adapted = logits(network)
    assert not torch.allclose(adapted, base, atol=1e-3)
    with method.disabled(network):
        assert torch.equal(logits(network), base)
    assert torch.equal(logits(network), adapted)
    method.detach(network)
    assert network.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[key]) for key, tensor in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in network.parameters())


@methods
def test_merged_it_computes_the_same_with_plain_weights(name, model):
    network = model.network
    names = set(network.state_dict())
    method = applied(name, network)
    adapted, adapted_names = logits(network), set(network.state_dict())
    if name in UNMERGEABLE:
        with pytest.raises(InputError, match="cannot be merged") as caught:
            method.merge(network)
        assert "copy the adapter's folder" in caught.value.hint
        assert set(network.state_dict()) == adapted_names
    else:
        method.merge(network)
        assert set(network.state_dict()) == names
    torch.testing.assert_close(logits(network), adapted, atol=1e-5, rtol=1e-5)


@methods
def test_saved_and_loaded_it_gives_the_same_logits(name, model, folder, tmp_path):
    method = applied(name, model.network)
    adapted = logits(model.network)
    method.save(model, tmp_path / "result", str(folder))
    assert (tmp_path / "result" / "adapter_config.json").exists() == (method.peft_type is not None)
    opened = lmworks.load(str(tmp_path / "result"))
    torch.testing.assert_close(logits(opened.network), adapted, atol=1e-5, rtol=1e-5)


@methods
def test_what_is_counted_from_a_config_is_what_the_network_trains(name, model):
    method = make(name, SMALLEST.get(name))
    counted = method.trained_parameters(model.config)
    method.apply(model.network)
    assert counted == TrainedParameters.of(model.network)
    assert counted.count == sum(own.numel() for own in model.network.parameters() if own.requires_grad)
    stored = sum(math.prod(layer.storage.shape) for _, layer in stored_layers(model.network))
    whole = stored + sum(own.numel() for own in model.network.parameters()) - counted.count_added
    assert counted.frozen == whole - (counted.count - counted.count_added)
    full = training_flops(model.config, make("full").trained_parameters(model.config), 20)
    flops = training_flops(model.config, counted, 20)
    assert 0 < flops.total <= full.total
    assert (flops.total < full.total) is (name not in WHOLE)


@methods
def test_a_gradient_reaches_what_is_trained_and_nothing_else(name, model):
    network = model.network.train()
    applied(name, network)
    network(IDS).logits.square().mean().backward()
    for own, parameter in network.named_parameters():
        assert (parameter.grad is not None) is parameter.requires_grad, own


def _run(name: str, folder: Path, data: Path, out: Path) -> Run:
    values = settings()
    given = {"source": str(data), **values.pop("data")}
    values["train"] |= {"steps": 5, "checkpoint_every": 3, "learning_rate": 1e-3}
    if name in SMALLEST:
        values[name] = SMALLEST[name].model_dump()
    return lmworks.tune(str(folder), given, method=name, out=out, **values)


@methods
def test_every_method_resumes_where_it_stopped(name, folder, tmp_path, monkeypatch):
    data, save = save_questions(tmp_path / "faq.jsonl"), checkpoint.save
    whole = _run(name, folder, data, tmp_path / "whole")

    def save_and_interrupt(run, step, state):
        if not checkpoint.steps(run):
            signal.raise_signal(signal.SIGINT)
        return save(run, step, state)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save_and_interrupt)
        assert _run(name, folder, data, tmp_path / "stopped").stopped == "interrupted"
    assert len(RunFolder(tmp_path / "stopped").events("step")) == 4
    resumed = lmworks.resume(tmp_path / "stopped")
    losses = [[event["loss"] for event in RunFolder(run.folder).events("step")] for run in (resumed, whole)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 5
    assert torch.equal(logits(resumed.model.network), logits(whole.model.network))


def test_recipes_are_made_from_the_registry():
    names = {row.name for row in describe(Recipe)}
    for name, method in METHODS.items():
        assert {f"{name}.{field}" for field in method.settings_class.model_fields} <= names
        recipe = resolve({"model": "m", "data": "d", "method": name})
        assert recipe.adaptation.default_learning_rate(from_scratch=False) == method.learning_rate
        assert type(method_of(recipe)) is method
        assert f"{name}: {method.summary}" in next(row.help for row in describe(Recipe) if row.name == "method")
    assert {method.settings_class for method in METHODS.values()} - {NoSettings}
    with pytest.raises(InputError, match="method"):
        build(Recipe, {"model": "m", "data": {"source": "d"}, "method": "lara"})
    with pytest.raises(InputError, match="one of: lora, qlora, full, qat"):
        make("lara")


def test_without_a_copy_of_the_base_weights_it_says_so(model):
    method = make("full")
    method.apply(model.network)
    with pytest.raises(InputError, match="keep_base"), method.disabled(model.network):
        pass


@pytest.mark.parametrize("name", ["full", "last_layers"])
def test_weights_in_fewer_bits_are_not_trained(name, model):
    linear = model.network.layers[1].mlp.up_proj
    store(model.network, "layers.1.mlp.up_proj", DenseStorage(linear.weight.detach().bfloat16()))
    with pytest.raises(InputError, match=r"up_proj.weight, which is held in bfloat16"):
        make(name).apply(model.network)


SIZES = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4}
SIZES |= {"num_attention_heads": 4, "max_position_embeddings": 32}


class TestLastLayers:
    def trained(self, layers: int = 2, head: bool = False, **changes: object) -> set[str]:
        config = ModelConfig(**(SIZES | changes))
        return set(make("last_layers", LastLayersSettings(layers=layers, head=head)).trained_parameters(config).own)

    def beginnings(self, layers: int = 2, head: bool = False, **changes: object) -> set[str]:
        return {".".join(name.split(".")[:2]) for name in self.trained(layers, head, **changes)}

    def test_they_are_the_uppermost_layers_and_the_parts_above(self):
        assert self.beginnings() == {"layers.2", "layers.3", "norm.weight"}
        assert self.beginnings(1, head=True, tie_word_embeddings=False) == {"layers.3", "norm.weight", "lm_head.weight"}
        both = {"architecture": "encoder-decoder", "num_decoder_layers": 3}
        assert self.beginnings(1, **both) == {"layers.2", "norm.weight"}

    def test_below_them_nothing_is_saved_for_the_backward_pass(self, model):
        applied("last_layers", model.network.train())
        boundary = []
        model.network.layers[1].register_forward_pre_hook(lambda _, given: boundary.append(given[0].requires_grad))
        assert model.network(IDS).logits.requires_grad
        assert boundary == [False]

    @pytest.mark.parametrize(
        ("given", "changes", "words"),
        [
            ({"layers": 5}, {}, "more than the model's 4"),
            ({"head": True}, {}, "embeddings' matrix"),
            ({"layers": 2}, {"num_layer_groups": 1}, "share their weights"),
        ],
    )
    def test_what_it_cannot_train_is_refused_with_a_hint_that_works(self, given, changes, words):
        with pytest.raises(InputError, match=words) as caught:
            self.trained(**given, **changes)
        assert caught.value.place.startswith("last_layers.")
        if "--last_layers.layers" in caught.value.hint:
            layers = int(caught.value.hint.split("--last_layers.layers ")[1].split(",")[0])
            assert self.trained(layers, **changes)

    def test_layers_that_are_shared_among_the_last_alone_can_be_trained(self):
        assert self.beginnings(2, num_layer_groups=2) == {"layers.1", "norm.weight"}
