"""A measurement reports its rows to whoever listens, and a run shows them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from lmworks.data.batch import Example
from lmworks.evaluate import progress as measurement
from lmworks.evaluate import scoring
from lmworks.model.config import ModelConfig
from lmworks.model.transformer import Transformer
from lmworks.train import progress

CONFIG = ModelConfig(
    vocab_size=32,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    max_position_embeddings=32,
)


class Listener:
    def __init__(self):
        self.parts, self.counts = [], []

    def begin(self, part, total):
        self.parts.append((part, total))

    def advance(self, count):
        self.counts.append(count)


def test_every_example_is_reported_once():
    examples = [Example(np.arange(n, dtype=np.int32), np.ones(n, dtype=bool)) for n in (5, 9, 3, 9)]
    torch.manual_seed(0)
    network, listener = Transformer(CONFIG), Listener()
    with measurement.listening(listener):
        measurement.begin("examples", 4)
        scoring.row_losses(network, examples, row_tokens=10)
    assert listener.parts == [("examples", 4)]
    assert sum(listener.counts) == 4
    assert len(listener.counts) > 1
    scoring.row_losses(network, examples)  # nobody listens any more
    assert sum(listener.counts) == 4


@pytest.mark.parametrize("terminal", [False, True])
def test_items_and_time_left_are_shown(monkeypatch, terminal):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    out = io.StringIO()
    with progress.EvaluationProgress("measuring", Console(file=out, force_terminal=terminal, width=80)) as shown:
        shown.begin("held-out examples", 10)
        shown.advance(4)
        shown.advance(6)
        shown.begin("answers", 3)
        shown.advance(1)
        shown.advance(3)  # more than were expected
    if not terminal:
        lines = ["measuring: held-out examples 4/10  0:00 left", "measuring: answers 1/3  0:00 left"]
        assert out.getvalue().splitlines() == lines
    else:
        assert "measuring: answers 3/3" in out.getvalue()
