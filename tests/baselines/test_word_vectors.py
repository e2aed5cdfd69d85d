"""Word vectors and their files: the same numbers and neighbours as gensim, and damaged files named by line."""

from __future__ import annotations

import numpy as np
import pytest
from gensim.models import KeyedVectors
from gensim.test.utils import datapath
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import lmworks
from lmworks.base.errors import InputError
from lmworks.baselines.vector_files import read_vectors, write_vectors
from lmworks.baselines.word_vectors import WordVectors

WORDS = ["king", "queen", "man", "woman", "naïve", "語", "1984", "c++"]


def random_vectors(size: int = 8, width: int = 5, seed: int = 0) -> WordVectors:
    words = WORDS if size == len(WORDS) else [f"w{number}" for number in range(size)]
    return WordVectors(words, np.random.default_rng(seed).normal(size=(size, width)).astype(np.float32))


def of_gensim(vectors: WordVectors) -> KeyedVectors:
    peer = KeyedVectors(vectors.size)
    peer.add_vectors(vectors.words, vectors.vectors)
    return peer


words_of_files = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6),
    min_size=1,
    max_size=6,
    unique=True,
)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@settings(deadline=None, max_examples=60)
@given(words=words_of_files, data=st.data(), file_format=st.sampled_from(["text", "binary", "glove"]))
def test_what_is_written_comes_back_to_the_last_bit(words, data, file_format, tmp_path_factory):
    width = data.draw(st.integers(2, 5))
    vectors = data.draw(arrays(np.float32, (len(words), width), elements=numbers))
    path = tmp_path_factory.mktemp("vectors") / ("v.bin" if file_format == "binary" else "v.txt")
    write_vectors(path, words, vectors, file_format)
    back = read_vectors(path)
    assert back.words == words
    assert back.vectors.dtype == np.float32
    np.testing.assert_array_equal(back.vectors, vectors)


@pytest.mark.parametrize("binary", [False, True])
def test_gensim_opens_what_is_written_and_the_reverse(binary, tmp_path):
    ours = random_vectors()
    path = ours.save(tmp_path / ("ours.bin" if binary else "ours.txt"))
    peer = KeyedVectors.load_word2vec_format(path, binary=binary)
    assert peer.index_to_key == ours.words
    np.testing.assert_array_equal(peer.vectors, ours.vectors)
    of_gensim(ours).save_word2vec_format(tmp_path / "theirs", binary=binary)
    back = lmworks.word_vectors(tmp_path / "theirs")
    assert back.words == ours.words
    np.testing.assert_array_equal(back.vectors, ours.vectors)


def test_gensim_opens_glove_text(tmp_path):
    ours = random_vectors()
    peer = KeyedVectors.load_word2vec_format(ours.save(tmp_path / "v.txt", "glove"), no_header=True)
    np.testing.assert_array_equal(peer.vectors, ours.vectors)


def test_words_with_spaces_and_spaces_at_the_end_are_read(tmp_path):
    (tmp_path / "v.vec").write_text("2 2\n. . . 1 2 \nb 3 4 \n")
    assert read_vectors(tmp_path / "v.vec").words == [". . .", "b"]
    with pytest.raises(InputError, match="has a space"):
        WordVectors.open(tmp_path / "v.vec").save(tmp_path / "w.txt")


@pytest.mark.parametrize("name", ["v.txt", "v.bin"])
def test_only_the_first_words_are_read_and_repeated_ones_once(name, tmp_path):
    ours = random_vectors()
    path = ours.save(tmp_path / name)
    assert read_vectors(path, limit=3).words == WORDS[:3]
    write_vectors(path, [*WORDS, "king"], np.concatenate([ours.vectors, ours.vectors[1:2]]))
    back = WordVectors.open(path)
    np.testing.assert_array_equal(back.vectors, ours.vectors)
    assert back.notes == ["1 word left out that stood there before"]


