"""How much of their beginning several texts share. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

SHORTEST = 16
"""Tokens of the shortest beginning that is read apart: a pass of its own costs about as much as so many more tokens."""


def shared_length(rows: Sequence[Sequence[int]]) -> int:
    """Tokens with which all rows begin, where one or more follow in each; 0 where that is not worth a pass of its own.

    Args:
        rows: token ids.
    """
    if len(rows) < 2:
        return 0
    first, most = rows[0], min(map(len, rows)) - 1
    length = next((place for place in range(most) if any(row[place] != first[place] for row in rows)), most)
    return length if length >= SHORTEST else 0


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens with which both begin."""
    pairs = zip(first, second, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))
