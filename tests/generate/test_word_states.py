"""The states of a word in its text: those of transformers, at the word's own tokens."""

from __future__ import annotations

import pytest
import torch
from tiny_kinds import save_both, save_encoder

import lmworks
from lmworks.base.errors import InputError
from lmworks.generate.word_states import layer_states, word_similarity, word_states


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


def test_every_layer_is_that_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    model = lmworks.load(folder)
    ids = model.tokenizer.encode("i love tea", special=True)
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = theirs(torch.tensor([ids]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(layer_states(model.network.eval(), ids), torch.cat(expected), atol=1e-5, rtol=0)


def test_a_word_of_several_tokens_is_their_mean(folder):
    model = lmworks.load(folder)
    text = "i love eating apples, fresh Apples"
    states = layer_states(model.network.eval(), model.tokenizer.encode(text, special=True))
    # [CLS] i love eat ##ing apple ##s ...
    torch.testing.assert_close(word_states(model.network, model.tokenizer, text, "eating"), states[:, 3:5].mean(1))
    torch.testing.assert_close(word_states(model.network, model.tokenizer, text, "APPLES"), states[:, 5:7].mean(1))


def test_the_same_context_gives_one_and_another_one_less(folder):
    model = lmworks.load(folder)
    same = word_similarity(model.network, model.tokenizer, "tea", ("i love tea", "i love tea"))
    assert same == pytest.approx([1.0] * 3)
    other = word_similarity(model.network, model.tokenizer, "tea", ("i love tea", "fresh cat in tea"))
    assert max(other) < 0.999


def test_an_encoder_decoder_gives_the_states_of_its_encoder(tmp_path):
    model = lmworks.load(save_both(tmp_path / "both"))
    assert word_states(model.network.eval(), model.tokenizer, "my cat", "cat").shape == (3, 32)


@pytest.mark.parametrize("word", ["ea", "cats", "", "cat"])
def test_a_word_that_does_not_occur_is_refused(folder, word):
    model = lmworks.load(folder)
    with pytest.raises(InputError, match="does not occur") as caught:
        word_similarity(model.network, model.tokenizer, word, ("my cat", "i love tea"))
    assert caught.value.place == ("text 2" if word == "cat" else "text 1")
