"""The choice that is taken is the likeliest per byte as the model scores it, or the one with the nearest vector."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_kinds import save_both, save_encoder
from tiny_model import save_tiny

import lmworks
from lmworks.base.errors import InputError
from lmworks.evaluate.multiple_choice import likeliest_choices, nearest_choices
from lmworks.evaluate.pseudo_likelihood import hidden_examples
from lmworks.evaluate.scoring import row_losses
from lmworks.text.multiple_choice import ChoiceQuestion

QUESTIONS = [
    ChoiceQuestion("The sky", (" is blue.", " are who", " system and more"), 0, "1"),
    ChoiceQuestion("Who are", (" you?", " sky sky sky", " b"), 0, "2"),
    ChoiceQuestion("I am", (" nobody; who", " the sea is too.", "!"), 0, "3"),
]
WORDS = [
    ChoiceQuestion("i love", (" apples", " my cat", " eating fresh fruit"), 0, "1"),
    ChoiceQuestion("my cat", (" in tea", " i"), 1, "2"),
]


def test_a_decoder_takes_the_likeliest_per_byte(tmp_path):
    model = lmworks.load(save_tiny(tmp_path / "tiny", seed=3))
    expected = []
    for question in QUESTIONS:
        prompt = model.score(question.prompt)[0].nats
        nats = [model.score(question.prompt + choice)[0].nats - prompt for choice in question.choices]
        expected.append(int(np.argmin([n / len(c.encode()) for n, c in zip(nats, question.choices, strict=True)])))
    assert likeliest_choices(model.network, model.tokenizer, QUESTIONS) == expected


def test_an_encoder_takes_the_likeliest_by_pseudo_likelihood(tmp_path):
    model = lmworks.load(save_encoder(tmp_path / "bert"))
    tokenizer, expected = model.tokenizer, []
    for question in WORDS:
        rates = []
        for choice in question.choices:
            ids = np.array(tokenizer.encode(question.prompt + choice, special=True), dtype=np.int32)
            begin = 1 + len(tokenizer.encode(question.prompt))
            examples = list(hidden_examples(ids, range(begin, len(ids) - 1), tokenizer))
            rates.append(row_losses(model.network, examples).language.nats.sum() / len(choice.encode()))
        expected.append(int(np.argmin(rates)))
    assert likeliest_choices(model.network, tokenizer, WORDS) == expected


def test_an_encoder_without_a_language_head_takes_the_nearest_vector(tmp_path):
    model = lmworks.load(save_encoder(tmp_path / "bert"))
    expected = []
    for question in WORDS:
        prompt, *choices = model.embed([question.prompt, *question.choices])
        expected.append(int(np.argmax([float(prompt @ choice) for choice in choices])))
    assert nearest_choices(model.network, model.tokenizer, model.pooling, WORDS) == expected


def test_long_prompts_lose_their_beginning_and_long_choices_are_refused(tmp_path):
    model = lmworks.load(save_tiny(tmp_path / "tiny"))
    long = ChoiceQuestion("word " * 300, (" blue", " green"), 0, "own.jsonl:1")
    assert likeliest_choices(model.network, model.tokenizer, [long])[0] in (0, 1)
    with pytest.raises(InputError, match="no room") as caught:
        likeliest_choices(model.network, model.tokenizer, [ChoiceQuestion("a", ("b" * 300, "c"), 0, "own.jsonl:2")])
    assert caught.value.place == "own.jsonl:2"


def test_an_encoder_decoder_is_refused(tmp_path):
    model = lmworks.load(save_both(tmp_path / "t5"))
    with pytest.raises(InputError, match="no likelihood of a continuation"):
        likeliest_choices(model.network, model.tokenizer, WORDS)
