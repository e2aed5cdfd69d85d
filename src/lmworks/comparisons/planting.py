"""The canaries of a comparison: rows with a secret, by which memorisation is measured. Imports no torch."""

from __future__ import annotations

from lmworks.text.canaries import Canary, make_canaries

CANARY_KINDS = ("text", "completion", "pairs", "chat")
"""Kinds of rows among which canaries are planted: models learn to write them."""


def canaries_of(kind: str, count: int) -> tuple[list[Canary], list[Canary]]:
    """Canaries that are planted, and half as many that are not, which show what chance gives.

    Args:
        kind: of the rows.
        count: of those that are planted.
    """
    if kind not in CANARY_KINDS or not count:
        return [], []
    canaries = make_canaries(kind, count + (count + 1) // 2)
    return canaries[:count], canaries[count:]
