"""Halves of texts find each other where their vectors are nearest, by a plain loop over all of them."""

from __future__ import annotations

import numpy as np
import pytest

from lmworks.evaluate.text_halves import are_mutually_nearest, split_in_half


@pytest.mark.parametrize(
    ("text", "halves"),
    [
        ("one two three four", ("one two", "three four")),
        ("a bcdefghijk", ("a", "bcdefghijk")),
        ("abcdefghijk b", ("abcdefghijk", "b")),
        ("  a  b  ", ("a", "b")),
    ],
)
def test_a_text_is_divided_between_two_words(text, halves):
    assert split_in_half(text) == halves


def test_one_word_has_no_halves():
    with pytest.raises(ValueError, match="one word"):
        split_in_half(" word ")


def test_mutually_nearest_is_what_a_loop_finds():
    random = np.random.default_rng(0)
    first = random.normal(size=(30, 6))
    second = first + random.normal(size=(30, 6))
    vectors = np.concatenate([first, second])
    unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]

    def nearest(index: int) -> int:
        return max((other for other in range(60) if other != index), key=lambda other: unit[index] @ unit[other])

    expected = [nearest(text) == text + 30 and nearest(text + 30) == text for text in range(30)]
    found = are_mutually_nearest(first, second)
    assert found.tolist() == expected
    assert 0 < found.sum() < 30


def test_equal_vectors_find_nobody_for_sure():
    assert are_mutually_nearest(np.eye(3), np.eye(3)).all()
    assert not are_mutually_nearest(np.ones((3, 2)), np.ones((3, 2))).all()
