"""Tags of the words of texts, by a model with a head that reads each token.

A text that is longer than the model's context is read in windows that overlap by half; each word takes its tag from the
window in whose middle it stands most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.batch import Example, Labels
from lmworks.data.word_pieces import Pieces, Words, pieces_of
from lmworks.evaluate.outputs import head_logits
from lmworks.evaluate.tagging import TaggedText, tags_of, with_entities
from lmworks.language_model.head_inputs import HeadInputs
from lmworks.model.head_requests import TOKENS
from lmworks.model.transformer import Transformer
from lmworks.text.tagged_rows import join_tokens
from lmworks.text.tokenizer import Tokenizer

TextOrTokens = str | Sequence[str] | Words
TAG_HINT = 'give a list of texts, or of lists of tokens: ["In Rome", ["In", "Rome"]]'


def words_of(value: TextOrTokens, place: str) -> Words:
    """A text with its words, or tokens as the words of the text that they make with spaces between them.

    Raises:
        InputError: it is neither, or a token is empty.
    """
    if isinstance(value, Words):
        return value
    if isinstance(value, str):
        return Words.of_text(value)
    if not isinstance(value, (list, tuple)) or not all(isinstance(token, str) and token.strip() for token in value):
        raise InputError(f"{value!r} is neither a text nor a list of tokens", place, TAG_HINT)
    text, starts = join_tokens(value)
    return Words(text, starts, list(value))


def tag_words(
    texts: Sequence[TextOrTokens], network: Transformer, tokenizer: Tokenizer, decoder_start: int | None, source: str
) -> list[TaggedText]:
    """The words of each text with their tags, and the entities that they make.

    Args:
        texts: a text each, or its tokens, or a text whose words are known.
        network: with a head for tokens.
        tokenizer: the model's.
        decoder_start: of an encoder-decoder, where the model's files say it.
        source: of the model, for errors.

    Raises:
        InputError: the model has no such head, or an input is neither a text nor a list of tokens.
    """
    config = network.config
    head = config.head(TOKENS)
    if head is None:
        hint = f"train one: lmworks tune {source} FILE, with words and tags"
        raise InputError("the model has no head that tags words", source, hint)
    if isinstance(texts, str):
        raise InputError("a single text", "texts", TAG_HINT)
    inputs = HeadInputs.of(tokenizer, config, decoder_start, network.max_text_tokens)
    words = [words_of(value, f"text {number}") for number, value in enumerate(texts, 1)]
    pieces = list(pieces_of(tokenizer, words))
    windows = [_windows(part, inputs) for part in pieces]
    listed = iter(head_logits(network, [example for part in windows for example in part], TOKENS))
    tagged = []
    for text, part, examples in zip(words, pieces, windows, strict=True):
        rows = np.concatenate([np.zeros((0, head.size), np.float32), *(next(listed) for _ in examples)])
        tagged.append(with_entities(text, tags_of(rows, part, head)))
    return tagged


def _windows(pieces: Pieces, inputs: HeadInputs) -> list[Example]:
    """The tokens of a text as one example or several, each with the places of the words that it decides."""
    places = pieces.firsts[pieces.leads]
    if not len(places):
        return []
    room = inputs.room(False)
    begins = np.arange(0, max(1, len(pieces.ids) - room + 1), max(1, room // 2))
    if begins[-1] + room < len(pieces.ids):
        begins = np.append(begins, len(pieces.ids) - room)
    of_place = np.abs(places[:, None] - (begins[None] + room / 2)).argmin(axis=1)
    examples = []
    for number, begin in enumerate(begins.tolist()):
        chosen = places[of_place == number] - begin + len(inputs.frame.opening)
        if len(chosen):
            example = inputs.example([pieces.ids[begin : begin + room].tolist()])
            examples.append(replace(example, labels={TOKENS: Labels.of_tokens(chosen, np.zeros(len(chosen)))}))
    return examples
