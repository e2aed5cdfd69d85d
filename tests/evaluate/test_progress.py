"""A measurement reports its rows to whoever listens, and a run shows them."""

from __future__ import annotations

import io

import numpy as np
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


def test_every_example_is_reported_once():
    examples = [Example(np.arange(n, dtype=np.int32), np.ones(n, dtype=bool)) for n in (5, 9, 3, 9)]
    torch.manual_seed(0)
    network, reported = Transformer(CONFIG), []
    with measurement.listening(reported.append):
        scoring.row_losses(network, examples, row_tokens=10)
    assert sum(reported) == 4
    assert len(reported) > 1
    scoring.row_losses(network, examples)  # nobody listens any more
    assert sum(reported) == 4


def test_rows_and_time_left_are_shown(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    out = io.StringIO()
    with progress.RowProgress("measuring", 10, Console(file=out)) as shown:
        shown.advance(4)
        shown.advance(6)
        shown.advance(3)  # more than were expected
    assert out.getvalue().startswith("measuring  4/10 rows  0:00 left")
    assert "10/10" not in out.getvalue()
