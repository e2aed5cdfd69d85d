"""Streaming gives whole characters only, and never the stop string nor a part of it."""

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizers import byte_level, sentencepiece

from lmworks.generate.text import TextBuilder
from lmworks.text.tokenizer import Tokenizer


def byte_tokenizer() -> Tokenizer:
    """Each byte is a token: the hardest case for whole characters."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    core = tokenizers.Tokenizer(tokenizers.models.BPE({sign: i for i, sign in enumerate(alphabet)}, []))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    return Tokenizer(core)


TOKENIZER = byte_tokenizer()


def pieces_of(text: str, stop: list[str]) -> list[str]:
    builder = TextBuilder(TOKENIZER, stop)
    pieces = []
    for token in TOKENIZER.encode(text):
        pieces.append(builder.add(token))
        if builder.stopped:
            break
    return [*pieces, builder.finish()]


@given(st.text(max_size=40))
def test_pieces_join_to_the_text(text):
    pieces = pieces_of(text, [])
    assert "".join(pieces) == TOKENIZER.decode(TOKENIZER.encode(text))
    assert "\ufffd" not in "".join(pieces[:-1]) or "\ufffd" in text


@given(st.text(alphabet="abé", max_size=30), st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3))
def test_a_stop_string_ends_the_text_before_it(text, stop):
    given_out = "".join(pieces_of(text, stop))
    ends = [text.find(item) for item in stop if item in text]
    if not ends:
        assert given_out == text
    else:
        assert text.startswith(given_out)
        assert not any(item in given_out for item in stop)


@pytest.mark.parametrize(("text", "stop", "wanted"), [("one END two", ["END"], "one "), ("EN", ["END"], "EN")])
def test_examples(text, stop, wanted):
    assert "".join(pieces_of(text, stop)) == wanted


@pytest.mark.parametrize("text", ["é\U0001f600漢\U0001f600é", "x漢漢漢y", "\U0001f600 \U0001f600"])
def test_characters_whose_bytes_are_tokens_of_sentencepiece_are_whole(text):
    tokenizer = sentencepiece()
    builder = TextBuilder(tokenizer, [])
    pieces = [builder.add(token) for token in tokenizer.encode(text, after="x")]
    assert "".join([*pieces, builder.finish()]) == text
    assert "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize(("keep_special", "wanted"), [(False, "a b"), (True, "a<|eot|> b")])
def test_special_tokens_are_left_out_or_written_by_their_names(keep_special, wanted):
    tokenizer = byte_level()
    builder = TextBuilder(tokenizer, [], keep_special)
    pieces = [builder.add(token) for token in tokenizer.encode("a<|eot|> b")]
    assert "".join([*pieces, builder.finish()]) == wanted
