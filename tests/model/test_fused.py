"""The fused pass of a block is the block: same outputs, same gradients, same random draws."""

import pytest
import torch
from block_kinds import KINDS

from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.kernels.native_module import native_module
from lmworks.model import fused
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.transformer import Transformer
from lmworks.train.step import autocast, cast_frozen_weights

pytestmark = pytest.mark.skipif(native_module() is None, reason="the native kernels were not built here")
DROPS = {"attention_dropout": 0.2, "hidden_dropout": 0.1, "mlp_dropout": 0.3}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("drops", [{}, DROPS], ids=["whole", "dropped"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_the_blocks(kind, drops, packed, monkeypatch):
    sizes = {"vocab_size": 61, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 2}
    config = ModelConfig(num_attention_heads=4, max_position_embeddings=64, **sizes, **KINDS[kind], **drops)
    torch.manual_seed(0)
    network = Transformer(config).train()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    network.layers[1].mlp.down_proj.requires_grad_(False)
    ids = torch.randint(0, 61, (1, 20) if packed else (2, 10))
    inputs = {}
    if packed:
        lengths = (7, 7, 1, 5)
        inputs["positions"] = torch.cat([torch.arange(length) for length in lengths])[None]
        inputs["segments"] = torch.cat([torch.full((length,), n) for n, length in enumerate(lengths, 1)])[None]
    grad_output, results, calls = torch.randn(*ids.shape, 48), [], []
    plain_run = fused.run
    monkeypatch.setattr(fused, "run", lambda *given: calls.append(1) or plain_run(*given))
    for allowed in (True, False):
        if not allowed:
            monkeypatch.setattr(fused, "can_run", lambda *_: False)
        torch.manual_seed(1)
        network.zero_grad()
        out = network.hidden_states(ids, **inputs)
        out.backward(grad_output)
        grads = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
        results.append((out.detach(), grads))
    assert len(calls) == 2
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-4)
    assert results[0][1].keys() == results[1][1].keys()
    for name, grad in results[0][1].items():
        torch.testing.assert_close(
            grad, results[1][1][name], atol=max(1e-4, 1e-3 * float(grad.abs().max())), rtol=1e-3, msg=name
        )


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_in_bfloat16_it_is_as_near_to_float32_as_its_modules_are(lora, monkeypatch):
    torch.manual_seed(0)
    network = Transformer(ModelConfig(vocab_size=61, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                                      num_attention_heads=4, num_key_value_heads=2, initializer_range=0.1,
                                      max_position_embeddings=32))  # fmt: skip
    draw(network, torch.Generator().manual_seed(0))
    if lora:
        LoRA(LoRASettings(rank=4, target_modules=["all-linear"])).apply(network)
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    ids, grad_output, calls = torch.randint(0, 61, (2, 12)), torch.randn(2, 12, 64), []
    run = fused.run
    monkeypatch.setattr(fused, "run", lambda *given: calls.append(1) or run(*given))

    def passed(precision):
        network.zero_grad()
        with cast_frozen_weights(network, precision):
            with autocast(precision, torch.device("cpu")):
                out = network.train().hidden_states(ids)
            out.backward(grad_output.to(out.dtype))
        return [out.detach().float()] + [w.grad.float() for w in network.parameters() if w.grad is not None]

    exact, fast = passed("float32"), passed("bfloat16")
    assert len(calls) == 4
    monkeypatch.setattr(fused, "can_run", lambda *_: False)
    plain = passed("bfloat16")
    apart = [
        [float((item - true).norm() / true.norm()) for item, true in zip(results, exact, strict=True)]
        for results in (fast, plain)
    ]
    assert 1e-4 < max(apart[0]) < 0.1
    for mine, modules in zip(*apart, strict=True):
        assert mine < 2 * modules + 1e-3
