"""Typing errors change some words, by a seed."""

from __future__ import annotations

import difflib

from hypothesis import given
from hypothesis import strategies as st

from lmworks.text.perturbations import PERTURBATIONS, perturb, typos

TEXT = "several words of this sentence have letters enough to be mistyped by somebody"


def test_the_same_seed_makes_the_same_errors():
    assert typos(TEXT, seed=1) == typos(TEXT, seed=1)
    assert len({typos(TEXT, seed=seed) for seed in range(20)}) > 10


@given(st.integers(0, 10_000), st.floats(0.05, 1.0))
def test_as_many_words_change_as_asked(seed, rate):
    changed = typos(TEXT, rate, seed)
    words, after = TEXT.split(), changed.split()
    assert len(words) == len(after)
    long = [word for word in words if len(word) >= 4]
    differing = [(one, other) for one, other in zip(words, after, strict=True) if one != other]
    assert len(differing) == max(1, round(rate * len(long)))
    for one, other in differing:
        assert one[0] == other[0]
        assert abs(len(one) - len(other)) <= 1
        assert difflib.SequenceMatcher(None, one, other).ratio() > 0.5


def test_words_of_few_letters_and_numbers_stay():
    assert typos("a 1234567 is it") == "a 1234567 is it"


def test_case_is_changed_alone():
    assert [perturb("Ab c", name) for name in PERTURBATIONS[1:]] == ["AB C", "ab c"]
