"""Ternary weights in the native engine: taken from the blocks of TQ1_0 and TQ2_0 as they are, in two bits each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_native_stepper import instruction_set, network_in_blocks, network_of, prompts, ternary  # noqa: F401 (a fixture)
from tiny_tokenizers import byte_level

import lmworks
from lmworks.base.errors import InputError
from lmworks.generate.engine_file import open_engine
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import BLOCK_KINDS, native_stepper, weights_of
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.kernels.native_module import native_module
from lmworks.language_model.export import export_gguf
from lmworks.model.storage import BlockStorage, block_sizes
from lmworks.model.surgery import named_linears
from lmworks.model.ternary_blocks import as_tq2_0

BITS = 2.125  # of a number in rows of 256: 2, its part of a scale in float16, and of the rest of a cache line
needs_kernels = pytest.mark.skipif(native_module() is None, reason="no native kernels")


def random_blocks(kind: str, rows: int = 7, blocks: int = 3) -> BlockStorage:
    """Blocks of any bytes that the format may have, with finite scales."""
    generator = torch.Generator().manual_seed(5)
    numbers = torch.randint(0, 256, (rows * blocks, block_sizes(kind)[1]), dtype=torch.uint8, generator=generator)
    if kind == "TQ2_0":
        threes = numbers & numbers.bitwise_right_shift(1) & 0b01010101
        numbers &= ~threes  # 3 becomes 2
    numbers[:, -1] &= 0xBB
    return BlockStorage(numbers.view(rows, -1), kind)


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_the_numbers_of_either_format_are_those_of_the_library(kind: str) -> None:
    storage = random_blocks(kind)
    converted = as_tq2_0(storage)
    assert converted.kind == "TQ2_0"
    assert torch.equal(converted.dequantized(), storage.dequantized())
    assert storage.dequantized().unique().numel() > 20  # scales of many sizes, both signs


def test_what_is_not_ternary_is_refused() -> None:
    storage = random_blocks("TQ2_0")
    storage.blocks[3, 70] |= 0b00001100
    with pytest.raises(InputError, match="none of -1, 0 and 1") as error:
        as_tq2_0(storage, "layer 3, q_proj")
    assert "layer 3, q_proj" in str(error.value)


@needs_kernels
@pytest.mark.usefixtures("instruction_set")
def test_both_formats_give_the_same_bits() -> None:
    steppers = [native_stepper(network_in_blocks(kind)) for kind in ("TQ1_0", "TQ2_0")]
    starts = prompts()
    for stepper in steppers:
        stepper.prefill(starts)
        stepper.step([1, 2, 3, 4])
    assert (steppers[0].logits == steppers[1].logits).all()


@needs_kernels
def test_instruction_sets_agree() -> None:
    """But for sums of floats in another order, by which a number of an input may be rounded the other way."""
    network, module, starts, logits = network_in_blocks("TQ2_0"), native_module(), prompts((5, 20)), []
    before = module.instruction_set()
    for name in module.instruction_sets():
        module.set_instruction_set(name)
        stepper = native_stepper(network)
        stepper.prefill(starts)
        stepper.step([1, 2])
        logits.append(stepper.logits)
    module.set_instruction_set(before)
    for other in logits[1:]:
        difference = np.abs(other - logits[0]) / np.abs(logits[0]).max()
        assert difference.max() < 0.01
        assert difference.mean() < 1e-3


@needs_kernels
@pytest.mark.usefixtures("instruction_set")
def test_embeddings_may_be_ternary_too() -> None:
    """Their rows are read one by one; as the head they are multiplied. Scales differ from block to block."""
    network = network_of(hidden_size=512, num_hidden_layers=1, tie_word_embeddings=True)
    storage = random_blocks("TQ2_0", network.config.vocab_size, 2)
    scales = (torch.rand(len(storage.blocks), 2, 1) - 0.5).half().contiguous().view(torch.uint8)
    storage.blocks.view(-1, 2, 66)[:, :, -2:] = scales.view(-1, 2, 2)
    expected = storage.dequantized()
    engine = weights_of(network)
    engine.set_matrix(-1, "embed_tokens", BLOCK_KINDS["TQ2_0"], storage.blocks.reshape(-1).numpy(), None)
    network.embed_tokens.weight.copy_(expected)
    ours, theirs, starts = NativeStepper(engine.engine, 97, 96), TorchStepper(network), prompts((1, 40))
    for stepper in (ours, theirs):
        stepper.prefill(starts)
    difference = np.abs(ours.logits - theirs.logits.numpy())
    assert 0 < difference.max() < 0.02 * float(theirs.logits.abs().max())


@needs_kernels
def test_weights_take_two_bits_and_are_kept_in_a_file(tmp_path: Path) -> None:
    network = network_in_blocks("TQ2_0")
    weights = weights_of(network)
    numbers = sum(module.out_features * module.in_features for _, module in named_linears(network))
    embeddings = 7 * 16 * 256 * 4  # in groups of 16 rows
    assert numbers * 2 / 8 < weights.engine.sizes()[0] - embeddings <= numbers * BITS / 8
    weights.save(tmp_path / "engine.safetensors")
    again, first = NativeStepper(open_engine(tmp_path / "engine.safetensors"), 97, 96), native_stepper(network)
    starts = prompts((5, 50))
    for stepper in (again, first):
        stepper.prefill(starts)
    assert (again.logits == first.logits).all()


@needs_kernels
def test_other_rows_than_whole_blocks_are_refused() -> None:
    engine = weights_of(network_of())
    with pytest.raises(ValueError, match="whole blocks of 256"):
        engine.set_matrix(0, "q_proj", BLOCK_KINDS["TQ2_0"], np.empty(0, np.uint8), None)


@needs_kernels
@pytest.mark.parametrize("to", ["tq1", "tq2"])
def test_a_file_is_computed_from_its_blocks(to: str, theirs: Any, tmp_path: Path) -> None:
    """The rows of down_proj are not whole blocks: it stays in float16, in the file and in the engine."""
    model = theirs("llama", vocab_size=byte_level().vocab_size, hidden_size=256, intermediate_size=320)
    model.save_pretrained(tmp_path / "folder")
    byte_level().save(tmp_path / "folder")
    dense = lmworks.load(tmp_path / "folder")
    for _, module in named_linears(dense.network):
        module.weight.data = ternary(module.weight.data)
    written = export_gguf(dense, tmp_path / "m.gguf", to)
    assert any("2 matrices stay in float16: rows of 320" in note for note in written.notes)
    native = lmworks.load(tmp_path / "m.gguf", storage="stored").prepare("float32")
    assert native.engine_fault == ""
    assert native.engine_weights is not None
    config = native.config
    in_blocks, in_float16 = 2 * (4 * 256 * 256 + 2 * 320 * 256), 2 * 256 * 320
    tables = 2 * -(-config.vocab_size // 16) * 16 * 256
    assert native.engine_weights.engine.sizes()[0] == in_blocks * BITS / 8 + in_float16 * 2 + tables * 34 / 32
    torch.manual_seed(0)
    ours, plain = native.stepper(), lmworks.load(tmp_path / "m.gguf").stepper()
    starts = prompts((3, 40))
    for stepper in (ours, plain):
        stepper.prefill(starts)
    expected = plain.logits.numpy()
    difference = np.linalg.norm(ours.logits - expected)
    assert 0 < difference < 0.1 * np.linalg.norm(expected)  # rounded inputs: with 8 bits this model differs as much
