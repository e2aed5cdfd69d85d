"""Precisions of the native engine's KV cache: what int8 costs in likelihood, and that it behaves as the others do."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
import torch
from test_native_stepper import GEMMA, instruction_set, network_of, prompts  # noqa: F401 (a fixture)
from tiny_model import save_tiny

import lmworks
from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.generate.engine_sequences import KV_CACHES
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import native_stepper, weights_of
from lmworks.generate.stepper import RowStart
from lmworks.kernels.native_module import native_module

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")


@pytest.mark.parametrize("changes", [{}, GEMMA], ids=["llama", "gemma"])
@pytest.mark.parametrize(("kv_cache", "bound"), [("float16", 2e-3), ("int8", 0.03)])
@pytest.mark.usefixtures("instruction_set")
def test_logits_are_near_those_with_float32(changes: dict, kv_cache: str, bound: float) -> None:
    network, starts = network_of(**changes), prompts()
    exact, rounded = native_stepper(network), native_stepper(network, kv_cache=kv_cache)
    for stepper in (exact, rounded):
        stepper.prefill(starts)
        stepper.step([1, 2, 3, 4])
    difference = np.abs(exact.logits - rounded.logits).max()
    assert 0 < difference < bound * np.abs(exact.logits).max()


@pytest.mark.usefixtures("instruction_set")
def test_rows_and_tokens_at_once_get_the_bits_of_each_alone() -> None:
    network, starts, tokens = network_of(head_dim=20), prompts((5, 33)), list(range(20))
    together, once, singly = (native_stepper(network, kv_cache="int8") for _ in range(3))
    together.prefill(starts)
    for stepper in (once, singly):
        stepper.prefill(starts[:1])
    assert (together.logits[0] == once.logits[0]).all()
    logits = once.extend(tokens)
    for row, token in zip(logits, tokens, strict=True):
        singly.step([token])
        together.step([token, 1])
        assert (singly.logits[0] == row).all()
        assert (together.logits[0] == row).all()


def test_a_cache_grows_is_copied_and_cut_without_a_trace() -> None:
    network, tokens = network_of(), torch.randint(0, 97, (60,)).tolist()
    grown, roomy = native_stepper(network, kv_cache="int8"), native_stepper(network, kv_cache="int8")
    grown.prefill([RowStart(tokens[:3])], reserve=0)
    roomy.prefill([RowStart(tokens[:3])], reserve=90)
    assert (grown.extend(tokens[3:]) == roomy.extend(tokens[3:])).all()
    grown.keep([0, 0])
    grown.step([7, 8])
    roomy.step([8])
    assert (grown.logits[1] == roomy.logits[0]).all()
    grown.keep([1])
    for stepper in (grown, roomy):
        stepper.truncate(21)
        stepper.step([9])
    assert (grown.logits == roomy.logits).all()


def test_a_sequence_takes_the_bytes_of_its_precision() -> None:
    network = network_of(head_dim=64)
    engine = weights_of(network).engine
    vectors = 2 * 3 * 2 * 48  # keys and values of 3 layers with 2 heads each, of 33 tokens in tiles of 16
    for kv_cache, size in (("float32", 256), ("float16", 128), ("int8", 64 + 4)):
        stepper = NativeStepper(engine, 97, 96, kv_cache=kv_cache)
        stepper.prefill([RowStart(list(range(33)))], reserve=0)
        assert engine.sizes()[1] == vectors * size
        del stepper
    assert engine.sizes()[1] == 0


def test_several_precisions_share_an_engine() -> None:
    network, starts = network_of(), prompts((9,))
    engine = weights_of(network).engine
    shared = {name: NativeStepper(engine, 97, 96, kv_cache=name) for name in KV_CACHES}
    for stepper in shared.values():
        stepper.prefill(starts)
    for name, stepper in shared.items():
        stepper.step([3])
        alone = native_stepper(network, kv_cache=name)
        alone.prefill(starts)
        alone.step([3])
        assert (alone.logits == stepper.logits).all()
    with pytest.raises(InputError, match="int4"):
        NativeStepper(engine, 97, 96, kv_cache="int4")
    with pytest.raises(ValueError, match="no such kind of cache"):
        engine.add_sequence(5, cache=len(KV_CACHES))


def test_a_real_text_is_as_likely_with_half_the_bytes(smollm2: Path) -> None:
    """Bits per byte of SmolLM2 with int8 are within half a percent of those with float16, its default."""
    model = lmworks.load(smollm2, storage="stored").prepare("bfloat16")
    tokens = model.tokenizer.encode(topics["lambda"] + topics["with"])[:600]
    size = len(model.tokenizer.decode(tokens).encode())
    bits, taken = {}, {}
    for kv_cache in ("float16", "int8"):
        model.kv_cache = kv_cache
        stepper: Any = model.stepper()
        stepper.prefill([RowStart(tokens[:1])], len(tokens))
        logits = torch.from_numpy(stepper.extend(tokens[1:-1])).double()
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[2:]), reduction="sum")
        bits[kv_cache] = float(losses) / np.log(2) / size
        assert model.engine_weights is not None
        taken[kv_cache] = model.engine_weights.engine.sizes()[1]
        del stepper
    assert 0.2 < bits["float16"] < 3
    assert bits["int8"] == pytest.approx(bits["float16"], rel=5e-3)
    assert taken["int8"] < 0.54 * taken["float16"]


def test_the_option_is_for_the_native_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(save_tiny(tmp_path / "model"))
    command = ["generate", folder, "What is", "--max-tokens", "8", "--temperature", "0", "--kv-cache"]
    texts = []
    for kv_cache in ("int8", "int8", "float16"):  # packed, and twice from the cache of packed weights
        assert main([*command, kv_cache]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert main([*command, "int8", "--backend", "torch"]) == 2
    assert "--kv-cache int8" in capsys.readouterr().err
    assert main([*command, "int4"]) == 2
