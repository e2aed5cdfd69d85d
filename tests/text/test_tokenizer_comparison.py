"""The comparison: its numbers are those of the text, and its faults account for every character that changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train_tokenizer import KINDS, PROBES, TEXTS, created

from lmworks.base.errors import InputError
from lmworks.text.tokenizer_comparison import Fault, compare


def faults(text, kind, style=None, **options):
    return compare(text, {kind: created(kind, style, **options)})[0].faults


def test_numbers_are_those_of_the_text():
    text = "The cat, naïve.\nThe cat"
    for item in compare(text, {kind: created(kind) for kind in KINDS}):
        ids = created(item.name).encode(text)
        assert (item.tokens, item.used, item.vocabulary) == (len(ids), len(set(ids)), created(item.name).vocab_size)
        assert (item.characters, item.bytes) == (len(text), len(text) + 1)
        assert item.bytes_per_token == (len(text) + 1) / len(ids)
        assert item.characters_per_token == len(text) / len(ids)
        assert item.as_dict()["used_share"] == item.used / item.vocabulary


def test_characters_lost_to_the_unknown_token_are_listed():
    assert faults("the ☃漢 cat ☃", "char") == [Fault("☃", "<unk>", 2, True), Fault("漢", "<unk>", 1, True)]
    assert faults("the ☃漢 cat ☃", "unigram") == [Fault("☃", "<unk>", 2, True), Fault("漢", "<unk>", 1, True)]
    assert faults("the ☃漢 cat ☃", "bpe") == []


def test_words_lost_to_the_unknown_token_are_listed_whole():
    assert faults("the zebra sat zebra who", "word") == [Fault("zebra", "[UNK]", 2, True)]
    assert faults("the z☃bra sat", "wordpiece") == [Fault("z☃bra", "[UNK]", 1, True)]
    item = compare("the zebra sat", {"w": created("word")})[0]
    assert (item.unknown_characters, item.other_faults) == (5, 0)


def test_changes_of_white_space_and_case_are_distinguished():
    assert faults("the  cat\nsat", "word") == [Fault("\n", " ", 1, False), Fault(" ", "", 1, False)]
    assert faults("The cat saT", "char", lowercase=True) == [Fault("T", "t", 2, False)]
    assert faults("\n the\n", "word") == [Fault("\n", "", 1, False), Fault("\n ", "", 1, False)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*PROBES, *TEXTS, "☃", "Zebra ", "\n", "  "]), max_size=8).map("".join))
def test_every_character_that_changes_is_accounted_for(text):
    for kind in KINDS:
        if not text:
            continue
        ours = created(kind)
        result = faults(text, kind)
        back = ours.decode(ours.encode(text), skip_special=False)
        if result == []:
            assert back == text
        fused = ours.unk_id is not None and kind in ("unigram", "bpe")  # neighbours share one unknown token
        if not fused:
            gained = sum((len(fault.became) - len(fault.lost)) * fault.count for fault in result)
            assert gained == len(back) - len(text)


def test_a_text_without_faults_has_none():
    text = "".join(TEXTS) * 3
    for kind in ("char", "bpe", "byte-bpe", "unigram"):
        assert faults(text, kind) == []


def test_no_text_is_refused():
    with pytest.raises(InputError, match="no text"):
        compare("", {"char": created("char")})
    with pytest.raises(InputError, match="not UTF-8"):
        compare("\udcff", {"char": created("char")})
