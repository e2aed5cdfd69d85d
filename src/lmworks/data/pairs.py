"""Pairs of texts -> examples whose texts are compared: an anchor, its positive, and negatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmworks.data.batch import CONTRASTIVE, Example, Labels


def pair_example(texts: Sequence[np.ndarray], pooling: str, scale: float, place: str = "", dropped: int = 0) -> Example:
    """One example of several texts, which do not attend to one another.

    Args:
        texts: token ids, with special tokens: of the anchor, the positive, and of negatives, if any.
        pooling: the tokens whose mean is a text's vector: ``mean`` all, ``cls`` the first, ``last`` the last.
        scale: of the cosines.
        place: of its row.
        dropped: tokens that were cut off.
    """
    lengths = [len(text) for text in texts]
    begins = np.cumsum([0, *lengths[:-1]])
    counts = lengths if pooling == "mean" else [1] * len(texts)
    firsts = begins + np.array(lengths) - 1 if pooling == "last" else begins
    places = np.concatenate([first + np.arange(count) for first, count in zip(firsts, counts, strict=True)])
    roles = np.repeat(np.minimum(np.arange(len(texts)), 2), counts)  # all after the positive are negatives
    labels = Labels(places.astype(np.int64), roles.astype(np.int64), 1, scale)
    ids = np.concatenate(texts).astype(np.int32)
    return Example(
        ids,
        np.zeros(len(ids), dtype=bool),
        place,
        dropped=dropped,
        targets=np.zeros(len(ids), dtype=np.int32),
        labels={CONTRASTIVE: labels},
        lengths=tuple(lengths),
    )
