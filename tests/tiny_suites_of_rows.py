"""Rows of which some repeat others but for case, and rows that only look alike."""

from __future__ import annotations

import random

WORDS = ("river", "stone", "cloud", "lamp", "garden", "winter", "bread", "silver", "window", "road", "paper", "green")


def different_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Sentences of ten words drawn at random, which begin alike."""
    drawn = random.Random(seed)
    return [{"text": f"this is a text about {' '.join(drawn.choices(WORDS, k=10))}"} for _ in range(count)]


def contaminated_rows(count: int) -> list[dict[str, str]]:
    """The same, each a second time in upper case."""
    rows = different_rows(count // 2)
    return [*rows, *({"text": row["text"].upper() + "!"} for row in rows)]
