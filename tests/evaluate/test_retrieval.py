"""Figures of retrieval beside their definitions, and scikit-learn's nDCG."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from lmworks.evaluate.retrieval import ndcg, recall, reciprocal_rank, retrieval_figures

RANKING = ["a", "b", "c", "d", "e"]


def test_each_figure_is_its_definition():
    judged = {"b": 1, "d": 2, "z": 1, "a": 0}
    assert recall(RANKING, judged, 1) == 0
    assert recall(RANKING, judged, 2) == 1 / 3
    assert recall(RANKING, judged, 5) == 2 / 3
    assert reciprocal_rank(RANKING, judged) == 1 / 2
    assert reciprocal_rank(["a", "c"], judged) == 0
    dcg = 1 / math.log2(3) + 2 / math.log2(5)
    ideal = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(RANKING, judged) == pytest.approx(dcg / ideal)
    assert ndcg(RANKING, judged, 3) == pytest.approx(1 / math.log2(3) / ideal)


def test_ndcg_is_scikit_learns_where_all_documents_are_ranked():
    random = np.random.default_rng(0)
    for _ in range(20):
        gains, scores = random.integers(0, 4, 15), random.permutation(15)
        gains[0] = 1
        judged = {str(place): int(gain) for place, gain in enumerate(gains)}
        ranking = [str(place) for place in np.argsort(-scores)]
        for k in (1, 3, 10, 15):
            assert ndcg(ranking, judged, k) == pytest.approx(ndcg_score([gains], [scores], k=k))


def test_means_are_over_queries_with_a_relevant_document():
    rankings = {"q1": ["a", "b"], "q2": ["a", "b"], "q3": ["a"], "q4": ["a"]}
    figures = retrieval_figures(rankings, {"q1": {"a": 1}, "q2": {"b": 1, "c": 1}, "q3": {"a": 0}}, (1, 2))
    assert (figures.queries, figures.unjudged) == (2, 2)
    assert figures.means()["recall@1"] == 1 / 2
    assert figures.means()["recall@2"] == 3 / 4
    assert figures.means()["MRR"] == 3 / 4
    interval = figures.intervals()["MRR"]
    assert interval.low == 1 / 2
    assert interval.high == 1
    with pytest.raises(ValueError, match="no query"):
        retrieval_figures(rankings, {"q1": {"a": 0}})
