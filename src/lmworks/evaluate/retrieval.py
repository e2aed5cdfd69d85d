"""Figures of retrieval: recall@k, mean reciprocal rank, nDCG@k. Knows no model and no file.

With the documents of a query in the order of their scores, ``gain(i)`` the relevance of the one at rank i (from 1;
0 where it is not judged) and R its relevant documents (relevance above 0):

    recall@k   number of R among the first k, divided by the number of R
    MRR        1 / rank of the first of R; 0 where the ranking has none of them (Voorhees 1999)
    nDCG@k     DCG@k / IDCG@k with DCG@k = sum of gain(i) / log2(i + 1) for i = 1 .. k, and IDCG@k the same of the best
               order of all judged documents (Järvelin & Kekäläinen 2002; linear gain, as trec_eval, BEIR and
               scikit-learn compute it)

Each is a mean over the queries that have a relevant document; the others are left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmworks.evaluate.metrics import Interval, bootstrap_interval

RECALL_AT = (1, 5, 10)
NDCG_AT = 10
Judgements = Mapping[str, float]
"""Relevance of each judged document, by its id."""


@dataclass(frozen=True)
class RetrievalFigures:
    """Figures of a retriever, with one number for each query.

    Attributes:
        rows: name of a figure (``recall@10``, ``MRR``, ``nDCG@10``) -> (queries,) in 0..1.
        unjudged: queries without a relevant document, which are left out.
    """

    rows: dict[str, np.ndarray]
    unjudged: int

    @property
    def queries(self) -> int:
        """How many queries count."""
        return len(next(iter(self.rows.values())))

    def means(self) -> dict[str, float]:
        """The mean of each figure."""
        return {name: float(values.mean()) for name, values in self.rows.items()}

    def intervals(self) -> dict[str, Interval]:
        """The mean of each figure with its 95 % bootstrap interval over queries."""
        return {name: bootstrap_interval(values) for name, values in self.rows.items()}


def recall(ranking: Sequence[str], judged: Judgements, k: int) -> float:
    """recall@k of one query, which has a relevant document."""
    relevant = {name for name, relevance in judged.items() if relevance > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant)


def reciprocal_rank(ranking: Sequence[str], judged: Judgements) -> float:
    """1 / rank of the first relevant document; 0 without one."""
    return next((1 / rank for rank, name in enumerate(ranking, 1) if judged.get(name, 0) > 0), 0.0)


def ndcg(ranking: Sequence[str], judged: Judgements, k: int = NDCG_AT) -> float:
    """nDCG@k of one query, which has a relevant document."""
    best = sorted((gain for gain in judged.values() if gain > 0), reverse=True)
    return _dcg([max(judged.get(name, 0), 0) for name in ranking[:k]]) / _dcg(best[:k])


def retrieval_figures(
    rankings: Mapping[str, Sequence[str]],
    judgements: Mapping[str, Judgements],
    recall_at: Sequence[int] = RECALL_AT,
) -> RetrievalFigures:
    """Figures of rankings.

    Args:
        rankings: of each query, by its id: ids of documents, the best first; nothing is found beyond their end.
        judgements: of each query; those of queries without a ranking do not count.
        recall_at: the k of recall@k.

    Raises:
        ValueError: no query has both a ranking and a relevant document.
    """
    judged = [name for name in rankings if any(gain > 0 for gain in judgements.get(name, {}).values())]
    if not judged:
        raise ValueError("no query with a ranking has a relevant document")
    pairs = [(rankings[name], judgements[name]) for name in judged]
    rows = {f"recall@{k}": np.array([recall(*pair, k) for pair in pairs]) for k in recall_at}
    rows["MRR"] = np.array([reciprocal_rank(*pair) for pair in pairs])
    rows[f"nDCG@{NDCG_AT}"] = np.array([ndcg(*pair) for pair in pairs])
    return RetrievalFigures(rows, len(rankings) - len(judged))


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
