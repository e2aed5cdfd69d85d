"""Texts on which a tokenizer of every kind trains at once, and the smallest size of each."""

from __future__ import annotations

import re

import pytest

from lmworks.base.errors import InputError
from lmworks.text.tokenizer_settings import TokenizerSettings
from lmworks.text.train_tokenizer import train

LINES = """The river runs to the sea, and the sea returns the rain; whoever reads the river reads the weather.
Every morning the readers of the library return their books, and every evening they borrow others.
"Nothing," said the librarian, "is ever returned as it was borrowed: a reader changes the book, the book the reader."
"""
WORDS = "the cat who sat on a mat saw another cat, and the other cats were unhappy: unhappiness! 12 or 345 mats;\n"
TEXTS = [
    LINES + WORDS * 3 + "Who are you? I am nobody. Who are you?\n\n    def other(mat):\n        return mat + 1\n",
    "Été à Köln; naïve cafés, cafés. The sky is blue, and the sea is too.\tThe sea!\n" * 2,
]
SIZED = ("bpe", "byte-bpe", "wordpiece", "unigram")


def least(**words) -> int:
    """The smallest vocabulary that such settings can do with, as the error tells it."""
    with pytest.raises(InputError, match="entries do not hold") as caught:
        train(TEXTS, TokenizerSettings(**words, vocab_size=1))
    return int(re.search(r"--vocab-size (\d+)", caught.value.hint)[1])
