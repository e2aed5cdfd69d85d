"""Clusters, their words by the definition, and what the command writes."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter

import numpy as np
import pytest
from pyarrow import parquet
from tiny_kinds import save_encoder

from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.embeddings.clusters import NONE, cluster_texts, principal_components, typical_words

TEXTS = ["green tea", "black tea", "tea pot", "grey cat", "cat food", "a cat sat"]


def vectors(sizes: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Unit vectors near as many different axes of 8 dimensions."""
    rows = np.repeat(np.eye(8)[: len(sizes)], sizes, axis=0)
    rows = rows + np.random.default_rng(seed).normal(scale=0.02, size=rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_kmeans_finds_groups_and_the_largest_comes_first():
    texts = ["cat sat"] * 4 + ["tea pot"] * 6
    first, second = cluster_texts(texts, vectors((4, 6)), 2)
    assert (sorted(first.rows), sorted(second.rows)) == ([4, 5, 6, 7, 8, 9], [0, 1, 2, 3])
    assert (first.title, second.title) == ("pot, tea", "cat, sat")
    matrix = vectors((4, 6))
    away = np.linalg.norm(matrix[first.rows] - matrix[4:].mean(0), axis=1)
    assert np.all(np.diff(away) >= 0)
    assert cluster_texts(texts, matrix, 2) == [first, second]


def test_hdbscan_finds_their_number_and_leaves_strangers_out():
    matrix = np.concatenate([vectors((12, 9)), -np.eye(8, dtype=np.float32)[:1]])
    clusters = cluster_texts(["tea"] * 22, matrix, algorithm="hdbscan")
    assert [len(cluster.rows) for cluster in clusters] == [12, 9, 1]
    assert (clusters[2].number, clusters[2].rows, clusters[2].title) == (NONE, [21], "no cluster")


def test_words_are_weighted_as_published():
    texts = ["green tea", "black tea", "tea cat", "grey cat", "cat food", "a cat sat"]
    groups = [np.arange(3), np.arange(3, 6)]
    words = [" ".join(texts[row] for row in rows).split() for rows in groups]
    counts = [Counter(word for word in of_group if word != "a") for of_group in words]
    mean, everywhere = 6, counts[0] + counts[1]  # six words in each group: "a" is a stop word
    expected = [
        sorted(words, key=lambda word: (-words[word] / 6 * math.log(1 + mean / everywhere[word]), word))
        for words in counts
    ]
    assert typical_words(texts, groups, 10) == expected
    assert expected[0] == ["tea", "black", "green", "cat"]  # "cat" is last: it is frequent in the other group
    assert typical_words(["the", "123"], [np.array([0]), np.array([1])]) == [[], []]


def test_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    matrix = vectors((5, 6, 7))
    coordinates, shares = principal_components(matrix, 3)
    reference = PCA(3, svd_solver="full").fit(matrix.astype(np.float64))
    np.testing.assert_allclose(shares, reference.explained_variance_ratio_, atol=1e-9)
    expected = reference.transform(matrix.astype(np.float64))
    np.testing.assert_allclose(np.abs(coordinates), np.abs(expected), atol=1e-8)


@pytest.mark.parametrize("options", [{"clusters": 0}, {"clusters": 7}, {"algorithm": "hdbscan", "min_size": 1}])
def test_what_cannot_be_found_is_refused(options):
    with pytest.raises(InputError, match="cluster"):
        cluster_texts(["tea"] * 6, vectors((6,)), **options)


def test_few_texts_make_fewer_clusters_where_no_number_was_asked_for():
    assert len(cluster_texts(["tea"], vectors((1,)))) == 1
    assert len(cluster_texts(["tea"] * 6, vectors((6,)))) == 6


def test_the_rows_are_written_with_their_cluster(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path / "cache"))
    model = str(save_encoder(tmp_path / "tiny"))
    data = tmp_path / "rows.tsv"
    data.write_text("text\tlabel\n" + "".join(f"{text}\t{text.count('cat')}\n" for text in TEXTS))
    words = ["cluster", str(data), "--model", model, "--clusters", "2", "--out"]
    for ending in (".csv", ".tsv", ".jsonl", ".parquet"):
        assert main([*words, str(tmp_path / f"out{ending}")]) == 0
    assert "typical words" in capsys.readouterr().out
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["text"] for row in rows] == TEXTS
    assert [row["place"] for row in rows] == [f"{data}:{line}" for line in range(2, 8)]
    assert {row["cluster"] for row in rows} == {0, 1}
    assert rows == [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for ending, delimiter in ((".csv", ","), (".tsv", "\t")):
        with (tmp_path / f"out{ending}").open(newline="") as file:
            read = list(csv.DictReader(file, delimiter=delimiter))
        assert read == [{name: str(value) for name, value in row.items()} for row in rows]
    assert main([*words, "x.txt"]) == 2
    assert ".csv" in capsys.readouterr().err
