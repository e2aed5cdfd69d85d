"""Norms of gradients by distance and by depth are those of the definition; the command prints and draws them."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from tiny_model import save_tiny
from torch.nn import functional

from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.evaluate.gradients import factor_of_a_step, norms_by_depth, norms_by_distance
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.transformer import Transformer

SIZES = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "max_position_embeddings": 16}
ATTENTION = {"num_attention_heads": 2, "intermediate_size": 16}


def drawn(**settings: object) -> Transformer:
    network = Transformer(ModelConfig(**{**SIZES, **settings}))
    draw(network, torch.Generator().manual_seed(0))
    return network.eval()


@pytest.mark.parametrize("settings", [{"layer": "rnn"}, {"layer": "lstm"}, ATTENTION], ids=["rnn", "lstm", "attention"])
def test_norms_are_those_of_finite_differences(settings: dict[str, object]) -> None:
    network = drawn(**settings).double()
    ids = torch.tensor([[3, 1, 4, 1, 5, 9]])
    norms = norms_by_distance(network, ids)
    assert len(norms) == 5
    embeddings = network.embed_tokens(ids[:, :-1]).detach()

    @torch.no_grad()
    def loss(x: torch.Tensor) -> float:
        return float(functional.cross_entropy(network.head(network.hidden_states(embeddings=x)[:, -1]), ids[:, -1]))

    for distance in (0, 2, 4):
        gradient = []
        for unit in range(8):
            step = torch.zeros_like(embeddings)
            step[0, 4 - distance, unit] = 1e-3
            gradient.append((loss(embeddings + step) - loss(embeddings - step)) / 2e-3)
        assert norms[distance] == pytest.approx(math.hypot(*gradient), rel=2e-3)


def test_a_recurrence_that_halves_its_state_halves_the_gradient() -> None:
    network = drawn(layer="rnn")
    cell = network.layers[0].cell.requires_grad_(False)
    cell.weight_hh_l0.copy_(0.5 * torch.eye(8))
    cell.weight_ih_l0.mul_(1e-3)  # so small that tanh is linear
    norms = norms_by_distance(network, torch.randint(0, 20, (4, 13)))
    assert [after / before for before, after in itertools.pairwise(norms)] == pytest.approx([0.5] * 11, 1e-3)
    assert factor_of_a_step(norms) == pytest.approx(0.5, rel=2e-3)


def test_an_lstm_reaches_further_than_an_rnn() -> None:
    factors = {}
    for layer in ("rnn", "gru", "lstm"):
        network = drawn(layer=layer, hidden_size=64)
        factors[layer] = factor_of_a_step(norms_by_distance(network, torch.randint(0, 20, (8, 41))))
    assert factors["rnn"] < factors["gru"] < factors["lstm"] < 1


def test_sigmoids_vanish_with_depth_as_their_derivative_says() -> None:
    by_activation = {name: norms_by_depth(name, 12) for name in ("sigmoid", "tanh", "relu", "gelu")}
    factors = {name: factor_of_a_step(norms[::-1]) for name, norms in by_activation.items()}
    # the derivative of a sigmoid is at most 1/4, and xavier weights of a square matrix keep norms on average
    assert 0.2 < factors["sigmoid"] < 0.26
    assert factors["sigmoid"] < factors["gelu"] < factors["relu"] < factors["tanh"] < 1
    assert factors["relu"] == pytest.approx(math.sqrt(0.5), rel=0.05)  # half of the units pass a gradient on
    he = factor_of_a_step(norms_by_depth("relu", 12, initialization="he")[::-1])
    assert he == pytest.approx(1, rel=0.05)  # as He et al. made it


def test_no_slope_through_zeros() -> None:
    assert math.isnan(factor_of_a_step([1.0, 0.0, 0.0]))


def test_the_command_prints_tables_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = save_tiny(tmp_path / "tiny")
    (tmp_path / "text.txt").write_text("The cat saw the moon. " * 40)
    words = ["gradients", "tinygpt", str(model), "--length", "12", "--rows", "2", "--depth", "3", "--text", "text.txt"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "tinygpt" in printed
    assert "factor of one step" in printed
    page = (tmp_path / "gradients.html").read_text()
    assert page.count("<polyline") == 6  # two models, four activations
    # a key of the legend is a border without height, whose colour is its curve's
    assert ".key.c1 { border-color: var(--c1); }" in page
    assert "polyline.c1 { stroke: var(--c1); }" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert main([*words, "--json", "--activations", "tanh", "--out", "other.html"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [len(norms) for norms in values["by_distance"].values()] == [12, 12]
    assert list(values["by_depth"]) == ["tanh"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["tinygpt", "--length", "40"], "the context is 16"),
        (["tinybert", "--length", "8"], "reads from left to right"),
        (["--length", "1"], "less than 2"),
        (["--out", "x.svg"], "no .html file"),
        (["tinygpt", "--length", "8", "--activations", "step"], "there is no 'step'"),
    ],
)
def test_what_cannot_be_measured_is_said(
    words: list[str], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["gradients", *words]) == 2
    assert fault in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_initialization_that_there_is_not_is_named() -> None:
    with pytest.raises(InputError, match="no 'orthogonal'"):
        norms_by_depth("tanh", 3, initialization="orthogonal")
