"""A thousand steps of rows of all lengths hold no more memory than a hundred: nothing is kept for each shape."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lmworks.base import machine

STEPS = """
import json, sys
import numpy as np, torch
from lmworks.base import process_memory
from lmworks.data.batch import Example
from lmworks.model import initialization
from lmworks.model.config import ModelConfig
from lmworks.model.transformer import Transformer
from lmworks.train import optimizers
from lmworks.train.settings import TrainSettings
from lmworks.train.step import accumulate_gradients, cast_frozen_weights

precision = sys.argv[1]
network = Transformer(ModelConfig(vocab_size=500, hidden_size=96, intermediate_size=256, num_hidden_layers=3,
                                  num_attention_heads=4, max_position_embeddings=256))
initialization.draw(network, torch.Generator().manual_seed(0))
network.train()
process_memory.keep_memory()
settings, random = TrainSettings(row_tokens=600), np.random.default_rng(0)
optimizer = optimizers.make(network, settings)
held = []
with cast_frozen_weights(network, precision):
    for step in range(1, 1001):
        documents = []
        for length in random.integers(8, 200, 4):
            ids = random.integers(0, 500, length, dtype=np.int32)
            documents.append(Example(ids, np.ones(length, dtype=bool)))
        accumulate_gradients(network, documents, settings, step, precision, torch.device("cpu"))
        optimizer.advance(1e-4)
        if step in (100, 1000):
            held.append(process_memory.resident_memory())
print(json.dumps(held))
"""
MOST_GROWTH = 20_000_000
"""Bytes. What was kept for each shape before was 0.3 MB for each of some 15 products: hundreds of megabytes."""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_memory_is_flat(precision: str) -> None:
    if precision == "bfloat16" and machine.rates().bfloat16 < 0.1 * machine.rates().float32:
        pytest.skip("bfloat16 is emulated on this processor")
    command = [sys.executable, "-c", STEPS, precision]
    early, late = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert late - early < MOST_GROWTH
