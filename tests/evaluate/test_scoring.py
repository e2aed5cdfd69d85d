"""Scores packed, in windows and one by one are what a plain forward pass with a plain softmax gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, processors

from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.evaluate import scoring
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

TEXTS = ["The sky is blue.", "", "é", "a", "naïve café, 天空", "the end of a longer text than the others " * 2]


def _tokenizer(bos: bool) -> Tokenizer:
    """Bytes as tokens, and a beginning of text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = tokenizers.Tokenizer(models.BPE({sign: n for n, sign in enumerate(letters)}, [], unk_token=None))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>"])
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    return Tokenizer(core, bos_id=256)


@pytest.fixture(scope="module")
def network() -> Transformer:
    config = ModelConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        hidden_dropout=0.1,
    )
    created = Transformer(config)
    draw(created, torch.Generator().manual_seed(0))
    return created.eval()


def _plain(network: Transformer, ids: list[int], first: int) -> float:
    """-log p of ids[first:], by one pass over all of them."""
    if len(ids) <= first:
        return 0.0
    with torch.no_grad():
        logs = network(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -sum(float(logs[place - 1, ids[place]]) for place in range(first, len(ids)))


@pytest.mark.parametrize("bos", [True, False])
def test_scores_are_those_of_a_plain_pass(network: Transformer, bos: bool) -> None:
    tokenizer = _tokenizer(bos)
    for text, score in zip(TEXTS, scoring.score_texts(network, tokenizer, TEXTS), strict=True):
        ids = tokenizer.encode(text, special=True)
        assert score.tokens == max(len(ids) - 1, 0)
        assert score.nats == pytest.approx(_plain(network, ids, 1), abs=1e-4)
        if bos:
            assert score.bytes == len(text.encode())
        if score.bytes:
            assert score.bits_per_byte == pytest.approx(score.nats / math.log(2) / score.bytes)


def test_without_bos_the_first_tokens_bytes_do_not_count(network: Transformer) -> None:
    scores = scoring.score_texts(network, _tokenizer(False), ["The sky", "a", ""])
    assert [score.bytes for score in scores] == [6, 0, 0]
    assert math.isnan(scores[1].bits_per_byte)
    assert math.isnan(scores[2].bits_per_byte)


@pytest.mark.parametrize("row_tokens", [1, 40, 10_000])
def test_packed_is_one_by_one(network: Transformer, row_tokens: int) -> None:
    tokenizer = _tokenizer(True)
    together = scoring.score_texts(network, tokenizer, TEXTS, row_tokens)
    alone = [scoring.score_texts(network, tokenizer, [text])[0] for text in TEXTS]
    assert [(s.tokens, s.bytes) for s in together] == [(s.tokens, s.bytes) for s in alone]
    assert [s.nats for s in together] == pytest.approx([s.nats for s in alone], abs=1e-4)


def test_chunks_of_the_head_change_nothing(network: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scoring.score_texts(network, _tokenizer(True), TEXTS)
    monkeypatch.setattr(scoring, "EVALUATED_LOGITS", 3)
    parts = scoring.score_texts(network, _tokenizer(True), TEXTS)
    assert [s.nats for s in parts] == pytest.approx([s.nats for s in whole], abs=1e-4)


@pytest.mark.parametrize(("context", "stride"), [(None, None), (None, 20), (100, None), (50, 49), (9, 1)])
@pytest.mark.parametrize("length", [127, 128, 129, 200, 500])
def test_long_texts_in_windows(network: Transformer, length: int, context: int | None, stride: int | None) -> None:
    """Each token once; each as likely as with what its window holds before it."""
    text = "".join(chr(97 + (7 * n * n) % 26) for n in range(length))
    tokenizer = _tokenizer(True)
    ids = tokenizer.encode(text, special=True)
    window = context or 128
    seen = window - stride if stride else window // 2
    expected, done = 0.0, 1
    while done < len(ids):
        begin = 0 if done == 1 else done - seen
        end = min(begin + window, len(ids))
        expected += _plain(network, ids[begin:end], done - begin)
        done = end
    (score,) = scoring.score_texts(network, tokenizer, [text], context=context, stride=stride, computed="by:test")
    assert score.tokens == length
    assert score.bytes == length
    assert score.nats == pytest.approx(expected, abs=1e-3)
    assert score.characters == length
    assert score.perplexity == pytest.approx(math.exp(expected / length), rel=1e-4)
    windows = f"|context:{window}|stride:{stride or window - window // 2}" if len(ids) > window else ""
    assert score.signature == f"by:test{windows}"


@pytest.mark.parametrize(
    ("context", "stride", "place"),
    [(129, None, "--context"), (1, None, "--context"), (None, 128, "--stride"), (9, 0, "--stride")],
)
def test_windows_that_the_model_cannot_read_are_refused(
    network: Transformer, context: int | None, stride: int | None, place: str
) -> None:
    with pytest.raises(InputError, match=place):
        scoring.score_texts(network, _tokenizer(True), ["a text"], context=context, stride=stride)


def test_characters_are_code_points(network: Transformer) -> None:
    (with_bos,) = scoring.score_texts(network, _tokenizer(True), ["naïve 天空"])
    assert (with_bos.bytes, with_bos.characters) == (len("naïve 天空".encode()), 8)
    assert with_bos.bits_per_character == pytest.approx(with_bos.nats / math.log(2) / 8)
    (without,) = scoring.score_texts(network, _tokenizer(False), ["naïve"])
    assert without.characters == 4
    (empty,) = scoring.score_texts(network, _tokenizer(False), [""])
    assert math.isnan(empty.bits_per_character)
    assert math.isnan(empty.perplexity)


def test_row_losses_count_where_loss_lies(network: Transformer) -> None:
    random = np.random.default_rng(0)
    examples = []
    for length in (5, 9, 30, 2):
        loss = random.random(length) < 0.5
        loss[1] = length != 2
        examples.append(Example(random.integers(0, 256, length).astype(np.int32), loss, bytes=int(loss[1:].sum())))
    examples[3].loss[:] = False
    measured = scoring.row_losses(network.train(), examples)
    losses = measured.language
    assert network.training
    network.eval()
    for example, nats, tokens in zip(examples, losses.nats, losses.targets, strict=True):
        ids = example.ids.tolist()
        each = [_plain(network, ids[: place + 1], place) for place in range(1, len(ids)) if example.loss[place]]
        assert nats == pytest.approx(sum(each), abs=1e-4)
        assert tokens == len(each)
    sizes = [example.bytes for example in examples]
    remaining = scoring.summary(measured, sizes)
    assert remaining["loss"] == pytest.approx(losses.nats.sum() / losses.targets.sum())
    assert remaining["bits_per_byte"] == pytest.approx(losses.nats.sum() / math.log(2) / sum(sizes))
