"""Fused blocks with LoRA equal their modules; the backward pass ends at the lowest block with a LoRA term."""

import pytest
import torch

from lmworks.adapt.adapters import adapters, disabled
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.kernels.native_module import native_module
from lmworks.model import fused, products
from lmworks.model.accumulation import accumulate_in_place
from lmworks.model.config import ModelConfig
from lmworks.model.transformer import Transformer

pytestmark = pytest.mark.skipif(native_module() is None, reason="the native kernels were not built here")
SIZES = {"vocab_size": 61, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
TARGETS = {
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "some": ["v_proj", "up_proj"],
    "all": "all-linear",
    "upper": [r"layers.2.self_attn.q_proj"],
}


def adapted_network(targets, dropout=0.0, use_dora=False, **more) -> Transformer:
    torch.manual_seed(0)
    network = Transformer(ModelConfig(**SIZES, **more))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    targets = [targets] if isinstance(targets, str) else targets
    settings = LoRASettings(rank=3, alpha=6, dropout=dropout, target_modules=targets, use_dora=use_dora)
    LoRA(settings).apply(network)
    for name, weight in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
        if "lora_magnitude_vector" in name:
            weight.data *= 1 + torch.rand(weight.shape)
    return network.train()


def gradients(network, ids, grad_output):
    torch.manual_seed(1)
    network.zero_grad()
    out = network.hidden_states(ids)
    out.backward(grad_output)
    return out.detach(), {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", [{}, {"gated": False, "activation": "gelu", "norm": "layer", "qkv_bias": True,
                                       "norm_position": "post"}], ids=["llama", "post-norm"])  # fmt: skip
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_outputs_and_gradients_are_those_of_the_modules(use_dora, targets, kind, dropout, monkeypatch):
    network = adapted_network(TARGETS[targets], dropout, use_dora, **kind)
    ids, grad_output, calls = torch.randint(0, 61, (2, 9)), torch.randn(2, 9, 48), []
    run = fused.run
    monkeypatch.setattr(fused, "run", lambda *given: calls.append(1) or run(*given))
    fast = gradients(network, ids, grad_output)
    assert len(calls) == 3
    monkeypatch.setattr(fused, "can_run", lambda *_: False)
    plain = gradients(network, ids, grad_output)
    torch.testing.assert_close(fast[0], plain[0], atol=1e-5, rtol=1e-4)
    assert fast[1].keys() == plain[1].keys()
    assert all("lora_" in name for name in fast[1])
    assert any("magnitude" in name for name in fast[1]) is use_dora
    for name, grad in fast[1].items():
        torch.testing.assert_close(grad, plain[1][name], atol=1e-3 * float(plain[1][name].abs().max()), rtol=1e-3)


def test_switched_off_updates_are_not_computed_and_merged_ones_only_once():
    network = adapted_network(TARGETS["attention"])
    ids = torch.randint(0, 61, (1, 9))
    adapted = network.hidden_states(ids).detach()
    with disabled(network):
        base = network.hidden_states(ids).detach()
    assert not torch.allclose(base, adapted, atol=1e-3)
    for _, adapter in adapters(network):
        adapter.merge()
    merged = network.hidden_states(ids).detach()
    torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=1e-4)
    with disabled(network):
        assert torch.equal(network.hidden_states(ids), base)
    assert torch.equal(network.hidden_states(ids), merged)
    for _, adapter in adapters(network):
        adapter.unmerge()
    assert torch.equal(network.hidden_states(ids), adapted)


def test_nothing_passes_back_below_the_lowest_update(monkeypatch):
    network = adapted_network(TARGETS["upper"])
    passed = []
    backward = products.backward
    monkeypatch.setattr(products, "backward", lambda *given: passed.append(given) or backward(*given))
    gradients(network, torch.randint(0, 61, (1, 9)), torch.randn(1, 9, 48))
    assert len(passed) == 4  # of the uppermost block: down, up and gate, o, and q, k, v
    assert passed[-1][6] is False  # and nobody needs the gradient of its input


def test_frozen_blocks_keep_as_much_as_their_parts_need():
    network = adapted_network(TARGETS["attention"])
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        network.hidden_states(torch.randint(0, 61, (1, 16)))
    weights = {weight.data_ptr() for weight in network.parameters()}
    each = {t.data_ptr(): t.numel() for t in saved if t.is_floating_point() and t.data_ptr() not in weights}
    block = (
        2 * 48 + 2 * 48 + 2 * 24 + 4 + 2 + 2 * 56 + 4 * 3
    )  # two inputs of norms, q and mixed, k and v, sums, gates, A x
    last = 48 + 1
    assert sum(each.values()) == 16 * (3 * block + last)


def test_accumulating_in_place_gives_the_same_gradients_as_two_passes():
    torch.manual_seed(0)
    network = Transformer(ModelConfig(**SIZES)).train()
    parts = [torch.randint(0, 61, (1, 9)) for _ in range(2)]
    results = []
    for how in (False, True):
        network.zero_grad()
        for ids in parts:
            out = network.hidden_states(ids).square().sum()
            if how:
                with accumulate_in_place():
                    out.backward()
            else:
                out.backward()
        results.append(
            {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}
        )
    for name, grad in results[0].items():
        torch.testing.assert_close(results[1][name], grad, atol=1e-4, rtol=1e-4)
