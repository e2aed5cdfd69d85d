"""Attention of long prompts in the native engine: blocks give what single tokens give, and what the network gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_native_stepper import BASE, GEMMA, instruction_set, network_of, prompts  # noqa: F401 - a fixture

from lmworks.generate.native_weights import native_stepper
from lmworks.generate.stepper import RowStart
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.kernels.native_module import native_module

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

LONG = {"max_position_embeddings": 640}  # several steps, and several times the keys that are attended to at a time
WINDOWS = {**GEMMA, **LONG, "sliding_window": 300}
ONE_KEY_HEAD = {**LONG, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 32}
IN_TILES = {**LONG, "head_dim": 64}
WINDOWS_IN_TILES = {**WINDOWS, "head_dim": 32, "sliding_window": 40}


@pytest.mark.parametrize("changes", [LONG, WINDOWS, ONE_KEY_HEAD], ids=["llama", "windows", "one-key-head"])
def test_long_prompts_get_the_logits_of_the_network(changes, instruction_set):  # noqa: F811
    network, starts = network_of(**changes), prompts((600, 257, 31))
    ours, theirs = native_stepper(network), TorchStepper(network)
    for stepper in (ours, theirs):
        stepper.prefill(starts)
        stepper.step([1, 2, 3])
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-3 * float(theirs.logits.abs().max()))


@pytest.mark.parametrize("cache", [None, "int8"])
@pytest.mark.parametrize(
    "changes", [IN_TILES, WINDOWS_IN_TILES, ONE_KEY_HEAD], ids=["llama", "windows", "one-key-head"]
)
def test_rounded_keys_and_values_give_in_blocks_what_they_give_token_by_token(changes, cache, instruction_set):  # noqa: F811
    """Tiles round inputs and queries to bfloat16, as weights are: some thousandths of the largest logit remain."""
    network = network_of(spread=0.1, **changes)
    tokens = torch.randint(0, BASE["vocab_size"], (600,)).tolist()
    once, singly = (native_stepper(network, "bfloat16", kv_cache=cache) for _ in range(2))
    once.prefill([RowStart(tokens[:1])])
    singly.prefill([RowStart(tokens[:1])])
    logits = once.extend(tokens[1:])
    expected = []
    for token in tokens[1:]:
        singly.step([token])
        expected.append(singly.logits[0])
    difference = np.abs(logits - np.stack(expected)).max(-1) / np.abs(logits).max()
    assert difference.max() < 0.02
    assert difference.mean() < 0.006
