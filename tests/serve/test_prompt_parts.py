"""Parts of prompts: each token is in a part of the same kind as where the prompt is read alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmworks.serve.prompt_parts import (
    FEWEST_TERNARY,
    FEWEST_TILED,
    SMALLEST_LIMIT,
    WHOLE_PART,
    part_end,
    reusable_length,
    tiled_length,
)

FEWEST = (FEWEST_TILED, FEWEST_TERNARY)


def kinds(length: int, begin: int = 0, limit: int = WHOLE_PART, fewest: int = FEWEST_TILED) -> list[list[bool]]:
    """For each token from ``begin`` on, for each number from which on tiles are used, whether its part has as many."""
    result = []
    while begin < length:
        end = part_end(begin, length, limit, fewest)
        assert begin < end <= begin + limit
        result += [_kind(end - begin, fewest)] * (end - begin)
        begin = end
    return result


def _kind(size: int, fewest: int) -> list[bool]:
    return [size >= count for count in (FEWEST_TILED, FEWEST_TERNARY) if count <= fewest]


def kinds_alone(length: int, fewest: int = FEWEST_TILED) -> list[list[bool]]:
    sizes = [min(WHOLE_PART, length - begin) for begin in range(0, length, WHOLE_PART)]
    return [_kind(size, fewest) for size in sizes for _ in range(size)]


@given(st.integers(1, 1500), st.integers(2 * FEWEST_TERNARY, WHOLE_PART), st.sampled_from(FEWEST))
def test_any_limit_gives_each_token_its_kind(length, limit, fewest):
    assert kinds(length, limit=limit, fewest=fewest) == kinds_alone(length, fewest)
    assert sum(kind[-1] for kind in kinds_alone(length, fewest)) == tiled_length(length, fewest)


@given(st.integers(1, 1500), st.integers(SMALLEST_LIMIT, WHOLE_PART))
def test_smaller_limits_do_where_nothing_is_ternary(length, limit):
    assert kinds(length, limit=limit) == kinds_alone(length)


@given(st.integers(1, 1500), st.integers(1, 1500), st.integers(0, 1500), st.sampled_from(FEWEST))
def test_what_is_reused_and_what_is_read_have_their_kinds(length, earlier, shared, fewest):
    shared = min(shared, length, earlier)
    known = reusable_length(shared, tiled_length(earlier, fewest), length, fewest)
    assert known <= shared
    assert known < length
    copied = kinds_alone(earlier, fewest)[:known]
    assert copied + kinds(length, known, 2 * fewest, fewest) == kinds_alone(length, fewest)


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