DAMAGED = {
    "a number is none": (b"2 2\na 1 2\nb 3 x\n", ":3: 'x' is no number"),
    "a number has an underscore": (b"2 2\na 1 2\nb 3 1_0\n", ":3: '1_0' is no number"),
    "not finite": (b"2 2\na 1 2\nb 3 nan\n", ":3: a number is not finite"),
    "too great": (b"2 2\na 1 2\nb 3 1e39\n", ":3: a number is not finite"),
    "too few numbers": (b"2 2\na 1 2\nb 3\n", ":3: a word and 2 numbers are expected"),
    "too few numbers in the first line": (b"a 1 2\nb 3\n", ":2: a word and 2 numbers are expected"),
    "no word": (b"2 2\na 1 2\n 3 4\n", ":3: a word and 2 numbers"),
    "cut off": (b"3 2\na 1 2\nbcdef 3 4\n", ":3: the first line says 3 words, and 2 are there"),
    "far too short": (b"1000000 300\na 1 2\n", ":1: the first line says 1,000,000 words of 300 numbers"),
    "more lines": (b"1 2\na 1 2\nb 3 4\n", ":3: there are more lines"),
    "no words": (b"0 2\n", ":1: holds 0 words"),
    "another file": (b"Once upon\n", ":1: 'upon' is no number"),
    "one word a line": (b"Once\nupon\n", ":1: is no file of word vectors"),
    "empty": (b"", ": is empty"),
    "not UTF-8": (b"2 2\na 1 2\n\xe9 3 4\n", ":3: the word is not UTF-8: its byte 1 is 0xe9"),
    "compressed": (b"\x1f\x8b\x08\x00\x00", ": is compressed"),
    "binary cut off": (b"3 2\nab 1234\x00678\nb 1\x002", ", word 2: the file ends here"),
    "binary, more follows": (b"1 2\na \x00\x00\x80\x3f\x00\x00\x80\x3f\nb 1", ", byte 15: more follows"),
    "binary, not finite": (b"1 2\na \x00\x00\x80\x7f\x00\x00\x80\x3f", ", word 1: a number is not finite"),
    "binary, not UTF-8": (b"1 2\n\xe9 \x00\x00\x80\x3f\x00\x00\x80\x3f", ", word 1: the word is not UTF-8"),
    "binary, no word": (b"1 2\n \x00\x00\x80\x3f\x00\x00\x80\x3f", ", word 1: the word is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_named_by_line(case, tmp_path):
    content, message = DAMAGED[case]
    path = tmp_path / ("v.bin" if "binary" in case else "v.txt")
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_vectors(path)
    assert f"{path}{message}" in str(caught.value)
    assert caught.value.hint


def test_words_that_are_not_utf8_can_be_replaced(tmp_path):
    (tmp_path / "v.txt").write_bytes(b"1 2\n\xe9 3 4\n")
    assert lmworks.word_vectors(tmp_path / "v.txt", errors="replace").words == ["\ufffd"]


def test_nearest_and_analogies_equal_gensims():
    ours = random_vectors(300, 20)
    peer = of_gensim(ours)
    for word in ours.words[::60]:
        for top in (1, 10, 299):
            expected = peer.most_similar(word, topn=top)
            assert [near.word for near in ours.nearest(word, top)] == [name for name, _ in expected]
            cosines = [near.cosine for near in ours.nearest(word, top)]
            np.testing.assert_allclose(cosines, [cosine for _, cosine in expected], atol=1e-6)
    positive, negative = ["w1", "w2", "w7"], ["w3", "w4"]
    expected = peer.most_similar(positive, negative, topn=20)
    assert [near.word for near in ours.analogy(positive, negative, 20)] == [name for name, _ in expected]
    assert ours.similarity("w1", "w2") == pytest.approx(peer.similarity("w1", "w2"), abs=1e-6)


def test_all_neighbours_are_given_at_most_once():
    ours = random_vectors()
    assert {near.word for near in ours.nearest("king", 100)} == set(WORDS) - {"king"}
    assert WordVectors(["a"], np.ones((1, 2))).nearest("a") == []


def test_a_vector_of_zeros_is_near_to_nothing():
    vectors = WordVectors(["a", "b", "zero"], np.array([[1, 0], [1, 1], [0, 0]]))
    assert [near.cosine for near in vectors.nearest("zero")] == [0, 0]
    assert vectors.nearest("a")[-1] == ("zero", 0)


def test_unknown_words_are_refused_with_near_ones():
    vectors = random_vectors()
    with pytest.raises(InputError, match=r"no vector of the word 'King'\n  hint: did you mean king\?"):
        vectors.vector("King")
    with pytest.raises(InputError, match="did you mean woman"):
        vectors.nearest("wooman")
    with pytest.raises(InputError, match="there is no word to begin with"):
        vectors.analogy([], ["king"])


def test_words_and_vectors_must_fit():
    for words in (["a"], ["a", "a"]):
        with pytest.raises(InputError, match="do not fit"):
            WordVectors(words, np.zeros((2, 3)))


def test_texts_are_averaged_over_their_known_words():
    vectors = random_vectors()
    means = vectors.average(["The King, the queen; the king!", "nothing known", ""])
    by_hand = (2 * vectors.vector("king") + vectors.vector("queen")) / 3
    np.testing.assert_allclose(means[0], by_hand, atol=1e-6)
    assert means.dtype == np.float32
    assert not means[1:].any()
    assert vectors.average([]).shape == (0, 5)
    with pytest.raises(InputError):
        vectors.average("one text")


@pytest.mark.parametrize(
    "name",
    [
        "EN.1-10.cbow1_wind5_hs0_neg10_size300_smpl1e-05.txt",
        "euclidean_vectors.bin",
        "high_precision.kv.bin",
        "high_precision.kv.txt",
        "lee_fasttext.vec",
        "test_glove.txt",
    ],
)
def test_files_of_other_programs_are_read_as_gensim_reads_them(name):
    ours, path = lmworks.word_vectors(datapath(name)), datapath(name)
    theirs = KeyedVectors.load_word2vec_format(path, binary=name.endswith(".bin"), no_header=name == "test_glove.txt")
    assert ours.words == theirs.index_to_key
    np.testing.assert_array_equal(ours.vectors, theirs.vectors)
