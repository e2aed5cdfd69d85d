"""Hard negatives: documents that are near to a query and do not answer it, found among the documents of the data.

Among the documents nearest to a query some answer it without anybody having said so (false negatives). As in
sentence-transformers' ``mine_hard_negatives``, the nearest ranks may be left out, and documents whose score comes too
near to that of the query's own positive (a relative margin: Moreira et al. 2024, NV-Retriever, "TopK-PercPos") or
passes a fixed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

QUERIES_AT_ONCE = 256  # whose scores exist at a time


class MiningRange(NamedTuple):
    """Which documents may be negatives of a query.

    Attributes:
        most: negatives of a query.
        first, last: ranks from ``first`` to below ``last`` among the documents that are no positive; 0: the nearest.
        margin: the score is at most (1 - margin) times that of the positive; 0: at most that of the positive.
        max_score: the score is at most this; None: any.
    """

    most: int
    first: int = 0
    last: int = 100
    margin: float = 0.05
    max_score: float | None = None


class Negatives(NamedTuple):
    """What was found.

    Attributes:
        documents: of each query the numbers of its negatives, the nearest first.
        likely_positives: documents that stood before a query's last negative and were left out, since their score
            came too near to that of the positive.
    """

    documents: list[list[int]]
    likely_positives: int


def hard_negatives(
    queries: np.ndarray,
    documents: np.ndarray,
    own: Sequence[int],
    positives: Sequence[set[int]],
    allowed: MiningRange,
) -> Negatives:
    """The hardest negatives of each query. The same vectors give the same documents; of equal scores the first.

    Args:
        queries: (q, E) float32, vectors of length 1.
        documents: (d, E) float32, the same.
        own: of each query the number of its positive, whose score decides the margin.
        positives: of each query the numbers of all documents that are never its negatives.
        allowed: which may be.
    """
    found: list[list[int]] = []
    likely = 0
    for begin in range(0, len(queries), QUERIES_AT_ONCE):
        for offset, scores in enumerate(queries[begin : begin + QUERIES_AT_ONCE] @ documents.T):
            number = begin + offset
            positive = float(scores[own[number]])
            limit = positive - allowed.margin * abs(positive)
            limit = limit if allowed.max_score is None else min(limit, allowed.max_score)
            negatives: list[int] = []
            for document in _ranked(scores, positives[number], allowed):
                if len(negatives) == allowed.most:
                    break
                if scores[document] > limit:
                    likely += 1
                else:
                    negatives.append(document)
            found.append(negatives)
    return Negatives(found, likely)


def _ranked(scores: np.ndarray, positives: set[int], allowed: MiningRange) -> list[int]:
    """The documents of the allowed ranks, the nearest first."""
    scores = scores.copy()
    scores[list(positives)] = -np.inf
    count = min(allowed.last, len(scores) - len(positives))
    if count <= allowed.first:
        return []
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    near = np.flatnonzero(scores >= least)  # in ascending order, so that of equal scores the first document counts
    return [int(place) for place in near[np.argsort(-scores[near], kind="stable")][allowed.first : count]]
