"""Training: gensim's own vectors, settings that belong to another algorithm, and the verbs."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from gensim.models import FastText, KeyedVectors, Word2Vec

from lmworks.base.errors import InputError
from lmworks.baselines.sentences import read_sentences
from lmworks.baselines.train_vectors import train
from lmworks.baselines.vector_settings import VectorSettings
from lmworks.baselines.word_vectors import WordVectors
from lmworks.commands.main import main
from lmworks.commands.vectors import parse_terms

ANIMALS = [("cat", "meat"), ("dog", "meat"), ("cow", "grass"), ("sheep", "grass")]
TEXT = (
    "".join(f"the {animal} eats {food} in the {place}\n" for animal, food in ANIMALS for place in ("yard", "shed")) * 10
)


@pytest.fixture(scope="module", name="trained")
def _trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "text.txt").write_text(TEXT)
    words = ["--algorithm", "glove", "--vector-size", "6", "--epochs", "60"]
    assert main(["vectors", "train", str(folder / "text.txt"), *words, "--out", str(folder / "v.txt")]) == 0
    return folder


@pytest.mark.parametrize("architecture", ["cbow", "skip-gram"])
@pytest.mark.parametrize("algorithm", ["word2vec", "fasttext"])
def test_gensim_gives_the_same_vectors_by_itself(algorithm, architecture):
    given = {"vector_size": 7, "window": 2, "epochs": 3, "negative": 4, "seed": 5}
    bucket = {"bucket": 50} if algorithm == "fasttext" else {}
    ours = train([TEXT], VectorSettings(algorithm=algorithm, architecture=architecture, **given, **bucket)).vectors
    sentences = list(read_sentences([TEXT]))
    peer = {"word2vec": Word2Vec, "fasttext": FastText}[algorithm]
    theirs = peer(sentences, sg=int(architecture == "skip-gram"), min_count=1, workers=1, **given, **bucket)
    assert ours.words == theirs.wv.index_to_key
    np.testing.assert_array_equal(ours.vectors, theirs.wv.vectors)


def test_gensim_reads_no_less_than_the_whole_of_a_long_line():
    line = " ".join(["one two"] * 6_000)
    sentences = read_sentences([line])
    assert np.diff(sentences.ends, prepend=0).tolist() == [10_000, 2_000]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"algorithm": "glove", "architecture": "cbow"}, "--architecture: glove has no such setting"),
        ({"algorithm": "word2vec", "max_n": 4}, "--max-n: word2vec has no such setting"),
        ({"algorithm": "fasttext", "x_max": 4}, "--x-max: fasttext has no such setting"),
        (
            {"algorithm": "fasttext", "min_n": 7},
            "--min-n: the shortest n-gram, 7, is longer than the longest, 6",
        ),
    ],
)
def test_settings_of_another_algorithm_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        train([TEXT], VectorSettings(**values))


def test_without_gensim_the_extra_is_named_and_glove_trains(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(InputError, match=r"hint: pip install 'lmworks\[vectors\]'"):
        train([TEXT], VectorSettings(algorithm="word2vec"))
    assert len(train([TEXT], VectorSettings(algorithm="glove", epochs=1)).vectors) == 11


def test_words_in_the_same_places_are_near_each_other(trained, capsys):
    assert main(["vectors", "nearest", str(trained / "v.txt"), "cat", "cow", "--top", "2", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["word"] for answer in answers] == ["cat", "cow"]
    vectors = WordVectors.open(trained / "v.txt")
    assert vectors.similarity("cat", "dog") > vectors.similarity("cat", "cow")
    for answer in answers:
        assert [near["word"] for near in answer["nearest"]] == [
            near.word for near in vectors.nearest(answer["word"], 2)
        ]


def test_analogies_are_asked_as_they_are_written(trained, capsys):
    near = WordVectors.open(trained / "v.txt").analogy(["cat", "cow"], ["meat"], 3)
    for words in (["cat", "-", "meat", "+", "cow"], ["cat - meat + cow"]):
        assert main(["vectors", "analogy", str(trained / "v.txt"), *words, "--top", "3"]) == 0
        out = capsys.readouterr().out
        assert "cat - meat + cow" in out
        assert [line.split()[0] for line in out.splitlines()[2:]] == [neighbour.word for neighbour in near]


@pytest.mark.parametrize(
    ("terms", "parts"),
    [
        ("king - man + woman", (["king", "woman"], ["man"])),
        ("- man + king", (["king"], ["man"])),
        ("king", (["king"], [])),
        ("a - b - c + d + e", (["a", "d", "e"], ["b", "c"])),
        ("king man", "no + or - before 'man'"),
        ("king - + man", "two signs stand together"),
        ("king -", "no word follows -"),
        ("- man", "there is no word that is added"),
        ("", "no word follows"),
    ],
)
def test_terms_are_words_with_signs_between_them(terms, parts):
    if isinstance(parts, tuple):
        assert parse_terms(terms.split()) == parse_terms([terms]) == parts
        return
    with pytest.raises(InputError, match=parts.replace("+", r"\+")):
        parse_terms([terms])


@pytest.mark.parametrize("name", ["w.bin", "w.vec"])
def test_train_writes_what_gensim_opens(name, trained):
    words = ["train", str(trained / "text.txt"), "--algorithm", "word2vec", "--architecture", "skip-gram"]
    assert main(["vectors", *words, "--vector-size", "5", "--out", str(trained / name)]) == 0
    peer = KeyedVectors.load_word2vec_format(trained / name, binary=name.endswith("bin"))
    assert peer.vectors.shape == (11, 5)


def test_labels_are_no_words(trained):
    (trained / "rows.csv").write_text("text,label\n" + "the cat eats,animal\nthe dog eats,beast\n" * 3)
    words = ["train", str(trained / "rows.csv"), "--algorithm", "glove", "--min-count", "1", "--vector-size", "3"]
    assert main(["vectors", *words, "--out", str(trained / "rows.txt")]) == 0
    assert set(WordVectors.open(trained / "rows.txt").words) == {"the", "cat", "dog", "eats"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "TEXT", "--out", "v.txt"], "there is a file here already"),
        (["train", "TEXT", "--out", "v.npy"], "does not say in which format"),
        (["train", "TEXT", "--out", "w.txt", "--algorithm", "glove", "--sample", "1"], "--sample: glove has no such"),
        (["train", "TEXT", "--out", "w.txt", "--epoch", "1"], "there is no option --epoch"),
        (["train", "TEXT", "--out", "w.txt", "--min-count", "99"], "hint: --min-count"),
        (["nearest", "v.txt", "kat"], "did you mean cat?"),
        (["nearest", "v.txt", "cat", "--top", "0"], "--top: 0 is too few"),
        (["nearest", "none.txt", "cat"], "cannot be read"),
        (["nearest", "v.txt", "cat", "--tpo", "3"], "there is no option --tpo"),
    ],
)
def test_what_cannot_be_done_is_said(words, message, trained, capsys, monkeypatch):
    monkeypatch.chdir(trained)
    assert main(["vectors", *(word.replace("TEXT", "text.txt") for word in words)]) == 2
    assert message in capsys.readouterr().err
