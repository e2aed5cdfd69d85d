"""Clusters of texts by their vectors, named by their most typical words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmworks.base.errors import InputError

Algorithm = Literal["kmeans", "hdbscan"]
NONE = -1  # the number of texts that belong to no cluster
CLUSTERS = 8  # where no number is asked for
DIMENSIONS = 20  # principal components in which HDBSCAN looks for dense places
WORDS, EXAMPLES = 5, 3


@dataclass(frozen=True)
class Cluster:
    """Texts that are near one another.

    Attributes:
        number: from 0, the largest cluster first; NONE: texts that belong to none (HDBSCAN).
        rows: numbers of its texts, the nearest to the centre first.
        words: its most typical words.
    """

    number: int
    rows: list[int]
    words: list[str]

    @property
    def title(self) -> str:
        """Its words in one line."""
        return ", ".join(self.words) if self.number != NONE else "no cluster"


def cluster_texts(
    texts: Sequence[str],
    matrix: np.ndarray,
    clusters: int | None = None,
    algorithm: Algorithm = "kmeans",
    min_size: int = 5,
    seed: int = 0,
) -> list[Cluster]:
    """Clusters of texts, the largest first; texts that belong to none come last.

    Args:
        texts: to be clustered.
        matrix: (n, E) their vectors, of length 1.
        clusters: how many, with k-means; by default CLUSTERS, or as many as there are different vectors.
        algorithm: k-means, or HDBSCAN (Campello et al. 2013), which finds their number itself, on the first
            DIMENSIONS principal components: densities say little in hundreds of dimensions.
        min_size: fewest texts of a cluster, with HDBSCAN.
        seed: of k-means' first centres.

    Raises:
        InputError: more clusters than different vectors, or a size below 2.
    """
    numbers = _kmeans(matrix, clusters, seed) if algorithm == "kmeans" else _hdbscan(matrix, min_size)
    by_size = [int(number) for number in np.unique(numbers) if number != NONE]
    by_size.sort(key=lambda number: -int((numbers == number).sum()))
    groups = [np.flatnonzero(numbers == number) for number in by_size]
    names = typical_words(texts, groups)
    result = [
        Cluster(place, _by_nearness(matrix, rows), words)
        for place, (rows, words) in enumerate(zip(groups, names, strict=True))
    ]
    left = np.flatnonzero(numbers == NONE)
    return [*result, Cluster(NONE, left.tolist(), [])] if len(left) else result


def typical_words(texts: Sequence[str], groups: Sequence[np.ndarray], count: int = WORDS) -> list[list[str]]:
    """The most typical words of each group of texts, by class-based TF-IDF (Grootendorst 2022, BERTopic, equation 2):

        weight(t, c) = tf(t, c) * log(1 + A / f(t))

    with tf(t, c) how often word t occurs in group c, as a share of the group's words, f(t) how often in all groups, and
    A the mean number of words of a group. English stop words and single letters are left out.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    joined = ["\n".join(texts[row] for row in rows) for rows in groups]
    counter = CountVectorizer(stop_words="english", token_pattern=r"(?u)\b[^\W\d_][\w'’-]*\w\b")
    try:
        counts = counter.fit_transform(joined).toarray().astype(np.float64)
    except ValueError:  # no word is left
        return [[] for _ in groups]
    names = counter.get_feature_names_out()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    weights = shares * np.log1p(counts.sum() / len(groups) / counts.sum(0))
    best = np.argsort(-weights, axis=1, kind="stable")[:, :count]
    return [[str(names[word]) for word in row if weights[place, word] > 0] for place, row in enumerate(best)]


def _kmeans(matrix: np.ndarray, clusters: int | None, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    different = len(np.unique(matrix, axis=0))
    clusters = min(CLUSTERS, different) if clusters is None else clusters
    if not 1 <= clusters <= different:
        fault = f"{clusters} clusters of {different} different vectors"
        raise InputError(fault, "clusters", f"give 1 to {different}")
    return KMeans(clusters, n_init=10, random_state=seed).fit_predict(matrix)


def _hdbscan(matrix: np.ndarray, min_size: int) -> np.ndarray:
    from sklearn.cluster import HDBSCAN

    if not 2 <= min_size <= len(matrix):
        raise InputError(f"a cluster of at least {min_size} texts", "min_size", f"give 2 to {len(matrix)}")
    return HDBSCAN(min_cluster_size=min_size, copy=True).fit_predict(principal_components(matrix, DIMENSIONS)[0])


def principal_components(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (n, k) of (n, E) vectors along their first principal components, k = min(count, n, E), and the share
    of the variance (k,) that each explains. Signs are fixed: the largest coordinate of each is positive."""
    centred = matrix.astype(np.float64) - matrix.mean(0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    count = min(count, len(sizes))
    coordinates = left[:, :count] * sizes[:count]
    signs = np.sign(coordinates[np.abs(coordinates).argmax(0), np.arange(count)])
    variance = sizes**2
    return coordinates * np.where(signs == 0, 1, signs), variance[:count] / max(variance.sum(), 1e-30)


def _by_nearness(matrix: np.ndarray, rows: np.ndarray) -> list[int]:
    """Rows of a cluster, the nearest to its mean first."""
    away = np.linalg.norm(matrix[rows] - matrix[rows].mean(0), axis=1)
    return rows[np.argsort(away, kind="stable")].tolist()
