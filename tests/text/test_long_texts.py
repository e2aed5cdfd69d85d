"""A text that is encoded in pieces has the tokens, places and words that it has as a whole."""

import itertools

import pytest
from tiny_tasks import TEXTS, bert_like, characters, roberta_like, t5_like
from tiny_tokenizers import LLAMA2, byte_level, sentencepiece

from lmworks.data.documents import encode_documents
from lmworks.language_model.opening import load_tokenizer
from lmworks.text import tokenizer as module
from lmworks.text.plain_text import cut_between_words
from lmworks.text.rows import Row
from lmworks.text.tokenizer import Tokenizer

TEXT = "\n\n".join(TEXTS) + "\nThe sea, the sky: 3 cats!\n  " + " ".join(TEXTS).lower() + "\n" + "Who are you? " * 20
TOKENIZERS = {
    "bert": bert_like,
    "roberta": roberta_like,
    "t5": t5_like,
    "characters": characters,
    "byte level": byte_level,
    "llama 2": lambda: sentencepiece(LLAMA2),
    "newer sentencepiece": lambda: sentencepiece(legacy=False),
}


def check(tokenizer: Tokenizer, text: str, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rows = [Row({"text": text}), Row({"text": "a cat"})]

    def encode():
        spans = [(ids.tolist(), starts.tolist()) for ids, starts in tokenizer.spans([text, "a cat"])]
        words = [document.word_ids.tolist() for document in encode_documents(rows, tokenizer, word_ids=True)]
        return spans, words, tokenizer.encode_many([text, "a cat"], ["", "b"])

    whole = encode()
    monkeypatch.setattr(module, "PIECE", size)
    monkeypatch.setattr(module, "PIECES_AT_ONCE", 2)
    assert len(cut_between_words(text, size)) > 5
    assert encode() == whole


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pieces_have_the_tokens_of_the_whole(name, monkeypatch):
    check(TOKENIZERS[name](), TEXT, monkeypatch, 60)


def test_with_a_published_tokenizer_too(smollm2, monkeypatch):
    check(load_tokenizer(smollm2), TEXT, monkeypatch, 60)


@pytest.mark.parametrize("text", ["x" * 250, "漢字" * 130, "." * 250, "ab " * 90])
def test_no_piece_is_longer_than_asked_and_nothing_is_lost(text):
    begins = [*cut_between_words(text, 60), len(text)]
    pieces = [text[begin:end] for begin, end in itertools.pairwise(begins)]
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= 60 for piece in pieces)


def test_an_endless_word_is_read_whole(monkeypatch):
    tokenizer = byte_level()
    monkeypatch.setattr(module, "PIECE", 50)
    assert tokenizer.decode(tokenizer.spans(["x" * 220])[0][0].tolist()) == "x" * 220
