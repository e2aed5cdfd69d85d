"""Hard negatives: none is a positive, and ranks, margins and largest scores hold, as by the definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lmworks.data.hard_negatives import MiningRange, hard_negatives

RANGES = st.builds(
    MiningRange,
    most=st.integers(1, 4),
    first=st.integers(0, 3),
    last=st.integers(1, 12),
    margin=st.sampled_from([0.0, 0.05, 0.5]),
    max_score=st.sampled_from([None, 0.3]),
)


def unit(dice: np.random.Generator, count: int) -> np.ndarray:
    vectors = dice.integers(-2, 3, (count, 3)).astype(np.float32) + 0.25  # few values, so that scores are equal
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(RANGES, st.integers(0, 10_000))
@settings(deadline=None, max_examples=150)
def test_negatives_are_those_of_the_definition(allowed: MiningRange, seed: int) -> None:
    dice = np.random.default_rng(seed)
    queries, documents = unit(dice, 5), unit(dice, 10)
    own = dice.integers(0, 10, 5).tolist()
    positives = [{number, *dice.integers(0, 10, 2).tolist()} for number in own]
    found = hard_negatives(queries, documents, own, positives, allowed)
    likely = 0
    every_score = queries @ documents.T  # as the function multiplies: another product rounds equal scores apart
    for scores, number, answers, negatives in zip(every_score, own, positives, found.documents, strict=True):
        positive = scores[number]
        order = [d for d in sorted(range(10), key=lambda d: (-scores[d], d)) if d not in answers]
        expected: list[int] = []
        for document in order[allowed.first : allowed.last]:
            too_near = scores[document] > positive - allowed.margin * abs(positive)
            if len(expected) < allowed.most:
                too_near = too_near or (allowed.max_score is not None and scores[document] > allowed.max_score)
                likely += int(too_near)
                expected += [] if too_near else [document]
        assert negatives == expected
        assert not set(negatives) & answers
    assert found.likely_positives == likely
