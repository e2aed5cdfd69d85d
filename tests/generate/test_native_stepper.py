"""The native engine beside the PyTorch network: the same logits, whatever a config says a block has."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import BLOCK_KINDS, native_stepper, unsupported, weights_of
from lmworks.generate.stepper import RowStart
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.kernels.native_module import native_module
from lmworks.model.config import ModelConfig
from lmworks.model.storage import BlockStorage
from lmworks.model.stored_layers import store
from lmworks.model.surgery import named_linears
from lmworks.model.ternary_blocks import TERNARY
from lmworks.model.transformer import Transformer

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

BASE = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
}
GPT2 = {
    "norm": "layer",
    "positions": "learned",
    "gated": False,
    "activation": "gelu",
    "qkv_bias": True,
    "output_bias": True,
    "mlp_bias": True,
    "num_key_value_heads": 4,
}
GEMMA = {
    "norm": "rms_offset",
    "norm_position": "both",
    "attention_softcap": 20.0,
    "logit_softcap": 10.0,
    "sliding_window": 8,
    "layer_kinds": ("sliding_attention", "full_attention", "sliding_attention"),
    "rope_local_theta": 1000.0,
    "embedding_scale": 8.0,
    "qk_norm": True,
    "activation": "gelu_tanh",
    "head_dim": 24,
    "attention_scale": 0.1,
}
ODD = {"tie_word_embeddings": False, "rotary_fraction": 0.5, "head_bias": True, "hidden_size": 72, "head_dim": 20}
BLOCKS = [*BLOCK_KINDS, "TQ1_0"]
WHOLE_BLOCKS = {"hidden_size": 256, "intermediate_size": 512}  # of 256 columns, as ternary formats have
PROMPTS = (5, 70, 1, 33)


def network_of(spread: float = 0.3, **changes) -> Transformer:
    torch.manual_seed(0)
    network = Transformer(ModelConfig.model_validate({**BASE, **changes})).eval().requires_grad_(False)
    for weight in network.parameters():
        weight += torch.randn_like(weight) * (spread if weight.ndim > 1 else 0.1)
    return network


def store_in_blocks(network: Transformer, kind: str) -> None:
    quants = pytest.importorskip("gguf.quants")
    from gguf.constants import GGMLQuantizationType

    for name, linear in list(named_linears(network)):
        weight = ternary(linear.weight) if kind in TERNARY else linear.weight
        blocks = quants.quantize(weight.numpy(), GGMLQuantizationType[kind])
        store(network, name, BlockStorage(torch.from_numpy(blocks), kind))


def network_in_blocks(kind: str) -> Transformer:
    network = network_of(spread=0.1, **(WHOLE_BLOCKS if kind in TERNARY else {}))
    store_in_blocks(network, kind)
    return network


def ternary(weight: torch.Tensor) -> torch.Tensor:
    """-1, 0 and 1 times the mean magnitude, as training makes them; rounded from others, nearly all would be zero."""
    scale = weight.abs().mean()
    return (weight / scale).round().clamp(-1, 1) * scale


def prompts(lengths=PROMPTS) -> list[RowStart]:
    return [RowStart(torch.randint(0, 97, (length,)).tolist()) for length in lengths]


@pytest.fixture(params=native_module().instruction_sets() if native_module() else [])
def instruction_set(request):
    module = native_module()
    before = module.instruction_set()
    module.set_instruction_set(request.param)
    yield request.param
    module.set_instruction_set(before)


@pytest.mark.parametrize("changes", [{}, GPT2, GEMMA, ODD], ids=["llama", "gpt2", "gemma", "odd"])
def test_logits_are_those_of_the_network(changes, instruction_set):
    network, starts = network_of(**changes), prompts()
    assert unsupported(network) == ""
    ours, theirs = native_stepper(network), TorchStepper(network)

    def check() -> None:
        assert ours.lengths == theirs.lengths
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-3 * float(theirs.logits.abs().max()))

    for stepper in (ours, theirs):
        stepper.prefill(starts)
    check()
    for step in range(4):
        for stepper in (ours, theirs):
            stepper.step([step, 4, 5, 6])
        check()
    for stepper in (ours, theirs):
        stepper.append([[1], [2, 3, 4], [5, 6], [7]])
    check()
    for stepper in (ours, theirs):
        stepper.keep([2, 0, 0, 3])
        stepper.step([7, 8, 9, 10])
        stepper.add([RowStart([1, 2, 3])])
        stepper.step([7, 8, 9, 10, 11])
    check()
    assert ours.usage == theirs.usage


def test_a_row_gets_the_bits_that_it_gets_alone():
    network, starts = network_of(), prompts()
    together = native_stepper(network)
    together.prefill(starts)
    together.step([1, 2, 3, 4])
    for row, start in enumerate(starts):
        alone = native_stepper(network)
        alone.prefill([start])
        alone.step([row + 1])
        assert (alone.logits[0] == together.logits[row]).all()


@pytest.mark.parametrize("kind", [None, *BLOCKS])
def test_several_tokens_at_once_get_the_bits_of_one_after_the_other(kind, instruction_set):
    network = network_of(spread=0.1) if kind is None else network_in_blocks(kind)
    tokens = torch.randint(0, 97, (20,)).tolist()
    once, singly = native_stepper(network), native_stepper(network)
    for stepper in (once, singly):
        stepper.prefill([RowStart([5, 6, 7])])
    logits = once.extend(tokens)
    assert logits.shape == (20, 97)
    assert once.lengths == [23]
    for row, token in zip(logits, tokens, strict=True):
        singly.step([token])
        assert (singly.logits[0] == row).all()
    assert (once.logits == singly.logits).all()
    assert once.usage == singly.usage


@pytest.mark.parametrize("kind", BLOCKS)
def test_quantized_weights_are_multiplied_as_they_are_dequantized(kind, instruction_set):
    """Each product rounds its input to 8 bits, or to bfloat16: some thousandths of the largest logit remain."""
    network = network_in_blocks(kind)
    starts = prompts()
    ours, theirs = native_stepper(network), TorchStepper(network)
    for stepper in (ours, theirs):
        stepper.prefill(starts)
        stepper.step([1, 2, 3, 4])
    difference = np.abs(ours.logits - theirs.logits.numpy())
    assert 0 < difference.max() < 0.02 * float(theirs.logits.abs().max())


def test_what_a_beginning_shares_is_read_once_and_changes_nothing():
    network = network_of()
    beginning = torch.randint(0, 97, (20,)).tolist()
    rows = [RowStart([*beginning, 5, 6]), RowStart([*beginning, 7])]
    ours, theirs = native_stepper(network), TorchStepper(network)
    for stepper in (ours, theirs):
        stepper.prefill(rows)
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-3 * float(theirs.logits.abs().max()))


def test_networks_that_it_cannot_compute_are_named():
    assert "norms come last" in unsupported(network_of(norm_position="post"))
    assert "relative" in unsupported(network_of(positions="relative"))
    assert "encoder" not in unsupported(network_of())


def test_faults_are_refused_and_leave_the_sequences_usable():
    engine = weights_of(network_of()).engine
    sequence, logits = engine.add_sequence(4), np.empty((1, 97), np.float32)

    def step(*tokens: int, numbers: int = sequence) -> None:
        wanted = np.zeros(len(tokens), np.int64)
        wanted[-1] = 1
        engine.step(np.full(len(tokens), numbers), np.array(tokens), wanted, logits)

    for fault, arguments in (("no token 97", {}), ("no sequence 99", {"numbers": 99})):
        with pytest.raises(ValueError, match=fault):
            step(*([97] if not arguments else [1]), **arguments)
    step(1, 2, 3)
    assert engine.length(sequence) == 3
    with pytest.raises(ValueError, match="longer than the model's context"):
        step(*[1] * 94)
    step(4)
    assert engine.length(sequence) == 4
    with pytest.raises(ValueError, match="logits"):
        engine.step(np.array([sequence]), np.array([1]), np.array([0]), logits)


def test_threads_take_turns():
    """Steps and removals of sequences by several threads at once: none waits for ever, each gets its own logits."""
    network, starts = network_of(), prompts((5, 9, 13, 17))
    engine = weights_of(network).engine

    def run(start: RowStart) -> np.ndarray:
        for _ in range(20):
            stepper = NativeStepper(engine, 97, 96)
            stepper.prefill([start])
            for token in range(5):
                stepper.step([token])
        return stepper.logits

    alone = [run(start) for start in starts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, starts))
    for expected, logits in zip(alone, together, strict=True):
        assert (expected == logits).all()


def test_dense_matrices_are_kept_in_bfloat16_where_that_is_asked_for():
    network = network_of(spread=0.1)
    starts, sizes, logits = prompts((5, 9)), [], []
    for precision in ("float32", "bfloat16"):
        sizes.append(weights_of(network, precision).engine.sizes()[0])
        stepper = native_stepper(network, precision)
        stepper.prefill(starts)
        logits.append(stepper.logits)
    assert sizes[1] * 2 == sizes[0]
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.05 * np.abs(logits[0]).max()
