"""Pseudo-likelihoods are those of ``transformers``, one token hidden at a time; any stride hides each token once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from tiny_kinds import bert_words, save_encoder
from tiny_model import save_tiny

import lmworks
from lmworks.base.errors import InputError
from lmworks.evaluate.pseudo_likelihood import hidden_examples, pseudo_scores

TEXTS = ["i love eating fresh apples", "my cat", "i love my fruit salad , in tea i love my cat"]


@pytest.fixture(scope="module", name="encoder")
def _encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder") / "bert")


def test_one_token_at_a_time_is_the_published_score(encoder):
    ours = lmworks.load(encoder)
    theirs = transformers.BertForMaskedLM.from_pretrained(encoder).eval()
    for text, score in zip(TEXTS, pseudo_scores(ours.network, ours.tokenizer, TEXTS, stride=99), strict=True):
        ids = ours.tokenizer.encode(text, special=True)
        nats = 0.0
        for place in range(1, len(ids) - 1):
            hidden = torch.tensor([ids])
            hidden[0, place] = ours.tokenizer.mask_id
            with torch.no_grad():
                nats -= float(theirs(hidden).logits[0, place].log_softmax(-1)[ids[place]])
        assert score.nats == pytest.approx(nats, rel=1e-4)
        assert (score.tokens, score.bytes) == (len(ids) - 2, len(text.encode()))


@pytest.mark.parametrize("stride", [1, 2, 7, 20])
def test_each_token_is_hidden_once(stride):
    tokenizer = bert_words()
    ids = np.array(tokenizer.encode(TEXTS[0], special=True), dtype=np.int32)
    examples = list(hidden_examples(ids, range(1, len(ids) - 1), tokenizer, stride))
    assert np.sum([example.loss for example in examples], axis=0).tolist() == [0, *[1] * (len(ids) - 2), 0]
    for example in examples:
        assert (example.ids[example.loss] == tokenizer.mask_id).all()
        assert (example.ids[~example.loss] == ids[~example.loss]).all()
        assert (example.targets == ids).all()


def test_a_text_longer_than_the_context_is_read_in_windows(encoder):
    model = lmworks.load(encoder)
    text = "i love my cat , " * 8
    (score,) = pseudo_scores(model.network, model.tokenizer, [text])
    size = model.context - 2
    ids = model.tokenizer.encode(text)
    parts = [model.tokenizer.decode(ids[begin : begin + size]) for begin in range(0, len(ids), size)]
    assert score.tokens == len(ids) > model.context
    assert score.nats == pytest.approx(
        sum(s.nats for s in pseudo_scores(model.network, model.tokenizer, parts)), rel=1e-4
    )


def test_an_empty_text_has_no_score(encoder):
    model = lmworks.load(encoder)
    empty, full = pseudo_scores(model.network, model.tokenizer, ["", "my cat"])
    assert (empty.tokens, empty.bytes, empty.nats) == (0, 0, 0.0)
    assert full.tokens == 2


def test_without_a_mask_token_there_is_none(tmp_path):
    model = lmworks.load(save_tiny(tmp_path / "tiny"))
    with pytest.raises(InputError, match="no mask token"):
        pseudo_scores(model.network, model.tokenizer, ["a"])
