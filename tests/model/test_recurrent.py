"""Recurrent and convolutional layers compute what PyTorch's modules compute document by document, packed or padded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_tokenizers import byte_level
from torch import nn

from lmworks.adapt.lora import LoRA
from lmworks.base.errors import InputError
from lmworks.families.folder import open_folder, read_config, save_folder
from lmworks.families.registry import FAMILIES
from lmworks.model import sizes
from lmworks.model.activation_memory import saved_activation_bytes
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.transformer import Transformer

SIZES = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "max_position_embeddings": 32}
CONVOLUTION = {"architecture": "encoder", "kernel_sizes": (2, 3, 5), "language_head": False}
LENGTHS = (3, 7, 7, 1, 5)
RECURRENT, ALL = ("rnn", "gru", "lstm"), ("rnn", "gru", "lstm", "convolution")
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def config_of(layer: str, **changes: Any) -> ModelConfig:
    return ModelConfig(**SIZES | (CONVOLUTION if layer == "convolution" else {}) | {"layer": layer} | changes)


def drawn(config: ModelConfig) -> Transformer:
    network = Transformer(config)
    draw(network, torch.Generator().manual_seed(0))
    return network.eval()


def texts(lengths: tuple[int, ...] = LENGTHS) -> tuple[torch.Tensor, ...]:
    return torch.randint(0, 50, (sum(lengths),), generator=torch.Generator().manual_seed(1)).split(list(lengths))


def states_by_hand(network: Transformer, ids: torch.Tensor) -> torch.Tensor:
    """(T, E) hidden states of one text by one module of PyTorch."""
    config = network.config
    x = network.embed_tokens.weight[ids]
    if config.layer == "convolution":
        for layer in network.layers:
            groups = []
            for filters in layer.convolutions:
                size = filters.kernel_size[0]
                padded = nn.functional.pad(x.t(), (size // 2, (size - 1) // 2))
                windows = padded.unfold(1, size, 1)  # (E, T, size)
                groups.append(torch.einsum("ets,fes->tf", windows, filters.weight) + filters.bias)
            x = torch.cat(groups, dim=1).relu()
        return x
    module = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[config.layer](24, 24, num_layers=2)
    for number, layer in enumerate(network.layers):
        for name, weight in layer.cell.named_parameters():
            getattr(module, name.replace("l0", f"l{number}")).data.copy_(weight)
    return module(x)[0]


@pytest.mark.parametrize("layer", ALL)
def test_hidden_states_logits_and_gradients_are_those_of_pytorchs_module(layer: str) -> None:
    network = drawn(config_of(layer))
    ids = texts()[1]
    hidden = network.hidden_states(ids[None])[0]
    expected = states_by_hand(network, ids)
    torch.testing.assert_close(hidden, expected, **CLOSE)
    weight = network.embed_tokens.weight
    gradients = [torch.autograd.grad(states.square().sum(), weight)[0] for states in (hidden, expected)]
    torch.testing.assert_close(*gradients, **CLOSE)
    if layer != "convolution":
        torch.testing.assert_close(network(ids[None]).logits[0], expected @ weight.t(), **CLOSE)


@pytest.mark.parametrize("layer", ALL)
def test_packed_padded_and_one_by_one_are_equal(layer: str) -> None:
    network = drawn(config_of(layer))
    documents = texts()
    alone = torch.cat([network.hidden_states(ids[None])[0] for ids in documents])
    segments = torch.cat([torch.full((len(ids),), number) for number, ids in enumerate(documents, 1)])
    packed = network.hidden_states(torch.cat(documents)[None], segments=segments[None])[0]
    torch.testing.assert_close(packed, alone, **CLOSE)
    ids = torch.full((5, 10), 9)
    padding = torch.zeros(5, 10, dtype=torch.int64)
    for row, document in enumerate(documents):
        begin = row % 3  # padding on the left too
        ids[row, begin : begin + len(document)] = document
        padding[row, begin : begin + len(document)] = 1
    padded = network.hidden_states(ids, segments=padding)
    torch.testing.assert_close(padded[padding == 1], alone, **CLOSE)
    assert not padded[padding == 0].any()


@pytest.mark.parametrize("layer", ALL)
def test_the_gradient_of_packed_documents_is_the_sum_of_their_own(layer: str) -> None:
    network = drawn(config_of(layer)).train()
    documents = texts()
    segments = torch.cat([torch.full((len(ids),), number) for number, ids in enumerate(documents, 1)])
    network.hidden_states(torch.cat(documents)[None], segments=segments[None]).square().sum().backward()
    packed = {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}
    network.zero_grad()
    for recompute in (0, 2):  # and with activation checkpointing
        network.recompute_lowest(recompute if layer != "convolution" else 0)
        network.zero_grad()
        for ids in documents:
            network.hidden_states(ids[None]).square().sum().backward()
        for name, gradient in packed.items():
            torch.testing.assert_close(network.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-5)


def test_max_over_time_is_that_of_each_text() -> None:
    """Kim 2014, eq. 3: of packed texts as of each alone; every token has it as its state."""
    plain, config = drawn(config_of("convolution")), config_of("convolution", max_over_time=True, hidden_dropout=0.5)
    network = Transformer(config).eval()
    network.load_state_dict(plain.state_dict())
    documents = texts()
    segments = torch.cat([torch.full((len(ids),), number) for number, ids in enumerate(documents, 1)])
    packed = network.hidden_states(torch.cat(documents)[None], segments=segments[None])[0].split(list(LENGTHS))
    for ids, states in zip(documents, packed, strict=True):
        expected = plain.hidden_states(ids[None])[0].max(0).values
        torch.testing.assert_close(states, expected.expand_as(states), **CLOSE)
        gradients = []
        for pooled in (network.hidden_states(ids[None])[0, 0], plain.hidden_states(ids[None])[0].max(0).values):
            weight = (network if not gradients else plain).embed_tokens.weight
            gradients.append(torch.autograd.grad(pooled.square().sum(), weight)[0])
        torch.testing.assert_close(*gradients, **CLOSE)
    dropped = network.train().hidden_states(documents[1][None])[0]
    assert (dropped == dropped[0]).all()  # one draw a text, of the maxima alone
    assert 0.2 < float((dropped[0] == 0).float().mean()) < 0.9


def test_a_row_of_padding_alone_is_zeros() -> None:
    for layer in ALL:
        network = drawn(config_of(layer))
        assert not network.hidden_states(torch.ones(1, 4, dtype=torch.int64), segments=torch.zeros(1, 4).long()).any()


@pytest.mark.parametrize("layer", ALL)
def test_parameters_and_flops_are_counted(layer: str) -> None:
    config = config_of(layer, heads=[{"name": "label", "kind": "first", "size": 3}])
    network = Transformer(config)
    parts = sizes.parameters(config)
    assert parts["total"] == sum(weight.numel() for weight in network.parameters())
    of_layers = sum(weight.numel() for weight in network.layers.parameters())
    assert parts["convolution" if layer == "convolution" else "recurrent"] == of_layers
    names = {name for name, weight in network.layers.named_parameters() if weight.dim() > 1}
    assert {linear.weight_name for linear in sizes.linears(config)} == {f"layers.{name}" for name in names}
    matrices = sum(weight.numel() for weight in network.layers.parameters() if weight.dim() > 1)
    assert sizes.forward_flops(config, 11, 0).linears == 2 * 11 * matrices
    assert sizes.forward_flops(config, 11, 0).attention == 0


@pytest.mark.parametrize("layer", ALL)
def test_saved_activations_are_about_those_computed(layer: str) -> None:
    def saved(config: ModelConfig) -> int:
        tensors: dict[int, int] = {}
        network = Transformer(config)
        weights = {weight.data_ptr() for weight in network.parameters()}

        def save(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                tensors[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            states = network.hidden_states(torch.zeros(32, 32, dtype=torch.int64))
        assert states.requires_grad
        return sum(tensors.values())

    one, three = (config_of(layer, num_hidden_layers=count, hidden_size=96) for count in (1, 3))
    computed = sum(saved_activation_bytes(config, [1024]) * sign for config, sign in ((three, 1), (one, -1)))
    assert 0.8 < computed / (saved(three) - saved(one)) < 1.3


def test_dropout_stands_between_the_layers() -> None:
    network = drawn(config_of("lstm", hidden_dropout=0.5)).train()
    ids = texts()[1][None]
    first, second = network.hidden_states(ids), network.hidden_states(ids)
    assert not torch.equal(first, second)
    assert 0.2 < float((first == 0).float().mean()) < 0.8
    assert torch.equal(network.eval().hidden_states(ids), network.hidden_states(ids))


def test_the_forget_gate_starts_open() -> None:
    cell = drawn(config_of("lstm")).layers[1].cell.requires_grad_(False)
    assert cell.bias_ih_l0.tolist() == [0.0] * 24 + [1.0] * 24 + [0.0] * 48
    assert not cell.bias_hh_l0.any()
    for weight in (cell.weight_ih_l0, cell.weight_hh_l0):
        assert 0.9 * 24**-0.5 < float(weight.abs().max()) <= 24**-0.5


@pytest.mark.parametrize("layer", ALL)
@pytest.mark.parametrize("tied", [True, False])
def test_saved_and_opened_it_is_the_same(layer: str, tied: bool, tmp_path: Path) -> None:
    tokenizer = byte_level()
    changes: dict[str, Any] = {"vocab_size": tokenizer.vocab_size, "hidden_dropout": 0.25}
    if layer != "convolution":
        changes |= {"tie_word_embeddings": tied, "head_bias": tied}
    else:
        head = {"name": "sequence_classification", "kind": "first", "size": 3, "labels": ["a", "b", "c"]}
        changes |= {"heads": [head], "max_over_time": tied}
    network = drawn(config_of(layer, **changes))
    family = FAMILIES["lmworks-convolutional" if layer == "convolution" else "lmworks-recurrent"]
    save_folder(tmp_path / "model", network, network.config, family, tokenizer)
    opened = open_folder(tmp_path / "model")
    assert opened.config == read_config(tmp_path / "model")
    assert opened.config.model_copy(update={"num_key_value_heads": None, "head_dim": None}) == network.config
    ids = texts()[2][None]
    assert torch.equal(opened.network(ids).logits, network(ids).logits)
    held = open_folder(tmp_path / "model", storage="bfloat16").network.hidden_states(ids)
    torch.testing.assert_close(held, network.hidden_states(ids), rtol=0.02, atol=0.02)


def test_bfloat16_keeps_the_recurrence_in_float32() -> None:
    network = drawn(config_of("lstm"))
    ids = texts()[1][None]
    with torch.autocast("cpu", torch.bfloat16):
        states = network.hidden_states(ids)
    assert torch.equal(states, network.hidden_states(ids))


def test_lora_is_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match="LoRA updates linears, and lstm layers have none") as caught:
        LoRA().apply(drawn(config_of("lstm")))
    assert "--method full" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"positions": "rotary"}, "no use for positions rotary"),
        ({"num_attention_heads": 4}, "no use for num_attention_heads 4"),
        ({"architecture": "encoder"}, "of architecture decoder"),
        ({"layer": "convolution"}, "of architecture encoder"),
        ({"layer": "convolution", "architecture": "encoder", "kernel_sizes": (1, 2, 3, 4, 5)}, "divided among"),
        ({"layer": "attention", "num_attention_heads": 4, "intermediate_size": 8, "kernel_sizes": (3,)}, "convolution"),
    ],
)
def test_a_config_that_says_what_no_layer_does_is_refused(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        ModelConfig(**SIZES | {"layer": "lstm"} | changes)
