"""Parts of prompts: each token is in a part of the same kind as where the prompt is read alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmworks.serve.prompt_parts import (
    FEWEST_TILED,
    SMALLEST_LIMIT,
    WHOLE_PART,
    part_end,
    reusable_length,
    tiled_length,
)


def kinds(length: int, begin: int = 0, limit: int = WHOLE_PART) -> list[bool]:
    """For each token from ``begin`` on whether its part has FEWEST_TILED tokens or more."""
    result = []
    while begin < length:
        end = part_end(begin, length, limit)
        assert begin < end <= begin + limit
        result += [end - begin >= FEWEST_TILED] * (end - begin)
        begin = end
    return result


def kinds_alone(length: int) -> list[bool]:
    sizes = [min(WHOLE_PART, length - begin) for begin in range(0, length, WHOLE_PART)]
    return [size >= FEWEST_TILED for size in sizes for _ in range(size)]


@given(st.integers(1, 1500), st.integers(SMALLEST_LIMIT, WHOLE_PART))
def test_any_limit_gives_each_token_its_kind(length, limit):
    assert kinds(length, limit=limit) == kinds_alone(length)
    assert sum(kinds_alone(length)) == tiled_length(length)


@given(st.integers(1, 1500), st.integers(1, 1500), st.integers(0, 1500), st.integers(SMALLEST_LIMIT, WHOLE_PART))
def test_what_is_reused_and_what_is_read_have_their_kinds(length, earlier, shared, limit):
    shared = min(shared, length, earlier)
    known = reusable_length(shared, tiled_length(earlier), length)
    assert known <= shared
    assert known < length
    copied = kinds_alone(earlier)[:known]
    assert copied + kinds(length, known, limit) == kinds_alone(length)


@pytest.mark.parametrize(
    ("shared", "tiled", "length", "known"),
    [
        (100, 100, 200, 100),
        (100, 64, 200, 64),
        (300, 300, 300, 268),
        (256, 256, 260, 256),
        (100, 100, 20, 0),
        (15, 100, 100, 0),
        (0, 0, 100, 0),
    ],
)
def test_as_much_is_reused_as_can_be(shared, tiled, length, known):
    assert reusable_length(shared, tiled, length) == known
