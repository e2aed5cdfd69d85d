"""Semantic search: the texts whose vectors are nearest to a query's, and its figures on judged queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmworks.base.errors import InputError
from lmworks.embeddings.cache import cached_vectors
from lmworks.embeddings.texts import TextRows
from lmworks.embeddings.vectors import embed_texts
from lmworks.evaluate.retrieval import RetrievalFigures, retrieval_figures
from lmworks.generate.text_vectors import Pooling

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel
    from lmworks.text.beir import RetrievalData

RANKED = 100  # documents of a query's ranking; MRR counts none beyond
QUERIES_AT_ONCE = 256  # whose scores exist at a time


@dataclass(frozen=True)
class Hit:
    """One of the nearest texts.

    Attributes:
        score: cosine with the query, -1 to 1.
        row: its number, from 0.
        place: file and line.
        text: itself.
    """

    score: float
    row: int
    place: str
    text: str


@dataclass(frozen=True)
class SearchResult:
    """The nearest texts, best first.

    Attributes:
        hits: at most as many as asked for.
        cached: whether the texts' vectors came from the cache.
        cut: texts that were cut; 0 where the vectors came from the cache.
    """

    hits: list[Hit]
    cached: bool
    cut: int


def search(
    model: LanguageModel,
    rows: TextRows,
    query: str,
    top: int = 5,
    pooling: Pooling | None = None,
    max_tokens: int | None = None,
) -> SearchResult:
    """The texts with the largest cosine to a query. Vectors of the texts are kept in the cache.

    Args:
        model: embeds texts and query alike.
        rows: the texts.
        query: a text.
        top: how many to give.
        pooling, max_tokens: as ``model.embed``.

    Raises:
        InputError: the query is empty, or ``top`` is below 1.
    """
    if top < 1:
        raise InputError(f"{top} results are none", "top", "give at least 1")
    if not query.strip():
        raise InputError("the query is empty", "query", "give a text")
    matrix, vectors = cached_vectors(model, rows.texts, pooling, True, max_tokens)
    vector = embed_texts(model, [query], pooling, True, max_tokens).matrix[0]
    scores = matrix @ vector
    hits = [Hit(float(scores[row]), int(row), rows.places[row], rows.texts[row]) for row in best_rows(scores, top)]
    return SearchResult(hits, vectors is None, vectors.cut if vectors else 0)


def best_rows(scores: np.ndarray, top: int) -> np.ndarray:
    """Numbers of the rows with the highest of (n,) scores, best first; of equal ones the earlier row."""
    return np.argsort(-scores, kind="stable")[:top]


def evaluate_search(
    model: LanguageModel,
    data: RetrievalData,
    pooling: Pooling | None = None,
    max_tokens: int | None = None,
) -> RetrievalFigures:
    """recall@k, MRR and nDCG@10 of a model on judged queries; rankings of RANKED documents by cosine.

    Args:
        model: embeds documents and queries alike.
        data: documents, queries and judgements.
        pooling, max_tokens: as ``model.embed``.

    Raises:
        ValueError: no query has a relevant document.
    """
    names, query_names = list(data.documents), list(data.queries)
    documents, _ = cached_vectors(model, list(data.documents.values()), pooling, True, max_tokens)
    queries, _ = cached_vectors(model, list(data.queries.values()), pooling, True, max_tokens)
    return retrieval_figures(rank(query_names, queries, names, documents), data.judgements)


def rank(
    query_names: Sequence[str], queries: np.ndarray, names: Sequence[str], documents: np.ndarray
) -> dict[str, list[str]]:
    """The RANKED nearest documents of each query.

    Args:
        query_names: ids of the queries.
        queries: (q, E) their vectors, of length 1.
        names: ids of the documents.
        documents: (d, E) their vectors, of length 1.
    """
    rankings: dict[str, list[str]] = {}
    for begin in range(0, len(queries), QUERIES_AT_ONCE):
        for offset, scores in enumerate(queries[begin : begin + QUERIES_AT_ONCE] @ documents.T):
            rankings[query_names[begin + offset]] = [names[row] for row in best_rows(scores, RANKED)]
    return rankings
