"""The chunked cross-entropy is F.cross_entropy, its gradients too; the head sees only places with a weight."""

import pytest
import torch
from torch.nn import functional

from lmworks.data.batch import Batch
from lmworks.train import losses
from lmworks.train.losses import language_loss


def make_batch(seed: int = 0, length: int = 50) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 61, (1, length), generator=generator)
    weights = torch.rand(1, length, generator=generator) * (torch.rand(1, length, generator=generator) > 0.5)
    positions = torch.arange(length)[None] % 17
    segments = 1 + torch.arange(length)[None] // 17
    return Batch(ids, ids.roll(-1, 1), weights, positions, segments, length)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk", [7, 256])
def test_it_is_cross_entropy_with_all_gradients(make_network, monkeypatch, tied, chunk):
    monkeypatch.setattr(losses, "trained_logits", lambda *_: chunk)
    network, batch = make_network(tie_word_embeddings=tied), make_batch()
    logits = network(batch.ids, positions=batch.positions, segments=batch.segments).logits
    each = functional.cross_entropy(logits[0], batch.targets[0], reduction="none")
    expected = (each * batch.weights[0]).sum()
    (expected * 0.3).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    terms = losses.terms(network, batch)
    assert list(terms) == ["language"]
    loss, weight = terms["language"]
    (loss * 0.3).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-5)
    assert weight == pytest.approx(float(batch.weights.sum()))
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_do(make_network):
    network = make_network().requires_grad_(False)
    hidden = torch.randn(9, 32, requires_grad=True)
    targets, weights = torch.arange(9), torch.rand(9)
    language_loss(network, hidden, targets, weights).backward()
    again = hidden.detach().clone().requires_grad_(True)
    (functional.cross_entropy(network.head(again), targets, reduction="none") * weights).sum().backward()
    torch.testing.assert_close(hidden.grad, again.grad, rtol=1e-5, atol=1e-6)
    assert network.embed_tokens.weight.grad is None


def test_the_head_runs_only_for_tokens_with_a_weight(make_network, monkeypatch):
    network, batch = make_network(), make_batch()
    seen = []
    product = losses.product
    monkeypatch.setattr(losses, "product", lambda x, *a: seen.append(len(x)) or product(x, *a))
    with torch.no_grad():
        losses.language_loss(
            network,
            torch.randn(int((batch.weights > 0).sum()), 32),
            batch.targets[batch.weights > 0],
            batch.weights[batch.weights > 0],
        )
    assert sum(seen) == int((batch.weights > 0).sum()) < batch.tokens


def test_softmax_is_float32_in_bfloat16(make_network):
    network = make_network(vocab_size=4096).to(torch.bfloat16)
    hidden = torch.randn(40, 32).bfloat16()
    targets, weights = torch.randint(0, 4096, (40,)), torch.ones(40)
    expected = functional.cross_entropy(network.head(hidden).float(), targets, reduction="sum")
    loss = language_loss(network, hidden, targets, weights)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-4)


def test_nothing_to_predict_has_no_term(make_network):
    network, batch = make_network(), make_batch()
    nothing = Batch(batch.ids, batch.targets, batch.weights * 0, batch.positions, batch.segments, batch.tokens)
    assert losses.terms(network, nothing) == {}


def test_a_head_with_an_adapter_learns_too(make_network):
    from lmworks.adapt.low_rank import LoRALinear

    network, batch = make_network(tie_word_embeddings=False), make_batch()
    network.lm_head = LoRALinear(network.lm_head, 4, 2.0)
    losses.terms(network, batch)["language"].total.backward()
    assert network.lm_head.lora_B.grad.abs().sum() > 0
