"""What the benchmark of vectors compares: verdicts follow from figures, distances from vectors."""

from __future__ import annotations

import embedding
import numpy as np
import pytest

ROUNDS = {
    embedding.NATIVE: [{"texts_per_s": 3000.0, "distance": 2e-5}, {"texts_per_s": 1500.0, "distance": 2e-5}],
    embedding.TORCH: [{"texts_per_s": 1000.0, "difference": 1e-6}, {"texts_per_s": 500.0, "difference": 1e-6}],
    f"{embedding.PEER} float32": [{"texts_per_s": 400.0}, {"texts_per_s": 200.0}],
    f"{embedding.PEER} bfloat16": [{"texts_per_s": 1200.0}, {"texts_per_s": 500.0}],
}


def test_the_fastest_peer_counts_round_by_round() -> None:
    ahead, distance, beside, difference = embedding.verdicts_of(ROUNDS)
    assert "bfloat16" in ahead.name
    assert (ahead.measured, ahead.reached) == (pytest.approx((2.5 + 3) / 2), True)
    assert (distance.measured, distance.reached) == (2e-5, True)
    assert (beside.measured, difference.reached) == (pytest.approx(3), True)


@pytest.mark.parametrize("missing", [embedding.NATIVE, embedding.PEER])
def test_what_did_not_run_is_said(missing: str) -> None:
    rounds = {name: figures for name, figures in ROUNDS.items() if name == embedding.TORCH or missing not in name}
    (line,) = embedding.verdicts_of(rounds)
    assert line.reached is None
    assert line.why


def test_distances_are_those_of_the_vectors() -> None:
    vectors = np.array([[3.0, 4.0], [1.0, 0.0]])
    others = np.array([[6.0, 8.0], [0.0, 2.0]])
    assert embedding.distances(vectors, others) == {"difference": 4.0, "distance": 1.0}


def test_each_pass_gives_the_vectors_of_all_texts() -> None:
    seen: list[int] = []

    def encode(texts: list[str]) -> np.ndarray:
        seen.append(len(texts))
        return np.full((len(texts), 2), len(seen), np.float32)

    figures, vectors = embedding.timed(encode, ["a"] * 60, repeats=2)
    assert seen == [embedding.WARM, 60, 60]
    assert vectors.shape == (60, 2)
    assert figures["texts_per_s"] == pytest.approx(60 / figures["seconds"])
