"""Fused blocks with (IA)3 and bottlenecks equal their modules, forward and backward."""

from __future__ import annotations

import pytest
import torch

from lmworks.adapt.adapters import adapters, disabled
from lmworks.adapt.bottleneck import Bottleneck, BottleneckSettings
from lmworks.adapt.ia3 import IA3, IA3Settings
from lmworks.adapt.method import Method
from lmworks.kernels.native_module import native_module
from lmworks.model import fused
from lmworks.model.accumulation import accumulate_in_place
from lmworks.model.config import ModelConfig
from lmworks.model.storage import DenseStorage
from lmworks.model.stored_layers import store
from lmworks.model.transformer import Transformer

pytestmark = pytest.mark.skipif(native_module() is None, reason="the native kernels were not built here")
SIZES = {"vocab_size": 61, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
KINDS = {
    "llama": {},
    "post-norm": {"gated": False, "activation": "gelu", "norm": "layer", "qkv_bias": True, "norm_position": "post",
                  "output_bias": True, "mlp_bias": True},
    "dropout": {"hidden_dropout": 0.3, "mlp_dropout": 0.2, "attention_dropout": 0.1},
}  # fmt: skip
EVERYWHERE = IA3Settings(target_modules=["all-linear"], feedforward_modules=["o_proj", "down_proj"])
METHODS = {
    "ia3": IA3(),
    "ia3 everywhere": IA3(EVERYWHERE),
    "ia3 of the upper block": IA3(IA3Settings(target_modules=["layers.2.*.v_proj"], feedforward_modules=[])),
    "pfeiffer": Bottleneck(BottleneckSettings(size=5, activation="relu")),
    "houlsby": Bottleneck(BottleneckSettings(kind="houlsby", size=5, activation="silu")),
}
IDS, GRAD = torch.arange(1, 19).reshape(2, 9), torch.randn(2, 9, 48, generator=torch.Generator().manual_seed(4))


def adapted_network(method: Method, **config) -> Transformer:
    torch.manual_seed(0)
    network = Transformer(ModelConfig(**SIZES, **config))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    method.apply(network)
    for weight in network.parameters():
        if weight.requires_grad:
            weight.data.add_(torch.randn(weight.shape), alpha=0.2)
    return network.train()


def gradients(network: Transformer, dtype: torch.dtype = torch.float32):
    torch.manual_seed(1)
    network.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        out = network.hidden_states(IDS)
    out.backward(GRAD.to(out.dtype))
    grads = {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}
    return out.detach().float(), grads


def compare(network: Transformer, monkeypatch, dtype: torch.dtype = torch.float32, share: float = 1e-3) -> None:
    """Output and gradients of the fused blocks are those of the modules, up to a share of the largest number."""
    calls, run = [], fused.run
    monkeypatch.setattr(fused, "run", lambda *given: calls.append(1) or run(*given))
    fast = gradients(network, dtype)
    assert len(calls) == SIZES["num_hidden_layers"]
    monkeypatch.setattr(fused, "can_run", lambda *_: False)
    plain = gradients(network, dtype)
    assert fast[1].keys() == plain[1].keys()
    assert fast[1].keys() == {name for name, weight in network.named_parameters() if weight.requires_grad}
    for ours, expected in [(fast[0], plain[0]), *((fast[1][name], plain[1][name]) for name in fast[1])]:
        torch.testing.assert_close(ours, expected, atol=share * float(expected.abs().max()), rtol=share)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_outputs_and_gradients_are_those_of_the_modules(method, kind, monkeypatch):
    compare(adapted_network(METHODS[method], **KINDS[kind]), monkeypatch)


@pytest.mark.parametrize("method", ["ia3 everywhere", "houlsby"])
def test_in_bfloat16_too(method, monkeypatch):
    compare(adapted_network(METHODS[method]), monkeypatch, torch.bfloat16, share=0.06)


def test_a_factor_of_zero_has_its_gradient(monkeypatch):
    network = adapted_network(METHODS["ia3"])
    for name, weight in network.named_parameters():
        if name.endswith("ia3_l"):
            weight.data[::3] = 0
    compare(network, monkeypatch)
    for name, weight in network.named_parameters():
        assert not name.endswith("ia3_l") or bool(weight.grad[::3].any()), name


@pytest.mark.parametrize("method", ["ia3", "houlsby"])
def test_over_weights_in_a_storage_too(method, monkeypatch):
    network = adapted_network(METHODS[method])
    for name, adapter in adapters(network):
        store(network, f"{name}.base", DenseStorage(adapter.base.weight.detach().bfloat16()))
    compare(network, monkeypatch)


@pytest.mark.parametrize("method", ["ia3", "houlsby"])
def test_two_passes_that_accumulate_in_place_give_the_sum(method):
    network = adapted_network(METHODS[method])
    _, once = gradients(network)
    network.zero_grad()
    with accumulate_in_place():
        for _ in range(2):
            network.hidden_states(IDS).backward(GRAD)
    for name, grad in once.items():
        weight = network.get_parameter(name)
        torch.testing.assert_close(weight.grad, 2 * grad, atol=1e-4 * float(grad.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("method", ["ia3", "houlsby"])
def test_disabled_it_is_the_base(method, monkeypatch):
    network = adapted_network(METHODS[method]).eval()
    adapted = network.hidden_states(IDS)
    with disabled(network):
        base = network.hidden_states(IDS)
    assert not torch.allclose(base, adapted, atol=1e-3)
    METHODS[method].detach(network)
    assert torch.equal(network.hidden_states(IDS), base)
