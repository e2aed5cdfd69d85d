"""An n-gram model behind the methods of a language model: generation, scores, refusals, files."""

from __future__ import annotations

import math

import numpy as np
import pytest

import lmworks
from lmworks.base.errors import InputError
from lmworks.baselines.ngram import NgramModel
from lmworks.commands.main import main
from lmworks.generate.sampling import SamplingSettings
from lmworks.language_model.ngram import NgramLanguageModel
from lmworks.language_model.opening import read_config
from lmworks.text import train_tokenizer
from lmworks.text.tokenizer_settings import TokenizerSettings

TEXTS = ["the cat sat on the mat", "the dog sat on the cat", "a cat and a dog sat on the mat"] * 3


@pytest.fixture(scope="module", params=["word", "char", "byte-bpe"])
def folder(request, tmp_path_factory):
    settings = TokenizerSettings(kind=request.param, vocab_size=265 if request.param == "byte-bpe" else None)
    tokenizer = train_tokenizer.train(TEXTS, settings, "gpt2").tokenizer
    ids = [np.array(tokenizer.encode(text)) for text in TEXTS]
    ngram = NgramModel.train(ids, 3, tokenizer.vocab_size, begin_id=tokenizer.bos_id, end_id=tokenizer.eos_id)
    path = tmp_path_factory.mktemp("ngram") / "model"
    NgramLanguageModel(ngram, tokenizer, "new").save(path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return lmworks.load(folder)


def test_scores_are_those_of_the_model(model):
    (score,) = model.score("the dog sat")
    ids = model.tokenizer.encode("the dog sat")
    assert score.nats == pytest.approx(-model.ngram.log_probabilities(ids).sum())
    assert (score.tokens, score.bytes) == (len(ids), 11)
    assert score.bits_per_byte < 3


def test_greedy_text_is_the_likeliest_token_each_time(model):
    ids = model.tokenizer.encode("the dog")
    new = []
    while len(new) < 12:
        token = int(model.ngram.next_distribution([*ids, *new]).argmax())
        if token == model.tokenizer.eos_id:
            break
        new.append(token)
    text = model.generate("the dog", max_tokens=12)
    assert model.tokenizer.encode(text) == model.tokenizer.encode(model.tokenizer.decode(new))
    assert model.generate(["the dog", "a"], max_tokens=12)[0] == text


def test_log_probabilities_of_a_reply_are_the_model_s(model):
    settings = SamplingSettings(max_tokens=5, temperature=1, seed=3)
    (reply,) = model.complete(["a"], settings, log_probabilities=True)
    ids = model.tokenizer.encode("a")
    expected = model.ngram.log_probabilities([*ids, *reply.ids])[len(ids) :]
    np.testing.assert_allclose(reply.log_probabilities, expected, atol=1e-5)


def test_next_tokens(model):
    listed = model.next("the", top=3)
    distribution = np.sort(model.ngram.next_distribution(model.tokenizer.encode("the")))[::-1]
    assert [probability for _, probability in listed] == pytest.approx(list(distribution[:3]), rel=1e-4)


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.fill("the ___"),
        lambda model: model.embed("the"),
        lambda model: model.chat([{"role": "user", "content": "hi"}]),
        lambda model: model.next_sentence("a", "b"),
        lambda model: model.network.eval(),
        lambda model: model.config,
    ],
)
def test_what_needs_a_network_is_refused_in_one_sentence(model, ask):
    with pytest.raises(InputError, match="is an n-gram model, which has no network"):
        ask(model)


def test_it_is_no_model_to_train_further(folder):
    with pytest.raises(InputError, match="is an n-gram model"):
        read_config(folder)


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    ngram = NgramModel.train([np.array([1, 2, 3])], 2, 5)
    NgramLanguageModel(ngram, lmworks.load(folder).tokenizer, "new").save(tmp_path / "other")
    with pytest.raises(InputError, match="the tokenizer has ids up to"):
        lmworks.load(tmp_path / "other")


def test_commands_open_it(folder, tmp_path, capsys):
    assert main(["score", str(folder), "the cat"]) == 0
    assert main(["generate", str(folder), "the cat", "--max-tokens", "3"]) == 0
    assert main(["next", "the", "--model", str(folder)]) == 0
    assert "token" in capsys.readouterr().out
    assert main(["save", str(folder), str(tmp_path / "copy")]) == 0
    assert "weights" not in capsys.readouterr().out
    assert main(["score", str(tmp_path / "copy"), "the cat"]) == 0
    assert main(["save", str(folder), str(tmp_path / "half"), "--dtype", "bfloat16"]) == 2
    assert "float64" in capsys.readouterr().err
    assert main(["embed", "a", "--model", str(folder)]) == 2
    assert "has no network" in capsys.readouterr().err


def test_nothing_can_be_scored_of_nothing(model):
    (score,) = model.score("")
    assert (score.nats, score.tokens, score.bytes) == (0, 0, 0)
    assert math.isnan(score.bits_per_byte)
