"""Embeddings of which few rows have a gradient: the update is that of a dense gradient."""

import pytest
import torch
from torch import nn

from lmworks.kernels.native_module import native_module
from lmworks.model import accumulation, sparse_gradients
from lmworks.train import optimizers
from lmworks.train.settings import TrainSettings

ROWS, WIDTH, STEPS = 200, 24, 6


def ids_of(step: int) -> torch.Tensor:
    """Two rows of tokens, some of which come twice; others come in no step."""
    return torch.randint(0, 60, (2, 10), generator=torch.Generator().manual_seed(step))


def step(table: nn.Embedding, optimizer: optimizers.AdamW, number: int) -> float:
    with accumulation.accumulate_in_place():
        for row in ids_of(number):  # two backward passes: gradients are added up
            (accumulation.embed(table.weight, row).square().sum(-1) * (1 + row)).sum().backward()
    norm = optimizers.gradient_norm(table.parameters())
    optimizer.advance(0.01, norm, 1.0)
    return norm


def new(state: str) -> tuple[nn.Embedding, optimizers.AdamW]:
    torch.manual_seed(0)
    table = nn.Embedding(ROWS, WIDTH)
    return table, optimizers.make(table, TrainSettings(optimizer_state=state, learning_rate=0.01))


def trained(state: str, monkeypatch: pytest.MonkeyPatch, sparse: bool) -> tuple[list[float], torch.Tensor]:
    monkeypatch.setattr(sparse_gradients, "MIN_SIZE", 0 if sparse else 1 << 40)
    table, optimizer = new(state)
    norms = [step(table, optimizer, number) for number in range(STEPS)]
    return norms, table.weight.detach()


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("state", ["float32", "int8"])
def test_the_update_is_that_of_a_dense_gradient(state, kernels, monkeypatch):
    if not kernels:
        monkeypatch.setattr(optimizers, "supports", lambda *tensors: False)
    (norms, weights), (dense_norms, dense) = (trained(state, monkeypatch, sparse) for sparse in (True, False))
    assert norms == pytest.approx(dense_norms, rel=1e-6)
    torch.testing.assert_close(weights, dense, rtol=1e-5, atol=1e-6)
    start = new(state)[0].weight.detach()
    assert torch.equal(weights[60:], start[60:])
    assert all(not torch.isclose(weights[row], start[row]).all() for row in ids_of(0).unique())


@pytest.mark.skipif(native_module() is None, reason="the native kernels were not built here")
def test_rows_move_on_by_their_moments_and_a_resumed_session_knows_them(monkeypatch):
    """Bit for bit, though the rows that have moments are not saved."""
    monkeypatch.setattr(sparse_gradients, "MIN_SIZE", 0)
    table, optimizer = new("float32")
    step(table, optimizer, 0)
    before = table.weight.detach().clone()
    other, resumed = new("float32")
    other.load_state_dict(table.state_dict())
    resumed.state[other.weight] = {key: value.clone() for key, value in optimizer.state[table.weight].items()}
    assert step(table, optimizer, 1) == step(other, resumed, 1)
    assert torch.equal(table.weight, other.weight)
    only_before = set(ids_of(0).unique().tolist()) - set(ids_of(1).unique().tolist())
    assert only_before
    assert all(not torch.equal(table.weight[row], before[row]) for row in only_before)


def test_a_sparse_gradient_becomes_dense_where_the_table_is_the_language_head_too(monkeypatch):
    monkeypatch.setattr(sparse_gradients, "MIN_SIZE", 0)
    gradients = []
    for in_place in (True, False):
        weight = nn.Parameter(torch.linspace(-1, 1, ROWS * WIDTH).view(ROWS, WIDTH))
        with accumulation.accumulate_in_place() if in_place else torch.enable_grad():
            accumulation.embed(weight, ids_of(0)[0]).square().sum().backward()
            assert in_place == bool(weight.grad.is_sparse)
            if in_place:  # as the head adds its own
                assert accumulation.added_gradient(weight, torch.ones(ROWS, WIDTH)) is None
            else:
                weight.grad += 1
            accumulation.embed(weight, ids_of(1)[0]).square().sum().backward()
        gradients.append(weight.grad)
    torch.testing.assert_close(*gradients)
