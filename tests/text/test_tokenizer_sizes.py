"""Sizes and settings of trained tokenizers: what cannot be done, and that what an error proposes works."""

from __future__ import annotations

import re

import pytest
from tiny_training_texts import SIZED, TEXTS, least

from lmworks.base.errors import InputError
from lmworks.base.settings import build
from lmworks.text.tokenizer_settings import TokenizerSettings
from lmworks.text.train_tokenizer import TooManyEntries, train


@pytest.mark.parametrize("kind", SIZED)
def test_a_size_that_cannot_be_reached_says_which_can(kind):
    with pytest.raises(TooManyEntries, match="more than the text can fill") as caught:
        train(TEXTS, TokenizerSettings(kind=kind, vocab_size=20_000))
    filled = int(re.search(r"--vocab-size (\d+)", caught.value.hint)[1])
    assert caught.value.filled == filled
    assert train(TEXTS, TokenizerSettings(kind=kind, vocab_size=filled)).tokenizer.vocab_size == filled


@pytest.mark.parametrize("kind", SIZED)
def test_the_smallest_size_works_and_one_less_is_an_error(kind):
    enough = least(kind=kind)
    assert train(TEXTS, TokenizerSettings(kind=kind, vocab_size=enough)).tokenizer.vocab_size == enough
    with pytest.raises(InputError, match="entries do not hold"):
        train(TEXTS, TokenizerSettings(kind=kind, vocab_size=enough - 1))


@pytest.mark.parametrize(
    ("texts", "words", "fault"),
    [
        ([], {"kind": "char"}, "no text to learn from"),
        (["", " \n"], {"kind": "word"}, "no text to learn from"),
        (TEXTS, {"kind": "bpe"}, "needs the number of entries"),
        (TEXTS, {"kind": "word", "vocab_size": 20_000}, "more than the text can fill"),
        (TEXTS, {"kind": "word", "vocab_size": 5}, "have no room for more than the 5 special tokens"),
        (TEXTS, {"kind": "char", "byte_fallback": True}, "cannot write unknown characters as bytes"),
        (TEXTS, {"kind": "char", "min_frequency": 10_000}, "no char occurs 10000 times"),
        (TEXTS, {"kind": "unigram", "vocab_size": 160, "min_frequency": 2}, "knows no smallest frequency"),
        (TEXTS, {"kind": "char", "style": "qwen2"}, "byte-level BPE"),
        (["a", "b\ud800"], {"kind": "char"}, r"text 2: character 2 is half of a surrogate pair \(U\+D800\)"),
    ],
)
def test_what_cannot_be_done_is_said(texts, words, fault):
    with pytest.raises(InputError, match=fault) as caught:
        train(texts, TokenizerSettings(**words))
    assert caught.value.hint


@pytest.mark.parametrize("words", [{"kind": "letters"}, {"style": "klingon"}, {"vocab_size": 0}, {"sizes": 3}])
def test_unknown_settings_are_said(words):
    with pytest.raises(InputError):
        build(TokenizerSettings, words, "a recipe")
    with pytest.raises(InputError):
        train(TEXTS, TokenizerSettings(kind="char"), "klingon")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("size", [260, 264, 275])
def test_characters_without_room_are_written_as_bytes(kind, size):
    """Three special tokens and 256 bytes leave so little room that most characters have no entry of their own."""
    settings = TokenizerSettings(kind=kind, vocab_size=size, style="llama", byte_fallback=True)
    texts = [*TEXTS, "Ærø, Zürich and 東京"]
    tokenizer, notes = train(texts, settings)
    assert tokenizer.vocab_size == size
    assert any("rarest characters are written as their bytes" in note for note in notes)
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    again, _ = train(texts, settings)
    assert again.core.to_str() == tokenizer.core.to_str()


@pytest.mark.parametrize(
    "settings", [{"kind": "bpe"}, {"kind": "wordpiece"}, {"kind": "unigram"}, {"kind": "byte-bpe"}]
)
def test_the_size_that_a_hint_names_works(settings):
    with pytest.raises(InputError) as caught:
        train(TEXTS, TokenizerSettings(**settings, vocab_size=10))
    size = int(caught.value.hint.split()[1])
    tokenizer, _ = train(TEXTS, TokenizerSettings(**settings, vocab_size=size))
    assert tokenizer.vocab_size == size


MANY_WORDS = " ".join(f"{a}{b}{c}{d}" for a in "bcdfghkl" for b in "aeiou" for c in "rstvwxyz" for d in "aeiou") * 2


@pytest.mark.parametrize(
    ("kind", "size", "texts", "proposed"),
    [("bpe", 280, [MANY_WORDS], 1000), ("byte-bpe", 300, [MANY_WORDS], 1000), ("wordpiece", 80, TEXTS, None)],
)
def test_a_vocabulary_that_characters_fill_is_noted_and_the_proposed_size_works(kind, size, texts, proposed):
    def notes(size):
        asked = TokenizerSettings(kind=kind, vocab_size=size)
        return [note for note in train(texts, asked).notes if "leave room for" in note]

    (note,) = notes(size)
    found = re.search(rf"{size} entries leave room for \d+ merges; the text has \d+ \w+: --vocab-size (\d+) or", note)
    assert found, note
    assert proposed in (None, int(found[1]))
    assert notes(int(found[1])) == []


def test_a_vocabulary_of_words_is_not_noted():
    for kind, size in (("bpe", 1000), ("word", None), ("char", None)):
        assert not any(
            "room for" in note for note in train([MANY_WORDS], TokenizerSettings(kind=kind, vocab_size=size)).notes
        )
