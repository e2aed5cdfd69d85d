"""A small block in one native call is the fused block: outputs, gradients, accumulation, any number of threads."""

import pytest
import torch
from block_kinds import KINDS

from lmworks.kernels.native_module import native_module
from lmworks.model import small_block
from lmworks.model.accumulation import accumulate_in_place
from lmworks.model.config import ModelConfig
from lmworks.model.transformer import Transformer

pytestmark = pytest.mark.skipif(
    not hasattr(native_module(), "block_forward"), reason="the native kernels were not built here"
)
LENGTHS = (7, 70, 1, 5, 40, 33)  # several work items; one document is longer than an item's least


def gradients(kind: str, monkeypatch, in_one_call: bool) -> dict[str, torch.Tensor]:
    """Of two backward passes, the second added in place; and the output of the second."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 2}
    drops = {"attention_dropout": 0.2, "hidden_dropout": 0.1, "mlp_dropout": 0.3}
    config = ModelConfig(num_attention_heads=4, max_position_embeddings=96, **sizes, **KINDS[kind], **drops)
    network = Transformer(config).train()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    ids = torch.randint(0, 61, (1, sum(LENGTHS)))
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    segments = torch.cat([torch.full((length,), n) for n, length in enumerate(LENGTHS, 1)])[None]
    grad_output, calls = torch.randn(*ids.shape, 80), []
    forward = small_block.forward
    with monkeypatch.context() as patch:
        patch.setattr(small_block, "forward", lambda *given: calls.append(1) or forward(*given))
        if not in_one_call:
            patch.setattr(small_block, "can_run", lambda *_: False)
        with accumulate_in_place():
            for _ in range(2):
                out = network.hidden_states(ids, positions=positions, segments=segments)
                out.backward(grad_output)
    assert len(calls) == (4 if in_one_call else 0)
    return {name: weight.grad for name, weight in network.named_parameters()} | {"output": out.detach()}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_fused_block(kind, monkeypatch):
    ours, expected = (gradients(kind, monkeypatch, in_one_call) for in_one_call in (True, False))
    for name, value in ours.items():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(value, expected[name], atol=1e-4 * max(scale, 1), rtol=1e-3, msg=name)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(gradients("gpt2", monkeypatch, True))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for name in (
            "output",
            "layers.0.mlp.up_proj.weight",
            "layers.0.self_attn.q_proj.bias",
            "layers.0.input_layernorm.weight",
        ):
            assert torch.equal(results[0][name], other[name]), name
