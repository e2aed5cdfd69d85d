"""FLOPs of training equal the products that torch makes, whatever is trained; none is made below the lowest layer."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from test_sizes import CONFIGS, SMALL, _config
from torch.utils.flop_counter import FlopCounterMode

from lmworks.adapt.last_layers import LastLayersSettings
from lmworks.adapt.lora import LoRASettings
from lmworks.adapt.prefix_tuning import PrefixTuningSettings
from lmworks.adapt.prompt_tuning import PromptTuningSettings
from lmworks.adapt.registry import make
from lmworks.model import fused, sizes
from lmworks.model.config import ModelConfig
from lmworks.model.trained_parameters import TrainedParameters, meta_network
from lmworks.model.training_cost import frozen_layers, training_flops
from lmworks.model.transformer import Transformer


def _lora(config: ModelConfig, *targets: str, rank: int = 2) -> TrainedParameters:
    return make("lora", LoRASettings(rank=rank, target_modules=list(targets))).trained_parameters(config)


def _full(config: ModelConfig) -> TrainedParameters:
    return make("full").trained_parameters(config)


def _last(config: ModelConfig, layers: int = 1) -> TrainedParameters:
    return make("last_layers", LastLayersSettings(layers=layers)).trained_parameters(config)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_costs_three_forwards(name: str) -> None:
    config = _config(name)
    sources = [4, 6] if config.architecture == "encoder-decoder" else None
    labels = {"next_sentence": 2}
    once = sizes.forward_flops(config, 12, 12, [5, 7], sources, labels=labels)
    assert training_flops(config, _full(config), 12, 12, [5, 7], sources, labels=labels).total == 3 * once.total


@pytest.mark.parametrize("method", ["full", "last_layers"])
@pytest.mark.parametrize("name", ["llama", "untied", "gpt2", "bert", "albert", "bart", "t5"])
def test_products_are_those_that_torch_makes(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of matrices; the gradient of embeddings is none, and attention's backward is not counted here."""
    monkeypatch.setattr(fused, "can_run", lambda *_: False)  # its products in place are not counted by torch
    config = _config(name)
    network = Transformer(config)
    chosen = make(method, LastLayersSettings(layers=1) if method == "last_layers" else None)
    chosen.apply(network)
    with FlopCounterMode(display=False) as counter:
        memory = None
        if config.architecture == "encoder-decoder":
            memory = network.encode(torch.randint(0, config.vocab_size, (1, 7)))
        network(torch.randint(0, config.vocab_size, (1, 10)), memory=memory).logits.sum().backward()
    counts = counter.get_flop_counts()["Global"].items()
    matrices = sum(count for op, count in counts if str(op) in ("aten.mm", "aten.addmm"))
    expected = training_flops(
        config, TrainedParameters.of(network), 10, memory_lengths=[7] if memory is not None else None
    )
    unmade = 0
    if method == "last_layers" and config.norm_position == "post":  # q, k and v read what no trained norm has made,
        unmade = 3 * 2 * 10 * config.hidden_size**2  # but a layer counts whole
    assert matrices + unmade == expected.linears + expected.head
    if method == "last_layers":
        whole = training_flops(config, _full(config), 10, memory_lengths=[7] if memory is not None else None)
        assert expected.total < whole.total


def test_a_soft_prompt_passes_through_all_layers_and_a_prefix_through_attention() -> None:
    config, lengths = _config("llama"), [5, 7]
    soft = make("prompt_tuning", PromptTuningSettings(num_virtual_tokens=3)).trained_parameters(config)
    prefix = make("prefix_tuning", PrefixTuningSettings(num_virtual_tokens=3)).trained_parameters(config)
    longer = training_flops(config, _lora(config, "q_proj"), 18, 2, [8, 10])
    flops, of_prefix = (training_flops(config, trained, 12, 2, lengths) for trained in (soft, prefix))
    assert (flops.linears, flops.attention, flops.head) == (longer.linears, longer.attention, longer.head)
    assert (of_prefix.linears, of_prefix.attention) == (longer.linears * 12 // 18, longer.attention)
    assert flops.adapters == of_prefix.adapters == 0


def test_frozen_weights_cost_four_and_adapters_six() -> None:
    config = _config("llama")
    weights = sum(m.weights for m in sizes.linears(config))
    trained = _lora(config, "q_proj")
    flops = training_flops(config, trained, 12, 2)
    assert flops.linears == 4 * weights * 12
    assert flops.adapters == 6 * 3 * 2 * (24 + 24) * 12
    assert training_flops(config, trained, 12, 2, recompute=99).linears == 6 * weights * 12


def test_adapters_cost_what_passes_through_them() -> None:
    """Of an encoder-decoder what is read passes through the encoder and the keys and values made of it; a shared block
    is passed as often as layers share it."""
    config = _config("bart")
    trained = _lora(config, "encoder.layers.0.mlp.up_proj", "layers.1.cross_attn.k_proj")
    flops = training_flops(config, trained, 12, 0, [5, 7], [3, 4])
    assert flops.adapters == 6 * 2 * (7 * (24 + 40) + 7 * (24 + 24))
    shared = ModelConfig(**(SMALL | {"num_layer_groups": 2}))
    assert training_flops(shared, _lora(shared, "q_proj", rank=1), 10).adapters == 6 * 3 * (24 + 24) * 10


def test_an_adapter_of_the_head_costs_where_logits_are_made() -> None:
    config = _config("untied")
    assert training_flops(config, _lora(config, "lm_head"), 12, 3).adapters == 6 * 2 * (24 + 50) * 3


@pytest.mark.parametrize(
    ("name", "trained", "frozen"),
    [
        ("llama", lambda config: _full(config), {"": 0}),
        ("llama", lambda config: _last(config, 1), {"": 2}),
        ("llama", lambda config: _lora(config, "layers.1.mlp.up_proj"), {"": 1}),
        ("untied", lambda config: _lora(config, "lm_head"), {"": 3}),
        ("bart", lambda config: _last(config, 1), {"encoder.": 3, "": 1}),
        ("bart", lambda config: _lora(config, "encoder.layers.2.mlp.up_proj"), {"encoder.": 2, "": 0}),
    ],
)
def test_nothing_is_passed_back_below_the_lowest_trained_layer(name, trained, frozen) -> None:
    config = _config(name)
    assert frozen_layers(config, trained(config)) == frozen
    sources = [5] if config.architecture == "encoder-decoder" else None
    costs = [
        training_flops(config, trained(config), 6, 2, [6], sources, recompute=layers).total
        for layers in range(sum(stack.layers for stack in sizes.stacks(config)) + 1)
    ]
    recomputed = [more > fewer for fewer, more in pairwise(costs)]  # by layer; none of those that are not passed back
    assert recomputed == [
        layer >= frozen[stack.prefix] for stack in sizes.stacks(config) for layer in range(stack.layers)
    ]


def test_a_network_without_storage_has_the_names_of_a_real_one() -> None:
    config = _config("bert")
    with_storage = {name: own.shape for name, own in Transformer(config).named_parameters()}
    assert with_storage == {name: own.shape for name, own in meta_network(config).named_parameters()}
