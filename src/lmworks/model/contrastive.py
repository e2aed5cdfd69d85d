"""The contrastive loss of pairs of texts: each anchor is to be nearest to its own positive among all of the batch.

For N pairs and M texts that are candidates (the positives of all pairs, and negatives), with unit vectors a and c:

    loss = mean over i of  -log( exp(s a_i c_i) / sum over j of exp(s a_i c_j) )

InfoNCE (Oord et al. 2018, equation 4) with cosines and in-batch negatives (Henderson et al. 2017, section 4.4), as
MultipleNegativesRankingLoss of sentence-transformers; s is the scale, 1 / temperature. A candidate with the very tokens
of the anchor's positive is no negative of it and is left out of its sum.

Shapes: T tokens, E hidden size, N pairs, M candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from lmworks.data.batch import Batch, HeadLabels

ANCHOR, POSITIVE, NEGATIVE = 0, 1, 2
"""Roles of the texts of a pair; negatives are optional."""


class TextVectors(NamedTuple):
    """Texts of pairs.

    Attributes:
        vectors: (texts, E) float32 of length 1.
        roles: (texts,) int64.
        keys: (texts,) int64; texts with equal tokens have equal keys.
    """

    vectors: torch.Tensor
    roles: torch.Tensor
    keys: torch.Tensor


def text_vectors(hidden: torch.Tensor, batch: Batch, labels: HeadLabels) -> TextVectors:
    """The vectors of a batch's texts, in its order: the mean over the tokens that the labels name, of length 1.

    Args:
        hidden: (T, E) hidden states of the flattened batch.
        batch: one flat row whose segments are the texts.
        labels: of the contrastive loss.
    """
    text = batch.segments.flatten() - 1
    count = int(text[-1]) + 1
    ids, positions = batch.ids.flatten(), batch.positions.flatten()
    keys = torch.zeros(count, dtype=torch.int64, device=ids.device)
    keys.index_add_(0, text, (ids + 1) * (positions * 2_654_435_761 + 40_503))
    own = text[labels.places]
    roles = torch.zeros_like(keys).index_copy_(0, own, labels.classes)
    sums = torch.zeros(count, hidden.shape[1], device=hidden.device)
    sums = sums.index_add(0, own, hidden.index_select(0, labels.places).float())
    vectors = sums / torch.bincount(own, minlength=count)[:, None]
    return TextVectors(functional.normalize(vectors, dim=-1), roles, keys)


def contrastive_scores(texts: TextVectors, scale: float) -> torch.Tensor:
    """(N, M) scaled cosines of anchors and candidates; the positive of anchor i is candidate i. Left out: -inf."""
    anchors, positives, negatives = (
        (texts.roles == role).nonzero().squeeze(1) for role in (ANCHOR, POSITIVE, NEGATIVE)
    )
    candidates = torch.cat([positives, negatives])
    scores = scale * texts.vectors[anchors] @ texts.vectors[candidates].t()
    same = texts.keys[positives][:, None] == texts.keys[candidates][None]
    own = torch.arange(len(positives), device=same.device)
    same[own, own] = False
    return scores.masked_fill(same, -torch.inf)


def contrastive_losses(texts: TextVectors, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) loss of each pair in nats, and whether no candidate scores higher than its positive."""
    scores = contrastive_scores(texts, scale)
    own = torch.arange(len(scores), device=scores.device)
    return functional.cross_entropy(scores, own, reduction="none"), scores.argmax(1) == own
