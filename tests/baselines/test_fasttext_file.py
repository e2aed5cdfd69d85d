"""fastText's own models: as fastText and gensim read them, and what gensim opens."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from gensim.models.fasttext import load_facebook_model
from gensim.models.fasttext_inner import compute_ngrams_bytes, ft_hash_bytes
from gensim.test.utils import datapath
from hypothesis import given
from hypothesis import strategies as st

from lmworks.base.errors import InputError
from lmworks.baselines.fasttext_file import ngram_hashes, read_fasttext
from lmworks.baselines.train_vectors import train
from lmworks.baselines.vector_settings import VectorSettings
from lmworks.baselines.word_vectors import WordVectors

TEXT = "the naïve cat eats fish\nthe dog eats meat\na cow eats grass in the 語 shed\n" * 6
WRITTEN_BY_FASTTEXT = "crime-and-punishment"
UNKNOWN = ["eating", "naïvely", "語", "catdog", "sheds"]


@pytest.fixture(scope="module", name="path")
def _path(tmp_path_factory):
    settings = VectorSettings(algorithm="fasttext", vector_size=6, epochs=2, bucket=70, architecture="skip-gram")
    return train([TEXT], settings).vectors.save(tmp_path_factory.mktemp("vectors") / "v.bin")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.integers(1, 4), st.integers(0, 3))
def test_ngrams_are_gensims(word, shortest, more):
    expected = [ft_hash_bytes(ngram) for ngram in compute_ngrams_bytes(word, shortest, shortest + more)]
    assert sorted(ngram_hashes(word, shortest, shortest + more)) == sorted(expected)


def test_words_of_a_model_of_fasttext_have_the_vectors_that_it_wrote_beside_it():
    ours = WordVectors.open(datapath(f"{WRITTEN_BY_FASTTEXT}.bin"))
    written = WordVectors.open(datapath(f"{WRITTEN_BY_FASTTEXT}.vec"))
    assert ours.words == written.words
    np.testing.assert_allclose(ours.vectors, written.vectors, atol=1e-4)  # written with five digits


@pytest.mark.parametrize("name", ["written here", WRITTEN_BY_FASTTEXT, "lee_fasttext_new", "toy-model"])
def test_gensim_reads_the_same(name, path):
    source = path if name == "written here" else datapath(f"{name}.bin")
    ours, theirs = WordVectors.open(source), load_facebook_model(source).wv
    assert ours.words == theirs.index_to_key
    known = [row for row, word in enumerate(ours.words) if word != "</s>"]  # gensim gives it n-grams, fastText none
    np.testing.assert_allclose(ours.vectors[known], theirs.vectors[known], atol=1e-6)
    for word in UNKNOWN:
        np.testing.assert_allclose(ours.vector(word), theirs[word], atol=1e-6)


def test_what_was_trained_is_what_is_read(path):
    settings = VectorSettings(algorithm="fasttext", vector_size=6, epochs=2, bucket=70, architecture="skip-gram")
    trained, back = train([TEXT], settings).vectors, WordVectors.open(path)
    np.testing.assert_allclose(back.vectors, trained.vectors, atol=1e-6)
    np.testing.assert_array_equal(back.vector("eating"), trained.vector("eating"))
    assert load_facebook_model(str(path)).epochs == 2


def test_a_model_is_written_again_as_it_was(path, tmp_path):
    WordVectors.open(path).save(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == path.read_bytes()


def test_words_that_were_not_trained_on_have_neighbours_and_averages(path):
    vectors = WordVectors.open(path)
    theirs = load_facebook_model(str(path)).wv
    assert "eating" not in vectors
    expected = theirs.most_similar(["eating", "cow"], ["fish"], topn=5)
    assert [near.word for near in vectors.analogy(["eating", "cow"], ["fish"], 5)] == [word for word, _ in expected]
    assert vectors.similarity("eating", "the") == pytest.approx(theirs.similarity("eating", "the"), abs=1e-6)
    by_hand = (vectors.vector("eating") + vectors.vector("the")) / 2
    np.testing.assert_allclose(vectors.average(["The eating"])[0], by_hand, atol=1e-6)


def test_other_formats_keep_the_words_alone(path, tmp_path):
    vectors = WordVectors.open(path)
    back = WordVectors.open(vectors.save(tmp_path / "v.bin", "binary"))
    np.testing.assert_array_equal(back.vectors, vectors.vectors)
    with pytest.raises(InputError, match="no vector of the word 'eating'"):
        back.vector("eating")
    with pytest.raises(InputError, match="no subword vectors"):
        back.save(tmp_path / "w.bin", "fasttext")


def test_the_first_words_alone_are_read(path):
    first, whole = read_fasttext(path, limit=3), WordVectors.open(path)
    assert first.words == whole.words[:3]
    np.testing.assert_array_equal(first.vectors(), whole.vectors[:3])
    np.testing.assert_array_equal(first.vector("eating"), whole.vector("eating"))


def test_damaged_models_are_refused(path, tmp_path):
    content = path.read_bytes()
    cases = {
        "within the model": [content[:size] for size in (6, 40, 70, 150, len(content) - 1)],
        "version 99": [content[:4] + struct.pack("<i", 99) + content[8:]],
        "is quantized": [content[:84] + struct.pack("<q", 5) + content[92:]],
        "n-grams are expected": [content[:40] + struct.pack("<i", 71) + content[44:]],
        "the word is not UTF-8": [content[:92] + b"\xff" + content[93:]],
    }
    for message, damaged in cases.items():
        for each in damaged:
            (tmp_path / "v.bin").write_bytes(each)
            with pytest.raises(InputError, match=message):
                WordVectors.open(tmp_path / "v.bin")
