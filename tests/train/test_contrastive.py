"""The contrastive loss and its gradient are those of sentence-transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_kinds import save_encoder

import lmworks
from lmworks.data.batch import CONTRASTIVE, Example
from lmworks.data.pairs import pair_example
from lmworks.families.sentence_pooling import SentencePooling, write_pooling
from lmworks.train import losses
from lmworks.train.settings import TrainSettings
from lmworks.train.step import accumulate_gradients, batches_of

PAIRS = [("i love tea", "fresh tea"), ("my cat", "cat in salad , i love"), ("apples", "fruit")]
NEGATIVES = ["my salad", "i love my cat in tea", "eating"]


@pytest.fixture(name="folder", params=["mean", "cls"])
def _folder(request, tmp_path: Path) -> Path:
    folder = save_encoder(tmp_path / "tiny")
    write_pooling(folder, SentencePooling((request.param,), normalize=False), 32)
    return folder


def examples(model, texts: list[tuple[str, ...]], pooling: str) -> list[Example]:
    return [
        pair_example([np.array(model.tokenizer.encode(text, special=True)) for text in row], pooling, 20.0)
        for row in texts
    ]


def theirs(folder: Path, texts: list[tuple[str, ...]]) -> tuple[float, dict[str, torch.Tensor]]:
    peers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    model = peers.SentenceTransformer(str(folder), device="cpu")
    model.eval()  # no dropout
    loss = MultipleNegativesRankingLoss(model)
    value = loss([model.tokenize(list(column)) for column in zip(*texts, strict=True)], None)
    value.backward()
    inner = model[0].auto_model
    return float(value), {name: weight.grad for name, weight in inner.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("with_negatives", [False, True])
def test_loss_and_gradient_are_those_of_sentence_transformers(folder, with_negatives):
    texts = [(*pair, *([negative] if with_negatives else [])) for pair, negative in zip(PAIRS, NEGATIVES, strict=True)]
    expected, gradients = theirs(folder, texts)
    model = lmworks.load(folder)
    network = model.network.eval().requires_grad_(True)
    settings = TrainSettings(batch_size=3, row_tokens=4)
    rows = examples(model, texts, model.pooling.modes[0])
    result = accumulate_gradients(network, rows, settings, 1, "float32", torch.device("cpu"))
    assert result.terms == {CONTRASTIVE: pytest.approx(expected, abs=1e-5)}
    pairs = {
        "embeddings.word_embeddings.weight": network.embed_tokens.weight,
        "embeddings.position_embeddings.weight": network.embed_positions.weight,
        "encoder.layer.0.attention.self.query.weight": network.layers[0].self_attn.q_proj.weight,
        "encoder.layer.1.output.dense.bias": network.layers[1].mlp.down_proj.bias,
    }
    for name, weight in pairs.items():
        torch.testing.assert_close(weight.grad, gradients[name], atol=1e-5, rtol=1e-4)


def test_the_same_positive_of_another_pair_is_no_negative(folder):
    model = lmworks.load(folder)
    texts = [("i love tea", "fresh tea"), ("tea", "fresh tea"), ("my cat", "cat")]
    (batch,) = batches_of(examples(model, texts, "mean"), TrainSettings())
    with torch.no_grad():
        term = losses.terms(model.network.eval(), batch)[CONTRASTIVE]
        unit = [
            torch.nn.functional.normalize(model.embed([row[side] for row in texts], "mean"), dim=-1) for side in (0, 1)
        ]
    scores = 20 * unit[0] @ unit[1].T
    scores[0, 1] = scores[1, 0] = -torch.inf
    wanted = (torch.logsumexp(scores, 1) - scores.diagonal()).sum()
    torch.testing.assert_close(term.total, wanted, atol=1e-4, rtol=1e-5)
    assert term.weight == 3
