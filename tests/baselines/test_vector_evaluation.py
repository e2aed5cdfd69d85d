"""Evaluation of word vectors equals gensim's on the same vectors and files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gensim.models import KeyedVectors

from lmworks.base.errors import InputError
from lmworks.baselines import vector_evaluation as evaluation
from lmworks.baselines.word_vectors import WordVectors
from lmworks.commands.main import main

ANALOGIES = evaluation.published_list("questions-words.txt")
PAIRS = evaluation.published_list("wordsim353.tsv")


@pytest.fixture(scope="module", name="vectors")
def _vectors():
    """Vectors in which some of the published analogies hold: a word is the sum of a stem's vector and a form's.

    Some words are left out, and some have a second form in other case.
    """
    random = np.random.default_rng(0)
    words: dict[str, np.ndarray] = {}
    for first, second, score in evaluation.read_pairs(PAIRS)[::2]:
        common = random.normal(size=20) * score / 10
        for word in (first, second):
            words.setdefault(word.lower(), common + random.normal(size=20) / 2)
    for name, analogies in evaluation.read_analogies(ANALOGIES):
        if name not in ("capital-common-countries", "family", "gram8-plural"):
            continue
        forms = random.normal(size=(2, 20))
        for first, second, *_ in analogies[: len(analogies) * 2 // 3 : len(analogies) // 60]:
            stem = random.normal(size=20)
            for word, form in zip((first, second), forms, strict=True):
                words.setdefault(word.capitalize(), stem + form + 0.7 * random.normal(size=20))
    for word in list(words)[::9]:
        words.setdefault(word.lower() if word[0].isupper() else word.capitalize(), random.normal(size=20))
    return WordVectors(list(words), np.stack(list(words.values())))


@pytest.fixture(scope="module", name="peer")
def _peer(vectors):
    peer = KeyedVectors(vectors.size)
    peer.add_vectors(vectors.words, vectors.vectors)
    return peer


@pytest.mark.parametrize("most_frequent", [300_000, 400])
def test_analogies_equal_gensims(vectors, peer, most_frequent, monkeypatch):
    monkeypatch.setattr(evaluation, "AT_ONCE", 7 * len(vectors))  # several parts in a category
    _, sections = peer.evaluate_word_analogies(ANALOGIES, restrict_vocab=most_frequent)
    categories = evaluation.evaluate_analogies(vectors, ANALOGIES, most_frequent)
    assert [category.name for category in categories] == [section["section"] for section in sections[:-1]]
    for category, section in zip([*categories, evaluation.sum_of(categories)], sections, strict=True):
        assert category.correct == len(section["correct"])
        assert category.known == len(section["correct"]) + len(section["incorrect"])
    assert 0 < categories[0].correct < categories[0].known < categories[0].total == 506
    assert evaluation.sum_of(categories).total == 19_544


@pytest.mark.parametrize("most_frequent", [300_000, 150])
def test_similarities_equal_gensims(vectors, peer, most_frequent):
    pearson, spearman, unknown = peer.evaluate_word_pairs(PAIRS, restrict_vocab=most_frequent)
    similarity = evaluation.evaluate_similarities(vectors, PAIRS, most_frequent)
    assert similarity.pearson == pytest.approx(pearson[0], abs=1e-6)
    assert similarity.spearman == pytest.approx(spearman[0], abs=1e-6)
    assert 100 * (1 - similarity.known / similarity.total) == pytest.approx(unknown)
    assert 2 < similarity.known < similarity.total == 353


def test_what_is_not_defined_is_none(tmp_path):
    vectors = WordVectors(["a", "b"], np.eye(2))
    (tmp_path / "pairs.tsv").write_text("# a comment\na\tb\t1\na\tc\t2\n")
    assert evaluation.evaluate_similarities(vectors, tmp_path / "pairs.tsv") == evaluation.Similarity(2, 1, None, None)
    (tmp_path / "pairs.tsv").write_text("a\tb\t1\nb\ta\t1\n")
    assert evaluation.evaluate_similarities(vectors, tmp_path / "pairs.tsv").pearson is None
    (tmp_path / "analogies.txt").write_text(": one\na b c d\n\n: none\n")
    categories = evaluation.evaluate_analogies(vectors, tmp_path / "analogies.txt")
    assert [(each.name, each.total, each.known, each.accuracy) for each in categories] == [
        ("one", 1, 0, None),
        ("none", 0, 0, None),
    ]


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--analogies", "a b c d\n", ":1: a line with a category is expected first"),
        ("--analogies", ": x\na b c d\na b c\n", ":3: four words are expected"),
        ("--analogies", "\n", ": has no analogies"),
        ("--pairs", "a\tb\t1\na\tb\n", ":2: two words and a number are expected"),
        ("--pairs", "a\tb\tnan\n", ":1: two words and a number are expected"),
        ("--pairs", "a b 1\n", ":1: two words and a number are expected"),
    ],
)
def test_damaged_lists_are_named_by_line(option, content, message, vectors, tmp_path, capsys):
    path, own = vectors.save(tmp_path / "v.bin"), tmp_path / "list"
    own.write_text(content)
    assert main(["vectors", "evaluate", str(path), option, str(own)]) == 2
    assert f"{own}{message}" in capsys.readouterr().err


def test_lists_that_are_missing_name_the_extra(monkeypatch):
    monkeypatch.setattr(evaluation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"hint: pip install 'lmworks\[vectors\]'"):
        evaluation.published_list("questions-words.txt")


def test_evaluate_prints_what_was_measured(vectors, tmp_path, capsys):
    path = str(vectors.save(tmp_path / "v.bin"))
    assert main(["vectors", "evaluate", path, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["analogies"][-1]["name"] == "all"
    assert main(["vectors", "evaluate", path]) == 0
    out = capsys.readouterr().out
    assert f"{values['similarity']['spearman']:.3f}" in out
    assert "questions and pairs with a word that has no vector are left out" in out
    family = next(row for row in values["analogies"] if row["name"] == "family")
    line = next(line for line in out.splitlines() if line.startswith("family"))
    assert line.split()[-3:] == [str(family["correct"]), str(family["known"]), "506"]


def test_convert_keeps_every_number(vectors, tmp_path, capsys):
    path = str(vectors.save(tmp_path / "v.bin"))
    assert main(["vectors", "convert", path, "--out", str(tmp_path / "v.glove"), "--format", "glove"]) == 0
    assert "written to" in capsys.readouterr().out
    back = WordVectors.open(tmp_path / "v.glove")
    assert back.words == vectors.words
    np.testing.assert_array_equal(back.vectors, vectors.vectors)
    assert main(["vectors", "convert", path, "--out", path]) == 2
